// SPDX-License-Identifier: MIT
// The table of guests, and how one of them is ended with a reason.
#include "kernel/guest/guest.h"

#include "kernel/guest/vcpu.h"
#include "kernel/lib.h"
#include "kernel/mem.h"

struct mutex guests_lock;
static struct guest *guests; // guests_lock; in the order they were added

const char *guest_state_name(enum guest_state s)
{
    static const char *const names[] = {
        [GUEST_OFF] = "off",           [GUEST_RUNNING] = "running",   [GUEST_PAUSED] = "paused",
        [GUEST_CRASHED] = "crashed",   [GUEST_INCOMING] = "incoming", [GUEST_FROZEN] = "frozen",
        [GUEST_IN_DOUBT] = "in-doubt", [GUEST_MOVED] = "moved",       [GUEST_GONE] = "gone",
    };
    return (size_t)s < ARRAY_SIZE(names) ? names[s] : "unknown";
}

struct guest *guest_first(void)
{
    assert_held(&guests_lock);
    return guests;
}

struct guest *guest_find(const char *name)
{
    assert_held(&guests_lock);
    struct guest *g = guests;
    while (g && strcmp(g->name, name))
        g = g->next;
    return g;
}

struct guest *guest_find_uuid(const u8 uuid[16])
{
    assert_held(&guests_lock);
    struct guest *g = guests;
    while (g && memcmp(g->uuid, uuid, 16))
        g = g->next;
    return g;
}

// The caller may hold the table already.
static bool lock_table(void)
{
    if (mutex_held(&guests_lock))
        return false;
    mutex_lock(&guests_lock);
    return true;
}

static void unlock_table(bool mine)
{
    if (mine)
        mutex_unlock(&guests_lock);
}

static struct guest *make(const struct guest_config *cfg)
{
    struct guest *g = kzalloc(sizeof(*g));
    if (!g)
        return NULL;
    g->config = *cfg;
    strlcpy(g->name, cfg->name, sizeof(g->name));
    memcpy(g->uuid, cfg->uuid, sizeof(g->uuid));
    g->state = GUEST_OFF;
    g->references = 1;
    return g;
}

static void append(struct guest *g)
{
    struct guest **at = &guests;
    while (*at)
        at = &(*at)->next;
    *at = g;
}

static struct guest *add_locked(const struct guest_config *cfg, char *err, size_t size)
{
    assert_held(&guests_lock);
    const struct guest *same = guest_find_uuid(cfg->uuid);
    if (guest_find(cfg->name)) {
        snprintf(err, size, "a guest named %s is listed already; choose another name", cfg->name);
        return NULL;
    }
    if (same) {
        char text[37];
        uuid_format(cfg->uuid, text);
        snprintf(err, size, "guest %s has UUID %s, which guest %s has already", cfg->name, text,
                 same->name);
        return NULL;
    }
    struct guest *g = make(cfg);
    if (g)
        append(g);
    else
        snprintf(err, size, "no memory to list guest %s", cfg->name);
    return g;
}

struct guest *guest_add(const struct guest_config *cfg, char *err, size_t size)
{
    bool mine = lock_table();
    struct guest *g = add_locked(cfg, err, size);
    unlock_table(mine);
    return g;
}

void guest_remove(struct guest *g)
{
    bool mine = lock_table();
    struct guest **at = &guests;
    while (*at && *at != g)
        at = &(*at)->next;
    if (*at)
        *at = g->next;
    unlock_table(mine);
    // Whoever has a reference and waits for the lock finds that it is too late.
    mutex_lock(&g->lock);
    guest_teardown(g);
    g->job = NULL;
    g->state = GUEST_GONE;
    mutex_unlock(&g->lock);
    guest_put(g);
}

void guest_log(enum log_level level, const struct guest *g, const char *fmt, ...)
{
    char area[16], text[200];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    snprintf(area, sizeof(area), "guest %.9s", g->name); // the log keeps 15 characters
    log_write(level, area, "%s", text);
}

static void dump_vcpus(struct guest *g)
{
    struct vcpu *own = thread_get_vcpu();
    for (u32 i = 0; i < g->vcpu_count; i++) {
        struct vcpu *v = g->vcpu[i];
        // Another's registers can be read while it stands in its gate only.
        if (v->backend && (v == own || v->parked || v->exited))
            backend->dump(v);
    }
}

void guest_crash(struct guest *g, const char *fmt, ...)
{
    va_list ap;
    if (g->state == GUEST_CRASHED)
        return;
    va_start(ap, fmt);
    vsnprintf(g->crash, sizeof(g->crash), fmt, ap);
    va_end(ap);
    strlcpy(g->why, g->crash, sizeof(g->why));
    g->state = GUEST_CRASHED;
    guest_kick(g); // the others go to their gates
    guest_log(LOG_ERROR, g, "ended: %s", g->crash);
    dump_vcpus(g);
}
