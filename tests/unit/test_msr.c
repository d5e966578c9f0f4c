// SPDX-License-Identifier: MIT
// MSR policy: what is modelled answers, the rest raises #GP.
// sources: kernel/guest/msr.c kernel/guest/mtrr.c kernel/guest/msr_amd.c
#include "fake_guest.h"
#include "kernel/guest/cpuid.h"
#include "kernel/guest/msr.h"

static u64 now, host_misc, platform_value;
static bool features;
static u32 applied;

struct clock_sample guest_clock_sample(struct guest *g)
{
    (void)g;
    return (struct clock_sample){now, now};
}
void vcpu_apply_tsc(struct vcpu *v)
{
    (void)v;
    applied++;
}
int kvmclock_rdmsr(struct vcpu *cpu, u32 index, u64 *value)
{
    (void)cpu, (void)index, (void)value;
    return E_INVAL;
}
int kvmclock_wrmsr(struct vcpu *cpu, u32 index, u64 value)
{
    (void)cpu, (void)index, (void)value;
    return E_INVAL;
}
u64 host_misc_enable(void)
{
    return host_misc;
}
bool cpuid_has(const struct guest *g, u32 leaf, unsigned reg, unsigned bit)
{
    (void)g;
    return features && !(leaf == 7 && reg == 3 && bit == 26);
}
int platform_rdmsr(struct vcpu *v, u32 index, u64 *value)
{
    (void)v;
    *value = platform_value;
    return index == 0x8ff ? E_INVAL : 0;
}
int platform_wrmsr(struct vcpu *v, u32 index, u64 value)
{
    (void)v, (void)index;
    platform_value = value;
    return 0;
}
static struct vcpu *const v = &fake_vcpu;

static int setup(void **state)
{
    (void)state;
    fake_guest_reset();
    features = true;
    host_misc = 1;
    applied = fake_logs = 0;
    msr_reset(v);
    return 0;
}

static u64 rd(u32 index)
{
    u64 value = 0;
    assert_int_equal(msr_read(v, index, &value), 0);
    return value;
}

static void test_default_is_gp(void **state)
{
    (void)state;
    u64 value;
    static const u32 unknown[] = {0x0, 0xc1, 0x186, 0x198, 0x38f, 0x400, 0x480, 0x606, 0xda0,
                                  0x10a, 0x3a, 0xc0010114, 0xc0010117, 0xffffffff};
    for (size_t i = 0; i < ARRAY_SIZE(unknown); i++) {
        assert_int_equal(msr_read(v, unknown[i], &value), E_INVAL);
        assert_int_equal(msr_write(v, unknown[i], 0), E_INVAL);
    }
    assert_int_equal(fake_logs, ARRAY_SIZE(unknown)); // once each
}

static void test_a_guest_cannot_fill_the_log(void **state)
{
    (void)state;
    u64 value;
    for (u32 i = 0; i < 1000; i++)
        msr_read(v, 0x5000 + i, &value);
    assert_true(fake_logs <= 16);
}

static void test_tsc_steps_are_the_vcpus_own(void **state)
{
    (void)state;
    now = 1000;
    assert_int_equal(rd(0x10), 1000);
    assert_int_equal(msr_write(v, 0x10, 5), 0);
    assert_int_equal(rd(0x10), 5);
    assert_int_equal(rd(0x3b), (u64)-995);
    assert_int_equal(msr_write(v, 0x3b, 7), 0);
    assert_int_equal(rd(0x10), 1007);
    assert_int_equal(applied, 2);
    assert_int_equal(now, 1000);
}

static void test_efer(void **state)
{
    (void)state;
    const u32 efer = 0xc0000080;
    fake_regs.efer = 0;
    assert_int_equal(msr_write(v, efer, 0x901), 0); // SCE, LME, NXE
    assert_int_equal(fake_efer_written, 0x901);
    assert_int_equal(msr_write(v, efer, BIT(12)), E_INVAL); // SVME
    assert_int_equal(msr_write(v, efer, BIT(1)), E_INVAL);
    fake_regs.efer = 0xd00; // long mode with paging
    fake_regs.cr0 = BIT(31) | 1;
    assert_int_equal(msr_write(v, efer, 0x800), E_INVAL); // LME off
    assert_int_equal(msr_write(v, efer, 0x900), 0);
    assert_int_equal(fake_efer_written, 0xd00); // LMA is not for software to write
    features = false;
    assert_int_equal(msr_write(v, efer, 0xd00), E_INVAL); // no NX shown
}

static void test_machine_checks_have_no_banks(void **state)
{
    (void)state;
    u64 value;
    assert_int_equal(rd(0x179), 0);
    assert_int_equal(rd(0x17a), 0);
    assert_int_equal(msr_write(v, 0x17a, 0), 0);
    assert_int_equal(msr_write(v, 0x17a, 1), E_INVAL);
    assert_int_equal(msr_read(v, 0x17b, &value), E_INVAL);
}

