// SPDX-License-Identifier: MIT
// Timers in guest time: a sorted list a guest, run by its vCPU threads.
#include "kernel/guest/clock.h"
#include "kernel/guest/guest.h"

// A timer that keeps setting itself in the past must not hold its vCPU's thread for ever.
#define MAX_RUN 64

// clock.lock held.
static void unlink_timer(struct guest_clock *c, struct gtimer *t)
{
    struct gtimer **at = &c->timers;
    while (*at && *at != t)
        at = &(*at)->next;
    if (*at)
        *at = t->next;
    t->next = NULL;
    t->armed = false;
}

void gtimer_set(struct guest *g, struct gtimer *t, u64 deadline)
{
    struct guest_clock *c = &g->clock;
    spin_lock(&c->lock);
    if (t->armed)
        unlink_timer(c, t);
    struct gtimer **at = &c->timers;
    while (*at && (*at)->deadline <= deadline)
        at = &(*at)->next;
    t->deadline = deadline;
    t->next = *at;
    t->armed = true;
    *at = t;
    bool first = c->timers == t;
    spin_unlock(&c->lock);
    if (first) // the vCPUs run or sleep towards a later deadline
        guest_kick(g);
}

void gtimer_cancel(struct guest *g, struct gtimer *t)
{
    spin_lock(&g->clock.lock);
    if (t->armed)
        unlink_timer(&g->clock, t);
    spin_unlock(&g->clock.lock);
}

static struct gtimer *take_due(struct guest_clock *c, u64 now, u64 *next)
{
    spin_lock(&c->lock);
    struct gtimer *t = c->timers;
    *next = t ? t->deadline : ~0ull;
    if (t && t->deadline <= now)
        unlink_timer(c, t);
    else
        t = NULL;
    spin_unlock(&c->lock);
    return t;
}

u64 gtimers_run(struct guest *g)
{
    u64 next = ~0ull;
    if (!g->clock.timers)
        return next;
    u64 now = guest_clock_now(g);
    for (int i = 0; i < MAX_RUN; i++) {
        struct gtimer *t = take_due(&g->clock, now, &next);
        if (!t)
            return next;
        t->fn(t->arg);
    }
    return now;
}
