// SPDX-License-Identifier: MIT
// The dirty log: one bitmap, fed by the backend (PML or write-protection) and by the hypervisor's
// own writes, and the order of steps that makes collecting it safe while the guest runs.
#include "kernel/guest/dirty.h"

#include "kernel/guest/backend.h"
#include "kernel/guest/guest.h"
#include "kernel/lib.h"
#include "kernel/mem.h"

// Set by any CPU, taken by the thread of the move, with atomic operations; made and freed under the
// guest's lock.
struct dirty_log {
    struct dirty_bitmap live; // bits, summary and count: atomic operations only
    volatile bool active;
    volatile bool failed; // a split found no memory since the last collect
    bool pml;
    bool no_shootdown; // for a test that must fail
};

int dirty_log_create(struct guest *g)
{
    struct dirty_log *d = kzalloc(sizeof(*d));
    if (!d)
        return E_NOMEM;
    // There from the start, so that a writer never meets a log that is being freed.
    if (dirty_bitmap_init(&d->live, guest_page_count(g))) {
        kfree(d);
        return E_NOMEM;
    }
    g->dirty = d;
    return 0;
}

void dirty_log_destroy(struct guest *g)
{
    if (!g->dirty)
        return;
    dirty_bitmap_free(&g->dirty->live);
    kfree(g->dirty);
    g->dirty = NULL;
}

static bool choose_pml(unsigned mode, bool *pml)
{
    *pml = mode != DIRTY_WP && backend->has_pml();
    return mode != DIRTY_PML || *pml;
}

static void clear_log(struct dirty_log *d)
{
    u64 words = (d->live.pages + 63) / 64;
    memset(d->live.bits, 0, words * sizeof(u64));
    memset(d->live.summary, 0, (words + 63) / 64 * sizeof(u64));
    d->live.count = 0;
    d->failed = d->no_shootdown = false;
}

int dirty_log_start(struct guest *g, unsigned mode)
{
    struct dirty_log *d = g->dirty;
    if (!d || d->active)
        return E_BUSY;
    if (!choose_pml(mode, &d->pml))
        return E_NOSUP;
    clear_log(d);
    // First our own writes count, then the guest's: no moment in which one is neither in the copy
    // that is made after this returns nor in the log.
    d->active = true;
    int error = backend->dirty_start(g, d->pml);
    if (error)
        d->active = false;
    return error;
}

void dirty_log_leave_out_shootdown(struct guest *g)
{
    g->dirty->no_shootdown = true;
}

void dirty_log_stop(struct guest *g)
{
    if (!dirty_log_active(g))
        return;
    g->dirty->active = false;
    backend->dirty_stop(g);
}

bool dirty_log_active(const struct guest *g)
{
    return g->dirty && g->dirty->active;
}

const char *dirty_log_backend_name(const struct guest *g)
{
    return g->dirty && g->dirty->pml ? "pml" : "wp";
}

u64 dirty_log_pending(const struct guest *g)
{
    return g->dirty ? __atomic_load_n(&g->dirty->live.count, __ATOMIC_RELAXED) : 0;
}

// The bit, then the summary; collecting clears the summary, then the bits: a bit set in between is
// either taken or leaves its summary bit for the next time. The locked operation also orders this
// after the caller's write to the page, which a plain "already set?" test would not.
static void log_page(struct dirty_log *d, u64 index)
{
    u64 bit = BIT(index % 64);
    u64 word = index / 64;
    if (!(__atomic_fetch_or(&d->live.bits[word], bit, __ATOMIC_SEQ_CST) & bit))
        __atomic_fetch_add(&d->live.count, 1, __ATOMIC_RELAXED);
    __atomic_fetch_or(&d->live.summary[word / 64], BIT(word % 64), __ATOMIC_SEQ_CST);
}

void dirty_log_hit(struct guest *g, u64 gpa)
{
    u64 index = guest_page_index(g, gpa);
    if (dirty_log_active(g) && index != ~0ull)
        log_page(g->dirty, index);
}

void dirty_log_fail(struct guest *g)
{
    if (g->dirty)
        g->dirty->failed = true;
}

void guest_mark_dirty(struct guest *g, u64 gpa, u64 bytes)
{
    if (!dirty_log_active(g) || !bytes)
        return;
    for (u64 at = ALIGN_DOWN(gpa, PAGE_SIZE); at < gpa + bytes; at += PAGE_SIZE)
        dirty_log_hit(g, at);
}

// Takes one word of the log: into `out`, and each page is made to report its next write.
static u64 collect_word(struct guest *g, u64 word, struct dirty_bitmap *out)
{
    struct dirty_log *d = g->dirty;
    u64 taken = __atomic_exchange_n(&d->live.bits[word], 0, __ATOMIC_SEQ_CST);
    u64 fresh = 0, count = 0;
    for (; taken; taken &= taken - 1) {
        u64 index = word * 64 + (u64)__builtin_ctzll(taken);
        count++;
        fresh += dirty_bitmap_set(out, index);
        backend->dirty_rearm(g, guest_page_gpa(g, index));
    }
    __atomic_fetch_sub(&d->live.count, count, __ATOMIC_RELAXED);
    return fresh;
}

static u64 snapshot_and_rearm(struct guest *g, struct dirty_bitmap *out)
{
    struct dirty_log *d = g->dirty;
    u64 words = (d->live.pages + 63) / 64;
    u64 fresh = 0;
    for (u64 s = 0; s < (words + 63) / 64; s++) {
        if (!d->live.summary[s])
            continue;
        u64 left = __atomic_exchange_n(&d->live.summary[s], 0, __ATOMIC_SEQ_CST);
        for (; left; left &= left - 1) {
            fresh += collect_word(g, s * 64 + (u64)__builtin_ctzll(left), out);
            thread_yield_if_needed();
        }
    }
    return fresh;
}

// Between snapshot and flush a CPU may still write through an old translation without telling:
// that write is in memory before the flush returns, and pages are read only after it. A write that
// is reported in between (PML entries drained last) stays in the log for the next round.
s64 dirty_log_collect(struct guest *g, struct dirty_bitmap *out)
{
    struct dirty_log *d = g->dirty;
    if (!dirty_log_active(g))
        return E_INVAL;
    if (!d->no_shootdown)
        backend->dirty_drain(g);
    u64 fresh = snapshot_and_rearm(g, out);
    if (!d->no_shootdown) {
        backend->dirty_flush(g);
        backend->dirty_drain(g);
    }
    if (!d->failed)
        return (s64)fresh;
    d->failed = false;
    return E_NOMEM;
}
