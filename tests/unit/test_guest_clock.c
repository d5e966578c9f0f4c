// SPDX-License-Identifier: MIT
// The guest clock and its timers, over the real TSC of the machine the test runs on.
// sources: kernel/guest/clock.c kernel/guest/gtimer.c
#include "fake_guest.h"
#include "kernel/guest/fixed.h"

u64 host_tsc_hz = 3000000000ull;
static struct guest *const g = &fake_guest;

static int setup(void **state)
{
    (void)state;
    fake_guest_reset();
    fake_scaling = false;
    fake_kicks = 0;
    return 0;
}

// Lets at least that much of the host's TSC pass; a busy machine may take longer, so bounds from
// above are measured too.
static u64 ticks_pass(u64 ticks)
{
    u64 start = rdtsc();
    while (rdtsc() < start + ticks)
        ;
    return ticks;
}

static void test_frozen_until_thawed(void **state)
{
    (void)state;
    guest_clock_init(g, host_tsc_hz);
    assert_int_equal(guest_clock_now(g), 0);
    assert_int_equal(guest_clock_to_host_tsc(g, 5), ~0ull);
    guest_clock_thaw(g, 1000);
    u64 a = guest_clock_now(g);
    u64 b = guest_clock_now(g);
    assert_true(a >= 1000 && b >= a);
    assert_true(b < 1000 + host_tsc_hz); // it started there, not at the host's value
}

static void test_standing_still_costs_no_guest_time(void **state)
{
    (void)state;
    guest_clock_init(g, host_tsc_hz);
    guest_clock_thaw(g, 0);
    guest_clock_freeze(g);
    u64 stopped = guest_clock_now(g);
    for (u64 until = rdtsc() + 1000000; rdtsc() < until;)
        ;
    assert_int_equal(guest_clock_now(g), stopped);
    u64 before = rdtsc();
    guest_clock_thaw(g, 0);
    u64 after = guest_clock_now(g);
    assert_in_range(after, stopped, stopped + (rdtsc() - before));
    guest_clock_freeze(g);
    u64 again = guest_clock_now(g);
    guest_clock_thaw(g, 50000000);
    assert_true(guest_clock_now(g) >= again + 50000000);
}

static void test_never_back(void **state)
{
    (void)state;
    guest_clock_init(g, host_tsc_hz);
    guest_clock_thaw(g, 0);
    u64 seen = guest_clock_now(g);
    g->clock.offset -= 1000000000; // another CPU whose TSC is behind
    assert_true(guest_clock_now(g) >= seen);
}

static void test_rates(void **state)
{
    (void)state;
    guest_clock_init(g, 2500000000ull);
    assert_int_equal(guest_ticks_to_ns(g, 2500000000ull), NS_PER_SEC);
    assert_int_equal(guest_ns_to_ticks(g, 400), 1000);
    // A year in ticks does not overflow.
    u64 year = 2500000000ull * 86400 * 365;
    assert_int_equal(guest_ticks_to_ns(g, year), NS_PER_SEC * 86400ull * 365);
    assert_int_equal(guest_ticks_to_rate(g, 2500000000ull, 1193182), 1193182);
    // Counts become due no sooner than asked, and are counted as passed when they are due.
    for (u64 n = 1; n < 100000; n += 77) {
        u64 ticks = guest_rate_to_ticks(g, n, 3579545);
        assert_int_equal(guest_ticks_to_rate(g, ticks, 3579545), n);
        assert_int_equal(guest_ticks_to_rate(g, ticks - 1, 3579545), n - 1);
    }
}

static void test_mul_div_saturates(void **state)
{
    (void)state;
    assert_int_equal(mul_div(~0ull, ~0ull, 1), ~0ull);
    assert_int_equal(mul_div(~0ull, 10, 10), ~0ull);
    assert_int_equal(mul_div(7, 3, 2), 10);
    assert_int_equal(mul_div_up(7, 3, 2), 11);
    assert_int_equal(mul_div_up(8, 3, 2), 12);
}

