// SPDX-License-Identifier: MIT
// Timers in guest time: a sorted list a guest; each is run by the thread of its vCPU.
#include "kernel/guest/clock.h"
#include "kernel/guest/guest.h"
#include "kernel/lib.h"

// A timer that keeps setting itself in the past must not hold its vCPU's thread for ever.
#define MAX_RUN 64

// clock.lock held.
static void unlink_timer(struct guest_clock *c, struct gtimer *t)
{
    assert_held(&c->lock);
    struct gtimer **at = &c->timers;
    while (*at && *at != t)
        at = &(*at)->next;
    if (*at)
        *at = t->next;
    t->next = NULL;
    t->armed = false;
}

// Its vCPU runs or sleeps towards a later deadline.
static void wake_owner(struct guest *g, const struct gtimer *t)
{
    struct vcpu *v = g->vcpu[t->vcpu];
    if (v && thread_get_vcpu() == v)
        v->kick = true; // it looks before it enters the guest again
    else if (v)
        vcpu_kick(v);
}

void gtimer_set(struct guest *g, struct gtimer *t, u64 deadline)
{
    struct guest_clock *c = &g->clock;
    bool first = true; // of its vCPU
    spin_lock(&c->lock);
    if (t->armed)
        unlink_timer(c, t);
    struct gtimer **at = &c->timers;
    for (; *at && (*at)->deadline <= deadline; at = &(*at)->next)
        first &= (*at)->vcpu != t->vcpu;
    t->deadline = deadline;
    t->next = *at;
    t->armed = true;
    *at = t;
    spin_unlock(&c->lock);
    if (first)
        wake_owner(g, t);
}

void gtimer_cancel(struct guest *g, struct gtimer *t)
{
    spin_lock(&g->clock.lock);
    if (t->armed)
        unlink_timer(&g->clock, t);
    spin_unlock(&g->clock.lock);
}

static struct gtimer *take_due(struct guest_clock *c, u32 vcpu, u64 now, u64 *next)
{
    spin_lock(&c->lock);
    struct gtimer *t = c->timers;
    while (t && t->vcpu != vcpu)
        t = t->next;
    *next = t ? t->deadline : ~0ull;
    if (t && t->deadline <= now)
        unlink_timer(c, t);
    else
        t = NULL;
    spin_unlock(&c->lock);
    return t;
}

u64 gtimers_run(struct guest *g, u32 vcpu)
{
    u64 next = ~0ull;
    if (!g->clock.timers)
        return next;
    u64 now = guest_clock_now(g);
    for (int i = 0; i < MAX_RUN; i++) {
        struct gtimer *t = take_due(&g->clock, vcpu, now, &next);
        if (!t)
            return next;
        t->fn(t->arg);
    }
    return now;
}
