// SPDX-License-Identifier: MIT
// The 8254: counts, modes, latches, gate and speaker port, and IRQ 0 without stall or storm.
// sources: arch/x86/platform/*.c kernel/guest/bus.c kernel/guest/device.c
// sources: kernel/guest/state.c kernel/guest/gtimer.c
#include "tests/unit/fake_platform.h"

#define CONTROL 0x43

static void load(u32 n, u8 mode, u16 count)
{
    out8(CONTROL, (u8)(n << 6 | 0x30 | mode << 1));
    out8((u16)(0x40 + n), (u8)count);
    out8((u16)(0x40 + n), (u8)(count >> 8));
}

static u16 latch(u32 n)
{
    out8(CONTROL, (u8)(n << 6));
    u16 low = in8((u16)(0x40 + n));
    return (u16)(low | in8((u16)(0x40 + n)) << 8);
}

static u64 counts(u64 n) // in ticks
{
    return mul_div_up(n, guest.clock.tsc_hz, PIT_HZ);
}

static u8 status(u32 n)
{
    out8(CONTROL, (u8)(0xe0 | 2u << n));
    return in8((u16)(0x40 + n));
}

static void counts_down(void **state)
{
    (void)state;
    load(2, 0, 10000);
    out8(0x61, 1);
    run_for(counts(100));
    assert_int_equal(latch(2), 9900);
    run_for(counts(900));
    assert_in_range(latch(2), 8999, 9000);
}

static void latched_value_stays(void **state)
{
    (void)state;
    load(0, 2, 10000);
    run_for(counts(100));
    out8(CONTROL, 0);
    run_for(counts(500));
    u16 low = in8(0x40);
    assert_int_equal(low | in8(0x40) << 8, 9900);
    low = in8(0x40);
    assert_in_range(low | in8(0x40) << 8, 9399, 9400);
}

static void one_byte_accesses(void **state)
{
    (void)state;
    out8(CONTROL, 0x14); // channel 0, low byte, mode 2
    out8(0x40, 200);
    run_for(counts(50));
    assert_int_equal(in8(0x40), 150);
    out8(CONTROL, 0x24); // high byte
    out8(0x40, 2);
    run_for(counts(12));
    assert_int_equal(in8(0x40), 1);
}

static void bcd(void **state)
{
    (void)state;
    out8(CONTROL, 0x35); // channel 0, both, mode 2, BCD
    out8(0x40, 0x00);
    out8(0x40, 0x20);
    run_for(counts(1));
    assert_int_equal(latch(0), 0x1999);
    out8(0x40, 0);
    out8(0x40, 0); // 10000
    assert_int_equal(latch(0), 0x0000);
    run_for(counts(1));
    assert_int_equal(latch(0), 0x9999);
}

static void read_back(void **state)
{
    (void)state;
    out8(CONTROL, 0x34);
    assert_int_equal(status(0) & 0x7f, 0x40 | 0x34); // null count
    load(0, 2, 1000);
    run_for(counts(10));
    out8(CONTROL, 0xc2); // status and count of channel 0
    assert_int_equal(in8(0x40), 0x80 | 0x34);
    assert_int_equal(in8(0x40), 990 & 0xff);
    assert_int_equal(in8(0x40), 990 >> 8);
}

static void mode0_interrupts_once(void **state)
{
    (void)state;
    pics_on(1);
    load(0, 0, 1000);
    assert_false(status(0) & 0x80);
    run_for(counts(1000) - 1);
    assert_int_equal(take(0), -1);
    run_for(1);
    assert_int_equal(take(0), 0x20);
    assert_true(status(0) & 0x80);
    out8(0x20, 0x20);
    run_for(counts(200000));
    assert_int_equal(take(0), -1);
    out8(0x40, 100); // the first byte lowers the output
    assert_false(status(0) & 0x80);
    out8(0x40, 0);
    run_for(counts(100));
    assert_int_equal(take(0), 0x20);
}

static void mode4_strobes_once(void **state)
{
    (void)state;
    pics_on(1);
    load(0, 4, 1000);
    run_for(counts(1002));
    assert_int_equal(take(0), 0x20);
    out8(0x20, 0x20);
    run_for(counts(200000));
    assert_int_equal(take(0), -1);
}

static void periodic(u8 mode)
{
    guest.clock.tsc_hz = 2199999991ull;
    pics_on(1);
    load(0, mode, 11932);
    assert_int_equal(take(0), 0x20); // the control word raised the output
    out8(0x20, 0x20);
    u32 ticks = 0;
    u64 seconds = 20;
    for (u64 i = 0; i < seconds * 1000; i++) {
        run_for(guest.clock.tsc_hz / 1000);
        if (take(0) == 0x20) {
            out8(0x20, 0x20);
            ticks++;
        }
    }
    assert_int_equal(ticks, mul_div(now_ticks, PIT_HZ, guest.clock.tsc_hz) / 11932);
}

static void mode2_does_not_drift(void **state)
{
    (void)state;
    periodic(2);
}

static void mode3_does_not_drift(void **state)
{
    (void)state;
    periodic(3);
}

