// SPDX-License-Identifier: MIT
// Guest RAM: 2 MiB host pages behind guest-physical ranges, and the one dirty log over it.
// RAM lies at [0, min(size, 3 GiB)) and, what does not fit, from 4 GiB upwards.
#ifndef SKIFF_GUEST_MEMORY_H
#define SKIFF_GUEST_MEMORY_H

#include "kernel/thread.h"
#include "kernel/types.h"

struct guest;

#define GUEST_LOW_RAM_MAX (3ull * GIB)
#define GUEST_MAX_REGIONS 4

struct guest_region {
    u64 gpa, bytes;
    u64 *host; // host physical address of each 2 MiB chunk
};

// Made and taken apart under the guest's lock, constant in between.
struct guest_memory {
    u32 region_count;
    struct guest_region region[GUEST_MAX_REGIONS];
    u64 bytes;
    u64 split_pages; // 2 MiB pages that the dirty log has split; the backend's lock of its tables
};

// Allocates and zeroes RAM (yielding), maps it in the backend. Returns 0, E_NOMEM (nothing kept).
int guest_memory_create(struct guest *g, u64 bytes);
void guest_memory_destroy(struct guest *g);

bool guest_is_ram(const struct guest *g, u64 gpa, u64 bytes);
// Host pointer to the 4 KiB page with this gpa, NULL when it is not RAM. For reading or for the
// dirty log's own copy; whoever writes through it calls guest_mark_dirty.
void *guest_page(struct guest *g, u64 gpa);
// Copies; return 0, or E_INVAL when any byte is not RAM (then nothing is written).
// Writes are logged in the dirty log.
int guest_read(struct guest *g, u64 gpa, void *buf, u64 bytes);
int guest_write(struct guest *g, u64 gpa, const void *buf, u64 bytes);
int guest_zero(struct guest *g, u64 gpa, u64 bytes);
// Borrow: a pointer to [gpa, gpa+bytes) when it is RAM and contiguous in the host, else NULL.
// It must not outlive the call that took it; release marks it dirty when written.
void *guest_borrow(struct guest *g, u64 gpa, u64 bytes);
void guest_release(struct guest *g, u64 gpa, u64 bytes, bool written);

// ---- The dirty log -------------------------------------------------------------------------
// One bit a page frame in gfn order of the RAM regions laid end to end ("page index"), with a
// summary bit per 64 words, so that collecting costs in proportion to what is dirty.
// Backends: PML or write-protection (enum dirty_mode of kernel/config.h).
struct dirty_log;

u64 guest_page_count(const struct guest *g);          // 4 KiB pages of RAM
u64 guest_page_index(const struct guest *g, u64 gpa); // ~0 when not RAM
u64 guest_page_gpa(const struct guest *g, u64 index);

// Starts logging: everything counts as clean from the moment it returns. 0, E_NOMEM, E_BUSY.
int dirty_log_start(struct guest *g, unsigned mode);
// One thread's own, which is the move's.
struct dirty_bitmap {
    u64 pages;    // bits
    u64 count;    // bits set
    u64 *bits;    // (pages + 63) / 64 words
    u64 *summary; // one bit for each word that may be non-zero
};
// The most that guests which are in memory now can make the host need, by use (enum mem_use of
// mem.h).
void guests_memory_limits(u64 limit[]);

int dirty_bitmap_init(struct dirty_bitmap *b, u64 pages);
u64 dirty_bitmap_bytes(u64 pages); // of memory
void dirty_bitmap_free(struct dirty_bitmap *b);
bool dirty_bitmap_set(struct dirty_bitmap *b, u64 page);   // true when it was clear
bool dirty_bitmap_clear(struct dirty_bitmap *b, u64 page); // true when it was set
bool dirty_bitmap_test(const struct dirty_bitmap *b, u64 page);
u64 dirty_bitmap_take_next(struct dirty_bitmap *b, u64 from); // clears and returns the next set bit
                                                              // at or after from; ~0 when none
void dirty_bitmap_fill(struct dirty_bitmap *b);
// Moves what is dirty into `out` (a bitmap of guest_page_count bits with its summary, or-ed in):
// clear, shoot down, drain, and only then may pages be read. Returns the number of newly set bits.
// The vCPUs keep running (or are paused). E_NOMEM when a table split failed since the last call:
// the caller aborts its job; the guest is unharmed.
s64 dirty_log_collect(struct guest *g, struct dirty_bitmap *out);
// Ends logging and merges split pages back (yielding).
void dirty_log_stop(struct guest *g);
bool dirty_log_active(const struct guest *g);
// Until the log stops, collecting throws no CPU out: writes are lost, and verification must say so.
void dirty_log_leave_out_shootdown(struct guest *g);
const char *dirty_log_backend_name(const struct guest *g); // "pml", "wp"
u64 dirty_log_pending(const struct guest *g); // bits set and not yet collected (approximate)

// Marks [gpa, gpa+bytes) written by the hypervisor itself. Cheap when no log runs.
void guest_mark_dirty(struct guest *g, u64 gpa, u64 bytes);
// For backends: a guest write was seen on this page (PML entry or write-protection fault).
void dirty_log_hit(struct guest *g, u64 gpa);
// For backends: a split found no memory.
void dirty_log_fail(struct guest *g);

#endif
