// SPDX-License-Identifier: MIT
// The local APIC: priorities, timer, messages between CPUs, x2APIC, and its state over a move.
// sources: arch/x86/platform/*.c kernel/guest/bus.c kernel/guest/device.c
// sources: kernel/guest/state.c kernel/guest/gtimer.c
#include "tests/unit/fake_platform.h"

#define ICR_LOW   0x300
#define ICR_HIGH  0x310
#define LVT_T     0x320
#define INITIAL   0x380
#define CURRENT   0x390
#define DIVIDE    0x3e0
#define BY_1      0xb
#define SELF      0x40000
#define PERIODIC  0x20000
#define DEADLINE  0x40000
#define MASKED    0x10000
#define MSR_BASE  0x1b
#define MSR_TSC_D 0x6e0

static void self_ipi(u8 vector)
{
    apic_set(ICR_LOW, SELF | vector);
}

static void eoi(void)
{
    apic_set(0xb0, 0);
}

static void reset_values(void **state)
{
    (void)state;
    assert_int_equal(apic_get(0x20), 0);
    assert_int_equal(apic_get(0x30), 0x50014);
    assert_int_equal(apic_get(0xf0), 0xff);
    assert_int_equal(apic_get(0xe0), 0xffffffff);
    assert_int_equal(apic_get(LVT_T), MASKED);
    assert_int_equal(apic_get(0x350), 0x700); // LINT0 passes the PICs on
    current_vcpu = &vcpus[1];
    assert_int_equal(apic_get(0x20), 1 << 24);
    assert_int_equal(apic_get(0x350), MASKED);
}

static void accesses(void **state)
{
    (void)state;
    apic_set(0x80, 0x25);
    assert_int_equal(bus_mmio_read(&guest, LAPIC_GPA + 0x80, 1), 0x25);
    assert_int_equal(bus_mmio_read(&guest, LAPIC_GPA + 0x32, 2), 0x5);
    assert_int_equal(bus_mmio_read(&guest, LAPIC_GPA + 0x84, 4), 0xffffffff);
    bus_mmio_write(&guest, LAPIC_GPA + 0x80, 1, 0x99); // not 32 bits wide: nothing
    assert_int_equal(apic_get(0x80), 0x25);
    current_vcpu = NULL; // no vCPU, no local APIC
    assert_int_equal(apic_get(0x80), 0xffffffff);
}

static void priorities(void **state)
{
    (void)state;
    apic_on(0);
    self_ipi(0x41);
    self_ipi(0x52);
    assert_int_equal(take(0), 0x52);
    assert_int_equal(take(0), -1); // 0x41 is of a lower class
    self_ipi(0x5f);
    assert_int_equal(take(0), -1); // of the same class
    assert_int_equal(apic_get(0xa0), 0x50);
    eoi();
    assert_int_equal(take(0), 0x5f);
    eoi();
    apic_set(0x80, 0x40);
    assert_int_equal(take(0), -1);
    platform_set_cr8(&vcpus[0], 3);
    assert_int_equal(platform_get_cr8(&vcpus[0]), 3);
    assert_int_equal(apic_get(0x80), 0x30);
    assert_true(vcpus[0].kick);
    assert_int_equal(take(0), 0x41);
    assert_int_equal(apic_get(0x120), 1 << 1);
}

static void illegal_vectors(void **state)
{
    (void)state;
    apic_on(0);
    apic_set(0x370, 0x60); // error interrupt
    self_ipi(3);
    assert_int_equal(take(0), 0x60);
    assert_int_equal(apic_get(0x280), 0);
    apic_set(0x280, 0);
    assert_int_equal(apic_get(0x280), 0x20);
    apic_get(0x3f0); // no such register in xAPIC mode
    apic_set(0x280, 0);
    assert_int_equal(apic_get(0x280), 0x80);
}

