// SPDX-License-Identifier: MIT
// Guest RAM: 2 MiB host pages behind guest-physical ranges, and the ways the hypervisor reaches it.
#include "kernel/guest/memory.h"

#include "kernel/guest/backend.h"
#include "kernel/guest/dirty.h"
#include "kernel/guest/guest.h"
#include "kernel/lib.h"
#include "kernel/mem.h"

#define HIGH_RAM_BASE (4 * GIB)
#define CLEAR_STEP    (2 * PAGE_SIZE) // between two looks at whether others want the CPU

static const struct guest_region *find_region(const struct guest *g, u64 gpa)
{
    for (u32 i = 0; i < g->memory.region_count; i++) {
        const struct guest_region *r = &g->memory.region[i];
        if (gpa - r->gpa < r->bytes)
            return r;
    }
    return NULL;
}

// The region that holds all of [gpa, gpa+bytes); regions never touch, so one holds all or none
// does.
static const struct guest_region *find_range(const struct guest *g, u64 gpa, u64 bytes)
{
    const struct guest_region *r = find_region(g, gpa);
    return r && bytes <= r->bytes - (gpa - r->gpa) ? r : NULL;
}

static void *region_ptr(const struct guest_region *r, u64 gpa)
{
    u64 offset = gpa - r->gpa;
    return (u8 *)phys_ptr(r->host[offset / LARGE_PAGE_SIZE]) + offset % LARGE_PAGE_SIZE;
}

static void clear_chunk(u64 hpa)
{
    for (u64 at = 0; at < LARGE_PAGE_SIZE; at += CLEAR_STEP) {
        memset((u8 *)phys_ptr(hpa) + at, 0, CLEAR_STEP);
        thread_yield_if_needed();
    }
}

static int fill_region(struct guest *g, struct guest_region *r)
{
    u64 chunks = r->bytes / LARGE_PAGE_SIZE;
    r->host = kzalloc(chunks * sizeof(*r->host));
    if (!r->host)
        return E_NOMEM;
    for (u64 i = 0; i < chunks; i++) {
        r->host[i] = page_alloc(MEM_LARGE_ORDER);
        if (!r->host[i])
            return E_NOMEM;
        mem_account(MEM_GUEST_RAM, (s64)LARGE_PAGE_SIZE);
        clear_chunk(r->host[i]);
        if (backend->map_large(g, r->gpa + i * LARGE_PAGE_SIZE, r->host[i]))
            return E_NOMEM;
    }
    return 0;
}

static void add_region(struct guest_memory *m, u64 gpa, u64 bytes)
{
    m->region[m->region_count++] = (struct guest_region){.gpa = gpa, .bytes = bytes};
}

int guest_memory_create(struct guest *g, u64 bytes)
{
    struct guest_memory *m = &g->memory;
    bytes = ALIGN_UP(bytes, LARGE_PAGE_SIZE);
    u64 low = MIN(bytes, GUEST_LOW_RAM_MAX);
    memset(m, 0, sizeof(*m));
    m->bytes = bytes;
    add_region(m, 0, low);
    if (bytes > low)
        add_region(m, HIGH_RAM_BASE, bytes - low);
    int error = dirty_log_create(g);
    for (u32 i = 0; i < m->region_count && !error; i++)
        error = fill_region(g, &m->region[i]);
    if (error)
        guest_memory_destroy(g);
    return error;
}

static void free_region(struct guest_region *r)
{
    for (u64 i = 0; r->host && i < r->bytes / LARGE_PAGE_SIZE; i++) {
        if (!r->host[i])
            continue;
        page_free(r->host[i], MEM_LARGE_ORDER);
        mem_account(MEM_GUEST_RAM, -(s64)LARGE_PAGE_SIZE);
    }
    kfree(r->host);
}

void guest_memory_destroy(struct guest *g)
{
    for (u32 i = 0; i < g->memory.region_count; i++)
        free_region(&g->memory.region[i]);
    memset(&g->memory, 0, sizeof(g->memory));
    dirty_log_destroy(g);
}

bool guest_is_ram(const struct guest *g, u64 gpa, u64 bytes)
{
    return find_range(g, gpa, bytes);
}

void *guest_page(struct guest *g, u64 gpa)
{
    const struct guest_region *r = find_region(g, gpa);
    return r ? region_ptr(r, ALIGN_DOWN(gpa, PAGE_SIZE)) : NULL;
}

// Bytes from gpa to the end of its 2 MiB chunk, at most `left`.
static u64 piece(u64 gpa, u64 left)
{
    return MIN(left, LARGE_PAGE_SIZE - gpa % LARGE_PAGE_SIZE);
}

int guest_read(struct guest *g, u64 gpa, void *buf, u64 bytes)
{
    const struct guest_region *r = find_range(g, gpa, bytes);
    if (!r)
        return E_INVAL;
    for (u64 n, done = 0; done < bytes; done += n) {
        n = piece(gpa + done, bytes - done);
        memcpy((u8 *)buf + done, region_ptr(r, gpa + done), n);
    }
    return 0;
}

int guest_write(struct guest *g, u64 gpa, const void *buf, u64 bytes)
{
    const struct guest_region *r = find_range(g, gpa, bytes);
    if (!r)
        return E_INVAL;
    for (u64 n, done = 0; done < bytes; done += n) {
        n = piece(gpa + done, bytes - done);
        memcpy(region_ptr(r, gpa + done), (const u8 *)buf + done, n);
    }
    guest_mark_dirty(g, gpa, bytes);
    return 0;
}

int guest_zero(struct guest *g, u64 gpa, u64 bytes)
{
    const struct guest_region *r = find_range(g, gpa, bytes);
    if (!r)
        return E_INVAL;
    for (u64 n, done = 0; done < bytes; done += n) {
        n = MIN(piece(gpa + done, bytes - done), CLEAR_STEP);
        memset(region_ptr(r, gpa + done), 0, n);
        thread_yield_if_needed();
    }
    guest_mark_dirty(g, gpa, bytes);
    return 0;
}

void *guest_borrow(struct guest *g, u64 gpa, u64 bytes)
{
    const struct guest_region *r = find_range(g, gpa, bytes);
    if (!r || !bytes)
        return NULL;
    u64 first = (gpa - r->gpa) / LARGE_PAGE_SIZE;
    u64 last = (gpa - r->gpa + bytes - 1) / LARGE_PAGE_SIZE;
    for (u64 i = first; i < last; i++)
        if (r->host[i] + LARGE_PAGE_SIZE != r->host[i + 1])
            return NULL;
    return region_ptr(r, gpa);
}

void guest_release(struct guest *g, u64 gpa, u64 bytes, bool written)
{
    if (written)
        guest_mark_dirty(g, gpa, bytes);
}

u64 guest_page_count(const struct guest *g)
{
    return g->memory.bytes / PAGE_SIZE;
}

u64 guest_page_index(const struct guest *g, u64 gpa)
{
    u64 before = 0;
    for (u32 i = 0; i < g->memory.region_count; i++) {
        const struct guest_region *r = &g->memory.region[i];
        if (gpa - r->gpa < r->bytes)
            return (before + gpa - r->gpa) >> PAGE_SHIFT;
        before += r->bytes;
    }
    return ~0ull;
}

u64 guest_page_gpa(const struct guest *g, u64 index)
{
    u64 offset = index << PAGE_SHIFT;
    for (u32 i = 0; i < g->memory.region_count; i++) {
        const struct guest_region *r = &g->memory.region[i];
        if (offset < r->bytes)
            return r->gpa + offset;
        offset -= r->bytes;
    }
    return ~0ull;
}
