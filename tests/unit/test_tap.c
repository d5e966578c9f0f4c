// SPDX-License-Identifier: MIT
// What guests write, between the vCPU thread and the console: lines, losses, guests that come late.

// sources: kernel/console/tap.c
#include "tests/unit/unit.h"

#include "kernel/console/tap.h"
#include "kernel/guest/guest.h"
#include "kernel/lib.h"
#include "kernel/mem.h"

struct mutex guests_lock;
struct waitq screen_event;

static struct guest web, db;
static bool web_is_here = true;
static unsigned wakes, blocks;

void mutex_lock(struct mutex *m)
{
    assert_null(m->owner);
    m->owner = (struct thread *)m;
}

void mutex_unlock(struct mutex *m)
{
    m->owner = NULL;
}

void waitq_wake_all(struct waitq *q)
{
    assert_ptr_equal(q, &screen_event);
    wakes++;
}

void *kmalloc(size_t size)
{
    blocks++;
    return malloc(size);
}

void kfree(void *p)
{
    if (p)
        blocks--;
    free(p);
}

struct guest *guest_find(const char *name)
{
    assert_non_null(guests_lock.owner);
    if (!strcmp(name, "web"))
        return web_is_here ? &web : NULL;
    return strcmp(name, "db") ? NULL : &db;
}

void guest_console_attach(struct guest *g, void (*sink)(struct guest *g, const char *s, size_t n))
{
    g->console_sink = sink;
}

static int start(void **state)
{
    (void)state;
    strcpy(web.name, "web");
    strcpy(db.name, "db");
    wakes = 0;
    return 0;
}

static void says(struct guest *g, const char *s)
{
    for (; *s; s++) // a UART hands over single bytes
        g->console_sink(g, s, 1);
}

static void expect_line(const char *wanted)
{
    char line[300];
    assert_true(tap_has_line());
    assert_true(tap_take_line(line, sizeof(line)));
    assert_string_equal(line, wanted);
}

static void test_lines(void **state)
{
    (void)state;
    assert_int_equal(tap_follow("web"), 0);
    assert_int_equal(tap_follow("web"), 0); // twice is once
    assert_string_equal(tap_followed(0), "web");
    assert_null(tap_followed(1));
    says(&web, "hel");
    assert_false(tap_has_line());
    assert_int_equal(wakes, 0);
    says(&web, "lo\r\n\x1b[2Jx\ty\n");
    assert_int_equal(wakes, 2); // once a line, not once a byte
    expect_line("web| hello");
    expect_line("web| ?[2Jx\ty");
    assert_false(tap_has_line());
    for (int i = 0; i < 450; i++)
        says(&web, "z");
    char line[300];
    assert_true(tap_take_line(line, sizeof(line)));
    assert_int_equal(strlen(line), strlen("web| ") + 200);
    assert_true(tap_take_line(line, sizeof(line)));
    assert_false(tap_has_line());
    says(&web, "\n");
    tap_unfollow("web");
    assert_null(web.console_sink);
    assert_false(tap_any());
    assert_int_equal(blocks, 0);
}

static void test_guest_comes_later(void **state)
{
    (void)state;
    web_is_here = false;
    assert_int_equal(tap_follow("web"), 0);
    tap_bind();
    assert_null(web.console_sink);
    web_is_here = true;
    tap_bind();
    says(&web, "here\n");
    expect_line("web| here");
    tap_unfollow("web");
}

static void test_full_ring_says_what_was_lost(void **state)
{
    (void)state;
    assert_int_equal(tap_follow("db"), 0);
    for (int i = 0; i < 7000; i++)
        says(&db, "0123456789\n"); // 77000 bytes into 65536
    char line[300], last[300];
    unsigned n = 0;
    while (tap_has_line()) {
        assert_true(tap_take_line(line, sizeof(line)));
        n++;
    }
    assert_int_equal(n, 65536 / 11);
    says(&db, "\n"); // ends the cut one
    assert_true(tap_take_line(last, sizeof(last)));
    assert_string_equal(last, "db| 012345678 [11464 bytes lost]");
    tap_unfollow("db");
}

static void test_attach_beside_follow(void **state)
{
    (void)state;
    int error = 0;
    char buf[64];
    assert_int_equal(tap_follow("web"), 0);
    struct tap *t = tap_attach("web", &error);
    assert_non_null(t);
    says(&web, "login: ");
    assert_int_equal(wakes, 1);
    assert_int_equal(tap_used(t), 7);
    assert_int_equal(tap_read(t, buf, 3), 3);
    assert_int_equal(tap_read(t, buf + 3, sizeof(buf)), 4);
    assert_memory_equal(buf, "login: ", 7);
    tap_detach(t);
    says(&web, "after\n");
    expect_line("web| after");
    tap_unfollow("web");
    assert_int_equal(blocks, 0);
}

static void test_two_take_turns(void **state)
{
    (void)state;
    assert_int_equal(tap_follow("web"), 0);
    assert_int_equal(tap_follow("db"), 0);
    for (int i = 0; i < 3; i++) {
        says(&web, "w\n");
        says(&db, "d\n");
    }
    unsigned from_web = 0;
    for (int i = 0; i < 4; i++) {
        char line[64];
        assert_true(tap_take_line(line, sizeof(line)));
        from_web += line[0] == 'w';
    }
    assert_int_equal(from_web, 2);
    tap_unfollow("web");
    tap_unfollow("db");
}

static void test_too_many(void **state)
{
    (void)state;
    char name[16];
    for (int i = 0; i < 16; i++) {
        sprintf(name, "g%d", i);
        assert_int_equal(tap_follow(name), 0);
    }
    assert_int_equal(tap_follow("one-more"), E_BUSY);
    for (int i = 0; i < 16; i++) {
        sprintf(name, "g%d", i);
        tap_unfollow(name);
    }
    assert_int_equal(blocks, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_lines, start),
        cmocka_unit_test_setup(test_guest_comes_later, start),
        cmocka_unit_test_setup(test_full_ring_says_what_was_lost, start),
        cmocka_unit_test_setup(test_attach_beside_follow, start),
        cmocka_unit_test_setup(test_two_take_turns, start),
        cmocka_unit_test_setup(test_too_many, start),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
