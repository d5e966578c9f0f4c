// SPDX-License-Identifier: MIT
// How long the network thread may leave the others to themselves while guests' frames stream.
#ifndef SKIFF_NET_PACE_H
#define SKIFF_NET_PACE_H

#include "kernel/types.h"

// Each time the network thread is woken costs an exit and two switches of threads. When much comes
// and goes, it had better look from time to time instead: what happened meanwhile is done at once,
// and neither guests nor the NIC interrupt anybody for it. What comes alone, a question or its
// answer, must not wait for that.
struct net_pace {
    u64 since_ns, moved; // moved in the interval since then
    u64 until_ns;        // it streams, at least until then
    u64 turn_ns;         // CPU time of a turn, averaged
};

// After each turn, with what it moved (switch_moved) and the CPU time it took.
void pace_note(struct net_pace *p, u64 now_ns, u64 moved, u64 turn_ns);
// How long to wait before the next look; 0: until something wakes the network thread.
u64 pace_wait_ns(const struct net_pace *p, u64 now_ns);

#endif