static void disabled_by_software(void **state)
{
    (void)state;
    apic_on(0);
    apic_set(LVT_T, 0x30);
    apic_set(0xf0, 0xff);
    assert_int_equal(apic_get(LVT_T), MASKED | 0x30);
    apic_set(LVT_T, 0x31);
    assert_int_equal(apic_get(LVT_T), MASKED | 0x31);
    current_vcpu = &vcpus[1];
    apic_on(1);
    apic_set(ICR_HIGH, 0);
    apic_set(ICR_LOW, 0x44);
    assert_int_equal(take(0), -1); // fixed messages are not accepted
    apic_set(ICR_LOW, 0x400);
    assert_true(vcpus[0].nmi_pending); // an NMI is
}

static void one_shot(void **state)
{
    (void)state;
    apic_on(0);
    apic_set(DIVIDE, BY_1);
    apic_set(LVT_T, 0x33);
    apic_set(INITIAL, 1000);
    run_for(400);
    assert_int_equal(apic_get(CURRENT), 600);
    run_for(599);
    assert_int_equal(take(0), -1);
    run_for(1);
    assert_int_equal(take(0), 0x33);
    assert_int_equal(apic_get(CURRENT), 0);
    eoi();
    run_for(100000);
    assert_int_equal(take(0), -1);
}

static void divisors(void **state)
{
    (void)state;
    static const struct {
        u8 code;
        u32 by;
    } table[] = {{0, 2}, {1, 4}, {2, 8}, {3, 16}, {8, 32}, {9, 64}, {10, 128}, {11, 1}};
    apic_on(0);
    for (u32 i = 0; i < ARRAY_SIZE(table); i++) {
        apic_set(DIVIDE, table[i].code);
        apic_set(INITIAL, 1000);
        run_for(100 * table[i].by);
        assert_int_equal(apic_get(CURRENT), 900);
    }
}

static void divisor_changed_while_counting(void **state)
{
    (void)state;
    apic_on(0);
    apic_set(DIVIDE, BY_1);
    apic_set(LVT_T, 0x33);
    apic_set(INITIAL, 1000);
    run_for(600);
    apic_set(DIVIDE, 0); // by 2
    assert_int_equal(apic_get(CURRENT), 400);
    run_for(799);
    assert_int_equal(take(0), -1);
    run_for(1);
    assert_int_equal(take(0), 0x33);
}

static void periodic_keeps_its_phase(void **state)
{
    (void)state;
    guest.clock.tsc_hz = 2300000007ull; // periods are no whole number of ticks
    apic_on(0);
    apic_set(DIVIDE, BY_1);
    apic_set(LVT_T, PERIODIC | 0x33);
    apic_set(INITIAL, 1000003);
    u64 start = now_ticks, count = 0;
    for (u32 i = 0; i < 2000; i++) {
        run_for(1150001);
        if (take(0) == 0x33) {
            count++;
            eoi();
        }
    }
    u64 wanted = mul_div(now_ticks - start, NS_PER_SEC, guest.clock.tsc_hz) / 1000003;
    assert_int_equal(count, wanted);
}

static void missed_periods_are_one_interrupt(void **state)
{
    (void)state;
    apic_on(0);
    apic_set(DIVIDE, BY_1);
    apic_set(LVT_T, PERIODIC | 0x33);
    apic_set(INITIAL, 1000000);
    time_passes(10300000);
    timers_run();
    assert_int_equal(take(0), 0x33);
    eoi();
    assert_int_equal(take(0), -1);
    run_for(699999);
    assert_int_equal(take(0), -1);
    run_for(1); // at 11 periods
    assert_int_equal(take(0), 0x33);
}

static void fast_periods_leave_time(void **state)
{
    (void)state;
    apic_on(0);
    apic_set(DIVIDE, BY_1);
    apic_set(LVT_T, PERIODIC | 0x33);
    apic_set(INITIAL, 1);
    u32 fired = 0;
    for (u32 i = 0; i < 1000; i++) {
        run_for(1000);
        if (take(0) >= 0) {
            fired++;
            eoi();
        }
    }
    assert_in_range(fired, 15, 21); // 1 ms at 50 us each
}

