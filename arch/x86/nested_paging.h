// SPDX-License-Identifier: MIT
// Second-level page tables of a guest, four levels with 2 MiB and 4 KiB pages, and dirty logging in
// them. EPT and NPT differ in their entries' bits only (SDM 3C 28.2.2, APM 2 15.25.5).
#ifndef SKIFF_ARCH_NESTED_PAGING_H
#define SKIFF_ARCH_NESTED_PAGING_H

#include "kernel/thread.h"
#include "kernel/types.h"

struct guest;

#define NP_ADDRESS 0x000ffffffffff000ull
#define NP_ENTRIES 512
#define NP_LEVELS  4 // 4: the root, 3, 2: 2 MiB an entry, 1: 4 KiB an entry
#define NP_GPA_END BIT(48)

// What the bits of an entry mean to the CPU.
struct np_format {
    u64 present; // no access at all without it
    u64 write;
    u64 dirty;
    u64 table; // an entry that leads to another table, all rights
    u64 leaf;  // an entry that maps write-back memory, all rights
    u64 large; // a leaf above level 1
};

enum np_logging {
    NP_LOG_OFF,
    NP_LOG_DIRTY_FLAGS, // the CPU sets them and tells (PML); small pages stay writable
    NP_LOG_WRITES,      // the first write to a page faults
};

struct nested_paging {
    const struct np_format *format;
    struct guest *guest;
    void (*flush)(struct guest *g); // every CPU forgets what it cached of these tables; complete
    u64 root;                       // physical address of the level 4 table
    struct spinlock lock;           // changes of the tables below root
    volatile u8 logging;            // enum np_logging; lock
};

// Returns 0 or E_NOMEM.
int np_init(struct nested_paging *np, const struct np_format *format, struct guest *g,
            void (*flush)(struct guest *g));
void np_fini(struct nested_paging *np);                       // no CPU uses the tables any more
int np_map_large(struct nested_paging *np, u64 gpa, u64 hpa); // 2 MiB; 0 or E_NOMEM

// Everything counts as unwritten from the return of the flush that the caller makes after it.
void np_log_start(struct nested_paging *np, enum np_logging how);
void np_log_rearm(struct nested_paging *np, u64 gpa); // the next write is to be told again
void np_log_stop(struct nested_paging *np);           // yields; merges split pages and flushes

enum np_fault { NP_FAULT_RETRY, NP_FAULT_NOT_RAM };
// What to do about an access that the tables did not allow: gives write permission back and tells
// the dirty log, or says that there is no memory.
enum np_fault np_fault(struct nested_paging *np, u64 gpa, bool write);

#endif
