// SPDX-License-Identifier: MIT
// A vCPU's whole state: out and in unchanged, and nothing in that would fault in the host.
// sources: kernel/guest/vcpu_state.c kernel/guest/start_state.c kernel/guest/mtrr.c
// sources: kernel/guest/xsave_area.c
#include "fake_guest.h"
#include "kernel/guest/cpuid.h"
#include "kernel/guest/msr.h"

struct host_features host_features = {.xcr0_supported = 0xe7, .xsave_size = 2696};
static u8 xsave_area[XSAVE_AREA_MAX];
static u32 platform_resets;

u64 cpuid_xcr0(const struct guest *g)
{
    (void)g;
    return 7;
}
bool cpuid_xcr0_valid(const struct guest *g, u64 xcr0)
{
    (void)g;
    return xcr0 == 1 || xcr0 == 3 || xcr0 == 7;
}
void platform_vcpu_reset(struct vcpu *v)
{
    (void)v;
    platform_resets++;
}
void msr_reset(struct vcpu *v)
{
    v->misc_enable = 1;
    mtrr_reset(v);
}

static struct vcpu *const v = &fake_vcpu;
static struct vcpu_state s;
static char err[200];

static int setup(void **state)
{
    (void)state;
    fake_guest_reset();
    fake_guest.cpuid_count = 1;
    fake_guest.cpuid[0] = (struct cpuid_entry){.leaf = 0xd, .sub = 2, .eax = 256, .ebx = 576};
    v->xsave = xsave_area;
    assert_int_equal(vcpu_reset(v), 0);
    vcpu_save_state(v, &s);
    err[0] = 0;
    return 0;
}

static void refused(const char *with)
{
    assert_int_equal(vcpu_check_state(v, &s, err, sizeof(err)), E_INVAL);
    if (!strstr(err, with))
        fail_msg("\"%s\" does not say \"%s\"", err, with);
}

static void test_power_on(void **state)
{
    (void)state;
    assert_int_equal(fake_regs.rip, 0xfff0);
    assert_int_equal(fake_regs.seg[SEG_CS].base, 0xffff0000);
    assert_int_equal(fake_regs.rflags, 2);
    assert_int_equal(v->activity, VCPU_ACTIVE);
    assert_int_equal(v->xcr0, 1);
    assert_int_equal(v->misc_enable, 1);
    assert_int_equal(vcpu_check_state(v, &s, err, sizeof(err)), 0);
    v->index = 1;
    assert_int_equal(vcpu_reset(v), 0);
    assert_int_equal(v->activity, VCPU_WAIT_SIPI);
}

static void test_round_trip(void **state)
{
    (void)state;
    for (unsigned i = 0; i < GPR_COUNT; i++)
        s.gpr[i] = 0x1111111111111111ull * i;
    s.rip = 0xffffffff81000000ull;
    s.xcr0 = 7;
    s.tsc_adjust = 12345;
    s.activity = VCPU_HALTED;
    s.nmi_pending = 1;
    s.mtrr_base[3] = 0x80000006;
    s.event = (struct pending_event){.valid = 1, .vector = 0x30};
    memset(s.xsave + 32, 0x5a, 384); // registers
    s.xsave[512] = 7;
    memset(s.xsave + 576, 0xa5, 256); // upper halves
    assert_int_equal(vcpu_check_state(v, &s, err, sizeof(err)), 0);
    assert_int_equal(vcpu_load_state(v, &s), 0);
    struct vcpu_state out;
    vcpu_save_state(v, &out);
    assert_memory_equal(out.gpr, s.gpr, sizeof(s.gpr));
    assert_int_equal(out.rip, s.rip);
    assert_int_equal(out.xcr0, 7);
    assert_int_equal(out.tsc_adjust, 12345);
    assert_int_equal(out.activity, VCPU_HALTED);
    assert_int_equal(out.nmi_pending, 1);
    assert_int_equal(out.mtrr_base[3], 0x80000006);
    assert_int_equal(out.event.vector, 0x30);
    assert_memory_equal(out.xsave, s.xsave, 832);
    assert_int_equal(out.xsave_size, 832); // as the guest's CPUID lays it out, not the host
}