static void test_scaling_only_where_needed_and_possible(void **state)
{
    (void)state;
    guest_clock_init(g, host_tsc_hz + host_tsc_hz / 10000); // 100 ppm
    assert_int_equal(g->clock.scale, 1ull << 48);
    assert_false(g->clock.trapped);
    guest_clock_init(g, host_tsc_hz + host_tsc_hz / 1000);
    assert_true(g->clock.trapped);
    fake_scaling = true;
    guest_clock_init(g, host_tsc_hz / 100 * 30000); // more than that hardware can do
    assert_true(g->clock.trapped);
    guest_clock_init(g, host_tsc_hz / 2);
    assert_int_equal(g->clock.scale, 1ull << 47);
    assert_false(g->clock.trapped);
    guest_clock_thaw(g, 0);
    u64 first = rdtsc(), guest = guest_clock_now(g);
    u64 least = ticks_pass(2000000);
    u64 passed = guest_clock_now(g) - guest;
    assert_in_range(passed, least / 2 - 1, (rdtsc() - first) / 2 + 1);
    u64 before = rdtsc();
    u64 due = guest_clock_to_host_tsc(g, guest_clock_now(g) + 1000000);
    assert_in_range(due, before + 2000000 - 2, rdtsc() + 2000000 + 2);
}

// Without scaling in hardware the guest's ticks still come at the guest's rate: RDTSC exits.
static void test_trapped_tsc_keeps_its_rate(void **state)
{
    (void)state;
    guest_clock_init(g, host_tsc_hz / 4);
    assert_true(g->clock.trapped);
    guest_clock_thaw(g, 0);
    u64 first = rdtsc();
    struct clock_sample before = guest_clock_sample(g);
    u64 least = ticks_pass(4000000);
    struct clock_sample after = guest_clock_sample(g);
    assert_int_equal(after.ticks, after.tsc);
    assert_in_range(after.tsc - before.tsc, least / 4 - 1, (rdtsc() - first) / 4 + 1);
}

// A TSC let run at the host's rate goes on from where it was, and so does the guest's own rate
// elsewhere; the guest clock does not notice.
static void test_a_foreign_tsc_never_steps_back(void **state)
{
    (void)state;
    guest_clock_init(g, host_tsc_hz / 4);
    guest_clock_thaw(g, 1000);
    guest_clock_let_tsc_run(g);
    u64 first = rdtsc();
    struct clock_sample a = guest_clock_sample(g);
    u64 least = ticks_pass(4000000);
    struct clock_sample b = guest_clock_sample(g);
    u64 most = rdtsc() - first;
    assert_in_range(b.tsc - a.tsc, least, most);
    assert_in_range(b.ticks - a.ticks, least / 4 - 1, most / 4 + 1);
    guest_clock_freeze(g);
    struct clock_sample stopped = guest_clock_sample(g);
    assert_true(stopped.tsc >= b.tsc && stopped.ticks >= b.ticks);
    assert_false(g->clock.foreign);
    u64 ahead = g->clock.ahead;
    assert_int_equal(stopped.tsc, stopped.ticks + ahead);
    guest_clock_init(g, host_tsc_hz); // the next host has the rate the guest was told
    guest_clock_let_tsc_run(g);
    assert_false(g->clock.foreign);
    g->clock.frozen_at = stopped.ticks;
    g->clock.ahead = ahead;
    guest_clock_thaw(g, 10);
    struct clock_sample c = guest_clock_sample(g);
    assert_true(c.tsc >= stopped.tsc + 10 && c.ticks >= stopped.ticks + 10);
    assert_int_equal(c.tsc - c.ticks, ahead);
}

static void test_deadlines_in_host_time(void **state)
{
    (void)state;
    guest_clock_init(g, host_tsc_hz);
    guest_clock_thaw(g, 0);
    u64 deadline = guest_clock_now(g) + 1000000;
    u64 host = guest_clock_to_host_tsc(g, deadline);
    while (rdtsc() < host)
        ;
    assert_true(guest_clock_now(g) >= deadline);
    assert_true(guest_clock_to_host_tsc(g, 1) <= rdtsc()); // past: now
    assert_int_equal(guest_clock_to_host_tsc(g, ~0ull), ~0ull);
    assert_int_equal(guest_clock_to_host_tsc(g, ~1ull), ~0ull); // beyond what a TSC can hold
}

