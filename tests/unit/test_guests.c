// SPDX-License-Identifier: MIT
// The table of guests, and start-up by design rule 17: nothing starts that a peer may have.
// sources: kernel/guest/guest.c kernel/guest/reference.c kernel/guest/autostart.c kernel/uuid.c
#include "unit.h"

#include "kernel/guest/guest.h"
#include "kernel/guest/vcpu.h"
#include "kernel/lib.h"
#include "kernel/log.h"
#include "kernel/mem.h"

const struct backend_ops *backend;
static struct host_config cfg;
static char err[200];
static void (*autostart_thread)(void *arg);
static u32 asks, starts, sleeps, kicks, frees;
static u32 allowed_from;        // the ask from which on the peers agree
static int start_result;
static void (*during_sleep)(void);

void *kzalloc(size_t size)
{
    return calloc(1, size);
}
void kfree(void *p)
{
    frees++;
    free(p);
}
void mutex_lock(struct mutex *m)
{
    assert_null(m->owner);
    m->owner = (struct thread *)1;
}
void mutex_unlock(struct mutex *m)
{
    assert_non_null(m->owner);
    m->owner = NULL;
}
bool mutex_held(const struct mutex *m)
{
    return m->owner != NULL;
}

// The table is looked at with its lock held.
#define LOCKED(call)                                                                               \
    ({                                                                                             \
        mutex_lock(&guests_lock);                                                                  \
        struct guest *_g = call;                                                                   \
        mutex_unlock(&guests_lock);                                                                \
        _g;                                                                                        \
    })
#define first()         LOCKED(guest_first())
#define find(name)      LOCKED(guest_find(name))
#define find_uuid(uuid) LOCKED(guest_find_uuid(uuid))
void log_write(enum log_level level, const char *area, const char *fmt, ...)
{
    (void)level, (void)area, (void)fmt;
}
struct vcpu *thread_get_vcpu(void)
{
    return NULL;
}
void guest_kick(struct guest *g)
{
    (void)g;
    kicks++;
}
void guest_teardown(struct guest *g)
{
    (void)g;
}
struct thread *thread_create(const char *name, void (*fn)(void *arg), void *arg, unsigned flags)
{
    (void)name, (void)arg, (void)flags;
    autostart_thread = fn;
    return (struct thread *)1;
}
void thread_sleep_ns(u64 ns)
{
    (void)ns;
    sleeps++;
    if (during_sleep)
        during_sleep();
    assert_true(sleeps < 100);
}
bool ownership_may_start(const u8 uuid[16], char *why, size_t size)
{
    (void)uuid;
    assert_null(guests_lock.owner); // it may take seconds
    if (++asks >= allowed_from)
        return true;
    snprintf(why, size, "bravo does not answer");
    return false;
}
int guest_start_unasked(struct guest *g, char *e, size_t size)
{
    starts++;
    if (start_result) {
        snprintf(e, size, "no memory");
        return start_result;
    }
    g->autostart_pending = false;
    g->state = GUEST_RUNNING;
    return 0;
}

static void configure(u32 n, const char *name, bool autostart)
{
    struct guest_config *c = &cfg.guests[n];
    memset(c, 0, sizeof(*c));
    strcpy(c->name, name);
    c->uuid[0] = (u8)(n + 1);
    c->autostart = autostart;
    cfg.guest_count = n + 1;
}

static int setup(void **state)
{
    (void)state;
    memset(&cfg, 0, sizeof(cfg));
    cfg.autostart_wait = true;
    autostart_thread = NULL;
    during_sleep = NULL;
    asks = starts = sleeps = kicks = frees = 0;
    allowed_from = 1;
    start_result = 0;
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    while (first())
        guest_remove(first());
    return 0;
}

static void test_the_table(void **state)
{
    (void)state;
    configure(0, "web", false);
    configure(1, "db", false);
    guests_start(&cfg);
    assert_null(autostart_thread);
    struct guest *web = find("web"), *db = find("db");
    assert_ptr_equal(first(), web);
    assert_ptr_equal(web->next, db);
    assert_int_equal(web->state, GUEST_OFF);
    assert_true(web->from_config);
    assert_ptr_equal(find_uuid(cfg.guests[1].uuid), db);
    assert_null(find("we"));
    guest_remove(web);
    assert_null(find("web"));
    assert_ptr_equal(first(), db);
}

// Whoever still has a reference finds a guest that refuses, not freed memory (ASan would tell).
static void test_a_reference_outlives_the_table(void **state)
{
    (void)state;
    configure(0, "web", false);
    guests_start(&cfg);
    assert_null(guest_get("we"));
    struct guest *named = guest_get("web"), *same = guest_get_uuid(cfg.guests[0].uuid);
    assert_ptr_equal(named, find("web"));
    assert_ptr_equal(same, named);
    guest_put(same);
    guest_remove(named);
    assert_null(find("web"));
    assert_null(guest_get("web"));
    assert_int_equal(frees, 0);
    assert_int_equal(named->state, GUEST_GONE);
    assert_string_equal(named->name, "web");
    assert_ptr_equal(guest_hold(named), named);
    guest_put(named);
    assert_int_equal(frees, 0);
    guest_put(named);
    assert_int_equal(frees, 1);
    guest_put(guest_hold(NULL));
    assert_int_equal(frees, 1);
}

