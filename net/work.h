// SPDX-License-Identifier: MIT
// How other threads ask the network thread for something: work items it runs one after the other.
#ifndef SKIFF_NET_WORK_H
#define SKIFF_NET_WORK_H

#include "kernel/types.h"

// Part of what it works for. Queued at most once at a time; posting it again while it runs makes it
// run again, so a work function looks at the state it finds instead of at who posted it.
struct net_work {
    void (*fn)(struct net_work *w); // on the network thread; may free the memory the item is in
    struct net_work *next;
    bool queued;
};

// Any thread. Before net_start has found a NIC, work waits.
void net_post(struct net_work *w);
// On the network thread: it does not run unless it is posted again.
void net_unpost(struct net_work *w);
// Runs fn on the network thread and returns its result; never from the network thread itself.
int net_call(int (*fn)(void *arg), void *arg);
// Whether net_start has succeeded: only then does anybody run work.
bool net_running(void);

#endif