static char order[16];

static void note(void *arg)
{
    strcat(order, arg);
}

static struct gtimer *again;
static u32 fired;

static void rearm(void *arg)
{
    (void)arg;
    fired++;
    gtimer_set(g, again, 0); // already due
}

static void test_timers_run_in_order(void **state)
{
    (void)state;
    struct gtimer a = {.fn = note, .arg = "a"}, b = {.fn = note, .arg = "b"};
    struct gtimer c = {.fn = note, .arg = "c"}, d = {.fn = note, .arg = "d"};
    order[0] = 0;
    guest_clock_init(g, host_tsc_hz);
    assert_int_equal(gtimers_run(g, 0), ~0ull);
    g->clock.frozen_at = 100;
    gtimer_set(g, &c, 90);
    assert_int_equal(fake_kicks, 1);
    gtimer_set(g, &a, 50);
    assert_int_equal(fake_kicks, 2);
    gtimer_set(g, &b, 50); // behind a
    gtimer_set(g, &d, 101);
    assert_int_equal(fake_kicks, 2); // neither is the next one
    assert_int_equal(gtimers_run(g, 0), 101);
    assert_string_equal(order, "abc");
    assert_true(d.armed && !a.armed && !b.armed && !c.armed);
    gtimer_set(g, &d, 10); // moved, still once in the list
    gtimer_cancel(g, &a);
    assert_int_equal(gtimers_run(g, 0), ~0ull);
    assert_string_equal(order, "abcd");
    gtimer_set(g, &a, 1);
    gtimer_cancel(g, &a);
    gtimer_cancel(g, &a);
    assert_int_equal(gtimers_run(g, 0), ~0ull);
    assert_null(g->clock.timers);
}

static void test_a_timer_runs_on_its_own_vcpu(void **state)
{
    (void)state;
    struct gtimer a = {.fn = note, .arg = "a"}, b = {.fn = note, .arg = "b", .vcpu = 1};
    struct vcpu other = {.guest = g, .index = 1};
    order[0] = 0;
    g->vcpu[1] = &other;
    guest_clock_init(g, host_tsc_hz);
    g->clock.frozen_at = 100;
    gtimer_set(g, &a, 50);
    gtimer_set(g, &b, 60);
    assert_int_equal(fake_kicks, 2); // the first of each
    assert_int_equal(gtimers_run(g, 1), ~0ull);
    assert_string_equal(order, "b");
    assert_int_equal(gtimers_run(g, 0), ~0ull);
    assert_string_equal(order, "ba");
    g->vcpu[1] = NULL;
}

static void test_a_timer_in_the_past_does_not_hold_the_vcpu(void **state)
{
    (void)state;
    struct gtimer t = {.fn = rearm};
    again = &t;
    fired = 0;
    guest_clock_init(g, host_tsc_hz);
    g->clock.frozen_at = 100;
    gtimer_set(g, &t, 0);
    assert_int_equal(gtimers_run(g, 0), 100); // due at once, and it returned
    assert_in_range(fired, 1, 1000);
    gtimer_cancel(g, &t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup(name, setup)
        T(test_frozen_until_thawed),
        T(test_standing_still_costs_no_guest_time),
        T(test_never_back),
        T(test_rates),
        T(test_mul_div_saturates),
        T(test_scaling_only_where_needed_and_possible),
        T(test_trapped_tsc_keeps_its_rate),
        T(test_a_foreign_tsc_never_steps_back),
        T(test_deadlines_in_host_time),
        T(test_timers_run_in_order),
        T(test_a_timer_runs_on_its_own_vcpu),
        T(test_a_timer_in_the_past_does_not_hold_the_vcpu),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
