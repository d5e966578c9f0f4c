// SPDX-License-Identifier: MIT
// Does to the guest what the hand-over's state machine decided: resume, release, start, discard.
#include "kernel/lib.h"
#include "kernel/log.h"
#include "kernel/migrate/disks.h"
#include "kernel/migrate/internal.h"
#include "kernel/thread.h"
#include "kernel/time.h"

#define FIRST_ENTRY_WAIT_NS (20 * NS_PER_MS)

void settle_end_log(struct guest *g)
{
    if (dirty_log_active(g))
        dirty_log_stop(g);
}

// Source: goes on as if nothing had happened, its clock included. The log ends afterwards, for
// merging pages takes time that the guest need not stand still for.
static void resume(struct claim *c, struct guest *g)
{
    mutex_lock(&g->lock);
    if (g->state == GUEST_IN_DOUBT &&
        !g->memory.bytes) { // a restart took its memory, not the right to it
        g->state = GUEST_OFF;
        g->why[0] = '\0';
    }
    if (c->frozen_ns) {
        u64 elapsed = time_ns() - c->frozen_ns;
        if (g->state == GUEST_FROZEN || g->state == GUEST_IN_DOUBT) { // else it ended by itself
            g->why[0] = '\0';
            g->state = c->paused ? GUEST_PAUSED : GUEST_RUNNING;
        }
        guest_unquiesce(g, guest_ns_to_ticks(g, elapsed));
        c->frozen_ns = 0;
    }
    mutex_unlock(&g->lock);
    if (g->memory.bytes)
        settle_end_log(g);
    g->job = NULL;
}

// Source: the destination has it.
static void release(struct claim *c, struct guest *g, const char *why)
{
    mutex_lock(&g->lock);
    g->epoch = c->id.epoch;
    guest_teardown(g); // ends the log as well
    // So that no stale disk is started, and the guest can come back.
    disks_delete(c->disks, c->disk_count, c->disk_id);
    strlcpy(g->why, why, sizeof(g->why));
    g->state = GUEST_MOVED;
    g->job = NULL;
    mutex_unlock(&g->lock);
}

// When the first vCPU left the gate: what the blackout ends with. It may run a slice before this
// thread does.
static u64 wait_first_entry(const struct guest *g, u64 opened_ns)
{
    u64 end = opened_ns + FIRST_ENTRY_WAIT_NS, first = end;
    while (first == end && time_ns() < end) {
        thread_yield();
        for (u32 i = 0; i < g->vcpu_count; i++)
            if (!g->vcpu[i]->parked)
                first = MIN(first, g->vcpu[i]->left_gate_ns);
    }
    return MAX(first, opened_ns);
}

// Destination: run it, with the time it stood still added to its clock. A guest that the operator
// had paused keeps standing at the gate it was built at, and guest_resume opens that.
static void start(struct claim *c, struct guest *g)
{
    mutex_lock(&g->lock);
    u64 now = time_ns();
    u64 elapsed = now > c->frozen_ns ? now - c->frozen_ns : 0;
    g->epoch = c->id.epoch;
    g->why[0] = '\0';
    g->started_ns = now;
    g->state = c->paused ? GUEST_PAUSED : GUEST_RUNNING;
    if (!c->paused) {
        guest_unquiesce(g, guest_ns_to_ticks(g, elapsed));
        elapsed = wait_first_entry(g, now) - MIN(c->frozen_ns, now);
    }
    c->blackout_ns = elapsed;
    g->job = NULL;
    mutex_unlock(&g->lock);
}

// A configured guest that took a received one's configuration gets its own back.
static void restore_config(struct guest *g)
{
    for (u32 i = 0; i < migrate_cfg->guest_count; i++)
        if (strcmp(migrate_cfg->guests[i].name, g->name) == 0)
            g->config = migrate_cfg->guests[i];
}

// Destination: frees the copy; an entry that only the move had made goes as well.
static void discard(struct claim *c, struct guest *g)
{
    mutex_lock(&g->lock);
    guest_teardown(g);
    disks_delete(c->disks, c->disk_count, c->disk_id);
    g->job = NULL;
    g->state = g->from_config ? GUEST_OFF : GUEST_GONE;
    g->why[0] = '\0';
    mutex_unlock(&g->lock);
    log_info("migrate", "guest %s from %s: the copy here is discarded", g->name, c->peer);
    if (g->from_config)
        restore_config(g);
    else
        guest_remove(g);
}

void settle(struct claim *c, unsigned actions, const char *why)
{
    assert_held(&claims_lock);
    struct guest *g = guest_get_uuid(c->id.uuid);
    if (!g)
        return;
    if (actions & HO_RESUME)
        resume(c, g);
    if (actions & HO_RELEASE)
        release(c, g, why);
    if (actions & HO_START)
        start(c, g);
    if (actions & HO_DISCARD)
        discard(c, g);
    guest_put(g);
}

void settle_doubt(struct claim *c, const char *fact)
{
    assert_held(&claims_lock);
    struct guest *g = handover_in_doubt(c->state) ? guest_get_uuid(c->id.uuid) : NULL;
    if (!g)
        return;
    g->state = GUEST_IN_DOUBT;
    if (c->source)
        snprintf(g->why, sizeof(g->why),
                 "%s. If it never ran on %s: resolve %s keep; if it ran there: resolve %s drop",
                 fact, c->peer, g->name, g->name);
    else
        snprintf(g->why, sizeof(g->why),
                 "%s. If %s will not run it again: resolve %s keep; else: resolve %s drop", fact,
                 c->peer, g->name, g->name);
    guest_put(g);
}
