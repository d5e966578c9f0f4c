// SPDX-License-Identifier: MIT
// The log ring: order, cutting, what is lost when it is full.

// sources: kernel/log.c
#include "tests/unit/unit.h"

#include "kernel/lib.h"
#include "kernel/log.h"

static char serial[1 << 20];
static size_t serial_bytes;
static u64 now;
static unsigned sunk;

void serial_write(const char *s, size_t n)
{
    memcpy(serial + serial_bytes, s, n);
    serial_bytes += n;
    serial[serial_bytes] = 0;
}

u64 time_ns(void)
{
    return now;
}

static void sink(const struct log_entry *e)
{
    (void)e;
    sunk++;
}

static void test_line(void **state)
{
    (void)state;
    now = 12 * NS_PER_SEC + 345678901;
    log_info("net", "link %s at %d", "up", 1000);
    assert_string_equal(serial, "[   12.345678] info  net: link up at 1000\n");
    struct log_entry e;
    assert_true(log_get(0, &e));
    assert_int_equal(e.seq, 0);
    assert_string_equal(e.area, "net");
    assert_string_equal(e.text, "link up at 1000");
    assert_false(log_get(1, &e));
    log_debug("net", "not kept");
    assert_false(log_get(1, &e));
    log_set_level(LOG_DEBUG);
    log_debug("net", "kept");
    assert_true(log_get(1, &e));
    assert_int_equal(e.level, LOG_DEBUG);
}

static void test_harmless_text(void **state)
{
    (void)state;
    char longer[1000];
    memset(longer, 'x', sizeof(longer) - 1);
    longer[sizeof(longer) - 1] = 0;
    log_error("an area with a long name", "%s", longer);
    log_error("a\x1b[2J", "b\nc\x7f");
    struct log_entry e;
    assert_true(log_get(2, &e));
    assert_string_equal(e.area, "an area with a ");
    assert_int_equal(strlen(e.text), sizeof(e.text) - 1);
    assert_true(log_get(3, &e));
    assert_string_equal(e.area, "a?[2J");
    assert_string_equal(e.text, "b?c?");
}

static void test_wraps(void **state)
{
    (void)state;
    log_set_sink(sink);
    for (u64 i = 4; i < 20000; i++) {
        now = i;
        log_info(i & 1 ? "odd" : "even", "%.*s line %llu", (int)(i % 150),
                 "................................................................................"
                 "................................................................................",
                 (unsigned long long)i);
    }
    assert_int_equal(sunk, 19996);
    struct log_entry e;
    assert_true(log_get(0, &e));
    u64 first = e.seq;
    assert_true(first > 19000 && first < 19900);
    for (u64 i = first; i < 20000; i++) {
        char end[32];
        assert_true(log_get(i, &e));
        assert_int_equal(e.seq, i);
        assert_int_equal(e.time_ns, i);
        snprintf(end, sizeof(end), " line %llu", (unsigned long long)i);
        assert_string_equal(e.text + i % 150, end);
        assert_string_equal(e.area, i & 1 ? "odd" : "even");
    }
    assert_false(log_get(20000, &e));
    log_set_sink(NULL);
}

// What the sink has not shown when the host dies comes out then, once.
static void test_crash_prints_the_rest(void **state)
{
    (void)state;
    log_set_sink(sink);
    log_shown_up_to(log_next_seq());
    log_info("a", "unshown 1");
    log_info("a", "unshown 2");
    serial_bytes = 0;
    log_print_unshown();
    log_print_unshown();
    assert_string_equal(serial, "[    0.000019] info  a: unshown 1\n[    0.000019] info  a: unshown 2\n");
    log_set_sink(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_line),
        cmocka_unit_test(test_harmless_text),
        cmocka_unit_test(test_wraps),
        cmocka_unit_test(test_crash_prints_the_rest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
