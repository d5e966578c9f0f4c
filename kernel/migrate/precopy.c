// SPDX-License-Identifier: MIT
// Pre-copy: sends the guest's pages in rounds while it runs, until stopping it is cheap enough.
#include "arch/x86/cpu.h"
#include "kernel/guest/virtio_balloon.h"
#include "kernel/lib.h"
#include "kernel/migrate/busy.h"
#include "kernel/migrate/fault.h"
#include "kernel/migrate/source.h"
#include "kernel/migrate/verify.h"
#include "kernel/thread.h"
#include "kernel/time.h"

#define RATE_SAMPLE_BYTES (256 * KIB)
#define RATE_FIRST_BYTES  MIB // sent before max_rate applies, to learn what the link does
#define PINGS_BEFORE_STOP 6

// ---- Pages -------------------------------------------------------------------------------------

// A PAGES record being filled: room for all entries first, then the data.
struct batch {
    struct wire_pages *head;
    struct wire_page *entries;
    u8 *data;
    u32 count, data_pages;
};

static void batch_start(struct move *m, struct batch *b)
{
    b->head = stream_payload(&m->s);
    b->entries = (struct wire_page *)(b->head + 1);
    b->data = (u8 *)(b->entries + PAGES_MAX);
    b->count = b->data_pages = 0;
}

static int batch_send(struct move *m, struct batch *b)
{
    if (b->count == 0)
        return 0;
    b->head->count = b->count;
    b->head->round = m->round;
    u64 data_bytes = b->data_pages * PAGE_SIZE;
    if (b->count < PAGES_MAX) // close the gap that unused entries leave
        memmove(b->entries + b->count, b->data, data_bytes);
    u32 bytes = (u32)(sizeof(*b->head) + b->count * sizeof(*b->entries) + data_bytes);
    int e = stream_send_built(&m->s, REC_PAGES, bytes);
    if (e)
        return move_fail(m, e, "%s", m->s.error);
    m->precopy_bytes += bytes;
    m->job->info.bytes_wire = m->s.conn->bytes_out + m->s.conn->bytes_in;
    batch_start(m, b);
    return 0;
}

// Copies one page into the batch. Everything from the zero test on works on the copy, and its hash
// serves the record and verification alike. The destination's memory starts as zeros, so the first
// round says nothing of zero pages.
static void batch_add(struct move *m, struct batch *b, u64 index, bool flip)
{
    u64 start = time_ns();
    u8 *copy = b->data + b->data_pages * PAGE_SIZE;
    memcpy(copy, guest_page(m->guest, guest_page_gpa(m->guest, index)), PAGE_SIZE);
    struct wire_page *entry = &b->entries[b->count];
    bool zero = hash_page(copy, entry->hash);
    page_hashes_set(&m->hashes, index, entry->hash);
    if (flip) { // the record is whole then: verification alone can tell
        copy[1234] ^= 1;
        zero = hash_page(copy, entry->hash);
    }
    entry->index = zero ? index | PAGE_ZERO : index;
    if (!zero) {
        b->count++;
        b->data_pages++;
        m->pages_sent++;
        return;
    }
    m->pages_zero++;
    if (m->round > 1)
        b->count++;
    m->zero_ns += time_ns() - start;
}

// Keeps pre-copy below max_rate, once the link's own rate is known.
void precopy_throttle(struct move *m)
{
    u64 max = migrate_cfg->max_rate;
    if (!max || m->precopy_bytes <= RATE_FIRST_BYTES)
        return;
    u64 due = m->started_ns + m->precopy_bytes / max * NS_PER_SEC +
              m->precopy_bytes % max * 1000 / max * NS_PER_MS;
    while (time_ns() < due && !m->job->abort_wanted)
        thread_sleep_ns(MIN(due - time_ns(), 100 * NS_PER_MS));
}

void precopy_show_progress(struct move *m, u64 bytes_left)
{
    struct job_info *i = &m->job->info;
    u64 ms = (time_ns() - m->started_ns) / NS_PER_MS;
    i->bytes_wire = m->s.conn->bytes_out + m->s.conn->bytes_in;
    i->rate_bytes_s = ms ? m->precopy_bytes * 1000 / ms : 0;
    i->eta_ms = i->rate_bytes_s ? bytes_left * 1000 / i->rate_bytes_s : 0;
}

int precopy_send(struct move *m, bool final)
{
    struct batch b;
    int e = 0;
    batch_start(m, &b);
    m->pages_sent = m->pages_zero = 0;
    bool flip = final && fault_take_flip_page();
    for (u64 i = 0; e == 0; i++) {
        i = dirty_bitmap_take_next(&m->todo, i);
        if (i == ~0ull)
            break;
        batch_add(m, &b, i, flip);
        flip = false;
        thread_yield_if_needed();
        if (b.count < PAGES_MAX)
            continue;
        e = batch_send(m, &b);
        if (final || e)
            continue;
        precopy_show_progress(m, (m->todo.count + dirty_log_pending(m->guest)) * POLICY_PAGE_BYTES);
        precopy_throttle(m);
        e = move_check(m);
        if (e == 0)
            e = disks_out_keep_up(m);
    }
    if (e == 0)
        e = batch_send(m, &b);
    m->job->info.pages_sent += m->pages_sent;
    m->job->info.pages_zero += m->pages_zero;
    return e;
}

