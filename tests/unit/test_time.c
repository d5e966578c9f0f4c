// SPDX-License-Identifier: MIT
// The clock's arithmetic and the timer queue.

// sources: kernel/time.c kernel/ktimer.c
#include "tests/unit/unit.h"

#include "kernel/time.h"
#include "tests/unit/fake_cpu.h"

static u64 armed; // what the hardware was last told
static unsigned arm_calls;

void arch_timer_arm(u64 deadline_tsc)
{
    armed = deadline_tsc;
    arm_calls++;
}

static void test_conversions(void **state)
{
    (void)state;
    static const u64 rates[] = {1000000,    20000000,   100000000,  999999999,
                                1000000000, 2400000123, 3700000000, 15999999999ull};
    for (size_t i = 0; i < ARRAY_SIZE(rates); i++) {
        time_init(rates[i], 0);
        u64 year = 365 * 86400ull * NS_PER_SEC;
        u64 ticks = ns_to_tsc(year);
        u64 exact = (u64)((unsigned __int128)year * rates[i] / NS_PER_SEC);
        u64 error = exact - ticks;
        assert_true(ticks <= exact && error <= exact / 1000000000ull + 1);
        assert_true(year - tsc_to_ns(ticks) < year / 1000000000ull);
        assert_int_equal(tsc_to_ns(0), 0);
        for (u64 ns = 1; ns < year; ns *= 3) // there and back loses a tick or so, never gains
            assert_true(time_from_tsc(time_to_tsc(ns)) <= ns);
    }
    time_init(1000000000, 5000);
    assert_int_equal(time_from_tsc(5000), 0);
    assert_int_equal(time_from_tsc(4000), 0);
    assert_int_equal(time_from_tsc(6000), 1000);
    assert_int_equal(time_to_tsc(1000), 6000);
}

static int order[16];
static unsigned fired;

struct numbered {
    struct ktimer t;
    int number;
    struct ktimer *victim; // cancelled by it
    u64 again;             // sets itself to this
};

static void note(struct ktimer *t)
{
    struct numbered *n = container_of(t, struct numbered, t);
    assert_false(t->armed);
    order[fired++] = n->number;
    if (n->victim)
        ktimer_cancel(n->victim);
    if (n->again) {
        u64 deadline = n->again;
        n->again = 0;
        ktimer_set(t, deadline, note);
    }
}

static int start(void **state)
{
    (void)state;
    fake_cpu();
    time_init(1000000000, rdtsc());
    fired = 0;
    armed = 0;
    return 0;
}

static void test_order(void **state)
{
    (void)state;
    struct numbered n[4] = {{.number = 0}, {.number = 1}, {.number = 2}, {.number = 3}};
    u64 past = time_ns();
    ktimer_set(&n[2].t, past + 2, note);
    ktimer_set(&n[0].t, past, note);
    ktimer_set(&n[3].t, past + 3600 * NS_PER_SEC, note);
    ktimer_set(&n[1].t, past + 1, note);
    while (time_ns() < past + 3)
        ;
    ktimer_interrupt();
    assert_int_equal(fired, 3);
    for (int i = 0; i < 3; i++)
        assert_int_equal(order[i], i);
    assert_true(n[3].t.armed);
    assert_true(armed >= time_to_tsc(past + 3600 * NS_PER_SEC));
    ktimer_cancel(&n[3].t);
    ktimer_cancel(&n[3].t); // twice is once
    ktimer_interrupt();
    assert_true(armed == ~0ull);
}

static void test_move_and_cancel(void **state)
{
    (void)state;
    struct numbered a = {.number = 1}, b = {.number = 2};
    u64 now = time_ns();
    ktimer_set(&a.t, now + 3600 * NS_PER_SEC, note);
    ktimer_set(&a.t, now, note); // earlier
    b.victim = &a.t;
    ktimer_set(&b.t, now > 0 ? now - 1 : 0, note);
    assert_true(armed <= rdtsc() + 1000); // the past is soon, not never
    ktimer_interrupt();
    assert_int_equal(fired, 1);
    assert_int_equal(order[0], 2);
    assert_false(a.t.armed);
}

static void test_set_from_its_own_function(void **state)
{
    (void)state;
    struct numbered a = {.number = 7, .again = time_ns() + 3600 * NS_PER_SEC};
    ktimer_set(&a.t, time_ns(), note);
    ktimer_interrupt();
    assert_int_equal(fired, 1);
    assert_true(a.t.armed);
    ktimer_cancel(&a.t);
}

static void test_hardware_told_only_about_the_head(void **state)
{
    (void)state;
    struct numbered a = {.number = 1}, b = {.number = 2};
    u64 now = time_ns();
    ktimer_set(&a.t, now + 1000 * NS_PER_SEC, note);
    unsigned before = arm_calls;
    ktimer_set(&b.t, now + 2000 * NS_PER_SEC, note);
    ktimer_cancel(&b.t);
    assert_int_equal(arm_calls, before);
    ktimer_cancel(&a.t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_conversions),
        cmocka_unit_test_setup(test_order, start),
        cmocka_unit_test_setup(test_move_and_cancel, start),
        cmocka_unit_test_setup(test_set_from_its_own_function, start),
        cmocka_unit_test_setup(test_hardware_told_only_about_the_head, start),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
