// SPDX-License-Identifier: MIT
// Moves, as the console and the start-up see them. Stream: kernel/migrate/stream.md.
#ifndef SKIFF_MIGRATE_MIGRATE_H
#define SKIFF_MIGRATE_MIGRATE_H

#include "kernel/config.h"
#include "kernel/guest/guest.h"
#include "kernel/migrate/policy.h"
#include "kernel/types.h"

// Listens for peers, remembers the configuration. After net_start.
void migrate_start(const struct host_config *cfg);
extern u64 host_boot_id; // random, new at every boot

enum job_phase {
    JOB_CONNECT,
    JOB_CHECK,
    JOB_DISK, // its disks are copied
    JOB_PRECOPY,
    JOB_STOP,
    JOB_HANDOVER,
    JOB_VERIFY,
    JOB_AUDIT, // the guest runs there; the copy here is compared with what was sent
    JOB_DONE,
    JOB_FAILED,
    JOB_ABORTED,
    JOB_IN_DOUBT
};
const char *job_phase_name(enum job_phase p);
bool job_phase_ended(enum job_phase p);

struct job_info {
    u64 id;
    char guest[CONFIG_NAME], peer[CONFIG_NAME];
    bool incoming;
    enum job_phase phase;
    u32 round;
    u64 bytes_wire, pages_sent, pages_zero, pages_free, pages_touched, dirty_pages_last_round;
    u64 disk_bytes_wire, disk_bytes_left; // left: of the pass that is under way
    u64 disk_blocks_equal,
        disk_blocks_rewritten; // compared; those the guest has written there since
    u64 rate_bytes_s, dirty_rate_pages_s;
    u64 eta_ms, predicted_blackout_us, measured_blackout_us, clock_error_us;
    u64 predicted_us[BLACKOUT_PARTS]; // together predicted_blackout_us
    u64 blackout_us[BLACKOUT_PARTS];  // by this host's clock; together measured_blackout_us
    u64 started_ns, ended_ns;
    u64 running_ns;                   // outgoing: when the peer said that it runs there
    u64 enable_ticks;                 // host TSC ticks to start the dirty log
    u64 collect_ticks, collect_pages; // host TSC ticks of all collections, and what they found
    u64 send_page_ticks;              // CPU time of this host for each page sent in pre-copy
    u8 digest_match;                  // 0 not asked, 1 match, 2 differ
    u8 disk_digest_match;             // the same, of the disks
    char result[200];                 // one sentence, also while failed
    char dirty_tracking[8];
    char stop_reason[16]; // "blackout", "rounds", "no-progress"
};
// i-th job, newest last (the last 32 are kept). false when none.
bool job_get(unsigned i, struct job_info *out);

// Starts a move in a thread of its own; returns the job id (> 0) or an error with a sentence.
// A guest with disks moves with them, which the operator has to want.
s64 migrate_begin(const char *guest, const char *peer, bool disks, char *err, size_t size);
// Only checks. Returns 0 when it could go, and report() gets what is worth knowing before; E_INVAL
// when it would be refused, and report() gets every reason; E_IO when the peer could not be asked.
int migrate_check(const char *guest, const char *peer, bool disks,
                  void (*report)(void *arg, const char *line), void *arg, char *err, size_t size);
int migrate_abort(u64 job_id, char *err, size_t size); // before COMMIT only
int migrate_resolve(const char *guest, bool keep, char *err, size_t size);

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

// Sends that many bytes to a peer, which throws them away; *ns until it has said that it got them.
// 0, or an error with a sentence.
int link_test(const char *peer, u64 bytes, u64 *ns, char *err, size_t size);

// Design rule 17. Blocks until every peer answered or cannot be asked: true when none of them runs
// or holds uuid; else why gets one sentence.
bool ownership_may_start(const u8 uuid[16], char *why, size_t size);
// It runs, or could not be started: this host is not about to start it any more. Once the guest's
// state says so, without its lock.
void ownership_start_over(const u8 uuid[16]);

#endif
