// SPDX-License-Identifier: MIT
// What a move asks of the guest's balloon.
#ifndef SKIFF_GUEST_VIRTIO_BALLOON_H
#define SKIFF_GUEST_VIRTIO_BALLOON_H

#include "kernel/guest/memory.h"

struct guest;

// Takes the pages that the guest says are free out of todo, and makes them zeros. To be called
// while the dirty log runs, before anything is sent and before it is collected for the first time:
// a page that is used after all is in the log. Waits as long as hints come, most_ns at most.
// Returns the number of pages.
u64 balloon_leave_out_free(struct guest *g, struct dirty_bitmap *todo, u64 most_ns);

#endif