// Hosts differ in what they save of a component that is in its initial state, and in how much they
// have: what travels is the same.
static void test_xsave_area_has_one_form(void **state)
{
    (void)state;
    struct vcpu_state all, some;
    memset(xsave_area, 0, sizeof(xsave_area));
    xsave_area[0] = 0x7f, xsave_area[1] = 3;     // FCW
    xsave_area[24] = 0x80, xsave_area[25] = 0x1f; // MXCSR
    xsave_area[28] = 0xff;                        // MXCSR_MASK
    xsave_area[512] = 0x7;
    vcpu_save_state(v, &all);
    xsave_area[0] = xsave_area[1] = xsave_area[28] = 0;
    memset(xsave_area + 160, 0x77, 256); // left over
    memset(xsave_area + 576, 0x77, 256);
    memset(xsave_area + 1088, 0x77, 64); // AVX-512, which this guest does not have
    xsave_area[512] = 0x20;
    vcpu_save_state(v, &some);
    assert_memory_equal(all.xsave, some.xsave, sizeof(all.xsave));
    assert_int_equal(some.xsave[512], 3);
    assert_int_equal(vcpu_check_state(v, &some, err, sizeof(err)), 0);
}

// On a level the last x87 instruction's addresses count only while an exception waits.
static void test_x87_addresses(void **state)
{
    (void)state;
    memset(xsave_area + 6, 0x11, 18); // FOP, FIP, FDP
    xsave_area[512] = 3;
    vcpu_save_state(v, &s);
    assert_int_equal(s.xsave[8], 0x11);
    fake_guest.config.cpu = CPU_V3;
    vcpu_save_state(v, &s);
    assert_int_equal(s.xsave[8], 0);
    xsave_area[2] = 0x80; // FSW.ES
    vcpu_save_state(v, &s);
    assert_int_equal(s.xsave[8], 0x11);
}

static void test_xsave_area_is_safe_to_restore(void **state)
{
    (void)state;
    struct vcpu_state good = s;
    s.xsave[512] = 0x67; // components the guest was never shown
    refused("components");
    s = good;
    s.xsave[519] = 0x80;
    refused("components");
    s = good;
    s.xsave[520] = 1; // XCOMP_BV: compacted
    refused("compacted");
    s = good;
    s.xsave[575] = 1;
    refused("reserved");
    s = good;
    s.xsave[26] = 1; // MXCSR bit 16
    refused("MXCSR");
    s = good;
    s.xsave_size = 512;
    refused("size");
    s.xsave_size = ~0u;
    refused("size");
    s = good;
    s.xsave[512] = 7;
    s.xsave_size = 600; // AVX state cut off
    refused("components");
}

static void test_modelled_registers_are_checked(void **state)
{
    (void)state;
    struct vcpu_state good = s;
    s.xcr0 = 5;
    refused("XCR0");
    s = good;
    s.xss = 0x100;
    refused("IA32_XSS");
    s = good;
    s.misc_enable = BIT(18);
    refused("MISC_ENABLE");
    s = good;
    s.mtrr_fixed[0] = 2;
    refused("MTRR");
    s = good;
    s.activity = 9;
    refused("activity");
    s = good;
    s.nmi_pending = 2;
    refused("NMI");
    s = good;
    s.rflags = 0;
    refused("vCPU 0: RFLAGS"); // the backend's own checks
}

static void test_start_up_ipi(void **state)
{
    (void)state;
    s.star = 77;
    s.xcr0 = 7;
    s.nmi_blocked = 1;
    state_after_init(&s);
    assert_int_equal(s.activity, VCPU_WAIT_SIPI);
    assert_int_equal(s.star, 77); // INIT leaves MSRs and XCR0 (SDM 3A table 9-1)
    assert_int_equal(s.xcr0, 7);
    assert_int_equal(s.nmi_blocked, 0);
    assert_int_equal(s.cr3, 0);
    state_startup_ipi(&s, 0x9a);
    assert_int_equal(s.activity, VCPU_ACTIVE);
    assert_int_equal(s.seg[SEG_CS].selector, 0x9a00);
    assert_int_equal(s.seg[SEG_CS].base, 0x9a000);
    assert_int_equal(s.rip, 0);
}

static void test_boot_states(void **state)
{
    (void)state;
    state_long(&s, 0x1000200, 0x6000);
    assert_int_equal(s.efer, 0x500);
    assert_int_equal(s.cr4, 0x20);
    assert_int_equal(s.seg[SEG_CS].attr, 0xa9b);
    assert_int_equal(s.rflags, 2);
    state_flat32(&s, 0x100000);
    assert_int_equal(s.cr0 & BIT(31), 0);
    assert_int_equal(s.seg[SEG_CS].attr, 0xc9b);
    assert_int_equal(s.seg[SEG_DS].limit, 0xffffffff);
    assert_int_equal(s.rip, 0x100000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup(name, setup)
        T(test_power_on),
        T(test_round_trip),
        T(test_xsave_area_has_one_form),
        T(test_x87_addresses),
        T(test_xsave_area_is_safe_to_restore),
        T(test_modelled_registers_are_checked),
        T(test_start_up_ipi),
        T(test_boot_states),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
