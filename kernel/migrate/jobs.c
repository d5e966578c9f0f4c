// SPDX-License-Identifier: MIT
// Keeps the job table: who moves, how far it is, and how it ended.
#include "kernel/migrate/jobs.h"

#include "kernel/lib.h"
#include "kernel/log.h"
#include "kernel/thread.h"
#include "kernel/time.h"

#define ABORT_GRACE_NS NS_PER_SEC

static struct job jobs[JOBS_KEPT]; // under jobs_lock, but for a job's own figures
static struct mutex jobs_lock;
static struct waitq jobs_wait;
static u64 last_id;

const char *job_phase_name(enum job_phase p)
{
    static const char *const names[] = {
        [JOB_CONNECT] = "connect", [JOB_CHECK] = "check",     [JOB_DISK] = "disk",
        [JOB_PRECOPY] = "precopy", [JOB_STOP] = "stop",       [JOB_HANDOVER] = "handover",
        [JOB_VERIFY] = "verify",   [JOB_AUDIT] = "audit",     [JOB_DONE] = "done",
        [JOB_FAILED] = "failed",   [JOB_ABORTED] = "aborted", [JOB_IN_DOUBT] = "in-doubt",
    };
    return (unsigned)p < ARRAY_SIZE(names) ? names[p] : "?";
}

void job_part(struct job *j, enum blackout_part p, u64 until_ns)
{
    j->info.blackout_us[p] = until_ns > j->part_ns ? (until_ns - j->part_ns) / NS_PER_US : 0;
    j->part_ns = until_ns;
}

bool job_phase_ended(enum job_phase p)
{
    return p == JOB_DONE || p == JOB_FAILED || p == JOB_ABORTED || p == JOB_IN_DOUBT;
}

static struct job *find_id(u64 id)
{
    assert_held(&jobs_lock);
    for (size_t i = 0; i < JOBS_KEPT; i++)
        if (jobs[i].used && jobs[i].info.id == id)
            return &jobs[i];
    return NULL;
}

// A free slot, else the oldest ended one.
static struct job *find_slot(void)
{
    assert_held(&jobs_lock);
    struct job *oldest = NULL;
    for (size_t i = 0; i < JOBS_KEPT; i++) {
        if (!jobs[i].used)
            return &jobs[i];
        if (jobs[i].ended && (!oldest || jobs[i].info.id < oldest->info.id))
            oldest = &jobs[i];
    }
    return oldest;
}

struct job *job_new(const char *guest, const char *peer, bool incoming)
{
    mutex_lock(&jobs_lock);
    struct job *j = find_slot();
    if (j) {
        memset(j, 0, sizeof(*j));
        j->used = true;
        j->info.id = ++last_id;
        strlcpy(j->info.guest, guest, sizeof(j->info.guest));
        strlcpy(j->info.peer, peer, sizeof(j->info.peer));
        j->info.incoming = incoming;
        j->info.started_ns = time_ns();
    }
    mutex_unlock(&jobs_lock);
    return j;
}

void job_phase(struct job *j, enum job_phase p)
{
    mutex_lock(&jobs_lock);
    j->info.phase = p;
    mutex_unlock(&jobs_lock);
    waitq_wake_all(&jobs_wait);
}

static void log_end(const struct job_info *i)
{
    char area[48];
    snprintf(area, sizeof(area), "guest %s", i->guest);
    enum log_level level = i->phase == JOB_DONE ? LOG_INFO : LOG_WARN;
    log_write(level, area, "job %llu %s: %s", (unsigned long long)i->id, job_phase_name(i->phase),
              i->result);
}

void job_end(struct job *j, enum job_phase p, const char *fmt, ...)
{
    va_list ap;
    mutex_lock(&jobs_lock);
    va_start(ap, fmt);
    vsnprintf(j->info.result, sizeof(j->info.result), fmt, ap);
    va_end(ap);
    j->info.phase = p;
    j->info.ended_ns = time_ns();
    j->info.eta_ms = 0;
    j->conn = NULL;
    j->ended = true;
    struct job_info copy = j->info;
    mutex_unlock(&jobs_lock);
    log_end(&copy);
    waitq_wake_all(&jobs_wait);
}

