// SPDX-License-Identifier: MIT
// Moves, as the console and the start-up see them. Stream: kernel/migrate/stream.md.
#ifndef SKIFF_MIGRATE_MIGRATE_H
#define SKIFF_MIGRATE_MIGRATE_H

#include "kernel/config.h"
#include "kernel/guest/guest.h"
#include "kernel/types.h"

// Listens for peers, remembers the configuration. After net_start.
void migrate_start(const struct host_config *cfg);
extern u64 host_boot_id; // random, new at every boot

enum job_phase {
    JOB_CONNECT,
    JOB_CHECK,
    JOB_PRECOPY,
    JOB_STOP,
    JOB_HANDOVER,
    JOB_VERIFY,
    JOB_DONE,
    JOB_FAILED,
    JOB_ABORTED,
    JOB_IN_DOUBT
};
const char *job_phase_name(enum job_phase p);

struct job_info {
    u64 id;
    char guest[CONFIG_NAME], peer[CONFIG_NAME];
    bool incoming;
    enum job_phase phase;
    u32 round;
    u64 bytes_wire, pages_sent, pages_zero, pages_touched, dirty_pages_last_round;
    u64 rate_bytes_s, dirty_rate_pages_s;
    u64 eta_ms, predicted_blackout_us, measured_blackout_us, clock_error_us;
    u64 started_ns, ended_ns;
    u64 enable_ticks;                 // host TSC ticks to start the dirty log
    u64 collect_ticks, collect_pages; // host TSC ticks of all collections, and what they found
    u8 digest_match;                  // 0 not asked, 1 match, 2 differ
    char result[200];                 // one sentence, also while failed
    char dirty_tracking[8];
    char stop_reason[16]; // "blackout", "rounds", "no-progress"
};
// i-th job, newest last (the last 32 are kept). false when none.
bool job_get(unsigned i, struct job_info *out);

// Starts a move in a thread of its own; returns the job id (> 0) or an error with a sentence.
s64 migrate_begin(const char *guest, const char *peer, char *err, size_t size);
// Only checks; each reason the move would be refused for goes to report(). Returns 0 when it could
// go, E_INVAL when it would be refused, E_IO when the peer could not be asked.
int migrate_check(const char *guest, const char *peer, void (*report)(void *arg, const char *line),
                  void *arg, char *err, size_t size);
int migrate_abort(u64 job_id, char *err, size_t size); // before COMMIT only
int migrate_resolve(const char *guest, bool keep, char *err, size_t size);
// Waits until the job has ended or deadline_ns (0 none). Calls progress about once a second.
int migrate_wait(u64 job_id, void (*progress)(void *arg, const struct job_info *j), void *arg);

struct peer_info {
    char name[CONFIG_NAME];
    struct ip_address address;
    u16 port;
    bool reachable;
    u64 boot_id, rtt_us;
    char version[24];
    u32 guests;
    u64 free_bytes;
    char error[120];
};
// Asks the i-th configured peer now (blocking up to 2 s). false when there is no such peer.
bool peer_query(unsigned i, struct peer_info *out);

// Design rule 17. Blocks until every peer answered or cannot be asked: true when none of them runs
// or holds uuid; else why gets one sentence.
bool ownership_may_start(const u8 uuid[16], char *why, size_t size);

#endif
