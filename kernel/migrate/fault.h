// SPDX-License-Identifier: MIT
// Faults that tests inject into a move (console: `fault NAME`). Never set otherwise.
#ifndef SKIFF_MIGRATE_FAULT_H
#define SKIFF_MIGRATE_FAULT_H

#include "kernel/types.h"

struct stream;

// Points of a move where a host can be stalled or its link cut. The host that sends the message
// named by the point stalls after it was sent, and cuts the link instead of sending it; the host
// that receives it stalls or cuts before it acts on it.
enum fault_point {
    FAULT_DISK,    // while the disks are copied
    FAULT_PRECOPY, // in the first round
    FAULT_OFFER,
    FAULT_READY,
    FAULT_COMMIT,
    FAULT_RUNNING,
    FAULT_LINK_POINTS,
    // Stalls alone.
    FAULT_ACCEPT = FAULT_LINK_POINTS,
    FAULT_VOLUMES, // the destination has made the disks' volumes, but not put them on record
    FAULT_STOP,    // the guest stands still; the destination has all of its disks
    FAULT_RECORD,  // the hand-over is on record here, the peer is not told
    FAULT_RELEASE, // the guest runs there, its copy is still here; the disks are compared
};

// Arms one: "flip-page", "change-register", "lose-page" (a changed page is not sent at the stop),
// "no-shootdown" (collecting dirty pages flushes no TLB), "drop-link-at-X" with X of disk, precopy,
// offer, ready, commit, running, or "stall-at-X" with one of these or accept, volumes, stop,
// record, release; "none" disarms all and ends a stall. 0, or E_INVAL with the choices in err. All
// but the stalls fire once.
int fault_set(const char *name, char *err, size_t size);
const char *fault_name(unsigned i); // i-th choice, NULL after the last

bool fault_take_flip_page(void);       // true once
bool fault_take_change_register(void); // true once
bool fault_take_lose_page(void);       // true once
bool fault_take_no_shootdown(void);    // true once
bool fault_flip_page_armed(void);
// True when the link is to be cut here; it then has been (conn_abort).
bool fault_drop_link(struct stream *s, enum fault_point p);
void fault_stall(enum fault_point p); // returns when "none" was set, at most 120 s later

#endif
