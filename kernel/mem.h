// SPDX-License-Identifier: MIT
// Host memory: a buddy allocator of physical pages and a small heap on top of it.
// The host maps all RAM one to one, so a physical address is also a pointer (phys_ptr).
#ifndef SKIFF_KERNEL_MEM_H
#define SKIFF_KERNEL_MEM_H

#include "kernel/types.h"

struct boot_info;

#define MEM_MAX_ORDER   10 // 4 MiB blocks
#define MEM_LARGE_ORDER 9  // 2 MiB, 2 MiB aligned

// Takes over the conventional memory of the boot memory map. Memory above 4 GiB included. What boot
// services used is left alone: the firmware's page tables and stack are in there.
void mem_init(const struct boot_info *bi);
// Takes over the boot services' memory as well. Once, when neither the firmware's page tables nor
// its stack are in use any more.
void mem_reclaim_boot(const struct boot_info *bi);

// 2^order contiguous pages, naturally aligned. Returns the physical address, 0 when there is none.
// Not zeroed. Safe from threads and interrupt handlers.
u64 page_alloc(unsigned order);
u64 page_alloc_zero(unsigned order);
void page_free(u64 pa, unsigned order);

static inline void *phys_ptr(u64 pa)
{
    return (void *)(uintptr_t)pa;
}
static inline u64 ptr_phys(const void *p)
{
    return (u64)(uintptr_t)p;
}

// Any number of contiguous pages, for what a power of two would waste half of.
u64 pages_alloc(u64 count);
void pages_free(u64 pa, u64 count);

// Heap. kmalloc returns 16-byte aligned memory or NULL; kfree(NULL) is allowed.
void *kmalloc(size_t size);
void *kzalloc(size_t size);
void kfree(void *p);

// What grows with guests and their moves is accounted by what it is for.
enum mem_use {
    MEM_GUEST_RAM,
    MEM_PAGE_TABLES, // of guests
    MEM_DIRTY_LOG,   // bitmaps of guests' pages
    MEM_PAGE_HASHES, // of moves that verify
    MEM_NETWORK,     // packet buffers, and what connections have not sent or read yet
    MEM_DATASTORES,  // their metadata and requests
    MEM_USES
};

struct mem_stats {
    u64 total_bytes; // managed by the page allocator
    u64 free_bytes;
    u64 used_bytes[MEM_USES];
    u64 heap_bytes;      // handed out by kmalloc
    u64 image_bytes;     // the EFI image, boot files excluded
    u64 boot_file_bytes; // guest files kept from the ESP
};
void mem_get_stats(struct mem_stats *out);
void mem_account(enum mem_use use, s64 delta_bytes);

#endif