static void deadline(void **state)
{
    (void)state;
    u64 value;
    apic_on(0);
    assert_int_equal(platform_wrmsr(&vcpus[0], MSR_TSC_D, 5000), 0);
    assert_int_equal(platform_rdmsr(&vcpus[0], MSR_TSC_D, &value), 0);
    assert_int_equal(value, 0); // not in this mode
    apic_set(LVT_T, DEADLINE | 0x35);
    platform_wrmsr(&vcpus[0], MSR_TSC_D, 5000);
    apic_set(INITIAL, 77);
    assert_int_equal(apic_get(INITIAL), 0);
    run_for(4999);
    assert_int_equal(take(0), -1);
    run_for(1);
    assert_int_equal(take(0), 0x35);
    platform_rdmsr(&vcpus[0], MSR_TSC_D, &value);
    assert_int_equal(value, 0);
    eoi();
    platform_wrmsr(&vcpus[0], MSR_TSC_D, 100); // long gone
    run_for(0);
    assert_int_equal(take(0), 0x35);
    eoi();
    platform_wrmsr(&vcpus[0], MSR_TSC_D, 9000);
    platform_wrmsr(&vcpus[0], MSR_TSC_D, 0); // disarmed
    run_for(10000);
    assert_int_equal(take(0), -1);
    platform_wrmsr(&vcpus[0], MSR_TSC_D, 90000);
    apic_set(LVT_T, 0x35); // a change of mode disarms
    run_for(100000);
    assert_int_equal(take(0), -1);
}

static void deadline_in_the_adjusted_tsc(void **state)
{
    (void)state;
    apic_on(0);
    apic_set(LVT_T, DEADLINE | 0x35);
    vcpus[0].tsc_adjust = (u64)-1000; // the vCPU sees 1000 less
    platform_wrmsr(&vcpus[0], MSR_TSC_D, 4000);
    run_for(4999);
    assert_int_equal(take(0), -1);
    run_for(1);
    assert_int_equal(take(0), 0x35);
    eoi();
    vcpus[0].tsc_adjust = 1ull << 40;
    platform_wrmsr(&vcpus[0], MSR_TSC_D, 1); // before the clock began
    run_for(0);
    assert_int_equal(take(0), 0x35);
}

static void apic_base(void **state)
{
    (void)state;
    u64 value;
    struct vcpu *v = &vcpus[0];
    assert_int_equal(platform_rdmsr(v, MSR_BASE, &value), 0);
    assert_int_equal(value, 0xfee00900);
    assert_int_equal(platform_wrmsr(v, MSR_BASE, 0xfee00000 | 0x500), E_INVAL);
    assert_int_equal(platform_wrmsr(v, MSR_BASE, 0xfed00900), E_INVAL);
    assert_int_equal(platform_wrmsr(v, MSR_BASE, 0xfee00901), E_INVAL);
    assert_int_equal(platform_wrmsr(v, MSR_BASE, 0xfee00d00), 0); // x2APIC
    assert_int_equal(apic_get(0x20), 0xffffffff);
    assert_int_equal(platform_wrmsr(v, MSR_BASE, 0xfee00900), E_INVAL); // not straight back
    assert_int_equal(platform_wrmsr(v, MSR_BASE, 0xfee00100), 0);
    assert_int_equal(platform_wrmsr(v, MSR_BASE, 0xfee00d00), E_INVAL); // nor straight there
    assert_int_equal(platform_wrmsr(v, MSR_BASE, 0xfee00800), 0);
    platform_rdmsr(v, MSR_BASE, &value);
    assert_int_equal(value, 0xfee00900); // still the boot CPU
    guest.cpuid[0].ecx = 0;
    assert_int_equal(platform_wrmsr(v, MSR_BASE, 0xfee00d00), E_INVAL);
    assert_int_equal(platform_wrmsr(v, MSR_TSC_D, 1), E_INVAL);
    assert_int_equal(platform_wrmsr(v, 0x1234, 1), E_NOENT);
    assert_int_equal(platform_rdmsr(v, 0x802, &value), E_INVAL); // not in xAPIC mode
}

