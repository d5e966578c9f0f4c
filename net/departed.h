// SPDX-License-Identifier: MIT
// A guest that has moved away: what still comes for it here is kept, to be passed on.
#ifndef SKIFF_NET_DEPARTED_H
#define SKIFF_NET_DEPARTED_H

#include "kernel/types.h"

struct guest;
struct departed;

// Takes the place of the guest's port, with the frames that wait there. The guest stands still and
// keeps its devices during the call. NULL: it has no card on a network, or there is no memory.
struct departed *departed_begin(struct guest *g);
// Waits for a frame and copies it. Returns its bytes, E_TIMEOUT, or E_ABORT: the guest is back.
s64 departed_take(struct departed *d, void *buf, u32 size, u64 deadline_ns);
void departed_end(struct departed *d);

#endif
