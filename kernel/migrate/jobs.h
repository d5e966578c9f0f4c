// SPDX-License-Identifier: MIT
// The table of moves under way and of the last ones that ended.
#ifndef SKIFF_MIGRATE_JOBS_H
#define SKIFF_MIGRATE_JOBS_H

#include "kernel/migrate/migrate.h"
#include "net/net.h"

#define JOBS_KEPT 32

// A job belongs to the thread that made it until job_end. Its slot is reused after that.
struct job {
    struct job_info info;
    u64 part_ns; // when the last part of the blackout ended
    bool used, ended;
    volatile bool abort_wanted;
    bool no_abort;     // COMMIT is about to be sent, or was (under jobs_lock)
    struct conn *conn; // to cut when an abort finds the job stuck (under jobs_lock)
};

// NULL when all slots are taken by jobs under way.
struct job *job_new(const char *guest, const char *peer, bool incoming);
void job_phase(struct job *j, enum job_phase p);
void job_end(struct job *j, enum job_phase p, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
// A later word on a job that ended in doubt; nothing when its slot was reused.
void job_settle(u64 id, enum job_phase p, u64 blackout_us, const char *result);
// This part of the blackout has lasted from the end of the one before, j->part_ns, until then.
void job_part(struct job *j, enum blackout_part p, u64 until_ns);
void job_set_conn(struct job *j, struct conn *c);
// From here on no abort is taken. False when one came before.
bool job_point_of_no_return(struct job *j);
int job_abort(u64 id, char *err, size_t size);
bool job_get_id(u64 id, struct job_info *out, bool *ended);
// Blocks until the job has ended or the deadline (host time). True when it has ended.
bool job_wait_until(u64 id, u64 deadline_ns);

#endif