// ---- Rounds ------------------------------------------------------------------------------------

int precopy_round_end(struct move *m, bool final)
{
    struct wire_round w = {
        .round = m->round, .final = final, .pages = m->pages_sent + m->pages_zero};
    int e = stream_send(&m->s, REC_ROUND, &w, sizeof(w));
    return e ? move_fail(m, e, "%s", m->s.error) : 0;
}

// A stretch of sending that begins and ends with an answered PING.
struct stretch {
    u64 start_ns, contended_ns, zero_ns, peer_busy_ns, bytes;
};

static struct stretch stretch_begin(const struct move *m)
{
    return (struct stretch){time_ns(), thread_contended_ns(), m->zero_ns, m->clock.peer_busy_ns,
                            m->precopy_bytes};
}

// The last sample that is large enough counts. Smaller ones say more about latency than about rate:
// of them the fastest does, for as long as there is no other.
static void rate_sample(struct rate *r, u64 bytes, u64 ns)
{
    u64 rate = MAX(bytes * 1000 / MAX(ns / NS_PER_US, 1ull) * 1000, 1ull);
    if (bytes < RATE_SAMPLE_BYTES && (r->bytes >= RATE_SAMPLE_BYTES || rate < r->bytes_s))
        return;
    *r = (struct rate){rate, bytes};
}

// What it would have taken with the guest stopped. Here: what it took, but for the time the guest
// kept others from the CPU, and for the first round's zero pages. There: what it cost, for when the
// source no longer shares its CPU the destination may have no time left to wait for it.
static void stretch_end(struct move *m, const struct stretch *s)
{
    u64 elapsed = time_ns() - s->start_ns, bytes = m->precopy_bytes - s->bytes;
    u64 spared = thread_contended_ns() - s->contended_ns + m->zero_ns - s->zero_ns;
    bool throttled = migrate_cfg->max_rate && m->precopy_bytes > RATE_FIRST_BYTES;
    if (!throttled)
        rate_sample(&m->rate, bytes, elapsed - MIN(spared, elapsed));
    rate_sample(&m->peer_rate, bytes, m->clock.peer_busy_ns - s->peer_busy_ns);
}

static int ping(struct move *m)
{
    int e = clock_ping(&m->s, &m->clock);
    return e ? move_fail(m, e, "%s", m->s.error) : 0;
}

// One round over m->todo, until the destination has applied all of it.
static int send_round(struct move *m)
{
    struct stretch s = stretch_begin(m);
    m->round++;
    m->job->info.round = m->round;
    int e = precopy_send(m, false);
    if (e == 0)
        e = disks_out_keep_up(m);
    if (e == 0)
        e = precopy_round_end(m, false);
    if (e)
        return e;
    e = ping(m); // answered when everything before it was applied
    if (e == 0)
        stretch_end(m, &s);
    return e;
}

// With max_rate the rounds don't show what the link can do, and the last, unthrottled part will be
// as fast as the link: measure on the first pages.
static int measure_link(struct move *m)
{
    if (!migrate_cfg->max_rate)
        return 0;
    struct dirty_bitmap rest = m->todo;
    struct stretch s = stretch_begin(m);
    if (dirty_bitmap_init(&m->todo, rest.pages) != 0) {
        m->todo = rest;
        return move_fail(m, E_NOMEM, "no memory for a bitmap of the guest's pages");
    }
    u64 page = 0;
    for (u64 n = 0; n < RATE_FIRST_BYTES / PAGE_SIZE && page != ~0ull; n++) {
        page = dirty_bitmap_take_next(&rest, page);
        if (page != ~0ull)
            dirty_bitmap_set(&m->todo, page);
    }
    m->round = 1; // the pages belong to the first round
    int e = precopy_send(m, false);
    m->round = 0;
    if (e == 0)
        e = ping(m);
    dirty_bitmap_free(&m->todo);
    m->todo = rest;
    if (e == 0)
        stretch_end(m, &s);
    return e;
}

// The guest's writes since the last call join m->todo and m->touched.
static int collect(struct move *m, u64 round_start)
{
    u64 start = rdtsc(), start_ns = time_ns();
    s64 n = dirty_log_collect(m->guest, &m->todo);
    m->job->info.collect_ticks += rdtsc() - start;
    m->collect_ns = time_ns() - start_ns;
    m->job->info.collect_pages += n > 0 ? (u64)n : 0;
    if (n < 0)
        return move_fail(m, (int)n, "the dirty log failed: %s",
                         n == E_NOMEM ? "no memory to split a large page" : "not running");
    u64 ms = MAX((time_ns() - round_start) / NS_PER_MS, 1ull);
    m->dirty_rate = m->todo.count * 1000 / ms;
    m->job->info.dirty_rate_pages_s = m->dirty_rate;
    m->job->info.dirty_pages_last_round = m->todo.count;
    precopy_touch(m);
    return 0;
}

