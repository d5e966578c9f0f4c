// SPDX-License-Identifier: MIT
// Second-level page tables: made, filled, freed, and the write-protection that logs dirty pages.
#include "arch/x86/nested_paging.h"

#include "kernel/guest/guest.h"
#include "kernel/lib.h"
#include "kernel/mem.h"

#define MERGE_BATCH 64 // tables that wait for one flush before they are freed

struct table {
    u64 entry[NP_ENTRIES];
};
static_assert(sizeof(struct table) == PAGE_SIZE, "SDM 3C 28.2.2, APM 2 15.25.3");

// The CPU sets accessed and dirty flags in the entries on its own: all changes are atomic.
static u64 entry_get(const u64 *e)
{
    return __atomic_load_n(e, __ATOMIC_ACQUIRE);
}

static void entry_put(u64 *e, u64 value)
{
    __atomic_store_n(e, value, __ATOMIC_RELEASE);
}

static void entry_set(u64 *e, u64 bits)
{
    __atomic_fetch_or(e, bits, __ATOMIC_SEQ_CST);
}

static void entry_clear(u64 *e, u64 bits)
{
    __atomic_fetch_and(e, ~bits, __ATOMIC_SEQ_CST);
}

static struct table *table_of(u64 entry)
{
    return phys_ptr(entry & NP_ADDRESS);
}

static u64 *entry_of(struct table *t, u64 gpa, int level)
{
    return &t->entry[gpa >> (PAGE_SHIFT + 9 * (level - 1)) & (NP_ENTRIES - 1)];
}

static bool is_leaf(const struct nested_paging *np, u64 entry, int level)
{
    return level == 1 || (level == 2 && (entry & np->format->large));
}

int np_init(struct nested_paging *np, const struct np_format *format, struct guest *g,
            void (*flush)(struct guest *g))
{
    *np = (struct nested_paging){.format = format, .guest = g, .flush = flush};
    np->root = page_alloc_zero(0);
    if (!np->root)
        return E_NOMEM;
    mem_account(MEM_PAGE_TABLES, PAGE_SIZE);
    return 0;
}

static void free_table(u64 pa)
{
    page_free(pa, 0);
    mem_account(MEM_PAGE_TABLES, -(s64)PAGE_SIZE);
}

static void free_tables(const struct nested_paging *np, u64 pa, int level)
{
    const struct table *t = phys_ptr(pa);
    for (unsigned i = 0; level > 1 && i < NP_ENTRIES; i++)
        if (t->entry[i] && !is_leaf(np, t->entry[i], level))
            free_tables(np, t->entry[i] & NP_ADDRESS, level - 1);
    free_table(pa);
}

void np_fini(struct nested_paging *np)
{
    if (np->root)
        free_tables(np, np->root, NP_LEVELS);
    np->root = 0;
}

int np_map_large(struct nested_paging *np, u64 gpa, u64 hpa)
{
    assert(gpa % LARGE_PAGE_SIZE == 0 && hpa % LARGE_PAGE_SIZE == 0 && gpa < NP_GPA_END);
    struct table *t = phys_ptr(np->root);
    for (int level = NP_LEVELS; level > 2; level--) {
        u64 *e = entry_of(t, gpa, level);
        if (!*e) {
            u64 pa = page_alloc_zero(0);
            if (!pa)
                return E_NOMEM;
            mem_account(MEM_PAGE_TABLES, PAGE_SIZE);
            entry_put(e, pa | np->format->table);
        }
        t = table_of(*e);
    }
    u64 *e = entry_of(t, gpa, 2);
    assert(*e == 0);
    entry_put(e, hpa | np->format->leaf | np->format->large);
    return 0;
}

static void protect_table(const struct nested_paging *np, struct table *t)
{
    for (unsigned i = 0; i < NP_ENTRIES; i++)
        if (entry_get(&t->entry[i]) & np->format->write)
            entry_clear(&t->entry[i], np->format->write);
}

// Permission goes at the top, whatever the guest's size; the faults push that down.
void np_log_start(struct nested_paging *np, enum np_logging how)
{
    spin_lock(&np->lock);
    np->logging = how;
    protect_table(np, phys_ptr(np->root));
    spin_unlock(&np->lock);
}

// A 2 MiB leaf becomes a table of 4 KiB leaves. Nothing needs a flush: what a TLB still holds is
// the same memory with less permission, and a fault makes the CPU look again.
static bool split(struct nested_paging *np, u64 *e)
{
    const struct np_format *f = np->format;
    u64 pa = page_alloc(0);
    if (!pa)
        return false;
    mem_account(MEM_PAGE_TABLES, PAGE_SIZE);
    u64 bits = f->leaf;
    bits &= ~(np->logging == NP_LOG_WRITES ? f->write : f->dirty);
    u64 base = entry_get(e) & NP_ADDRESS & ~(LARGE_PAGE_SIZE - 1);
    struct table *t = phys_ptr(pa);
    for (unsigned i = 0; i < NP_ENTRIES; i++)
        t->entry[i] = (base + i * PAGE_SIZE) | bits;
    entry_put(e, pa | f->table);
    np->guest->memory.split_pages++;
    return true;
}

