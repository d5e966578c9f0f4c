// SPDX-License-Identifier: MIT
// The clock exchange: whatever the delays, the offset is within the bound that is reported.
// sources: kernel/migrate/clock_sync.c
#include "tests/unit/unit.h"

#include "kernel/migrate/clock_sync.h"
#include "kernel/time.h"

static u64 now; // the source's; the destination's is now + truth
static s64 truth;
static u64 way_out, way_back, inside;
static bool wrong_answer;

u64 time_ns(void)
{
    return now;
}

int stream_fail(struct stream *s, int error, const char *fmt, ...)
{
    (void)s, (void)fmt;
    return error;
}

static struct wire_pong pong;

int stream_send(struct stream *s, u32 type, const void *payload, u32 bytes)
{
    (void)s, (void)bytes;
    if (type == REC_PING) {
        const struct wire_ping *p = payload;
        pong = (struct wire_pong){.id = p->id + wrong_answer, .source_ns = p->source_ns};
        now += way_out;
        pong.received_ns = now + (u64)truth;
        now += inside;
        pong.sent_ns = now + (u64)truth;
        now += way_back;
    }
    return 0;
}

int stream_expect(struct stream *s, u32 type, struct record *r)
{
    (void)s;
    *r = (struct record){type, sizeof(pong), &pong};
    return 0;
}

static void test_bound_holds(void **state)
{
    (void)state;
    const s64 truths[] = {0, 5000, -5000, 123456789012ll, -123456789012ll};
    for (size_t t = 0; t < sizeof(truths) / sizeof(truths[0]); t++) {
        for (u32 i = 0; i < 200; i++) {
            struct clock_sync c = {.valid = false};
            struct stream s = {.timeout_ns = 0};
            now = 1000000000000ull;
            truth = truths[t];
            way_out = i * 37 % 1000;
            way_back = i * 91 % 3000;
            inside = i * 13 % 5000;
            assert_int_equal(clock_ping(&s, &c), 0);
            assert_true(c.valid);
            s64 wrong = c.offset_ns - truth;
            assert_true((u64)(wrong < 0 ? -wrong : wrong) <= c.error_ns);
            assert_int_equal(c.rtt_ns, way_out + way_back); // the time inside is not the link's
        }
    }
}

static void test_best_counts(void **state)
{
    (void)state;
    struct clock_sync c = {.valid = false};
    clock_sync_take(&c, 1000, 9100, 9110, 1210); // 200 under way
    assert_int_equal(c.rtt_ns, 200);
    clock_sync_take(&c, 2000, 10010, 10020, 2030); // 20
    assert_int_equal(c.rtt_ns, 20);
    assert_int_equal(c.offset_ns, 8000);
    assert_int_equal(c.error_ns, 11);
    clock_sync_take(&c, 3000, 11400, 11410, 3810); // slower: does not count
    assert_int_equal(c.rtt_ns, 20);
    assert_int_equal(c.last_ns, 810);
    clock_sync_reset(&c);
    clock_sync_take(&c, 3000, 11400, 11410, 3810);
    assert_int_equal(c.rtt_ns, 800);
}

static void test_nonsense_is_not_taken(void **state)
{
    (void)state;
    struct clock_sync c = {.valid = false};
    clock_sync_take(&c, 1000, 9110, 9100, 1210);  // answered before it was received
    clock_sync_take(&c, 1000, 9100, 99100, 1210); // was inside for longer than away
    assert_false(c.valid);
}

static void test_another_answer(void **state)
{
    (void)state;
    struct clock_sync c = {.valid = false};
    struct stream s = {.timeout_ns = 0};
    wrong_answer = true;
    assert_int_equal(clock_ping(&s, &c), E_PROTO);
    wrong_answer = false;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bound_holds),
        cmocka_unit_test(test_best_counts),
        cmocka_unit_test(test_nonsense_is_not_taken),
        cmocka_unit_test(test_another_answer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
