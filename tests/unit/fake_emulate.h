// SPDX-License-Identifier: MIT
// Runs single instructions as after an exit for a device access, for the tests of the emulation.
#ifndef SKIFF_TESTS_FAKE_EMULATE_H
#define SKIFF_TESTS_FAKE_EMULATE_H

#include "fake_guest.h"
#include "fake_mmio.h"

#define DEVICE 0x40000000ull // its linear address in mode_64

static struct vcpu *const v = &fake_vcpu;
static char why[160];
static int result;

static int setup(void **state)
{
    (void)state;
    fake_mmio_reset();
    why[0] = 0;
    return 0;
}

// Runs `bytes` at CODE, as after an exit for an access to linear address gva.
static void run_at(const char *bytes, size_t n, bool known, u64 gva)
{
    struct vm_exit x = {.kind = EXIT_MMIO};
    x.mmio.gva_valid = known;
    x.mmio.gva = gva;
    x.mmio.gpa = DEVICE_GPA + (gva & 0xfff);
    memcpy(ram + CODE, bytes, n);
    result = emulate_mmio(v, &x, why, sizeof(why));
}
#define RUN(code) run_at(code, sizeof(code) - 1, false, 0)

static void done(unsigned length)
{
    if (result)
        fail_msg("not emulated: %s", why);
    assert_false(fake_exception.raised);
    assert_int_equal(fake_regs.rip, CODE + length);
}

#endif
