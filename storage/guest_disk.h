// SPDX-License-Identifier: MIT
// A guest's disk: a host disk or a volume, behind a log of what the guest writes, for moves.
#ifndef SKIFF_STORAGE_GUEST_DISK_H
#define SKIFF_STORAGE_GUEST_DISK_H

#include "kernel/guest/memory.h"
#include "kernel/thread.h"
#include "storage/block.h"

#define GUEST_DISK_WRITES 64u          // under way at the same time; more wait
#define GUEST_DISK_BLOCK  8u           // sectors that a bit of the log stands for, at least
#define GUEST_DISK_BITS   (1ull << 24) // of a log, at most: larger disks have larger blocks

struct guest_disk;

// A write, discard or write of zeroes that is under way.
struct guest_write {
    struct block_request below;
    struct block_request *of;
    struct guest_disk *disk;
    struct guest_write *next; // free ones
};

struct guest_disk {
    struct block_device block; // first: what the guest's device submits to
    struct block_device *below;
    u32 block_sectors;    // that a bit of the log stands for
    struct spinlock lock; // of all that follows
    struct guest_write write[GUEST_DISK_WRITES], *free;
    struct block_request *first, **last; // writes that wait
    bool submitting;                     // somebody gives them to the disk below
    u64 under_way;                       // blocks that writes under way touch
    bool logging, early;
    struct dirty_bitmap log; // blocks that were written and not collected
    u64 most;                // of them: further writes wait. 0: any number
};

// Opens a host disk by its name, or a volume ("STORE/VOLUME"), for `user`. 0, or an error with a
// sentence.
int guest_disk_open(const char *name, const char *user, struct guest_disk **out, char *err,
                    size_t size);
void guest_disk_close(struct guest_disk *d); // nothing is under way; NULL is allowed

// A block whose write is done is in the log before the guest knows. What was under way at the start
// is logged as well. early: before it is carried out too, so that what is read and is not in the
// log afterwards is as it was at the start. Begins anew where a log runs already. 0 or E_NOMEM.
int guest_disk_log_start(struct guest_disk *d, bool early);
void guest_disk_log_stop(struct guest_disk *d);
bool guest_disk_logged(struct guest_disk *d, u64 block); // true as well when no log runs
// Moves what is in the log to *todo, a bitmap of guest_disk_blocks; returns how much that was.
// Reads of these blocks from now on see what was written, or a later write that will be logged.
u64 guest_disk_collect(struct guest_disk *d, struct dirty_bitmap *todo);
// Lets writes wait while that many blocks are in the log, so that whoever collects and sends them
// never falls further behind. 0: no longer.
void guest_disk_limit(struct guest_disk *d, u64 most);
u64 guest_disk_blocks(const struct guest_disk *d);
// Whether `sector` holds anything, and how many sectors from there on are alike (at least that).
bool guest_disk_allocated(const struct guest_disk *d, u64 sector, u64 *run);

#endif
