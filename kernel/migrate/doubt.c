// SPDX-License-Identifier: MIT
// Moves that lost their connection after READY or COMMIT: asks the peer again until it is settled.
#include "kernel/lib.h"
#include "kernel/log.h"
#include "kernel/migrate/fault.h"
#include "kernel/migrate/internal.h"
#include "kernel/migrate/ledger.h"
#include "kernel/thread.h"
#include "kernel/time.h"

#define LOOK_EVERY_NS (500 * NS_PER_MS)

// ---- What an answer means ----------------------------------------------------------------------

static void settled_job(struct claim *c, const char *text)
{
    enum job_phase p = c->state == HO_MOVED || c->state == HO_STARTED ? JOB_DONE : JOB_FAILED;
    job_settle(c->job, p, c->blackout_ns / NS_PER_US, text);
}

// Source: RUNNING came, on whatever connection.
static void take_running(struct claim *c, const struct wire_running *w)
{
    char why[120];
    c->blackout_ns = w->blackout_ns;
    unsigned actions = claim_step(c, HO_EV_RUNNING);
    snprintf(why, sizeof(why), "runs on %s", c->peer);
    settle(c, actions, why);
    if (actions & HO_RELEASE)
        settled_job(c, "moved; the answer came late");
}

static void take_not_started(struct claim *c)
{
    settle(c, claim_step(c, HO_EV_NOT_STARTED), "");
    settled_job(c, "the destination never started it: it goes on here");
}

static void start_here(struct claim *c)
{
    unsigned actions = claim_step(c, HO_EV_COMMIT);
    settle(c, actions, "");
    if (actions & HO_START)
        settled_job(c, "runs here; COMMIT came late");
}

static void drop_here(struct claim *c)
{
    settle(c, claim_step(c, HO_EV_ABORTED), "");
    settled_job(c, "it goes on at the source; the copy here was discarded");
}

// ---- Asking ------------------------------------------------------------------------------------

// All three: claims_lock held, dropped while the peer is asked. 0 when settled; else err has why.
static int ask_destination(struct claim *c, struct stream *s, char *err, size_t size)
{
    assert_held(&claims_lock);
    struct wire_commit w = {.id = c->id};
    struct record r;
    mutex_unlock(&claims_lock);
    int e = stream_send(s, REC_COMMIT, &w, sizeof(w));
    if (e == 0)
        e = stream_receive(s, &r);
    mutex_lock(&claims_lock);
    if (e) {
        strlcpy(err, s->error, size);
        return e;
    }
    const struct move_ident *id = r.payload;
    if (r.type == REC_RUNNING && ident_equal(id, &c->id)) {
        take_running(c, r.payload);
        return 0;
    }
    const struct wire_not_started *n = r.payload;
    if (r.type == REC_NOT_STARTED && ident_equal(id, &c->id) && n->certain) {
        take_not_started(c);
        return 0;
    }
    if (s->peer.sender_boot_id != c->id.dest_boot_id)
        snprintf(err, size, "%s has restarted since COMMIT was sent; it may have run there before",
                 c->peer);
    else
        snprintf(err, size, "%s knows nothing of this move", c->peer);
    return E_BUSY;
}

// The source said that it has committed: run it, and tell.
static void answer_running(struct claim *c, struct stream *s)
{
    struct wire_running w = {
        .id = c->id, .blackout_ns = c->blackout_ns, .error_ns = c->clock_error_ns};
    mutex_unlock(&claims_lock);
    stream_send(s, REC_RUNNING, &w, sizeof(w));
    mutex_lock(&claims_lock);
}

static int ask_source(struct claim *c, struct stream *s, char *err, size_t size)
{
    assert_held(&claims_lock);
    struct record r;
    mutex_unlock(&claims_lock);
    int e = stream_send(s, REC_QUERY, &c->id, sizeof(c->id));
    if (e == 0)
        e = stream_expect(s, REC_ANSWER, &r);
    mutex_lock(&claims_lock);
    if (e) {
        strlcpy(err, s->error, size);
        return e;
    }
    const struct wire_answer *a = r.payload;
    if (!ident_equal(&a->id, &c->id)) {
        snprintf(err, size, "%s answered about another move", c->peer);
        return E_PROTO;
    }
    if (a->kind == ANSWER_COMMITTED) {
        start_here(c);
        answer_running(c, s);
        return 0;
    }
    if (a->kind == ANSWER_ABORTED) {
        drop_here(c);
        return 0;
    }
    if (a->kind == ANSWER_WAIT)
        snprintf(err, size, "%s has not decided yet", c->peer);
    else if (s->peer.sender_boot_id != c->id.source_boot_id)
        snprintf(err, size, "%s has restarted since; it may have gone on running it until then",
                 c->peer);
    else
        snprintf(err, size, "%s knows nothing of this move", c->peer);
    return E_BUSY;
}

