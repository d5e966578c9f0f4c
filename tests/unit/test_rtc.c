// SPDX-License-Identifier: MIT
// The real-time clock: calendar, formats, setting, its three interrupts, CMOS memory, moves.
// sources: arch/x86/platform/*.c kernel/guest/bus.c kernel/guest/device.c
// sources: kernel/guest/state.c kernel/guest/gtimer.c
#include <time.h>

#include "arch/x86/platform/rtc_time.h"
#include "tests/unit/fake_platform.h"

#define SECOND NS_PER_SEC

static u8 get(u8 reg)
{
    out8(0x70, reg);
    return in8(0x71);
}

static void set(u8 reg, u8 value)
{
    out8(0x70, reg);
    out8(0x71, value);
}

static void eoi(void)
{
    out8(0xa0, 0x20);
    out8(0x20, 0x20);
}

static void calendar_agrees_with_libc(void **state)
{
    (void)state;
    for (u64 t = 0; t < 253402300800ull; t += 86400 * 13 + 12345) {
        struct tm tm;
        time_t tt = (time_t)t;
        gmtime_r(&tt, &tm);
        struct rtc_fields f = rtc_from_unix(t);
        assert_int_equal(f.second, tm.tm_sec);
        assert_int_equal(f.minute, tm.tm_min);
        assert_int_equal(f.hour, tm.tm_hour);
        assert_int_equal(f.weekday, tm.tm_wday + 1);
        assert_int_equal(f.day, tm.tm_mday);
        assert_int_equal(f.month, tm.tm_mon + 1);
        assert_int_equal(f.year, tm.tm_year + 1900);
        assert_int_equal(rtc_to_unix(&f), t);
    }
    struct rtc_fields far = {.year = 16665, .month = 255, .day = 255, .hour = 99};
    assert_in_range(rtc_to_unix(&far), 253370764800ull, 253402300799ull);
}

static u32 slow_delay(const struct rtc_alarm *a, u32 now)
{
    for (u32 d = 1; d <= 86400; d++) {
        u32 t = (now + d) % 86400;
        if ((a->second == ALARM_ANY || a->second == t % 60) &&
            (a->minute == ALARM_ANY || a->minute == t / 60 % 60) &&
            (a->hour == ALARM_ANY || a->hour == t / 3600))
            return d;
    }
    return 0;
}

static void alarm_delays(void **state)
{
    (void)state;
    static const u32 values[] = {0, 7, 23, 59, 60, 75, ALARM_ANY};
    srand(1);
    for (u32 i = 0; i < 3000; i++) {
        struct rtc_alarm a = {values[rand() % 7], values[rand() % 7], values[rand() % 7]};
        u32 now = (u32)rand() % 86400;
        assert_int_equal(rtc_alarm_delay(&a, now), slow_delay(&a, now));
    }
}

static void shows_the_wall_clock(void **state)
{
    (void)state;
    assert_int_equal(get(4), 0x22);
    assert_int_equal(get(2), 0x13);
    assert_int_equal(get(0), 0x20);
    assert_int_equal(get(6), 3); // Tuesday
    assert_int_equal(get(7), 0x14);
    assert_int_equal(get(8), 0x11);
    assert_int_equal(get(9), 0x23);
    assert_int_equal(get(0x32), 0x20);
    assert_int_equal(get(0xd), 0x80);
    run_for(SECOND * 100 - 1);
    assert_int_equal(get(0), 0x59);
    assert_int_equal(get(2), 0x14);
    run_for(1);
    assert_int_equal(get(0), 0x00);
    assert_int_equal(get(2), 0x15);
}

static void formats(void **state)
{
    (void)state;
    set(0xb, 0x06); // binary, 24 hours
    assert_int_equal(get(4), 22);
    assert_int_equal(get(9), 23);
    set(0xb, 0x00); // BCD, 12 hours
    assert_int_equal(get(4), 0x90);
    run_for(SECOND * 3600 * 2);
    assert_int_equal(get(4), 0x12); // after midnight
    set(0xb, 0x04);
    assert_int_equal(get(4), 12);
}