static void to_x2apic(u32 n)
{
    assert_int_equal(platform_wrmsr(&vcpus[n], MSR_BASE, 0xfee00c00 | (n == 0 ? 0x100 : 0)), 0);
    assert_int_equal(platform_wrmsr(&vcpus[n], 0x80f, 0x1ff), 0);
}

static void x2apic(void **state)
{
    (void)state;
    u64 value;
    for (u32 n = 0; n < 4; n++)
        to_x2apic(n);
    assert_int_equal(platform_rdmsr(&vcpus[3], 0x802, &value), 0);
    assert_int_equal(value, 3);
    assert_int_equal(platform_rdmsr(&vcpus[3], 0x80d, &value), 0);
    assert_int_equal(value, 1 << 3);
    assert_int_equal(platform_wrmsr(&vcpus[0], 0x83f, 0x41), 0);
    assert_int_equal(take(0), 0x41);
    assert_int_equal(platform_wrmsr(&vcpus[0], 0x80b, 1), E_INVAL);
    assert_int_equal(platform_wrmsr(&vcpus[0], 0x80b, 0), 0);
    assert_int_equal(platform_wrmsr(&vcpus[0], 0x830, 2ull << 32 | 0x51), 0);
    assert_int_equal(take(2), 0x51);
    assert_int_equal(platform_wrmsr(&vcpus[0], 0x830, 0xaull << 32 | 0x800 | 0x62), 0); // logical
    assert_int_equal(take(1), 0x62);
    assert_int_equal(take(3), 0x62);
    assert_int_equal(take(2), -1);
    assert_int_equal(platform_rdmsr(&vcpus[0], 0x830, &value), 0);
    assert_int_equal(value, 0xaull << 32 | 0x862);
    static const u32 absent[] = {0x80e, 0x831, 0x82f, 0x80b, 0x83f, 0x8ff};
    for (u32 i = 0; i < ARRAY_SIZE(absent); i++)
        assert_int_equal(platform_rdmsr(&vcpus[0], absent[i], &value), E_INVAL);
    static const u32 read_only[] = {0x802, 0x803, 0x80a, 0x80d, 0x810, 0x839};
    for (u32 i = 0; i < ARRAY_SIZE(read_only); i++)
        assert_int_equal(platform_wrmsr(&vcpus[0], read_only[i], 0), E_INVAL);
    assert_int_equal(platform_wrmsr(&vcpus[0], 0x832, BIT(20)), E_INVAL);
    msi_send(&guest, 0xfee02000, 0x45); // physical 2
    assert_int_equal(take(2), -1);      // 0x51 is in service
    platform_wrmsr(&vcpus[2], 0x80b, 0);
    assert_int_equal(take(2), 0x45);
}

static void shorthands(void **state)
{
    (void)state;
    for (u32 i = 0; i < 4; i++)
        apic_on(i);
    apic_set(ICR_LOW, 0xc0000 | 0x40); // all but self
    assert_int_equal(take(0), -1);
    for (u32 i = 1; i < 4; i++)
        assert_int_equal(take(i), 0x40);
    apic_set(ICR_LOW, 0x80000 | 0x51); // all
    for (u32 i = 0; i < 4; i++)
        assert_int_equal(take(i), 0x51);
    apic_set(ICR_HIGH, 0xff000000);
    apic_set(ICR_LOW, 0x62);
    for (u32 i = 0; i < 4; i++)
        assert_int_equal(take(i), 0x62);
    assert_int_equal(apic_get(ICR_LOW), 0x62);
    assert_int_equal(apic_get(ICR_HIGH), 0xff000000);
}

static void logical_destinations(void **state)
{
    (void)state;
    for (u32 i = 0; i < 4; i++) {
        apic_on(i);
        current_vcpu = &vcpus[i];
        apic_set(0xd0, 1u << (24 + i));
    }
    current_vcpu = &vcpus[0];
    apic_set(ICR_HIGH, 0x0a000000);
    apic_set(ICR_LOW, 0x840);
    assert_int_equal(take(1), 0x40);
    assert_int_equal(take(3), 0x40);
    assert_int_equal(take(0), -1);
    for (u32 i = 0; i < 4; i++) { // clusters of two
        current_vcpu = &vcpus[i];
        apic_set(0xe0, 0x0fffffff);
        apic_set(0xd0, (i / 2) << 28 | 1u << (24 + i % 2));
    }
    current_vcpu = &vcpus[0];
    apic_set(ICR_HIGH, 0x12000000);
    apic_set(ICR_LOW, 0x852);
    assert_int_equal(take(3), 0x52);
    assert_int_equal(take(1), -1);
}

