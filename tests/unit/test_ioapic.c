// SPDX-License-Identifier: MIT
// The IOAPIC and MSI: pins, edges and levels, end of interrupt, and routes over a move.
// sources: arch/x86/platform/*.c kernel/guest/bus.c kernel/guest/device.c
// sources: kernel/guest/state.c kernel/guest/gtimer.c
#include "tests/unit/fake_platform.h"

#define LEVEL      0x8000
#define MASKED     0x10000
#define REMOTE_IRR 0x4000
#define LOGICAL    0x800

static void eoi(void)
{
    apic_set(0xb0, 0);
}

static u32 low(u32 pin)
{
    return ioapic_get(0x10 + 2 * pin);
}

static void registers(void **state)
{
    (void)state;
    assert_int_equal(ioapic_get(1), 0x170020);
    ioapic_set(0, 0xffffffff);
    assert_int_equal(ioapic_get(0), 0x0f000000);
    assert_int_equal(ioapic_get(0x7f), 0);
    for (u32 pin = 0; pin < 24; pin++)
        assert_int_equal(low(pin), MASKED);
    ioapic_route(5, ~0ull);
    assert_int_equal(low(5), 0x1afff);
    assert_int_equal(ioapic_get(0x1b), 0xff000000);
}

static void edges(void **state)
{
    (void)state;
    apic_on(0);
    ioapic_route(4, 0x31);
    irq_raise(&guest, 4);
    assert_int_equal(take(0), 0x31);
    eoi();
    assert_int_equal(take(0), -1);
    irq_lower(&guest, 4);
    irq_raise(&guest, 4);
    assert_int_equal(take(0), 0x31);
    eoi();
    ioapic_set(0x10 + 8, MASKED | 0x31);
    irq_lower(&guest, 4);
    irq_raise(&guest, 4);
    ioapic_set(0x10 + 8, 0x31);
    assert_int_equal(take(0), -1); // the masked edge is lost
}

static void pit_comes_on_pin_2(void **state)
{
    (void)state;
    apic_on(0);
    ioapic_route(0, 0x30);
    ioapic_route(2, 0x32);
    irq_raise(&guest, 0);
    assert_int_equal(take(0), 0x32);
    assert_int_equal(take(0), -1);
}

static void levels(void **state)
{
    (void)state;
    apic_on(0);
    ioapic_route(9, LEVEL | 0x39);
    irq_raise(&guest, 9);
    assert_int_equal(low(9), LEVEL | REMOTE_IRR | 0x39);
    assert_int_equal(take(0), 0x39);
    assert_true(apic_get(0x180 + 0x10) & BIT(0x39 - 32)); // TMR
    eoi();
    assert_int_equal(take(0), 0x39); // sampled again
    irq_lower(&guest, 9);
    eoi();
    assert_int_equal(take(0), -1);
    assert_int_equal(low(9), LEVEL | 0x39);
}

static void level_waits_for_its_mask(void **state)
{
    (void)state;
    apic_on(0);
    ioapic_route(16, MASKED | LEVEL | 0x40);
    irq_line_set(&guest, 16, 1, true);
    assert_int_equal(take(0), -1);
    ioapic_set(0x10 + 32, LEVEL | 0x40);
    assert_int_equal(take(0), 0x40);
}

static void level_waits_for_its_apic(void **state)
{
    (void)state;
    ioapic_route(16, LEVEL | 0x40);
    irq_line_set(&guest, 16, 1, true); // the local APIC is disabled: not accepted
    assert_int_equal(low(16), LEVEL | 0x40);
    apic_on(0);
    ioapic_set(0x10 + 32, LEVEL | 0x40);
    assert_int_equal(take(0), 0x40);
}

static void eoi_register_and_trigger_trick(void **state)
{
    (void)state;
    apic_on(0);
    ioapic_route(9, LEVEL | 0x39);
    irq_raise(&guest, 9);
    irq_lower(&guest, 9);
    bus_mmio_write(&guest, IOAPIC_GPA + 0x40, 4, 0x39);
    assert_int_equal(low(9), LEVEL | 0x39);
    irq_raise(&guest, 9);
    assert_true(low(9) & REMOTE_IRR);
    ioapic_set(0x10 + 18, MASKED | 0x39);
    ioapic_set(0x10 + 18, MASKED | LEVEL | 0x39);
    assert_false(low(9) & REMOTE_IRR);
}