static void setting_with_set_bit(void **state)
{
    (void)state;
    run_for(SECOND * 3 / 10);
    set(0xb, 0x82);
    set(4, 0x23);
    set(2, 0x59);
    set(0, 0x58);
    run_for(SECOND * 10);
    assert_int_equal(get(0), 0x58); // stands
    set(0xb, 0x02);
    assert_int_equal(get(0), 0x58);
    run_for(SECOND * 7 / 10);
    assert_int_equal(get(0), 0x59); // the phase stayed
    run_for(SECOND);
    assert_int_equal(get(4), 0x00);
    assert_int_equal(get(7), 0x15); // the next day
}

static void setting_with_the_divider(void **state)
{
    (void)state;
    run_for(SECOND * 3 / 10);
    set(0xb, 0x82);
    set(0xa, 0x76); // in reset, as Linux does it
    set(0, 0x30);
    set(0xb, 0x02);
    run_for(SECOND * 2);
    set(0xa, 0x26);
    assert_int_equal(get(0), 0x30);
    run_for(SECOND / 2 - 1);
    assert_int_equal(get(0), 0x30);
    run_for(1);
    assert_int_equal(get(0), 0x31); // half a second after the release
}

static void update_in_progress(void **state)
{
    (void)state;
    assert_false(get(0xa) & 0x80);
    run_for(SECOND - 2000000);
    assert_true(get(0xa) & 0x80);
    run_for(2000000);
    assert_false(get(0xa) & 0x80);
    set(0xb, 0x82);
    run_for(SECOND - 2000000);
    assert_false(get(0xa) & 0x80);
}

static void update_interrupts(void **state)
{
    (void)state;
    pics_on(1 << 8);
    get(0xc);
    set(0xb, 0x12);
    run_for(SECOND - 1);
    assert_int_equal(take(0), -1);
    run_for(1);
    assert_int_equal(take(0), 0x28);
    eoi();
    assert_int_equal(get(0xc) & 0x90, 0x90);
    assert_int_equal(get(0xc), 0);
    run_for(SECOND);
    assert_int_equal(take(0), 0x28);
    eoi();
    run_for(SECOND * 5);
    assert_int_equal(take(0), -1); // the flag is still up
}

static void flags_without_interrupts(void **state)
{
    (void)state;
    get(0xc);
    run_for(SECOND);
    assert_int_equal(get(0xc) & 0x50, 0x50);
    assert_null(guest.clock.timers); // nobody has to be woken for them
}

static void periodic_interrupts(void **state)
{
    (void)state;
    pics_on(1 << 8);
    set(0xa, 0x2a); // 64 Hz
    set(0xb, 0x42);
    u32 n = 0;
    for (u32 i = 0; i < 5000; i++) {
        run_for(NS_PER_MS);
        if (take(0) == 0x28) {
            get(0xc);
            eoi();
            n++;
        }
    }
    assert_int_equal(n, 64 * 5);
    set(0xa, 0x20); // rate 0: none
    run_for(SECOND);
    assert_int_equal(take(0), -1);
}

static void alarm_interrupts(void **state)
{
    (void)state;
    pics_on(1 << 8);
    set(1, 0x50);
    set(3, 0x13);
    set(5, 0x22);
    get(0xc);
    set(0xb, 0x22);
    run_for(SECOND * 30 - 1);
    assert_int_equal(take(0), -1);
    run_for(1);
    assert_int_equal(take(0), 0x28);
    eoi();
    assert_int_equal(get(0xc) & 0xa0, 0xa0);
    set(1, 0xff);
    set(3, 0xff);
    set(5, 0xff); // every second
    run_for(SECOND);
    assert_int_equal(take(0), 0x28);
}

static void cmos_memory(void **state)
{
    (void)state;
    assert_int_equal(get(0x15) | get(0x16) << 8, 640);
    assert_int_equal(get(0x34) | get(0x35) << 8, 240 * 16);
    set(0x40, 0xa5);
    assert_int_equal(get(0x40), 0xa5);
    assert_int_equal(get(0xc0), 0xa5); // bit 7 is the NMI mask
    bus_io_write(&guest, 0x70, 2, 0x5a41);
    assert_int_equal(get(0x41), 0x5a);
    set(0xd, 0);
    assert_int_equal(get(0xd), 0x80);
}