void precopy_touch(struct move *m)
{
    for (u64 s = 0; s < (m->todo.pages + 64 * 64 - 1) / (64 * 64); s++) {
        for (u64 left = m->todo.summary[s]; left; left &= left - 1) {
            u64 word = s * 64 + (u64)__builtin_ctzll(left);
            u64 fresh = m->todo.bits[word] & ~m->touched.bits[word];
            m->touched.bits[word] |= fresh;
            m->touched.count += count_bits(fresh);
        }
    }
    m->job->info.pages_touched = m->touched.count;
}

// What verification will add to the blackout here; the destination works at the same time.
static u64 predict_verify_ns(struct move *m)
{
    u64 digests = verify_table_ns(&m->hashes) + m->clock.peer_state_ns;
    return m->verify == VERIFY_STRICT
               ? digests + verify_page_ns(m->guest) * guest_page_count(m->guest)
               : digests;
}

static struct policy_result decide(struct move *m, u64 round_start)
{
    if (m->todo.count < m->best_dirty) {
        m->best_dirty = m->todo.count;
        m->rounds_since_best = 0;
    } else {
        m->rounds_since_best++;
    }
    struct policy_input in = {
        .round = m->round,
        .max_rounds = migrate_cfg->max_rounds,
        .round_ns = time_ns() - round_start,
        .dirty_pages = m->todo.count,
        .rate_bytes_s = MIN(m->rate.bytes_s, m->peer_rate.bytes_s),
        .state_bytes = m->state_bytes + disks_out_pending(m),
        .rtt_ns = m->rtt_ns,
        .collect_ns = m->collect_ns,
        .state_ns = m->clock.peer_state_ns,
        .verify = m->verify,
        .verify_ns = predict_verify_ns(m),
        .target_ns = (u64)migrate_cfg->blackout_target_ms * NS_PER_MS,
        .rounds_since_best = m->rounds_since_best,
    };
    struct policy_result r = policy_decide(&in);
    m->job->info.predicted_blackout_us = r.predicted_ns / NS_PER_US;
    for (u32 p = 0; p < BLACKOUT_PARTS; p++)
        m->job->info.predicted_us[p] = r.part_ns[p] / NS_PER_US;
    return r;
}

static int precopy_fault(struct move *m)
{
    fault_stall(FAULT_PRECOPY);
    if (fault_drop_link(&m->s, FAULT_PRECOPY))
        return move_fail(m, E_IO, "the connection to %s was lost (cut by a fault)", m->peer.name);
    return 0;
}

// All is applied and the link is empty: the best moment to compare clocks.
static int compare_clocks(struct move *m)
{
    u64 start = time_ns();
    clock_sync_reset(&m->clock);
    int e = clock_ping_many(&m->s, &m->clock, PINGS_BEFORE_STOP);
    m->rtt_ns = (time_ns() - start) / PINGS_BEFORE_STOP;
    return e ? move_fail(m, e, "%s", m->s.error) : 0;
}

int precopy_run(struct move *m)
{
    struct policy_result r = {.verdict = POLICY_CONTINUE};
    dirty_bitmap_fill(&m->todo);
    if (migrate_cfg->hints_ms)
        m->job->info.pages_free =
            balloon_leave_out_free(m->guest, &m->todo, migrate_cfg->hints_ms * NS_PER_MS);
    m->best_dirty = ~0ull;
    m->started_ns = time_ns();
    m->precopy_bytes = 0;
    u64 sent_ns = 0;
    int e = precopy_fault(m);
    if (e == 0)
        e = ping(m);
    if (e == 0)
        e = measure_link(m);
    while (e == 0 && r.verdict == POLICY_CONTINUE) {
        u64 start = time_ns(), cpu = busy_cpu_ns();
        e = send_round(m);
        sent_ns += busy_cpu_ns() - cpu;
        if (e == 0)
            e = compare_clocks(m);
        if (e == 0)
            e = move_check(m);
        if (e == 0)
            e = collect(m, start);
        if (e == 0)
            r = decide(m, start);
    }
    u64 page_ns = (sent_ns - MIN(m->zero_ns, sent_ns)) / MAX(m->job->info.pages_sent, 1ull);
    m->job->info.send_page_ticks = page_ns * (host_tsc_hz / NS_PER_MS) / (NS_PER_SEC / NS_PER_MS);
    if (e == 0)
        strlcpy(m->job->info.stop_reason, policy_reason(r.verdict),
                sizeof(m->job->info.stop_reason));
    return e;
}
