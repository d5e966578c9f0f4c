// SPDX-License-Identifier: MIT
// Power: PM timer, power button, soft-off, and the four ways to a reset.
// sources: arch/x86/platform/*.c kernel/guest/bus.c kernel/guest/device.c
// sources: kernel/guest/state.c kernel/guest/gtimer.c
#include "tests/unit/fake_platform.h"

#define STATUS  0x600
#define ENABLE  0x602
#define CONTROL 0x604
#define TIMER   0x608
#define LEVEL   0x8000

static u16 in16(u16 port)
{
    return (u16)bus_io_read(&guest, port, 2);
}

static void timer_counts(void **state)
{
    (void)state;
    assert_int_equal(in32(TIMER), 0);
    run_for(NS_PER_SEC);
    assert_int_equal(in32(TIMER), 3579545);
    assert_int_equal(in16(TIMER + 2), 3579545 >> 16);
    run_for(NS_PER_SEC * 1300); // past 32 bits
    assert_int_equal(in32(TIMER), (u32)(3579545ull * 1301));
    u32 before = in32(TIMER);
    out32(TIMER, 0); // read-only
    assert_int_equal(in32(TIMER), before);
}

static void timer_moves_on(void **state)
{
    (void)state;
    run_for(NS_PER_SEC);
    move_pc(NS_PER_SEC / 2);
    assert_int_equal(in32(TIMER), 3579545 * 3 / 2);
}

static void timer_event(void **state)
{
    (void)state;
    assert_int_equal(in16(STATUS), 0);
    u64 half = mul_div_up(1ull << 31, NS_PER_SEC, PM_TIMER_HZ);
    run_for(half);
    assert_int_equal(in16(STATUS), 1);
    out16(STATUS, 1);
    assert_int_equal(in16(STATUS), 0);
    pics_on(1 << 9);
    out16(ENABLE, 1);
    run_for(half - 1000);
    assert_int_equal(take(0), -1);
    run_for(2000);
    assert_int_equal(take(0), 0x29);
    out16(STATUS, 1);
    out16(ENABLE, 0);
    assert_null(guest.clock.timers);
}

static void power_button(void **state)
{
    (void)state;
    apic_on(0);
    ioapic_route(9, LEVEL | 0x39);
    platform_power_button(&guest);
    assert_int_equal(in16(STATUS), 0x100);
    assert_int_equal(take(0), -1); // not enabled
    out16(ENABLE, 0x100);
    assert_int_equal(take(0), 0x39);
    move_pc(1000);
    assert_int_equal(in16(STATUS), 0x100);
    out16(STATUS, 0x100);
    apic_set(0xb0, 0);
    assert_int_equal(take(0), -1);
    platform_power_button(&guest);
    assert_int_equal(take(0), 0x39);
}

static void button_without_a_pc(void **state)
{
    pc_destroy(state);
    platform_power_button(&guest); // nothing
    pc_one(state);
}

static void soft_off(void **state)
{
    (void)state;
    assert_int_equal(in16(CONTROL), 1); // ACPI mode
    out16(CONTROL, 0x2400);             // another sleep type: nothing
    assert_false(guest.poweroff_wanted);
    out16(CONTROL, 0x0001);
    out16(CONTROL, 0x2001);
    assert_true(guest.poweroff_wanted);
    guest.poweroff_wanted = false;
    out8(CONTROL + 1, 0x20);
    assert_true(guest.poweroff_wanted);
}

static void byte_accesses(void **state)
{
    (void)state;
    out8(ENABLE, 0x21);
    out8(ENABLE + 1, 0x07);
    assert_int_equal(in16(ENABLE), 0x721);
    out32(STATUS, 0x01000000); // both registers
    assert_int_equal(in32(STATUS), 0x01000000);
    out32(0x620, 0xa5a50000);
    assert_int_equal(in32(0x620), 0xa5a50000);
    assert_int_equal(in8(0x623), 0xa5);
}