static void test_misc_enable(void **state)
{
    (void)state;
    assert_int_equal(rd(0x1a0), BIT(0) | BIT(11) | BIT(12));
    assert_int_equal(msr_write(v, 0x1a0, ~0ull), 0);
    assert_int_equal(rd(0x1a0), BIT(0) | BIT(11) | BIT(12));
    assert_int_equal(msr_write(v, 0x1a0, 0), 0);
    assert_int_equal(rd(0x1a0), BIT(11) | BIT(12));
    host_misc = 0; // the host's string instructions are not fast
    msr_reset(v);
    assert_int_equal(rd(0x1a0), BIT(11) | BIT(12));
}

static void test_debugctl(void **state)
{
    (void)state;
    assert_int_equal(msr_write(v, 0x1d9, 0), 0);
    assert_int_equal(msr_write(v, 0x1d9, 1), 0);
    assert_int_equal(msr_write(v, 0x1d9, BIT(6)), E_INVAL);
    assert_int_equal(rd(0x1d9) & 1, 0);
}

// What one vendor alone has is on no host's CPU level.
static void test_levels_have_one_policy(void **state)
{
    (void)state;
    u64 value;
    fake_guest.config.cpu = CPU_V3;
    features = false;
    host_misc = 0;
    msr_reset(v);
    assert_int_equal(rd(0x1a0), BIT(0) | BIT(11) | BIT(12));
    assert_int_equal(msr_write(v, 0x1d9, 2), 0); // BTF: accepted, dropped
    assert_int_equal(rd(0x1d9), 0);
    assert_int_equal(msr_read(v, 0x48, &value), E_INVAL); // SPEC_CTRL
    assert_int_equal(msr_write(v, 0x48, 0), E_INVAL);
    assert_int_equal(msr_read(v, 0xc0010015, &value), E_INVAL); // AMD's HWCR
}

static void test_local_apic_msrs_go_to_it(void **state)
{
    (void)state;
    u64 value;
    assert_int_equal(msr_write(v, 0x6e0, 99), 0);
    assert_int_equal(rd(0x6e0), 99);
    assert_int_equal(rd(0x802), 99);
    assert_int_equal(rd(0x1b), 99);
    assert_int_equal(msr_read(v, 0x8ff, &value), E_INVAL);
}

static void test_prediction_barrier_needs_the_feature(void **state)
{
    (void)state;
    u64 value;
    assert_int_equal(msr_write(v, 0x49, 0), E_INVAL);
    assert_int_equal(msr_read(v, 0x49, &value), E_INVAL);
}

static void test_mtrrs(void **state)
{
    (void)state;
    u64 value;
    assert_int_equal(rd(0xfe), 0x508);
    assert_int_equal(rd(0x2ff), 0xc06); // on, fixed on, write-back
    assert_int_equal(rd(0x200), 0xc0000000); // the hole is uncached
    assert_int_equal(rd(0x259), 0); // so is video memory
    assert_int_equal(rd(0x250), 0x0606060606060606ull);
    assert_int_equal(msr_write(v, 0x2ff, 0xc02), E_INVAL); // type 2 is reserved
    assert_int_equal(msr_write(v, 0x2ff, 0x1000), E_INVAL);
    assert_int_equal(msr_write(v, 0x202, 0x80000106), E_INVAL);
    assert_int_equal(msr_write(v, 0x202, 0x80000006), 0);
    assert_int_equal(rd(0x202), 0x80000006);
    assert_int_equal(msr_write(v, 0x203, 0xff80000001ull), E_INVAL);
    assert_int_equal(msr_write(v, 0x203, 0xff80000800ull), 0);
    assert_int_equal(msr_write(v, 0x268, 0x0606060606060606ull), 0);
    assert_int_equal(msr_write(v, 0x268, 0x0606060606060706ull), E_INVAL);
    assert_int_equal(msr_write(v, 0xfe, 0), E_INVAL);
    assert_int_equal(msr_read(v, 0x210, &value), E_INVAL); // a ninth pair
    assert_true(mtrr_valid(v->mtrr_def_type, v->mtrr_fixed, v->mtrr_base, v->mtrr_mask));
    v->mtrr_fixed[10] = 2;
    assert_false(mtrr_valid(v->mtrr_def_type, v->mtrr_fixed, v->mtrr_base, v->mtrr_mask));
}

static void test_microcode(void **state)
{
    (void)state;
    assert_int_equal(rd(0x8b), 1ull << 32);
    assert_int_equal(msr_write(v, 0x8b, 0), 0);
    assert_int_equal(msr_write(v, 0x79, 0x1000), 0);
    assert_int_equal(rd(0x17), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup(name, setup)
        T(test_default_is_gp),
        T(test_a_guest_cannot_fill_the_log),
        T(test_tsc_steps_are_the_vcpus_own),
        T(test_efer),
        T(test_machine_checks_have_no_banks),
        T(test_misc_enable),
        T(test_debugctl),
        T(test_levels_have_one_policy),
        T(test_local_apic_msrs_go_to_it),
        T(test_prediction_barrier_needs_the_feature),
        T(test_mtrrs),
        T(test_microcode),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
