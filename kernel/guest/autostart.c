// SPDX-License-Identifier: MIT
// At the host's start: lists the configured guests and starts those that may be (design rule 17).
#include "kernel/guest/vcpu.h"
#include "kernel/lib.h"
#include "kernel/migrate/migrate.h"

#define ASK_AGAIN_NS (5 * NS_PER_SEC)

static bool ask_peers; // host.cfg autostart_wait

static bool wants_start(const struct guest *g)
{
    bool idle = g->state == GUEST_OFF || (g->state == GUEST_IN_DOUBT && !g->memory.bytes);
    return g->autostart_pending && idle;
}

static void put_in_doubt(struct guest *g, const char *why)
{
    mutex_lock(&g->lock);
    if (wants_start(g)) {
        if (g->state == GUEST_OFF)
            guest_log(LOG_WARN, g, "in doubt, not started: %s", why);
        g->state = GUEST_IN_DOUBT;
        strlcpy(g->why, why, sizeof(g->why));
    }
    mutex_unlock(&g->lock);
}

// No memory, no kernel: that does not get better by itself; the next try is the operator's.
static void give_up(struct guest *g, const char *why)
{
    guest_log(LOG_ERROR, g, "not started: %s", why);
    mutex_lock(&g->lock);
    if (wants_start(g)) {
        g->state = GUEST_OFF;
        strlcpy(g->why, why, sizeof(g->why));
    }
    g->autostart_pending = false;
    mutex_unlock(&g->lock);
}

static void start_one(struct guest *g)
{
    char why[160] = "", err[200];
    if (ask_peers && !ownership_may_start(g->uuid, why, sizeof(why)))
        put_in_doubt(g, why);
    else if (wants_start(g) && guest_start_unasked(g, err, sizeof(err)))
        give_up(g, err);
}

// One guest that still wants to be started, after `last` in the table. Guests are removed only when
// they came from elsewhere, so a configured one stays valid without the table's lock.
static struct guest *next_wanting(const struct guest *last)
{
    bool passed = !last;
    struct guest *found = NULL;
    mutex_lock(&guests_lock);
    for (struct guest *g = guest_first(); g && !found; g = g->next) {
        if (passed && wants_start(g))
            found = g;
        passed = passed || g == last;
    }
    mutex_unlock(&guests_lock);
    return found;
}

static void autostart(void *arg)
{
    (void)arg;
    while (next_wanting(NULL)) {
        for (struct guest *g = next_wanting(NULL); g; g = next_wanting(g))
            start_one(g);
        if (next_wanting(NULL))
            thread_sleep_ns(ASK_AGAIN_NS);
    }
}

void guests_start(const struct host_config *cfg)
{
    char err[200];
    ask_peers = cfg->autostart_wait;
    for (u32 i = 0; i < cfg->guest_count; i++) {
        struct guest *g = guest_add(&cfg->guests[i], err, sizeof(err));
        if (!g) {
            log_error("guest", "%s", err);
            continue;
        }
        g->from_config = true;
        g->autostart_pending = g->config.autostart;
    }
    if (next_wanting(NULL) && !thread_create("autostart", autostart, NULL, THREAD_BIG_STACK))
        log_error("guest", "no memory to start the guests with autostart");
}
