// SPDX-License-Identifier: MIT
// One outgoing move, as the source's files share it.
#ifndef SKIFF_MIGRATE_SOURCE_H
#define SKIFF_MIGRATE_SOURCE_H

#include "kernel/guest/memory.h"
#include "kernel/migrate/clock_sync.h"
#include "kernel/migrate/describe.h"
#include "kernel/migrate/disks.h"
#include "kernel/migrate/internal.h"
#include "kernel/migrate/page_hashes.h"
#include "kernel/migrate/policy.h"

struct rate {
    u64 bytes_s; // 0: unknown
    u64 bytes;   // of the sample it was taken from
};

// The move's own thread works on it; other threads see it through its job and claim only.
struct move {
    struct job *job;
    struct guest *guest;
    struct peer_config peer;
    struct stream s;
    struct claim *claim; // NULL until the peer has accepted
    struct guest_desc desc;
    struct move_ident id;
    struct dirty_bitmap todo;    // pages to send
    struct dirty_bitmap touched; // pages the guest wrote since the move began
    struct clock_sync clock;
    enum verify_mode verify;
    struct page_hashes hashes; // of what was sent
    struct disks_out disks;
    bool paused;
    u32 round;
    u64 started_ns;        // of the phase that sends: first the disks', then pre-copy
    u64 precopy_bytes;     // PAGES and BLOCKS payload sent since then
    struct rate rate;      // with the CPU to ourselves, as measured
    struct rate peer_rate; // the most that the destination can take in
    u64 rtt_ns;            // of a message and its answer over the empty link, mean
    u64 collect_ns;        // the last collection
    u64 zero_ns;           // spent on pages that were not sent
    u64 dirty_rate;        // pages a second in the last round
    u64 state_bytes;
    u64 best_dirty;
    u32 rounds_since_best;
    u64 pages_sent, pages_zero; // in this round
    char error[200];
};

int move_fail(struct move *m, int error, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
// E_ABORT when the operator wants an end, E_BUSY when the guest ended by itself.
int move_check(struct move *m);

// precopy.c: rounds until the policy says stop. The guest runs.
int precopy_run(struct move *m);
// Sends everything in m->todo. final: the guest is stopped.
int precopy_send(struct move *m, bool final);
void precopy_touch(struct move *m);                // counts m->todo into what the guest has touched
int precopy_round_end(struct move *m, bool final); // sends ROUND
void precopy_throttle(struct move *m);             // waits as max_rate wants it
// What `jobs` says of the phase under way, disk or memory: its rate, and how long bytes_left take.
void precopy_show_progress(struct move *m, u64 bytes_left);
// source_stop.c: stops the guest, sends the last pages and the state, and offers it.
int source_stop_and_offer(struct move *m);

#endif