static void lowest_priority(void **state)
{
    (void)state;
    for (u32 i = 0; i < 4; i++) {
        apic_on(i);
        current_vcpu = &vcpus[i];
        apic_set(0xd0, 1u << (24 + i));
        apic_set(0x80, i == 2 ? 0x10 : 0x50);
    }
    for (u32 i = 0; i < 5; i++) {
        msi_send(&guest, 0xfee0f00c, 0x160 + i); // all four, lowest priority
        assert_true(vector_test(lapic_of(&vcpus[2])->irr, 0x60 + i));
    }
    current_vcpu = &vcpus[2];
    apic_set(0x80, 0x50);
    u32 who = 0;
    for (u32 i = 0; i < 4; i++)
        msi_send(&guest, 0xfee0f00c, 0x170 + i);
    for (u32 i = 0; i < 4; i++)
        who += (lapic_of(&vcpus[i])->irr[3] & 0xf0000) != 0;
    assert_int_equal(who, 4); // equals take turns
}

static void init_and_sipi(void **state)
{
    (void)state;
    apic_on(0);
    vcpus[1].activity = VCPU_HALTED;
    apic_on(1);
    apic_set(ICR_HIGH, 1 << 24);
    apic_set(ICR_LOW, 0x600 | 0x9a); // a SIPI that nobody waits for
    assert_int_equal(platform_take_sipi(&vcpus[1]), -1);
    kicks = 0;
    apic_set(ICR_LOW, 0x4500);
    assert_int_equal(kicks, 1);
    apic_set(ICR_LOW, 0x8500); // de-assert
    apic_set(ICR_LOW, 0x600 | 0x9a);
    move_pc(1000); // both in flight
    assert_true(platform_take_init(&vcpus[1]));
    assert_false(platform_take_init(&vcpus[1]));
    assert_int_equal(vcpus[1].activity, VCPU_WAIT_SIPI);
    assert_int_equal(lapic_of(&vcpus[1])->svr, 0xff);
    assert_int_equal(platform_take_sipi(&vcpus[1]), 0x9a);
    assert_int_equal(platform_take_sipi(&vcpus[1]), -1);
}

static void nmi_to_itself(void **state)
{
    (void)state;
    apic_on(0);
    apic_set(ICR_HIGH, 0);
    vcpus[0].kick = false;
    apic_set(ICR_LOW, 0x400);
    assert_true(vcpus[0].nmi_pending);
    assert_true(vcpus[0].kick);
}

static void pics_through_lint0(void **state)
{
    (void)state;
    pics_on(0xffff);
    irq_raise(&guest, 4);
    apic_set(0x350, MASKED | 0x700);
    assert_int_equal(take(0), -1);
    apic_on(0);
    vcpus[0].kick = false;
    apic_set(0x350, 0x700);
    assert_true(vcpus[0].kick); // it must look again
    assert_int_equal(take(0), 0x24);
    out8(0x20, 0x20);
    apic_set(0x350, 0x36); // fixed: the PICs' edge makes a local interrupt
    irq_raise(&guest, 5);
    assert_int_equal(take(0), 0x36);
    platform_wrmsr(&vcpus[0], MSR_BASE, 0xfee00100); // without a local APIC: directly
    assert_int_equal(take(0), 0x25);
}

static void count_goes_on_over_a_move(void **state)
{
    (void)state;
    apic_on(0);
    apic_set(DIVIDE, BY_1);
    apic_set(LVT_T, PERIODIC | 0x33);
    apic_set(INITIAL, 1000000);
    run_for(300000);
    move_pc(200000);
    assert_int_equal(apic_get(CURRENT), 500000); // what was left, less the blackout
    run_for(499999);
    assert_int_equal(take(0), -1);
    run_for(1);
    assert_int_equal(take(0), 0x33);
}