static void resets(void **state)
{
    (void)state;
    out8(0xcf9, 0x02);
    assert_false(guest.reset_wanted);
    assert_int_equal(in8(0xcf9), 2);
    out8(0xcf9, 0x06);
    assert_true(guest.reset_wanted);
    guest.reset_wanted = false;
    out8(0x64, 0xfe);
    assert_true(guest.reset_wanted);
    guest.reset_wanted = false;
    out8(0x64, 0xd1);
    out8(0x60, 0xdf);
    assert_false(guest.reset_wanted);
    out8(0x64, 0xd1);
    out8(0x60, 0xfe);
    assert_true(guest.reset_wanted);
    guest.reset_wanted = false;
    out8(0x92, 0x02);
    assert_false(guest.reset_wanted);
    assert_int_equal(in8(0x92), 2);
    out8(0x92, 0x01);
    assert_true(guest.reset_wanted);
}

static void keyboard_controller(void **state)
{
    (void)state;
    assert_int_equal(in8(0x64) & 3, 0);
    out8(0x64, 0xaa);
    assert_int_equal(in8(0x64) & 1, 1);
    move_pc(0);
    assert_int_equal(in8(0x60), 0x55);
    assert_int_equal(in8(0x64) & 1, 0);
    out8(0x60, 0xf4); // nobody there
    assert_int_equal(in8(0x64) & 0x41, 0x41);
    assert_int_equal(in8(0x60), 0xfe);
    out8(0x64, 0x60);
    out8(0x60, 0x45);
    out8(0x64, 0x20);
    assert_int_equal(in8(0x60), 0x45);
    out8(0x64, 0xd0);
    assert_int_equal(in8(0x60), 0x03);
}

static void page_registers(void **state)
{
    (void)state;
    out8(0x80, 0x12);
    out8(0x8f, 0x34);
    move_pc(0);
    assert_int_equal(in8(0x80), 0x12);
    assert_int_equal(in8(0x8f), 0x34);
    devices_reset(&guest);
    assert_int_equal(in8(0x80), 0);
}

static void everything_resets(void **state)
{
    (void)state;
    pics_on(0xffff);
    out8(0x43, 0x34);
    out8(0x40, 0);
    out8(0x40, 0x10);
    out8(0x70, 0xb);
    out8(0x71, 0x42);
    out16(ENABLE, 1);
    platform_power_button(&guest);
    pause_all();
    devices_reset(&guest);
    platform_vcpu_reset(&vcpus[0]);
    resume_all();
    run_for(NS_PER_SEC * 2);
    assert_int_equal(take(0), -1);
    assert_null(guest.clock.timers);
    assert_int_equal(in16(STATUS), 0);
}

static void impossible_states_are_refused(void **state)
{
    (void)state;
    const struct state_table *t = dev("pm")->ops->state;
    u8 *copy = malloc(t->struct_size);
    for (const struct state_field *f = t->fields; f->kind != FIELD_END; f++) {
        memcpy(copy, dev("pm")->priv, t->struct_size);
        if (!strcmp(f->name, "status") || !strcmp(f->name, "enable") ||
            !strcmp(f->name, "control")) {
            memcpy(copy + f->offset, &(u16){0x2000}, 2);
            assert_refused(t, copy, "reserved bits");
        }
    }
    free(copy);
    t = dev("kbd")->ops->state;
    copy = malloc(t->struct_size);
    for (const struct state_field *f = t->fields; f->kind != FIELD_END; f++) {
        memcpy(copy, dev("kbd")->priv, t->struct_size);
        if (!strcmp(f->name, "command")) {
            copy[f->offset] = 0x61;
            assert_refused(t, copy, "command");
        }
    }
    free(copy);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, pc_one, pc_destroy)
    const struct CMUnitTest tests[] = {
        T(timer_counts),        T(timer_moves_on),
        T(timer_event),         T(power_button),
        T(button_without_a_pc), T(soft_off),
        T(byte_accesses),       T(resets),
        T(keyboard_controller), T(page_registers),
        T(everything_resets),   T(impossible_states_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
