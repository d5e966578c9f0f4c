// SPDX-License-Identifier: MIT
// The two 8259As: priorities, modes, edges and levels, polling, and their way to the CPU.
// sources: arch/x86/platform/*.c kernel/guest/bus.c kernel/guest/device.c
// sources: kernel/guest/state.c kernel/guest/gtimer.c
#include "tests/unit/fake_platform.h"

#define ALL 0xffff

static void pulse(u32 line)
{
    irq_raise(&guest, line);
    irq_lower(&guest, line);
}

static void eoi(u32 line)
{
    if (line >= 8)
        out8(0xa0, 0x20);
    out8(0x20, 0x20);
}

static void silent_before_initialisation(void **state)
{
    (void)state;
    pulse(1);
    assert_int_equal(take(0), -1);
}

static void priority_and_nesting(void **state)
{
    (void)state;
    pics_on(ALL);
    pulse(4);
    pulse(1);
    assert_int_equal(take(0), 0x21);
    assert_int_equal(take(0), -1); // 4 is less urgent than 1 in service
    pulse(0);
    assert_int_equal(take(0), 0x20);
    eoi(0);
    assert_int_equal(take(0), -1);
    eoi(1);
    assert_int_equal(take(0), 0x24);
    eoi(4);
    assert_int_equal(take(0), -1);
}

static void cascade(void **state)
{
    (void)state;
    pics_on(ALL);
    pulse(8);
    pulse(14);
    pulse(3);
    assert_int_equal(take(0), 0x28);
    assert_int_equal(take(0), -1);
    eoi(8);
    assert_int_equal(take(0), 0x2e);
    eoi(14);
    assert_int_equal(take(0), 0x23);
}

static void masks_hold_back(void **state)
{
    (void)state;
    pics_on(0);
    pulse(4);
    assert_int_equal(take(0), -1);
    out8(0x20, 0x0a);
    assert_int_equal(in8(0x20), 1 << 4);
    out8(0x21, 0xef);
    assert_int_equal(in8(0x21), 0xef);
    assert_int_equal(take(0), 0x24);
    out8(0x20, 0x0b);
    assert_int_equal(in8(0x20), 1 << 4);
}

static void level_triggered(void **state)
{
    (void)state;
    pics_on(ALL);
    out8(0x4d1, 0x02); // line 9
    assert_int_equal(in8(0x4d1), 0x02);
    out8(0x4d0, 0xff);
    assert_int_equal(in8(0x4d0), 0xf8);
    out8(0x4d0, 0);
    irq_raise(&guest, 9);
    assert_int_equal(take(0), 0x29);
    eoi(9);
    assert_int_equal(take(0), 0x29); // still up
    irq_lower(&guest, 9);
    eoi(9);
    assert_int_equal(take(0), -1);
    irq_raise(&guest, 9);
    irq_lower(&guest, 9); // withdrawn
    assert_int_equal(take(0), -1);
}

static void withdrawn_is_spurious(void **state)
{
    (void)state;
    pics_on(ALL);
    out8(0x4d1, 0x02);
    irq_raise(&guest, 9);
    assert_int_equal(platform_irq_peek(&vcpus[0]), 0);
    out8(0x21, 0xff); // masked between the CPU's look and its INTA
    assert_int_equal(vpic_ack(platform_of(&guest)), 0x27);
}

static void edge_comes_once(void **state)
{
    (void)state;
    pics_on(ALL);
    irq_raise(&guest, 4);
    assert_int_equal(take(0), 0x24);
    eoi(4);
    irq_raise(&guest, 4);
    assert_int_equal(take(0), -1);
    irq_lower(&guest, 4);
    irq_raise(&guest, 4);
    assert_int_equal(take(0), 0x24);
}

static void sources_are_ored(void **state)
{
    (void)state;
    pics_on(ALL);
    irq_line_set(&guest, 5, 1, true);
    irq_line_set(&guest, 5, 2, true);
    assert_int_equal(take(0), 0x25);
    eoi(5);
    irq_line_set(&guest, 5, 1, false);
    irq_line_set(&guest, 5, 1, true); // the line never fell
    assert_int_equal(take(0), -1);
}

static void rotation_and_set_priority(void **state)
{
    (void)state;
    pics_on(ALL);
    pulse(3);
    assert_int_equal(take(0), 0x23);
    out8(0x20, 0xa0); // rotate on non-specific EOI: 3 is the least urgent now
    pulse(3);
    pulse(5);
    assert_int_equal(take(0), 0x25);
    out8(0x20, 0x65); // specific EOI
    assert_int_equal(take(0), 0x23);
    out8(0x20, 0x63);
    out8(0x20, 0xc0); // set priority: 0 is the least urgent
    pulse(0);
    pulse(7);
    assert_int_equal(take(0), 0x27);
}

