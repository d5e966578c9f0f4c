// SPDX-License-Identifier: MIT
// Stops the guest at the source, sends what is left of it and offers it to the destination.
#include "kernel/lib.h"
#include "kernel/migrate/fault.h"
#include "kernel/migrate/sections.h"
#include "kernel/migrate/source.h"
#include "kernel/thread.h"
#include "kernel/time.h"

// Freezes the guest; the claim learns the moment in host time. The clock stops somewhere inside
// guest_quiesce: a reading just before it gives that moment exactly.
static void stop_guest(struct move *m)
{
    struct guest *g = m->guest;
    u64 ticks = guest_clock_now(g), ns = time_ns();
    m->paused = g->state == GUEST_PAUSED;
    disks_out_release(m);
    guest_quiesce(g);
    u64 frozen = ns + guest_ticks_to_ns(g, g->clock.frozen_at - ticks);
    mutex_lock(&claims_lock);
    m->claim->frozen_ns = m->paused ? ns : frozen;
    m->claim->paused = m->paused;
    mutex_unlock(&claims_lock);
    m->job->part_ns = m->claim->frozen_ns;
    job_part(m->job, BLACKOUT_STOP, time_ns());
    // A guest that ended by itself meanwhile keeps its state: move_check sees it.
    if (g->state == GUEST_RUNNING || g->state == GUEST_PAUSED)
        g->state = GUEST_FROZEN;
}

// Forgets the first dirty page that holds something else than what was sent of it last.
static void lose_page(struct move *m)
{
    u64 now[2];
    for (u64 i = 0; i < m->todo.pages; i++) {
        if (!dirty_bitmap_test(&m->todo, i))
            continue;
        hash_page(guest_page(m->guest, guest_page_gpa(m->guest, i)), now);
        if (memcmp(now, page_hashes_get(&m->hashes, i), sizeof(now)) != 0) {
            dirty_bitmap_take_next(&m->todo, i);
            return;
        }
    }
}

static int send_last_pages(struct move *m)
{
    s64 n = dirty_log_collect(m->guest, &m->todo);
    if (n < 0)
        return move_fail(m, (int)n, "the dirty log failed at the stop");
    precopy_touch(m);
    if (m->verify && fault_take_lose_page())
        lose_page(m);
    if (fault_flip_page_armed() && m->todo.count == 0)
        dirty_bitmap_set(&m->todo, 1);
    m->round++;
    int e = precopy_send(m, true);
    return e ? e : precopy_round_end(m, true);
}

static int send_section(struct move *m, const struct section *sec)
{
    struct wire_section *w = stream_payload(&m->s);
    memset(w, 0, sizeof(*w));
    bool change = sec->kind == SECTION_VCPU && fault_take_change_register();
    s64 n = change ? section_save_changed(sec, w + 1, SECTION_DATA_MAX)
                   : section_save(sec, w + 1, SECTION_DATA_MAX);
    if (n < 0)
        return move_fail(m, (int)n, "the state of \"%s\" %u cannot be encoded (%u bytes at most)",
                         sec->name, sec->instance, (u32)SECTION_DATA_MAX);
    w->kind = sec->kind;
    w->instance = sec->instance;
    w->bytes = (u32)n;
    strlcpy(w->name, sec->name, sizeof(w->name));
    int e = stream_send_built(&m->s, REC_STATE, (u32)(sizeof(*w) + (u64)n));
    return e ? move_fail(m, e, "%s", m->s.error) : 0;
}

static int send_state(struct move *m, u32 *sections)
{
    struct section_iter it = {.guest = m->guest};
    struct section sec;
    *sections = 0;
    while (section_next(&it, &sec)) {
        int e = send_section(m, &sec);
        if (e)
            return e;
        ++*sections;
    }
    return 0;
}

static int send_offer(struct move *m, u32 sections)
{
    struct wire_offer w = {
        .id = m->id,
        .guest_ticks = m->guest->clock.frozen_at,
        .frozen_ns = m->claim->frozen_ns,
        .clock_offset_ns = m->clock.offset_ns,
        .clock_error_ns = m->clock.error_ns,
        .flags = (m->verify ? OFFER_VERIFY : 0) | (m->paused ? OFFER_PAUSED : 0),
        .sections = sections,
    };
    hash_finish(&m->s.digest_out, w.digest);
    m->job->info.clock_error_us = (w.clock_error_ns + 999) / NS_PER_US;
    if (fault_drop_link(&m->s, FAULT_OFFER))
        return move_fail(m, E_IO, "the connection to %s was lost (cut by a fault)", m->peer.name);
    int e = stream_send(&m->s, REC_OFFER, &w, sizeof(w));
    return e ? move_fail(m, e, "%s", m->s.error) : 0;
}

int source_stop_and_offer(struct move *m)
{
    u32 sections = 0;
    m->s.timeout_ns = HANDOVER_TIMEOUT_NS;
    stop_guest(m);
    fault_stall(FAULT_STOP);
    int e = m->guest->state == GUEST_FROZEN
                ? 0
                : move_fail(m, E_BUSY, "guest %s ended during its move (%s)", m->guest->name,
                            guest_state_name(m->guest->state));
    if (e == 0)
        e = disks_out_last(m);
    if (e == 0)
        e = send_last_pages(m);
    job_part(m->job, BLACKOUT_PAGES, time_ns());
    if (e == 0)
        e = send_state(m, &sections);
    if (e)
        return e;
    job_phase(m->job, JOB_HANDOVER);
    mutex_lock(&claims_lock);
    claim_step(m->claim, HO_EV_OFFER_SENT);
    mutex_unlock(&claims_lock);
    e = send_offer(m, sections);
    job_part(m->job, BLACKOUT_STATE, time_ns());
    if (e == 0)
        fault_stall(FAULT_OFFER);
    return e;
}