int doubt_ask(struct claim *c, char *err, size_t size)
{
    assert_held(&claims_lock);
    struct stream s;
    char why[160];
    struct move_ident id = c->id;
    struct ip_address to = c->address;
    u16 port = c->port;
    char name[CONFIG_NAME];
    strlcpy(name, c->peer, sizeof(name));

    c->asking = true; // keeps the slot
    mutex_unlock(&claims_lock);
    int e = peer_open(&s, name, &to, port, &id, 0, ASK_TIMEOUT_NS, why, sizeof(why));
    mutex_lock(&claims_lock);
    if (e == 0) {
        if (!handover_final(c->state))
            e = c->source ? ask_destination(c, &s, why, sizeof(why))
                          : ask_source(c, &s, why, sizeof(why));
        mutex_unlock(&claims_lock);
        stream_close(&s, e == 0);
        mutex_lock(&claims_lock);
    }
    c->asking = false;
    if (handover_final(c->state))
        return 0;
    strlcpy(err, why, size);
    return e;
}

static void ask_and_note(struct claim *c)
{
    char err[sizeof(c->last_word)] = "";
    char before[sizeof(c->last_word)], guest[CONFIG_NAME];
    strlcpy(guest, c->guest, sizeof(guest));
    strlcpy(before, c->last_word, sizeof(before));
    if (doubt_ask(c, err, sizeof(err)) == 0)
        return;
    c->next_ask_ns = time_ns() + ASK_AGAIN_NS;
    if (strcmp(before, err) != 0) {
        strlcpy(c->last_word, err, sizeof(c->last_word));
        settle_doubt(c, err);
        log_warn("migrate", "guest %s is in doubt: %s", guest, err);
    }
}

static void doubt_thread(void *arg)
{
    (void)arg;
    ledger_wait();
    for (;;) {
        mutex_lock(&claims_lock);
        for (u32 i = 0; i < CLAIMS_KEPT; i++) {
            struct claim *c = claim_get(i);
            if (c->used && !c->linked && !c->asking && handover_in_doubt(c->state) &&
                time_ns() >= c->next_ask_ns)
                ask_and_note(c);
        }
        mutex_unlock(&claims_lock);
        thread_sleep_ns(LOOK_EVERY_NS);
    }
}

void doubt_start(void)
{
    if (!thread_create("migrate-doubt", doubt_thread, NULL, THREAD_BIG_STACK))
        log_error("migrate", "no memory for the thread that asks about moves in doubt");
}

// ---- Being asked -------------------------------------------------------------------------------

int doubt_answer_commit(struct stream *s, const struct record *r)
{
    const struct wire_commit *w = r->payload;
    struct wire_running run = {.id = w->id};
    struct wire_not_started not = {.id = w->id};
    bool running = false;

    mutex_lock(&claims_lock);
    struct claim *c = claim_find(&w->id, false);
    if (c) {
        unsigned actions = claim_step(c, HO_EV_COMMIT);
        settle(c, actions, "");
        if (actions & HO_START)
            settled_job(c, "runs here; COMMIT came on another connection");
        running = actions & HO_SEND_RUNNING;
        not .certain = !!(actions & HO_SEND_NOT_STARTED);
        run.blackout_ns = c->blackout_ns;
        run.error_ns = c->clock_error_ns;
    }
    mutex_unlock(&claims_lock);
    if (running)
        return stream_send(s, REC_RUNNING, &run, sizeof(run));
    return stream_send(s, REC_NOT_STARTED, &not, sizeof(not ));
}

int doubt_answer_query(struct stream *s, const struct record *r)
{
    const struct move_ident *id = r->payload;
    struct wire_answer a = {.id = *id, .kind = ANSWER_UNKNOWN, .boot_id = host_boot_id};

    mutex_lock(&claims_lock);
    struct claim *c = claim_find(id, true);
    unsigned actions = c ? claim_step(c, HO_EV_QUERY) : 0;
    mutex_unlock(&claims_lock);
    if (actions & HO_ANSWER_WAIT)
        a.kind = ANSWER_WAIT;
    else if (actions & HO_ANSWER_COMMITTED)
        a.kind = ANSWER_COMMITTED;
    else if (actions & HO_ANSWER_ABORTED)
        a.kind = ANSWER_ABORTED;
    int e = stream_send(s, REC_ANSWER, &a, sizeof(a));
    if (e || a.kind != ANSWER_COMMITTED)
        return e;

    struct record next;
    e = stream_expect(s, REC_RUNNING, &next);
    if (e)
        return e;
    const struct wire_running *w = next.payload;
    mutex_lock(&claims_lock);
    c = claim_find(&w->id, true);
    if (c)
        take_running(c, w);
    mutex_unlock(&claims_lock);
    return 0;
}