static void square_wave(void **state)
{
    (void)state;
    load(2, 3, 1000);
    out8(0x61, 1);
    assert_true(in8(0x61) & 0x20);
    run_for(counts(501));
    assert_false(in8(0x61) & 0x20);
    run_for(counts(500));
    assert_true(in8(0x61) & 0x20);
    out8(0x61, 0); // without the gate the output is high
    run_for(counts(600));
    assert_true(in8(0x61) & 0x20);
}

static void gate_of_the_speaker(void **state)
{
    (void)state;
    load(2, 0, 1000);
    run_for(counts(500));
    assert_int_equal(latch(2), 1000); // no gate yet
    out8(0x61, 1);
    assert_int_equal(in8(0x61) & 3, 1);
    run_for(counts(300));
    out8(0x61, 0);
    run_for(counts(500));
    assert_in_range(latch(2), 699, 700); // it stands still
    assert_false(in8(0x61) & 0x20);
    out8(0x61, 1);
    run_for(counts(701));
    assert_true(in8(0x61) & 0x20);
}

static void gate_triggers_mode1(void **state)
{
    (void)state;
    load(2, 1, 1000);
    assert_true(in8(0x61) & 0x20);
    out8(0x61, 1);
    assert_false(in8(0x61) & 0x20);
    run_for(counts(600));
    out8(0x61, 0);
    out8(0x61, 1); // again, from the top
    run_for(counts(600));
    assert_false(in8(0x61) & 0x20);
    run_for(counts(401));
    assert_true(in8(0x61) & 0x20);
}

static void refresh_bit_toggles(void **state)
{
    (void)state;
    u32 changes = 0;
    u8 before = in8(0x61) & 0x10;
    for (u32 i = 0; i < 1000; i++) {
        run_for(5000);
        changes += (in8(0x61) & 0x10) != before;
        before = in8(0x61) & 0x10;
    }
    assert_in_range(changes, 325, 336); // 5 ms at 66287 Hz
}

static void missed_periods_are_one_interrupt(void **state)
{
    (void)state;
    pics_on(1);
    load(0, 2, 11932);
    run_for(counts(1000));
    move_pc(counts(11932 * 50));
    run_for(0);
    assert_int_equal(take(0), 0x20);
    out8(0x20, 0x20);
    assert_int_equal(take(0), -1);
    run_for(counts(11932 - 1000) - 3);
    assert_int_equal(take(0), -1); // and the phase is what it was
    run_for(5);
    assert_int_equal(take(0), 0x20);
}

static void one_shot_moves(void **state)
{
    (void)state;
    pics_on(1);
    load(0, 0, 10000);
    run_for(counts(4000));
    move_pc(counts(1000));
    assert_in_range(latch(0), 4999, 5000);
    run_for(counts(5000) - 2);
    assert_int_equal(take(0), -1);
    run_for(4);
    assert_int_equal(take(0), 0x20);
    out8(0x20, 0x20);
    move_pc(1000);
    run_for(counts(100000));
    assert_int_equal(take(0), -1); // the output is up there too: no second edge
}

static void half_written_moves(void **state)
{
    (void)state;
    out8(CONTROL, 0xb0);
    out8(0x42, 0x34);
    move_pc(0);
    out8(0x42, 0x12);
    assert_int_equal(latch(2), 0x1234);
    out8(CONTROL, 0x80);
    assert_int_equal(in8(0x42), 0x34);
    move_pc(0);
    assert_int_equal(in8(0x42), 0x12);
}

static void fast_periods_leave_time(void **state)
{
    (void)state;
    pics_on(1);
    load(0, 2, 1);
    u32 ticks = 0;
    for (u32 i = 0; i < 1000; i++) {
        run_for(1000);
        if (take(0) >= 0) {
            out8(0x20, 0x20);
            ticks++;
        }
    }
    assert_in_range(ticks, 15, 21);
}

static void impossible_states_are_refused(void **state)
{
    (void)state;
    const struct state_table *t = dev("pit")->ops->state;
    load(0, 2, 1000);
    u8 *copy = malloc(t->struct_size);
    for (const struct state_field *f = t->fields; f->kind != FIELD_END; f++) {
        memcpy(copy, dev("pit")->priv, t->struct_size);
        if (!strcmp(f->name, "channel[0].reload")) {
            memcpy(copy + f->offset, &(u32){0}, 4);
            assert_refused(t, copy, "reload");
            memcpy(copy + f->offset, &(u32){1}, 4);
            assert_refused(t, copy, "impossible count");
        } else if (!strcmp(f->name, "channel[0].loaded")) {
            copy[f->offset] = 0;
            assert_refused(t, copy, "without a count");
        } else if (!strcmp(f->name, "channel[1].access")) {
            copy[f->offset] = 0;
            assert_refused(t, copy, "access");
        }
    }
    free(copy);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, pc_one, pc_destroy)
    const struct CMUnitTest tests[] = {
        T(counts_down),
        T(latched_value_stays),
        T(one_byte_accesses),
        T(bcd),
        T(read_back),
        T(mode0_interrupts_once),
        T(mode4_strobes_once),
        T(mode2_does_not_drift),
        T(mode3_does_not_drift),
        T(square_wave),
        T(gate_of_the_speaker),
        T(gate_triggers_mode1),
        T(refresh_bit_toggles),
        T(missed_periods_are_one_interrupt),
        T(one_shot_moves),
        T(half_written_moves),
        T(fast_periods_leave_time),
        T(impossible_states_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
