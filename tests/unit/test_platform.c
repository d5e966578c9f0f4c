// SPDX-License-Identifier: MIT
// The whole PC under random accesses: whatever a guest does to it, nothing breaks, and every state
// it comes to can move.
// sources: arch/x86/platform/*.c kernel/guest/bus.c kernel/guest/device.c
// sources: kernel/guest/state.c kernel/guest/gtimer.c
#include "tests/unit/fake_platform.h"

static u32 seed;

static u32 roll(u32 n)
{
    seed = seed * 1664525 + 1013904223;
    return (u32)((u64)(seed >> 4) * n >> 28);
}

static u32 value(void)
{
    static const u32 likely[] = {0, 1, 0xff, 0x8000, 0x10000, 0xffffffff, 0x20, 0x34};
    return roll(3) ? roll(1 << 28) << 4 | roll(16) : likely[roll(ARRAY_SIZE(likely))];
}

static void random_port(void)
{
    static const u16 first[] = {0x20,  0xa0,  0x4d0, 0x40, 0x61, 0x70, 0x3f8,
                                0x600, 0x620, 0xcf8, 0x60, 0x80, 0x92};
    u16 port = (u16)(first[roll(ARRAY_SIZE(first))] + roll(roll(2) ? 12 : 4));
    u32 size = 1u << (roll(3) ? 0 : roll(3));
    if (roll(2))
        bus_io_write(&guest, port, size, value());
    else
        bus_io_read(&guest, port, size);
}

static void random_apic(void)
{
    current_vcpu = &vcpus[roll(guest.vcpu_count)];
    u64 gpa = roll(3) ? LAPIC_GPA + roll(0x40) * 16 : IOAPIC_GPA + roll(5) * 16;
    u32 size = roll(8) ? 4 : 1u << roll(4);
    if (gpa < LAPIC_GPA && roll(2)) {
        ioapic_set(roll(0x48), value());
        return;
    }
    if (roll(3))
        bus_mmio_write(&guest, gpa, size, roll(2) ? roll(0x400) | roll(8) << 16 : value());
    else
        bus_mmio_read(&guest, gpa, size);
}

static void random_msr(void)
{
    struct vcpu *v = &vcpus[roll(guest.vcpu_count)];
    static const u64 bases[] = {0xfee00900, 0xfee00d00, 0xfee00000, 0xfee00800, 0xfee00c00};
    u64 ignored;
    u32 index = 0x800 + roll(0x40);
    current_vcpu = v;
    if (!roll(8))
        platform_wrmsr(v, 0x1b, bases[roll(ARRAY_SIZE(bases))]);
    else if (!roll(4))
        platform_wrmsr(v, 0x6e0, roll(2) ? now_ticks + value() : (u64)value() << 32);
    else if (roll(3))
        platform_wrmsr(v, index, roll(2) ? roll(0x400) : (u64)roll(8) << 32 | value());
    else
        platform_rdmsr(v, index, &ignored);
    if (!roll(10))
        v->tsc_adjust = roll(2) ? value() : -(u64)value();
}

static void random_event(void)
{
    u32 n = roll(guest.vcpu_count);
    switch (roll(6)) {
    case 0:
        irq_line_set(&guest, 16 + roll(8), IRQ_SOURCE_PCI + 1, roll(2));
        break;
    case 1:
        msi_send(&guest, 0xfee00000 | roll(1 << 20), value());
        break;
    case 2:
        guest_console_input(&guest, "input", 1 + roll(5));
        break;
    case 3:
        platform_power_button(&guest);
        break;
    default:
        take(n);
        if (platform_take_init(&vcpus[n]) || vcpus[n].activity == VCPU_WAIT_SIPI)
            platform_take_sipi(&vcpus[n]);
        vcpus[n].activity = VCPU_ACTIVE;
    }
}

static void random_step(void)
{
    switch (roll(8)) {
    case 0:
        random_event();
        break;
    case 1:
        run_for(roll(4) ? roll(20000) : roll(3000000));
        break;
    case 2:
        random_msr();
        break;
    case 3:
    case 4:
        random_apic();
        break;
    default:
        random_port();
    }
}

static void nothing_a_guest_does_breaks_it(void **state)
{
    (void)state;
    for (u32 round = 0; round < 150; round++) {
        seed = round * 2654435761u;
        for (u32 i = 0; i < 400; i++)
            random_step();
        for (u32 line = 16; line < 24; line++) // no device of the PC would raise it again
            irq_line_set(&guest, line, IRQ_SOURCE_PCI + 1, false);
        move_pc(roll(2) ? roll(1000000) : 0);
    }
}

static void a_reset_ends_it_all(void **state)
{
    (void)state;
    static struct moved fresh, again;
    pause_all();
    devices_reset(&guest);
    save_all(&fresh);
    resume_all();
    for (u32 round = 0; round < 30; round++) {
        seed = round * 2246822519u + 1;
        for (u32 i = 0; i < 400; i++)
            random_step();
        pause_all();
        for (u32 i = 0; i < guest.vcpu_count; i++)
            platform_vcpu_reset(&vcpus[i]);
        devices_reset(&guest);
        save_all(&again);
        resume_all();
        for (u32 i = 0; i < guest.vcpu_count; i++)
            assert_memory_equal(fresh.data[i], again.data[i], (size_t)fresh.bytes[i]);
        run_for(NS_PER_SEC);
        for (u32 i = 0; i < guest.vcpu_count; i++)
            assert_int_equal(take(i), -1);
    }
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, pc_four, pc_destroy)
    const struct CMUnitTest tests[] = {
        T(nothing_a_guest_does_breaks_it),
        T(a_reset_ends_it_all),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
