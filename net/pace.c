// SPDX-License-Identifier: MIT
// How long the network thread may leave the others to themselves while guests' frames stream.
#include "net/pace.h"

#include "kernel/lib.h"
#include "kernel/time.h"

// Frames stream when that much moves in so short a time: one long segment, or more small frames
// than a question and its answer.
#define STREAM_BYTES       (16u * 1024)
#define STREAM_INTERVAL_NS (2 * NS_PER_MS)
// The wait in turns' costs, so that looking takes a small part of a slow CPU and delays little on a
// fast one, where the NIC's ring fills sooner as well.
#define WAIT_TURNS    4u
#define WAIT_LEAST_NS (50 * NS_PER_US)
#define WAIT_MOST_NS  NS_PER_MS

void pace_note(struct net_pace *p, u64 now, u64 moved, u64 turn)
{
    if (!moved)
        return;
    if (now - p->since_ns > STREAM_INTERVAL_NS) {
        p->since_ns = now;
        p->moved = 0;
    }
    p->moved += moved;
    p->turn_ns = (3 * p->turn_ns + turn) / 4;
    if (p->moved < STREAM_BYTES)
        return;
    p->since_ns = now;
    p->moved = 0;
    p->until_ns = now + STREAM_INTERVAL_NS;
}

u64 pace_wait_ns(const struct net_pace *p, u64 now)
{
    if (now >= p->until_ns)
        return 0;
    return MIN(MAX(WAIT_TURNS * p->turn_ns, WAIT_LEAST_NS), WAIT_MOST_NS);
}