static void deadline_passes_in_the_blackout(void **state)
{
    (void)state;
    apic_on(0);
    apic_set(LVT_T, DEADLINE | 0x35);
    platform_wrmsr(&vcpus[0], MSR_TSC_D, 100000);
    run_for(90000);
    vcpus[0].activity = VCPU_HALTED;
    move_pc(500000);
    assert_int_equal(take(0), -1);
    run_for(0);
    assert_int_equal(take(0), 0x35);
    eoi();
    run_for(1000000);
    assert_int_equal(take(0), -1);
}

static void one_shot_passes_in_the_blackout(void **state)
{
    (void)state;
    apic_on(0);
    apic_set(DIVIDE, BY_1);
    apic_set(LVT_T, 0x33);
    apic_set(INITIAL, 1000);
    move_pc(5000);
    run_for(0);
    assert_int_equal(take(0), 0x33);
    assert_int_equal(apic_get(CURRENT), 0);
}

static void pending_interrupts_move(void **state)
{
    (void)state;
    apic_on(0);
    self_ipi(0x41);
    self_ipi(0x61);
    assert_int_equal(take(0), 0x61);
    self_ipi(0x71);
    move_pc(1000);
    assert_int_equal(take(0), 0x71);
    eoi();
    assert_int_equal(take(0), -1);
    eoi();
    assert_int_equal(take(0), 0x41);
}

static void impossible_states_are_refused(void **state)
{
    (void)state;
    apic_on(0);
    const struct vlapic good = *lapic_of(&vcpus[0]);
    struct vlapic l = good;
#define REFUSED(change, word)                                                                      \
    l = good;                                                                                      \
    change;                                                                                        \
    assert_refused(&lapic_state, &l, word)
    REFUSED(l.apic_base = 0xfee00400, "APIC_BASE");
    REFUSED(l.apic_base = 0xfed00900, "APIC_BASE");
    REFUSED(l.irr[0] = 4, "below 16");
    REFUSED(l.isr[0] = 0x8000, "below 16");
    REFUSED(l.apic_base |= APIC_BASE_X2APIC; l.ldr = 9, "logical ID");
    REFUSED(l.ldr = 1, "logical ID");
    REFUSED(l.dfr = 0, "destination format");
    REFUSED(l.lvt[LVT_ERROR] = BIT(20), "local vector");
    REFUSED(l.svr = 0xff; l.lvt[LVT_TIMER] = 0x33, "disabled APIC");
    REFUSED(l.divide = 4, "divisor");
    REFUSED(l.timer_running = 1, "counts from nothing");
    REFUSED(l.timer_running = 2, "timer_running");
    REFUSED(l.tsc_deadline = 5, "TSC deadline");
    REFUSED(l.tpr = 256, "tpr");
}

int main(void)
{
#define T(f)  cmocka_unit_test_setup_teardown(f, pc_one, pc_destroy)
#define T4(f) cmocka_unit_test_setup_teardown(f, pc_four, pc_destroy)
    const struct CMUnitTest tests[] = {
        T4(reset_values),
        T(accesses),
        T(priorities),
        T(illegal_vectors),
        T4(disabled_by_software),
        T(one_shot),
        T(divisors),
        T(divisor_changed_while_counting),
        T(periodic_keeps_its_phase),
        T(missed_periods_are_one_interrupt),
        T(fast_periods_leave_time),
        T(deadline),
        T(deadline_in_the_adjusted_tsc),
        T(apic_base),
        T4(x2apic),
        T4(shorthands),
        T4(logical_destinations),
        T4(lowest_priority),
        T4(init_and_sipi),
        T(nmi_to_itself),
        T(pics_through_lint0),
        T(count_goes_on_over_a_move),
        T(deadline_passes_in_the_blackout),
        T(one_shot_passes_in_the_blackout),
        T(pending_interrupts_move),
        T(impossible_states_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
