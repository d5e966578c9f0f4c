// SPDX-License-Identifier: MIT
// Frames for the switch's tests, and who got them.
#ifndef SKIFF_TESTS_FAKE_FRAMES_H
#define SKIFF_TESTS_FAKE_FRAMES_H

#include "tests/unit/unit.h"

#include "tests/unit/fake_switch.h"

static const u8 outside[6] = {0x52, 0x54, 0, 0, 0, 9};
static const u8 broadcast[6] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
static const u8 group[6] = {0x33, 0x33, 0, 0, 0, 5};
static u8 frame[65536];

static int setup(void **state)
{
    (void)state;
    static bool started;
    if (!started)
        lwip_init();
    started = true;
    uplink_start(&nic);
    nic.can_sum = nic.can_segment = false;
    wire_full = false;
    empty_all();
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    for (u32 i = 0; i < GUESTS; i++)
        switch_remove(&guest[i].port);
    assert_int_equal(buffers, 0); // nothing is kept behind
    return 0;
}

static u32 make(const u8 *to, const u8 *from, u32 type, u32 bytes)
{
    memset(frame, 0x5a, bytes);
    memcpy(frame, to, 6);
    memcpy(frame + 6, from, 6);
    frame[12] = (u8)(type >> 8);
    frame[13] = (u8)type;
    return bytes;
}

static u32 got(u32 i)
{
    return guest[i].in.count;
}

#endif
