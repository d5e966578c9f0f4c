// SPDX-License-Identifier: MIT
// When the network thread waits for more to come, and for how long.

// sources: net/pace.c
#include "tests/unit/unit.h"

#include "kernel/time.h"
#include "net/pace.h"

#define QUESTION (4096 + 60) // as switch_moved counts them
#define SEGMENT  (4096 + 65535)
#define START    (1000 * NS_PER_SEC)

static void what_comes_alone_waits_for_nothing(void **state)
{
    (void)state;
    struct net_pace p = {.since_ns = 0};
    u64 now = START;
    for (u32 i = 0; i < 100; i++, now += NS_PER_MS) {
        pace_note(&p, now, QUESTION, 50 * NS_PER_US);
        assert_int_equal(pace_wait_ns(&p, now), 0);
    }
}

static void a_stream_waits(void **state)
{
    (void)state;
    struct net_pace p = {.since_ns = 0};
    u64 now = START;
    pace_note(&p, now, SEGMENT, 50 * NS_PER_US);
    assert_true(pace_wait_ns(&p, now) > 0);
    for (u32 i = 0; i < 1000; i++) { // small frames are a stream as well
        now += 100 * NS_PER_US;
        pace_note(&p, now, QUESTION, 50 * NS_PER_US);
        assert_true(pace_wait_ns(&p, now) > 0);
    }
    pace_note(&p, now, 0, 10 * NS_PER_US);
    assert_true(pace_wait_ns(&p, now) > 0);
    assert_int_equal(pace_wait_ns(&p, now + 3 * NS_PER_MS), 0); // it has ended
}

static void as_long_as_a_few_turns(void **state)
{
    (void)state;
    static const struct {
        u64 turn, least, most;
    } speeds[] = {{NS_PER_US, 50 * NS_PER_US, 50 * NS_PER_US},
                  {50 * NS_PER_US, 190 * NS_PER_US, 200 * NS_PER_US},
                  {5 * NS_PER_MS, NS_PER_MS, NS_PER_MS}};
    for (u32 s = 0; s < ARRAY_SIZE(speeds); s++) {
        struct net_pace p = {.since_ns = 0};
        for (u32 i = 0; i < 20; i++) {
            pace_note(&p, START, SEGMENT, speeds[s].turn);
            pace_note(&p, START, 0, 0); // turns that moved nothing tell nothing
        }
        assert_in_range(pace_wait_ns(&p, START), speeds[s].least, speeds[s].most);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_comes_alone_waits_for_nothing),
        cmocka_unit_test(a_stream_waits),
        cmocka_unit_test(as_long_as_a_few_turns),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
