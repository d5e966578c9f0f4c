// SPDX-License-Identifier: MIT
// What the host's own memory for its guests can come to at most.
#include "kernel/guest/guest.h"
#include "kernel/guest/memory.h"
#include "kernel/lib.h"
#include "kernel/mem.h"
#include "kernel/migrate/page_hashes.h"

// The dirty log's own, and a move's: to be sent, ever touched, and the rest while the link is
// tried.
#define BITMAPS 4

// Root, its one table, a directory for each GiB, and a table for each 2 MiB that a log has split.
static u64 tables(const struct guest_memory *m)
{
    u64 count = 2;
    for (u32 i = 0; i < m->region_count; i++) {
        const struct guest_region *r = &m->region[i];
        count += r->bytes / LARGE_PAGE_SIZE;
        count += ALIGN_UP(r->gpa + r->bytes, GIB) / GIB - r->gpa / GIB;
    }
    return count;
}

void guests_memory_limits(u64 limit[])
{
    memset(limit, 0, MEM_USES * sizeof(limit[0]));
    mutex_lock(&guests_lock);
    for (const struct guest *g = guest_first(); g; g = g->next) {
        u64 pages = g->memory.bytes / PAGE_SIZE;
        if (!pages)
            continue;
        limit[MEM_GUEST_RAM] += g->memory.bytes;
        limit[MEM_PAGE_TABLES] += tables(&g->memory) * PAGE_SIZE;
        limit[MEM_DIRTY_LOG] += BITMAPS * dirty_bitmap_bytes(pages);
        limit[MEM_PAGE_HASHES] += page_hashes_bytes(pages);
    }
    mutex_unlock(&guests_lock);
}