static void time_goes_on_over_a_move(void **state)
{
    (void)state;
    pics_on(1 << 8);
    set(0xb, 0x12);
    run_for(SECOND * 5 / 2);
    get(0xc);
    assert_int_equal(take(0), 0x28);
    eoi();
    move_pc(SECOND * 10);
    run_for(0);
    assert_int_equal(take(0), 0x28); // one for all that were missed
    get(0xc);
    eoi();
    assert_int_equal(take(0), -1);
    assert_int_equal(get(0), 0x32);
    run_for(SECOND / 2);
    assert_int_equal(take(0), 0x28);
    assert_int_equal(get(0), 0x33);
}

// The vCPU's thread may stand still between any two instructions, and a period end meanwhile.
static void a_period_that_ends_while_the_flags_are_read_has_its_edge(void **state)
{
    (void)state;
    pics_on(1 << 8);
    set(0xa, 0x2a); // 64 Hz
    set(0xb, 0x42);
    for (u32 i = 0; i < 20; i++) {
        run_for(SECOND / 64 + 1);
        assert_int_equal(take(0), 0x28);
        clock_step = SECOND / 64;
        get(0xc);
        clock_step = 0;
        eoi();
    }
}

static void periodic_after_a_move(void **state)
{
    (void)state;
    pics_on(1 << 8);
    set(0xa, 0x26); // 1024 Hz
    set(0xb, 0x42);
    run_for(NS_PER_MS / 2);
    move_pc(SECOND);
    run_for(0);
    u32 n = 0;
    for (u32 i = 0; i < 10000; i++) {
        run_for(100 * NS_PER_US);
        if (take(0) == 0x28) {
            get(0xc);
            eoi();
            n++;
        }
    }
    assert_in_range(n, 1024, 1025); // no storm, no stall
}

static void a_guest_cannot_make_itself_unmovable(void **state)
{
    (void)state;
    for (u32 reg = 0; reg < 128; reg++)
        for (u32 value = 0; value < 256; value += 15)
            set((u8)reg, (u8)value);
    for (u32 b = 0; b < 256; b += 2) {
        set(0xb, (u8)b);
        run_for(SECOND / 3);
        move_pc(SECOND);
    }
}

static void impossible_states_are_refused(void **state)
{
    (void)state;
    const struct state_table *t = dev("rtc")->ops->state;
    u8 *copy = malloc(t->struct_size);
    for (const struct state_field *f = t->fields; f->kind != FIELD_END; f++) {
        memcpy(copy, dev("rtc")->priv, t->struct_size);
        if (!strcmp(f->name, "cmos")) {
            copy[f->offset + 0xa] |= 0x80;
            assert_refused(t, copy, "register A");
            copy[f->offset + 0xa] &= 0x7f;
            copy[f->offset + 0xc] = 1;
            assert_refused(t, copy, "register C");
            copy[f->offset + 0xc] = 0;
            copy[f->offset + 0xd] = 0;
            assert_refused(t, copy, "register D");
        } else if (!strcmp(f->name, "base_second")) {
            memset(copy + f->offset, 0xff, 8);
            assert_refused(t, copy, "base_second");
        }
    }
    free(copy);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, pc_one, pc_destroy)
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(calendar_agrees_with_libc),
        cmocka_unit_test(alarm_delays),
        T(shows_the_wall_clock),
        T(formats),
        T(setting_with_set_bit),
        T(setting_with_the_divider),
        T(update_in_progress),
        T(update_interrupts),
        T(flags_without_interrupts),
        T(periodic_interrupts),
        T(alarm_interrupts),
        T(cmos_memory),
        T(time_goes_on_over_a_move),
        T(a_period_that_ends_while_the_flags_are_read_has_its_edge),
        T(periodic_after_a_move),
        T(a_guest_cannot_make_itself_unmovable),
        T(impossible_states_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
