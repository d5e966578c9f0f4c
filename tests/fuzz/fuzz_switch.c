// SPDX-License-Identifier: MIT
// Fuzzes the virtual switch: ports come, go and fill up, and frames of any content come from
// guests, with any offload asked for, from the host and from the wire.
// sources: net/switch.c net/uplink.c net/frame.c net/announce.c net/gro.c net/lwip/port.c
// sources: kernel/random.c $(addprefix $(LWIP_SRC)/src/,$(LWIP_FILES))
// cflags: -idirafter $(ROOT)/net/lwip -I$(LWIP_SRC)/src/include -Wno-unused-function -Wno-tautological-constant-out-of-range-compare
#include "tests/unit/fake_switch.h"

struct input {
    const u8 *at;
    size_t left;
};

static u32 take(struct input *in, u32 bytes)
{
    u32 value = 0;
    for (; bytes && in->left; bytes--, in->left--)
        value = value << 8 | *in->at++;
    return value;
}

// Frames begin like sound ones, or few would get anywhere: addresses of the ones around.
static void put_mac(u8 *out, u32 choice)
{
    static const u8 others[][6] = {
        {0xff, 0xff, 0xff, 0xff, 0xff, 0xff},
        {0x52, 0x54, 0, 0, 0, 9},
        {0x33, 0x33, 0, 0, 0, 1},
        {0x01, 0x80, 0xc2, 0, 0, 0},
    };
    choice %= 5 + GUESTS;
    if (choice < GUESTS)
        memcpy(out, (u8[]){2, 0, 0, 0, 0, (u8)(0x10 + choice)}, 6);
    else if (choice < GUESTS + 4)
        memcpy(out, others[choice - GUESTS], 6);
    else
        memcpy(out, host_mac, 6);
}

static u32 take_frame(struct input *in, u8 *out)
{
    u32 bytes = take(in, 1), fill = take(in, 1), more = 0;
    u32 length = 1 + (fill & 7 ? bytes : bytes * 256);
    memset(out, (int)fill, length);
    put_mac(out, take(in, 1));
    put_mac(out + 6, take(in, 1));
    for (more = 12; more < MIN(length, 12 + (fill & 63)); more++)
        out[more] = (u8)take(in, 1);
    return length;
}

static struct nic_frame make(struct input *in)
{
    static u8 bytes[65536 + 64];
    struct nic_frame f = {.bytes = take_frame(in, bytes)};
    f.pbuf = pbuf_of(bytes, f.bytes);
    u32 offload = take(in, 1);
    if (offload & 1)
        frame_leave_sum_out(&f);
    if (offload & 2) {
        f.l4_offset = take(in, 1);
        f.sum_offset = f.l4_offset + take(in, 1);
    }
    if (f.l4_offset < ETHERNET_HEADER || f.sum_offset + 2 > f.pbuf->len)
        f.l4_offset = f.sum_offset = 0;
    if (f.l4_offset && offload & 4)
        f.segment_bytes = take(in, 2);
    return f;
}

static void from_guest(struct fake_guest *g, struct input *in)
{
    struct nic_frame f = make(in);
    if (f.segment_bytes && !frame_can_cut(&f))
        pbuf_free(f.pbuf);
    else if (switch_from_port(&g->port, &f) == E_BUSY)
        pbuf_free(f.pbuf);
}

static void from_nic(struct input *in)
{
    struct nic_frame f = make(in);
    struct nic_frame partial = f;
    pbuf_free(f.pbuf);
    static u8 bytes[65536];
    u32 length = MIN(take_frame(in, bytes), 65535u);
    for (u32 at = 0, n; at < length; at += n) {
        n = MIN(length - at, 2048u);
        struct nic_buffer *b = malloc(sizeof(*b) + MAX(n, MIN_FRAME));
        memcpy(b->data, bytes + at, n);
        if (at + n == length)
            nic_received_partial(&partial);
        nic_received(&nic, b, 0, n, at + n == length ? NIC_RX_END : 0);
    }
}

static void from_host(struct input *in)
{
    struct nic_frame f = make(in);
    if (f.bytes >= ETHERNET_HEADER && (!f.segment_bytes || frame_can_cut(&f)))
        switch_from_host(&f);
    pbuf_free(f.pbuf);
}

static void no_turn(void)
{
}

static void change(struct fake_guest *g, struct input *in, bool *there)
{
    u32 how = take(in, 1);
    if (how & 1 && *there) {
        switch_remove(&g->port);
        *there = false;
    } else if (how & 1) {
        static const u16 vlans[] = {0, 0, 7, 8};
        add_guest((u32)(g - guest), vlans[how >> 1 & 3], 1 + (how >> 3 & 15));
        *there = true;
    }
    g->busy = how & 2;
    g->port.departed = how & 4;
    g->port.can_sum = how & 8;
    g->port.can_cut4 = how & 16;
    g->port.can_cut6 = how & 32;
    if (*there && !g->busy)
        switch_port_ready(&g->port);
    if (*there && how & 64)
        switch_announce(&g->port);
}

static void step(struct input *in, bool *there)
{
    u32 what = take(in, 1), i = what >> 4 & (GUESTS - 1);
    switch (what & 7) {
    case 0:
    case 1:
        if (there[i])
            from_guest(&guest[i], in);
        return;
    case 2:
    case 3:
        from_nic(in);
        return;
    case 4:
        from_host(in);
        return;
    case 5:
        change(&guest[i], in, &there[i]);
        return;
    case 6:
        wire_full = what & 16;
        nic.can_sum = what & 32;
        nic.can_segment = nic.can_sum && what & 64;
        now_ns += (u64)take(in, 2) * 100 * NS_PER_MS;
        sys_check_timeouts();
        return;
    default:
        gro_flush();
        switch_flush();
        switch_retry(no_turn);
    }
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
    static bool started;
    struct input in = {data, size};
    bool there[GUESTS] = {false};
    if (!started)
        lwip_init();
    started = true;
    uplink_start(&nic);
    empty_all();
    while (in.left)
        step(&in, there);
    for (u32 i = 0; i < GUESTS; i++)
        switch_remove(&guest[i].port);
    gro_flush();
    assert(buffers == 0);
    return 0;
}