static void auto_eoi(void **state)
{
    (void)state;
    pics_on(ALL);
    static const u8 words[] = {0x13, 0x40, 0x03}; // single, ICW4 with AEOI
    out8(0x20, words[0]);
    out8(0x21, words[1]);
    out8(0x21, words[2]);
    out8(0x21, 0);
    out8(0x20, 0x80); // rotate in auto EOI
    pulse(1);
    pulse(3);
    assert_int_equal(take(0), 0x41);
    pulse(1);
    assert_int_equal(take(0), 0x43); // 1 has become the least urgent
    assert_int_equal(take(0), 0x41);
}

static void special_mask(void **state)
{
    (void)state;
    pics_on(ALL);
    pulse(1);
    assert_int_equal(take(0), 0x21);
    out8(0x20, 0x68); // special mask mode
    out8(0x21, 0x02); // and 1 is masked: less urgent ones may come
    pulse(5);
    assert_int_equal(take(0), 0x25);
}

static void special_fully_nested(void **state)
{
    (void)state;
    pics_on(ALL);
    out8(0x20, 0x11);
    out8(0x21, 0x20);
    out8(0x21, 0x04);
    out8(0x21, 0x11); // special fully nested
    out8(0x21, 0);
    pulse(12);
    assert_int_equal(take(0), 0x2c);
    pulse(8); // more urgent within the slave
    assert_int_equal(take(0), 0x28);
}

static void polling(void **state)
{
    (void)state;
    pics_on(ALL);
    out8(0x20, 0x0c);
    assert_int_equal(in8(0x20), 0);
    pulse(6);
    out8(0x20, 0x0c);
    assert_int_equal(in8(0x20), 0x86);
    out8(0x20, 0x0b);
    assert_int_equal(in8(0x20), 0x40);
    assert_int_equal(take(0), -1);
}

static void raising_kicks_the_boot_cpu(void **state)
{
    (void)state;
    pics_on(ALL);
    current_vcpu = NULL; // a thread of the host
    vcpus[0].kick = false;
    pulse(4);
    assert_true(vcpus[0].kick);
    assert_true(kicks > 0);
}

static void survives_a_move(void **state)
{
    (void)state;
    pics_on(ALL);
    out8(0x4d1, 0x02);
    pulse(4); // waits
    pulse(1);
    assert_int_equal(take(0), 0x21);
    move_pc(1000);
    assert_int_equal(take(0), -1);
    assert_int_equal(in8(0x4d1), 0x02);
    eoi(1);
    assert_int_equal(take(0), 0x24);
}

static void impossible_states_are_refused(void **state)
{
    (void)state;
    struct device *d = dev("pic");
    out8(0x4d1, 0x02);
    irq_raise(&guest, 9);
    const struct state_table *t = d->ops->state;
    u8 *bytes = d->priv, *copy = malloc(t->struct_size);
    for (const struct state_field *f = t->fields; f->kind != FIELD_END; f++) {
        memcpy(copy, bytes, t->struct_size);
        if (!strcmp(f->name, "chip[MASTER].base")) {
            copy[f->offset] = 0x21;
            assert_refused(t, copy, "multiple of 8");
        } else if (!strcmp(f->name, "chip[SLAVE].lines")) {
            copy[f->offset] = 0;
            assert_refused(t, copy, "follow its line");
        } else if (!strcmp(f->name, "chip[MASTER].elcr")) {
            copy[f->offset] = 1;
            assert_refused(t, copy, "edge-triggered");
        } else if (!strcmp(f->name, "chip[SLAVE].icw_next")) {
            copy[f->offset] = 1;
            assert_refused(t, copy, "initialisation word");
            copy[f->offset] = 5;
            assert_refused(t, copy, "icw_next");
        }
    }
    free(copy);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, pc_one, pc_destroy)
    const struct CMUnitTest tests[] = {
        T(silent_before_initialisation),
        T(priority_and_nesting),
        T(cascade),
        T(masks_hold_back),
        T(level_triggered),
        T(withdrawn_is_spurious),
        T(edge_comes_once),
        T(sources_are_ored),
        T(rotation_and_set_priority),
        T(auto_eoi),
        T(special_mask),
        T(special_fully_nested),
        T(polling),
        T(raising_kicks_the_boot_cpu),
        T(survives_a_move),
        T(impossible_states_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
