// SPDX-License-Identifier: MIT
// The stop policy of pre-copy and the blackout it predicts.
// sources: kernel/migrate/policy.c
#include "tests/unit/unit.h"

#include "kernel/migrate/policy.h"

// 10 MB/s, nothing dirty, everything else free.
static struct policy_input base(void)
{
    return (struct policy_input){
        .round = 1,
        .max_rounds = 30,
        .rate_bytes_s = 10000000,
        .target_ns = 100 * NS_PER_MS,
    };
}

static u64 predict(const struct policy_input *in)
{
    u64 part[BLACKOUT_PARTS];
    return policy_predict(in, part);
}

static void test_few_pages_stop(void **state)
{
    (void)state;
    struct policy_input in = base();
    in.dirty_pages = 200; // 82 ms, and 13 for the last record's way
    struct policy_result r = policy_decide(&in);
    assert_int_equal(r.verdict, POLICY_STOP_BLACKOUT);
    assert_in_range(r.predicted_ns, 94 * NS_PER_MS, 96 * NS_PER_MS);
    in.dirty_pages = 300; // 136 ms
    assert_int_equal(policy_decide(&in).verdict, POLICY_CONTINUE);
}

// 200 pages take 95 ms, in which a guest that made them dirty in a second dirties 19 more.
static void test_a_cheap_round_shortens_it(void **state)
{
    (void)state;
    struct policy_input in = base();
    in.dirty_pages = 200;
    in.round_ns = NS_PER_SEC;
    assert_int_equal(policy_decide(&in).verdict, POLICY_CONTINUE);
    in.dirty_pages = 19; // 9 ms, of which another round would save 4
    in.round_ns = 95 * NS_PER_MS;
    assert_int_equal(policy_decide(&in).verdict, POLICY_STOP_BLACKOUT);
}

static void test_a_round_that_saves_little_is_not_made(void **state)
{
    (void)state;
    struct policy_input in = base();
    in.dirty_pages = 200;
    in.round_ns = 180 * NS_PER_MS; // more than half would be dirty again
    assert_int_equal(policy_decide(&in).verdict, POLICY_STOP_BLACKOUT);
    in.round_ns = NS_PER_SEC;
    in.rounds_since_best = 1; // the last one saved nothing
    assert_int_equal(policy_decide(&in).verdict, POLICY_STOP_BLACKOUT);
    in.rounds_since_best = 0;
    in.round = in.max_rounds;
    assert_int_equal(policy_decide(&in).verdict, POLICY_STOP_BLACKOUT);
    in.round = 1;
    in.collect_ns = 70 * NS_PER_MS; // no round shortens that
    in.dirty_pages = 20;
    assert_int_equal(policy_decide(&in).verdict, POLICY_STOP_BLACKOUT);
}

static void test_every_part_counts(void **state)
{
    (void)state;
    struct policy_input in = base();
    in.state_bytes = 10000; // 1 ms
    in.rtt_ns = 2 * NS_PER_MS;
    in.collect_ns = 4 * NS_PER_MS;
    in.state_ns = 5 * NS_PER_MS; // checked as it comes, and loaded
    assert_in_range(predict(&in), 18 * NS_PER_MS - 1000, 18 * NS_PER_MS + 1000);
    in.verify_ns = 1000 * NS_PER_MS; // and two crossings more
    in.verify = true;
    assert_in_range(predict(&in), 1020 * NS_PER_MS - 1000, 1020 * NS_PER_MS + 1000);
}

static void test_verify_does_not_keep_it_going(void **state)
{
    (void)state;
    struct policy_input in = base();
    in.dirty_pages = 10;
    in.verify_ns = NS_PER_SEC;
    in.verify = true;
    assert_int_equal(policy_decide(&in).verdict, POLICY_STOP_BLACKOUT);
    assert_true(policy_decide(&in).predicted_ns > NS_PER_SEC);
}

static void test_round_limit(void **state)
{
    (void)state;
    struct policy_input in = base();
    in.dirty_pages = 10000;
    in.round = 29;
    assert_int_equal(policy_decide(&in).verdict, POLICY_CONTINUE);
    in.round = 30;
    struct policy_result r = policy_decide(&in);
    assert_int_equal(r.verdict, POLICY_STOP_ROUNDS);
    assert_in_range(r.predicted_ns, 4 * NS_PER_SEC, 5 * NS_PER_SEC);
}

static void test_no_progress(void **state)
{
    (void)state;
    struct policy_input in = base();
    in.dirty_pages = 10000;
    in.rounds_since_best = POLICY_STALE_ROUNDS - 1;
    assert_int_equal(policy_decide(&in).verdict, POLICY_CONTINUE);
    in.rounds_since_best = POLICY_STALE_ROUNDS;
    assert_int_equal(policy_decide(&in).verdict, POLICY_STOP_STALE);
}

static void test_nothing_known(void **state)
{
    (void)state;
    struct policy_input in = base();
    in.rate_bytes_s = 0;
    in.dirty_pages = 1;
    assert_int_equal(policy_decide(&in).verdict, POLICY_CONTINUE);
    in.dirty_pages = 0; // nothing to send: whatever the rate, there is no better moment
    assert_int_equal(policy_decide(&in).verdict, POLICY_STOP_BLACKOUT);
}

static void test_no_overflow(void **state)
{
    (void)state;
    struct policy_input in = base();
    in.dirty_pages = 1ull << 34; // 64 TiB
    in.rate_bytes_s = 12500000000ull;
    u64 seconds = predict(&in) / NS_PER_SEC;
    assert_in_range(seconds, 5600, 5700);
    in.rate_bytes_s = 1;
    in.dirty_pages = 100;
    assert_in_range(predict(&in) / NS_PER_SEC, 544000, 545000);
}

static void test_reasons(void **state)
{
    (void)state;
    assert_string_equal(policy_reason(POLICY_STOP_BLACKOUT), "blackout");
    assert_string_equal(policy_reason(POLICY_STOP_ROUNDS), "rounds");
    assert_string_equal(policy_reason(POLICY_STOP_STALE), "no-progress");
    assert_string_equal(policy_reason(POLICY_CONTINUE), "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_few_pages_stop),
        cmocka_unit_test(test_a_cheap_round_shortens_it),
        cmocka_unit_test(test_a_round_that_saves_little_is_not_made),
        cmocka_unit_test(test_every_part_counts),
        cmocka_unit_test(test_verify_does_not_keep_it_going),
        cmocka_unit_test(test_round_limit),
        cmocka_unit_test(test_no_progress),
        cmocka_unit_test(test_nothing_known),
        cmocka_unit_test(test_no_overflow),
        cmocka_unit_test(test_reasons),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
