// SPDX-License-Identifier: MIT
// The clock exchange over the migration connection: offset between two hosts' clocks, and its
// bound.
#ifndef SKIFF_MIGRATE_CLOCK_SYNC_H
#define SKIFF_MIGRATE_CLOCK_SYNC_H

#include "kernel/migrate/stream.h"

struct clock_sync {
    bool valid;
    u64 next_id;
    s64 offset_ns; // destination time - source time
    u64 error_ns;  // |true offset - offset_ns| is at most this (half the round trip)
    u64 rtt_ns;    // of the best exchange
    u64 last_ns;   // of the last exchange, queues included
    // What the destination said of itself in the last exchange (stream.md, "Prediction")
    u64 peer_busy_ns, peer_state_ns;
};

// Forgets what was measured: clocks drift, so each stop measures anew.
void clock_sync_reset(struct clock_sync *c);
// One ping-pong. The answer comes only after all records before it were handled. 0 or an error.
int clock_ping(struct stream *s, struct clock_sync *c);
int clock_ping_many(struct stream *s, struct clock_sync *c, u32 count);
int clock_answer(struct stream *s, const struct record *ping, u64 busy_ns, u64 state_ns);
// Pure: takes one exchange into account.
void clock_sync_take(struct clock_sync *c, u64 sent, u64 peer_received, u64 peer_sent,
                     u64 received);

#endif
