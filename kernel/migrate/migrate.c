// SPDX-License-Identifier: MIT
// The interface of migrate.h: starting, checking, aborting and resolving moves; and the listener.
#include "kernel/migrate/migrate.h"

#include "kernel/lib.h"
#include "kernel/log.h"
#include "kernel/mem.h"
#include "kernel/migrate/internal.h"
#include "kernel/migrate/source.h"
#include "kernel/random.h"
#include "kernel/thread.h"
#include "kernel/time.h"

const struct host_config *migrate_cfg;
u64 host_boot_id;

// ---- Starting a move ---------------------------------------------------------------------------

// Both ends known and free to move? The guest, referenced, or NULL with a sentence.
static struct guest *get_movable(const char *name, const char *peer, bool disks, char *err,
                                 size_t size)
{
    struct guest *g = guest_get(name);
    if (!migrate_cfg || !peer_find(peer))
        snprintf(err, size, "no peer \"%s\"; `peers` lists them", peer);
    else if (!g)
        snprintf(err, size, "no guest \"%s\"; `list` lists them", name);
    else if (g->job)
        snprintf(err, size, "guest %s is being moved already; see `jobs`", g->name);
    else if (g->state != GUEST_RUNNING && g->state != GUEST_PAUSED)
        snprintf(err, size, "guest %s is %s: only running and paused guests move", g->name,
                 guest_state_name(g->state));
    else if (g->config.disk_count && !disks)
        snprintf(err, size, "guest %s has disks: with --disk they move along", g->name);
    else
        return g;
    guest_put(g);
    return NULL;
}

static int start_thread(struct guest *g, struct job *j, const struct peer_config *p)
{
    struct move *m = kzalloc(sizeof(*m));
    if (!m)
        return E_NOMEM;
    m->job = j;
    m->guest = guest_hold(g);
    m->peer = *p;
    m->verify = migrate_cfg->verify;
    if (thread_create("migrate", source_thread, m, THREAD_BIG_STACK))
        return 0;
    guest_put(g);
    kfree(m);
    return E_NOMEM;
}

static s64 begin(struct guest *g, const struct peer_config *p, char *err, size_t size)
{
    struct job *j = job_new(g->name, p->name, false);
    if (!j) {
        snprintf(err, size, "%u moves are under way: wait for one to end", JOBS_KEPT);
        return E_BUSY;
    }
    u64 id = j->info.id;
    mutex_lock(&g->lock);
    bool free_guest = !g->job && (g->state == GUEST_RUNNING || g->state == GUEST_PAUSED);
    if (free_guest)
        g->job = j;
    mutex_unlock(&g->lock);
    int e = free_guest ? start_thread(g, j, p) : E_BUSY;
    if (e == 0)
        return (s64)id;
    if (free_guest)
        g->job = NULL;
    snprintf(err, size, e == E_NOMEM ? "no memory to move guest %s" : "guest %s is busy", g->name);
    job_end(j, JOB_FAILED, "%s", err);
    return e;
}

s64 migrate_begin(const char *guest, const char *peer, bool disks, char *err, size_t size)
{
    struct guest *g = get_movable(guest, peer, disks, err, size);
    if (!g)
        return E_INVAL;
    s64 id = begin(g, peer_find(peer), err, size);
    guest_put(g);
    return id;
}

u32 verify_flags(enum verify_mode mode)
{
    return (mode ? HEADER_VERIFY : 0) | (mode == VERIFY_STRICT ? HEADER_REREAD : 0);
}

// ---- Only checking -----------------------------------------------------------------------------

// Each line of a REFUSE or ACCEPT goes to say().
static int say_lines(struct move *m, const struct record *r,
                     void (*say)(void *arg, const char *line), void *arg)
{
    char *text = kmalloc(r->bytes + 1), *line = text;
    if (!text)
        return move_fail(m, E_IO, "no memory for the peer's answer");
    stream_text(r, text, r->bytes + 1);
    while (line && *line) {
        char *next = strchr(line, '\n');
        if (next)
            *next++ = '\0';
        say(arg, line);
        line = next;
    }
    kfree(text);
    return 0;
}

static int ask_check(struct move *m, void (*report)(void *arg, const char *line), void *arg)
{
    struct wire_check check = {.mode = CHECK_ONLY};
    struct record r;
    int e = describe_send(&m->s, &m->desc);
    if (e == 0)
        e = stream_send(&m->s, REC_CHECK, &check, sizeof(check));
    m->s.timeout_ns = CHECK_TIMEOUT_NS;
    if (e == 0)
        e = stream_receive(&m->s, &r);
    if (e || (r.type != REC_ACCEPT && r.type != REC_REFUSE)) {
        move_fail(m, E_IO, "%s", e ? m->s.error : "the peer answered CHECK with something else");
        return E_IO;
    }
    e = say_lines(m, &r, report, arg);
    return e == 0 && r.type == REC_REFUSE ? E_INVAL : e;
}