// Permission comes before the log's bit: a collector that takes the bit then takes the permission
// after this, not before.
static void allow_small(struct nested_paging *np, u64 *e, u64 gpa)
{
    entry_set(e, np->format->write);
    if (np->logging != NP_LOG_OFF)
        dirty_log_hit(np->guest, gpa);
}

static void allow_large(struct nested_paging *np, u64 *e)
{
    if (np->logging != NP_LOG_OFF) {
        if (split(np, e))
            return;
        // The log can't be kept any more: its job is told and gives up, the guest goes on.
        dirty_log_fail(np->guest);
    }
    entry_set(e, np->format->write);
}

// A step of the way down to gpa: what forbids writing at this entry is undone and put on those
// below it.
static void allow_write(struct nested_paging *np, u64 *e, int level, u64 gpa)
{
    u64 entry = entry_get(e);
    if (entry & np->format->write)
        return;
    if (level == 1) {
        allow_small(np, e, gpa);
    } else if (is_leaf(np, entry, level)) {
        allow_large(np, e);
    } else {
        if (np->logging != NP_LOG_OFF)
            protect_table(np, table_of(entry));
        entry_set(e, np->format->write);
    }
}

enum np_fault np_fault(struct nested_paging *np, u64 gpa, bool write)
{
    if (gpa >= NP_GPA_END)
        return NP_FAULT_NOT_RAM;
    enum np_fault result = NP_FAULT_RETRY;
    spin_lock(&np->lock);
    struct table *t = phys_ptr(np->root);
    for (int level = NP_LEVELS; level >= 1; level--) {
        u64 *e = entry_of(t, gpa, level);
        if (!(entry_get(e) & np->format->present)) {
            result = NP_FAULT_NOT_RAM;
            break;
        }
        // A read of what is present met an older state of the tables: it is tried again.
        if (write)
            allow_write(np, e, level, gpa);
        if (is_leaf(np, entry_get(e), level))
            break;
        t = table_of(entry_get(e));
    }
    spin_unlock(&np->lock);
    return result;
}

// The 4 KiB leaf of gpa, NULL where there is none: part of a large page, or not RAM.
static u64 *small_leaf(struct nested_paging *np, u64 gpa)
{
    struct table *t = phys_ptr(np->root);
    for (int level = NP_LEVELS; level > 1; level--) {
        u64 entry = entry_get(entry_of(t, gpa, level));
        if (!(entry & np->format->present) || is_leaf(np, entry, level))
            return NULL;
        t = table_of(entry);
    }
    return entry_of(t, gpa, 1);
}

// Tables are freed by np_log_stop alone, which does not run beside this: no lock. A page that is
// still part of a large one can't be written anyway.
void np_log_rearm(struct nested_paging *np, u64 gpa)
{
    u64 *e = small_leaf(np, gpa);
    if (e)
        entry_clear(e, np->logging == NP_LOG_WRITES ? np->format->write : np->format->dirty);
}

struct merge {
    u64 freed[MERGE_BATCH];
    unsigned count;
};

static void merge_flush(struct nested_paging *np, struct merge *m)
{
    if (m->count)
        np->flush(np->guest); // a CPU may still walk these tables
    for (unsigned i = 0; i < m->count; i++)
        free_table(m->freed[i]);
    m->count = 0;
}

static void merge_entry(struct nested_paging *np, u64 *e, struct merge *m)
{
    const struct np_format *f = np->format;
    spin_lock(&np->lock);
    u64 entry = entry_get(e);
    if (entry && !is_leaf(np, entry, 2)) {
        u64 base = table_of(entry)->entry[0] & NP_ADDRESS;
        entry_put(e, base | f->leaf | f->large);
        m->freed[m->count++] = entry & NP_ADDRESS;
        np->guest->memory.split_pages--;
    } else if (entry) {
        entry_set(e, f->write);
    }
    spin_unlock(&np->lock);
}

// Makes every entry of a level 2 table a writable 2 MiB page or nothing.
static void merge_table(struct nested_paging *np, struct table *t, struct merge *m)
{
    for (unsigned i = 0; i < NP_ENTRIES; i++) {
        merge_entry(np, &t->entry[i], m);
        if (m->count == MERGE_BATCH)
            merge_flush(np, m);
    }
}

static void merge_below_root(struct nested_paging *np, struct table *t, struct merge *m)
{
    for (unsigned i = 0; i < NP_ENTRIES; i++) {
        if (!t->entry[i])
            continue;
        merge_table(np, table_of(t->entry[i]), m);
        entry_set(&t->entry[i], np->format->write);
        thread_yield_if_needed();
    }
}

void np_log_stop(struct nested_paging *np)
{
    struct merge m = {.count = 0};
    spin_lock(&np->lock);
    np->logging = NP_LOG_OFF; // from here on faults only give permission
    spin_unlock(&np->lock);
    struct table *root = phys_ptr(np->root);
    for (unsigned i = 0; i < NP_ENTRIES; i++) {
        if (!root->entry[i])
            continue;
        merge_below_root(np, table_of(root->entry[i]), &m);
        entry_set(&root->entry[i], np->format->write);
    }
    merge_flush(np, &m);
    np->flush(np->guest);
}