void job_settle(u64 id, enum job_phase p, u64 blackout_us, const char *result)
{
    mutex_lock(&jobs_lock);
    struct job *j = find_id(id);
    struct job_info copy = {.id = 0};
    if (j && j->info.phase == JOB_IN_DOUBT) {
        j->info.phase = p;
        j->info.ended_ns = time_ns();
        if (blackout_us)
            j->info.measured_blackout_us = blackout_us;
        strlcpy(j->info.result, result, sizeof(j->info.result));
        copy = j->info;
    }
    mutex_unlock(&jobs_lock);
    if (copy.id)
        log_end(&copy);
}

void job_set_conn(struct job *j, struct conn *c)
{
    mutex_lock(&jobs_lock);
    j->conn = c;
    mutex_unlock(&jobs_lock);
}

bool job_point_of_no_return(struct job *j)
{
    mutex_lock(&jobs_lock);
    bool go = !j->abort_wanted;
    j->no_abort = go;
    mutex_unlock(&jobs_lock);
    return go;
}

bool job_get(unsigned i, struct job_info *out)
{
    u64 after = 0;
    bool found = false;
    mutex_lock(&jobs_lock);
    for (unsigned n = 0; n <= i; n++) { // ids grow, so the order of age is the order of ids
        const struct job *next = NULL;
        for (size_t k = 0; k < JOBS_KEPT; k++)
            if (jobs[k].used && jobs[k].info.id > after &&
                (!next || jobs[k].info.id < next->info.id))
                next = &jobs[k];
        if (!next)
            goto out;
        after = next->info.id;
    }
    *out = find_id(after)->info;
    found = true;
out:
    mutex_unlock(&jobs_lock);
    return found;
}

bool job_get_id(u64 id, struct job_info *out, bool *ended)
{
    mutex_lock(&jobs_lock);
    const struct job *j = find_id(id);
    if (j) {
        *out = j->info;
        *ended = j->ended;
    }
    mutex_unlock(&jobs_lock);
    return j != NULL;
}

static bool has_ended(u64 id)
{
    struct job_info i;
    bool ended;
    return !job_get_id(id, &i, &ended) || ended;
}

bool job_wait_until(u64 id, u64 deadline_ns)
{
    while (!has_ended(id)) {
        u64 now = time_ns();
        if (deadline_ns && now >= deadline_ns)
            return false;
        // has_ended takes a mutex, so it can't stand between prepare and commit: look often.
        u64 step = now + 10 * NS_PER_MS;
        waitq_prepare(&jobs_wait);
        waitq_commit(&jobs_wait, deadline_ns ? MIN(step, deadline_ns) : step);
    }
    return true;
}

// Marks the job; E_NOENT or E_BUSY with a sentence.
static int want_abort(u64 id, char *err, size_t size)
{
    int e = 0;
    mutex_lock(&jobs_lock);
    struct job *j = find_id(id);
    if (!j) {
        snprintf(err, size, "no job %llu; `jobs` lists them", (unsigned long long)id);
        e = E_NOENT;
    } else if (j->ended) {
        snprintf(err, size, "job %llu has already ended: %s", (unsigned long long)id,
                 job_phase_name(j->info.phase));
        e = E_BUSY;
    } else if (j->info.incoming) {
        snprintf(err, size, "job %llu is steered by %s: abort it there", (unsigned long long)id,
                 j->info.peer);
        e = E_BUSY;
    } else if (j->no_abort) {
        snprintf(err, size, "job %llu is past COMMIT: %s may run the guest already",
                 (unsigned long long)id, j->info.peer);
        e = E_BUSY;
    } else {
        j->abort_wanted = true;
    }
    mutex_unlock(&jobs_lock);
    return e;
}

int job_abort(u64 id, char *err, size_t size)
{
    int e = want_abort(id, err, size);
    if (e)
        return e;
    if (job_wait_until(id, time_ns() + ABORT_GRACE_NS))
        return 0;
    mutex_lock(&jobs_lock); // stuck in a read or write: cut the link
    struct job *j = find_id(id);
    if (j && !j->ended && j->conn && !j->no_abort)
        conn_abort(j->conn);
    mutex_unlock(&jobs_lock);
    if (job_wait_until(id, time_ns() + 10 * ABORT_GRACE_NS))
        return 0;
    snprintf(err, size, "job %llu has not ended yet; see `jobs`", (unsigned long long)id);
    return E_TIMEOUT;
}