static void test_an_unreferenced_guest_is_freed_with_its_removal(void **state)
{
    (void)state;
    configure(0, "web", false);
    guests_start(&cfg);
    guest_put(guest_get("web"));
    assert_int_equal(frees, 0);
    guest_remove(find("web"));
    assert_int_equal(frees, 1);
}

static void test_clashes(void **state)
{
    (void)state;
    configure(0, "web", false);
    guests_start(&cfg);
    struct guest_config other = cfg.guests[0];
    other.uuid[0] = 9;
    assert_null(guest_add(&other, err, sizeof(err)));
    assert_non_null(strstr(err, "named web"));
    strcpy(other.name, "new");
    other.uuid[0] = 1;
    assert_null(guest_add(&other, err, sizeof(err)));
    assert_non_null(strstr(err, "which guest web has"));
    mutex_lock(&guests_lock); // a caller that holds the table may add too
    other.uuid[0] = 9;
    assert_non_null(guest_add(&other, err, sizeof(err)));
    mutex_unlock(&guests_lock);
}

static void test_peers_agree(void **state)
{
    (void)state;
    configure(0, "web", true);
    configure(1, "db", false);
    guests_start(&cfg);
    autostart_thread(NULL);
    assert_int_equal(find("web")->state, GUEST_RUNNING);
    assert_int_equal(find("db")->state, GUEST_OFF);
    assert_int_equal(asks, 1);
    assert_int_equal(sleeps, 0);
}

static void check_in_doubt(void)
{
    struct guest *g = find("web");
    assert_int_equal(g->state, GUEST_IN_DOUBT);
    assert_string_equal(g->why, "bravo does not answer");
    assert_int_equal(starts, 0);
}

static void test_in_doubt_until_peers_answer(void **state)
{
    (void)state;
    configure(0, "web", true);
    allowed_from = 4;
    during_sleep = check_in_doubt;
    guests_start(&cfg);
    autostart_thread(NULL);
    assert_int_equal(find("web")->state, GUEST_RUNNING);
    assert_int_equal(asks, 4);
    assert_int_equal(sleeps, 3);
}

static void operator_starts_it(void)
{
    struct guest *g = find("web");
    g->autostart_pending = false; // as starting and receiving do
    g->state = GUEST_RUNNING;
}

static void test_the_operator_is_faster(void **state)
{
    (void)state;
    configure(0, "web", true);
    allowed_from = 50;
    during_sleep = operator_starts_it;
    guests_start(&cfg);
    autostart_thread(NULL);
    assert_int_equal(starts, 0);
    assert_int_equal(sleeps, 1);
}

static void test_a_copy_in_doubt_is_not_started(void **state)
{
    (void)state;
    configure(0, "web", true);
    guests_start(&cfg);
    struct guest *g = find("web");
    g->state = GUEST_IN_DOUBT; // a move that came in meanwhile and was left without an answer
    g->memory.bytes = 64 * MIB;
    autostart_thread(NULL);
    assert_int_equal(starts, 0);
    assert_int_equal(g->state, GUEST_IN_DOUBT);
}

static void test_a_failed_start_is_not_repeated(void **state)
{
    (void)state;
    configure(0, "web", true);
    configure(1, "db", true);
    start_result = E_NOMEM;
    guests_start(&cfg);
    autostart_thread(NULL);
    assert_int_equal(starts, 2);
    assert_int_equal(find("db")->state, GUEST_OFF);
    assert_string_equal(find("db")->why, "no memory");
}

static void test_without_waiting(void **state)
{
    (void)state;
    configure(0, "web", true);
    cfg.autostart_wait = false;
    allowed_from = 99;
    guests_start(&cfg);
    autostart_thread(NULL);
    assert_int_equal(asks, 0);
    assert_int_equal(starts, 1);
}

static void test_a_crash_is_told_once(void **state)
{
    (void)state;
    configure(0, "web", false);
    guests_start(&cfg);
    struct guest *g = find("web");
    guest_crash(g, "triple fault at 0x%x", 0x1000);
    guest_crash(g, "and again");
    assert_int_equal(g->state, GUEST_CRASHED);
    assert_string_equal(g->why, "triple fault at 0x1000");
    assert_int_equal(kicks, 1);
    assert_string_equal(guest_state_name(g->state), "crashed");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
        T(test_the_table),
        T(test_a_reference_outlives_the_table),
        T(test_an_unreferenced_guest_is_freed_with_its_removal),
        T(test_clashes),
        T(test_peers_agree),
        T(test_in_doubt_until_peers_answer),
        T(test_the_operator_is_faster),
        T(test_a_copy_in_doubt_is_not_started),
        T(test_a_failed_start_is_not_repeated),
        T(test_without_waiting),
        T(test_a_crash_is_told_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