static int check_guest(struct move *m, void (*report)(void *arg, const char *line), void *arg)
{
    memcpy(m->id.uuid, m->guest->uuid, 16);
    m->id.epoch = m->guest->epoch + 1;
    m->id.move_id = random_u64();
    if (describe_guest(m->guest, &m->desc, m->error, sizeof(m->error)) != 0) {
        report(arg, m->error);
        return E_INVAL;
    }
    int e = peer_open(&m->s, m->peer.name, &m->peer.address, peer_port(m->peer.port), &m->id,
                      verify_flags(migrate_cfg->verify), CONNECT_TIMEOUT_NS, m->error,
                      sizeof(m->error));
    if (e == E_NOSUP) { // the versions don't meet: that is a refusal
        report(arg, m->error);
        return E_INVAL;
    }
    if (e)
        return E_IO;
    e = ask_check(m, report, arg);
    stream_close(&m->s, e != E_IO);
    return e;
}

int migrate_check(const char *guest, const char *peer, bool disks,
                  void (*report)(void *arg, const char *line), void *arg, char *err, size_t size)
{
    struct guest *g = get_movable(guest, peer, disks, err, size);
    if (!g)
        return E_INVAL;
    struct move *m = kzalloc(sizeof(*m));
    if (!m) {
        guest_put(g);
        snprintf(err, size, "no memory to check the move");
        return E_IO;
    }
    m->guest = g;
    m->peer = *peer_find(peer);
    int e = check_guest(m, report, arg);
    if (e == E_IO)
        strlcpy(err, m->error, size);
    else if (e == E_INVAL)
        snprintf(err, size, "%s would refuse guest %s", m->peer.name, g->name);
    guest_put(g);
    kfree(m);
    return e;
}

// ---- Jobs --------------------------------------------------------------------------------------

int migrate_abort(u64 job_id, char *err, size_t size)
{
    return job_abort(job_id, err, size);
}

// ---- In doubt ----------------------------------------------------------------------------------

// The operator's word counts only after the peer was asked once more: what it knows is better.
static int resolve_claim(struct claim *c, bool keep, char *err, size_t size)
{
    char why[160] = "";
    if (!c->asking && doubt_ask(c, why, sizeof(why)) == 0) {
        bool here = c->state == HO_ABORTED || c->state == HO_STARTED;
        if (here == keep)
            return 0;
        snprintf(err, size, "%s has answered just now: the guest %s", c->peer,
                 here ? "goes on here" : "runs there");
        return E_BUSY;
    }
    unsigned actions = claim_step(c, keep ? HO_EV_KEEP : HO_EV_DROP);
    if (actions & HO_REFUSED) {
        snprintf(err, size, "the move of guest %s is %s: nothing to resolve", c->guest,
                 handover_state_name(c->state));
        return E_BUSY;
    }
    settle(c, actions, "given up here by the operator");
    job_settle(c->job, keep == c->source ? JOB_FAILED : JOB_DONE, 0,
               keep ? "resolved by the operator: runs here"
                    : "resolved by the operator: given up here");
    log_warn("migrate", "guest %s: resolved by the operator, %s", c->guest,
             keep ? "runs here" : "given up here");
    return 0;
}

// A configured guest that may not be started before its peers answer holds no memory.
static int resolve_start(struct guest *g, bool keep, char *err, size_t size)
{
    g->autostart_pending = false;
    if (keep)
        return guest_start_unasked(g, err, size);
    g->state = GUEST_OFF;
    g->why[0] = '\0';
    return 0;
}

static int resolve_guest(struct guest *g, bool keep, char *err, size_t size)
{
    if (g->state != GUEST_IN_DOUBT) {
        snprintf(err, size, "guest %s is %s, not in doubt: nothing to resolve", g->name,
                 guest_state_name(g->state));
        return E_BUSY;
    }
    mutex_lock(&claims_lock);
    struct claim *c = claim_find_unsettled(g->uuid);
    int e = c ? resolve_claim(c, keep, err, size) : 0;
    mutex_unlock(&claims_lock);
    if (c && (e || !keep || g->state != GUEST_OFF)) // OFF: its memory was lost with a restart
        return e;
    return resolve_start(g, keep, err, size);
}

int migrate_resolve(const char *guest, bool keep, char *err, size_t size)
{
    struct guest *g = guest_get(guest);
    if (!g) {
        snprintf(err, size, "no guest \"%s\"; `list` lists them", guest);
        return E_NOENT;
    }
    int e = resolve_guest(g, keep, err, size);
    guest_put(g);
    return e;
}

// ---- Start-up ----------------------------------------------------------------------------------

void migrate_start(const struct host_config *cfg)
{
    migrate_cfg = cfg;
    // Machines without a source of entropy that start alike differ in their names at least.
    struct hash h;
    u64 name[2];
    hash_start(&h);
    hash_add(&h, cfg->name, strlen(cfg->name));
    hash_finish(&h, name);
    host_boot_id = (random_u64() ^ name[0]) | 1;
    log_info("migrate", "boot id %016llx, port %u", (unsigned long long)host_boot_id,
             peer_port(cfg->port));
    doubt_start();
    int e = net_listen(peer_port(cfg->port), serve_connection);
    if (e)
        log_error("migrate", "cannot listen on port %u (%d): no guest can be received",
                  peer_port(cfg->port), e);
}