static void destinations(void **state)
{
    (void)state;
    for (u32 i = 0; i < 4; i++) {
        apic_on(i);
        current_vcpu = &vcpus[i];
        apic_set(0xd0, 1u << (24 + i));
    }
    ioapic_route(5, 3ull << 56 | 0x35);
    irq_raise(&guest, 5);
    assert_int_equal(take(3), 0x35);
    ioapic_route(6, 6ull << 56 | LOGICAL | 0x36);
    irq_raise(&guest, 6);
    assert_int_equal(take(1), 0x36);
    assert_int_equal(take(2), 0x36);
    ioapic_route(7, 0x0full << 56 | LOGICAL | 0x100 | 0x37);
    irq_raise(&guest, 7);
    u32 who = 0;
    for (u32 i = 0; i < 4; i++)
        who += take(i) == 0x37;
    assert_int_equal(who, 1);
}

static void messages(void **state)
{
    (void)state;
    for (u32 i = 0; i < 4; i++)
        apic_on(i);
    msi_send(&guest, 0xfee02000, 0x41);
    assert_int_equal(take(2), 0x41);
    msi_send(&guest, 0xfee02000, 0x400);
    assert_true(vcpus[2].nmi_pending);
    msi_send(&guest, 0xfed02000, 0x51); // no local APIC's address
    msi_send(&guest, 0x1fee02000, 0x51);
    msi_send(&guest, 0xfee02000, 0x8051); // de-assertion of a level
    assert_int_equal(take(2), -1);
}

static void routes_move(void **state)
{
    (void)state;
    apic_on(0);
    ioapic_route(9, LEVEL | 0x39);
    ioapic_route(4, 0x34);
    irq_raise(&guest, 9);
    assert_int_equal(take(0), 0x39);
    struct device *d = dev("pm"); // holds line 9 up on its own account
    irq_lower(&guest, 9);
    vpm_power_button(d);
    bus_io_write(&guest, 0x602, 2, 0x100);
    move_pc(1000);
    assert_int_equal(take(0), -1); // in service still, and not sent twice
    assert_true(low(9) & REMOTE_IRR);
    eoi();
    assert_int_equal(take(0), 0x39); // the line is up there too
    bus_io_write(&guest, 0x600, 2, 0x100);
    eoi();
    assert_int_equal(take(0), -1);
    irq_raise(&guest, 4);
    assert_int_equal(take(0), 0x34);
}

static void impossible_states_are_refused(void **state)
{
    (void)state;
    const struct state_table *t = dev("ioapic")->ops->state;
    u8 *copy = malloc(t->struct_size);
    for (const struct state_field *f = t->fields; f->kind != FIELD_END; f++) {
        memcpy(copy, dev("ioapic")->priv, t->struct_size);
        if (!strcmp(f->name, "entry")) {
            memcpy(copy + f->offset, &(u64){REMOTE_IRR | 0x33}, 8);
            assert_refused(t, copy, "redirection");
            memcpy(copy + f->offset, &(u64){BIT(20)}, 8);
            assert_refused(t, copy, "redirection");
        } else if (!strcmp(f->name, "lines")) {
            memcpy(copy + f->offset, &(u32){BIT(24)}, 4);
            assert_refused(t, copy, "lines");
        } else if (!strcmp(f->name, "id")) {
            copy[f->offset] = 1;
            assert_refused(t, copy, "ID register");
        }
    }
    free(copy);
}

int main(void)
{
#define T(f)  cmocka_unit_test_setup_teardown(f, pc_one, pc_destroy)
#define T4(f) cmocka_unit_test_setup_teardown(f, pc_four, pc_destroy)
    const struct CMUnitTest tests[] = {
        T(registers),
        T(edges),
        T(pit_comes_on_pin_2),
        T(levels),
        T(level_waits_for_its_mask),
        T(level_waits_for_its_apic),
        T(eoi_register_and_trigger_trick),
        T4(destinations),
        T4(messages),
        T(routes_move),
        T(impossible_states_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
