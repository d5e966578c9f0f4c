// SPDX-License-Identifier: MIT
// The job table: order, ends, aborting, and what is kept.
// sources: kernel/migrate/jobs.c
#include "tests/unit/unit.h"

#include "kernel/lib.h"
#include "kernel/log.h"
#include "kernel/migrate/jobs.h"
#include "kernel/thread.h"
#include "kernel/time.h"

// ---- Below --------------------------------------------------------------------------------------

static u64 now;
static struct job *ends_while_waited; // ends when somebody waits

u64 time_ns(void)
{
    return now;
}

void mutex_lock(struct mutex *m)
{
    assert(!m->owner);
    m->owner = (struct thread *)1;
}

void mutex_unlock(struct mutex *m)
{
    assert(m->owner);
    m->owner = NULL;
}

bool waitq_commit(struct waitq *q, u64 deadline_ns)
{
    (void)q;
    now = MAX(now, deadline_ns);
    struct job *j = ends_while_waited;
    ends_while_waited = NULL;
    if (j)
        job_end(j, JOB_ABORTED, "aborted");
    return false;
}

void waitq_wake_all(struct waitq *q)
{
    (void)q;
}

static char last_log[300];
static enum log_level last_level;
void log_write(enum log_level level, const char *area, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    int n = snprintf(last_log, sizeof(last_log), "%s: ", area);
    vsnprintf(last_log + n, sizeof(last_log) - (size_t)n, fmt, ap);
    va_end(ap);
    last_level = level;
}

static u32 cuts;
static void cut(struct conn *c)
{
    (void)c;
    cuts++;
}
static const struct conn_ops ops = {.abort = cut};

// ---- Tests: the table is one for all of them, so each looks at its own jobs ---------------------

static char err[200];

static void test_life(void **state)
{
    (void)state;
    struct job_info i;
    bool ended;
    now = 5;
    struct job *j = job_new("web", "bravo", false);
    assert_non_null(j);
    assert_true(j->info.id > 0);
    assert_int_equal(j->info.started_ns, 5);
    job_phase(j, JOB_PRECOPY);
    assert_true(job_get_id(j->info.id, &i, &ended));
    assert_false(ended);
    assert_int_equal(i.phase, JOB_PRECOPY);
    now = 9;
    u64 id = j->info.id;
    job_end(j, JOB_DONE, "%s is there", "web");
    assert_true(job_get_id(id, &i, &ended));
    assert_true(ended);
    assert_int_equal(i.ended_ns, 9);
    assert_string_equal(i.result, "web is there");
    assert_string_equal(last_log, "guest web: job 1 done: web is there");
    assert_int_equal(last_level, LOG_INFO);
}

static void test_order_and_eviction(void **state)
{
    (void)state;
    struct job_info i;
    u64 first = 0, last = 0;
    struct job *kept = job_new("old", "bravo", false); // under way: never thrown out
    for (u32 n = 0; n < 2 * JOBS_KEPT; n++)
        job_end(job_new("web", "bravo", false), JOB_FAILED, "x");
    bool found = false;
    for (unsigned n = 0; job_get(n, &i); n++) {
        assert_true(i.id > last);
        last = i.id;
        first = first ? first : i.id;
        found |= i.id == kept->info.id;
        assert_true(n < JOBS_KEPT);
    }
    assert_true(found);
    assert_int_equal(first, kept->info.id);
    job_end(kept, JOB_DONE, "x");
    assert_false(job_get(JOBS_KEPT, &i));
}

static void test_full(void **state)
{
    (void)state;
    struct job *all[JOBS_KEPT];
    for (u32 n = 0; n < JOBS_KEPT; n++)
        assert_non_null(all[n] = job_new("web", "bravo", false));
    assert_null(job_new("web", "bravo", false));
    for (u32 n = 0; n < JOBS_KEPT; n++)
        job_end(all[n], JOB_DONE, "x");
}

static void test_abort(void **state)
{
    (void)state;
    struct job *j = job_new("web", "bravo", false);
    u64 id = j->info.id;
    ends_while_waited = j;
    assert_int_equal(job_abort(id, err, sizeof(err)), 0);
    assert_int_equal(job_abort(id, err, sizeof(err)), E_BUSY);
    assert_non_null(strstr(err, "has already ended: aborted"));
    assert_int_equal(job_abort(999999, err, sizeof(err)), E_NOENT);
    j = job_new("web", "alpha", true);
    assert_int_equal(job_abort(j->info.id, err, sizeof(err)), E_BUSY);
    assert_non_null(strstr(err, "steered by alpha"));
    job_end(j, JOB_DONE, "x");
}

// Once COMMIT may leave no abort is taken, and an abort that came before stops it.
static void test_point_of_no_return(void **state)
{
    (void)state;
    struct job *j = job_new("web", "bravo", false);
    assert_true(job_point_of_no_return(j));
    assert_int_equal(job_abort(j->info.id, err, sizeof(err)), E_BUSY);
    assert_non_null(strstr(err, "past COMMIT"));
    job_end(j, JOB_DONE, "x");
    j = job_new("web", "bravo", false);
    assert_int_equal(job_abort(j->info.id, err, sizeof(err)), E_TIMEOUT);
    assert_false(job_point_of_no_return(j));
    job_end(j, JOB_ABORTED, "x");
}

static void test_stuck_link_is_cut(void **state)
{
    (void)state;
    struct conn c = {.ops = &ops};
    struct job *j = job_new("web", "bravo", false);
    job_set_conn(j, &c);
    cuts = 0;
    assert_int_equal(job_abort(j->info.id, err, sizeof(err)), E_TIMEOUT);
    assert_int_equal(cuts, 1);
    job_end(j, JOB_ABORTED, "x");
    assert_null(j->conn);
}

static void test_settled_later(void **state)
{
    (void)state;
    struct job_info i;
    bool ended;
    struct job *j = job_new("web", "bravo", false);
    u64 id = j->info.id;
    job_end(j, JOB_IN_DOUBT, "nobody knows");
    assert_int_equal(last_level, LOG_WARN);
    job_settle(id, JOB_DONE, 1234, "it came through");
    job_get_id(id, &i, &ended);
    assert_int_equal(i.phase, JOB_DONE);
    assert_int_equal(i.measured_blackout_us, 1234);
    assert_string_equal(i.result, "it came through");
    job_settle(id, JOB_FAILED, 0, "too late");
    job_get_id(id, &i, &ended);
    assert_int_equal(i.phase, JOB_DONE);
    job_settle(888888, JOB_FAILED, 0, "no such job");
}

static void test_phase_names(void **state)
{
    (void)state;
    assert_string_equal(job_phase_name(JOB_PRECOPY), "precopy");
    assert_string_equal(job_phase_name(JOB_IN_DOUBT), "in-doubt");
    assert_string_equal(job_phase_name((enum job_phase)99), "?");
    assert_true(job_phase_ended(JOB_ABORTED));
    assert_false(job_phase_ended(JOB_VERIFY));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_life),
        cmocka_unit_test(test_order_and_eviction),
        cmocka_unit_test(test_full),
        cmocka_unit_test(test_abort),
        cmocka_unit_test(test_point_of_no_return),
        cmocka_unit_test(test_stuck_link_is_cut),
        cmocka_unit_test(test_settled_later),
        cmocka_unit_test(test_phase_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
