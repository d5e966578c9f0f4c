// SPDX-License-Identifier: MIT
// Keeps the claims of moves and answers peers that ask who owns a guest.
#include "kernel/migrate/ownership.h"

#include "kernel/lib.h"
#include "kernel/log.h"
#include "kernel/migrate/ledger.h"
#include "kernel/migrate/migrate.h"
#include "kernel/thread.h"
#include "kernel/time.h"

struct mutex claims_lock;
static struct claim claims[CLAIMS_KEPT];
static u64 claim_order;

bool ident_equal(const struct move_ident *a, const struct move_ident *b)
{
    return memcmp(a, b, sizeof(*a)) == 0;
}

struct claim *claim_get(u32 i)
{
    assert_held(&claims_lock);
    return i < CLAIMS_KEPT ? &claims[i] : NULL;
}

struct claim *claim_find(const struct move_ident *id, bool source)
{
    assert_held(&claims_lock);
    for (u32 i = 0; i < CLAIMS_KEPT; i++)
        if (claims[i].used && claims[i].source == source && ident_equal(&claims[i].id, id))
            return &claims[i];
    return NULL;
}

struct claim *claim_find_unsettled(const u8 uuid[16])
{
    assert_held(&claims_lock);
    for (u32 i = 0; i < CLAIMS_KEPT; i++)
        if (claims[i].used && !handover_final(claims[i].state) &&
            memcmp(claims[i].id.uuid, uuid, 16) == 0)
            return &claims[i];
    return NULL;
}

// A free slot, or the oldest settled one: what is unsettled is never forgotten.
static struct claim *claim_slot(void)
{
    assert_held(&claims_lock);
    struct claim *oldest = NULL;
    for (u32 i = 0; i < CLAIMS_KEPT; i++) {
        struct claim *c = &claims[i];
        if (!c->used)
            return c;
        if (handover_final(c->state) && !c->asking && !c->linked &&
            (!oldest || c->order < oldest->order))
            oldest = c;
    }
    return oldest;
}

struct claim *claim_new(bool source, const struct move_ident *id, const char *guest,
                        const char *peer, char *why, size_t size)
{
    mutex_lock(&claims_lock);
    struct claim *other = claim_find_unsettled(id->uuid), *c = NULL;
    if (other)
        snprintf(why, size, "a move of guest %s %s %s is not settled yet (%s)", other->guest,
                 other->source ? "to" : "from", other->peer, handover_state_name(other->state));
    else if (!(c = claim_slot()))
        snprintf(why, size, "%u moves are not settled: `resolve` some first", CLAIMS_KEPT);
    if (c) {
        memset(c, 0, sizeof(*c));
        c->used = true;
        c->linked = true;
        c->source = source;
        c->state = source ? HO_PRECOPY : HO_RECEIVING;
        c->id = *id;
        strlcpy(c->guest, guest, sizeof(c->guest));
        strlcpy(c->peer, peer, sizeof(c->peer));
        c->order = ++claim_order;
    }
    mutex_unlock(&claims_lock);
    return c;
}

int claim_record(struct claim *c)
{
    mutex_lock(&claims_lock);
    int error = ledger_write(c, c->state);
    mutex_unlock(&claims_lock);
    return error;
}

// False: what only a durable record allows may not be done.
static bool on_record(const struct claim *c, enum handover_state next)
{
    bool must = next == HO_COMMITTED || next == HO_STARTED;
    if (next == c->state || (!must && !handover_final(next)))
        return true;
    int error = ledger_write(c, next);
    if (error)
        log_error("migrate",
                  "guest %s: that its move is %s cannot be recorded in the datastore (%d)",
                  c->guest, handover_state_name(next), error);
    return !error || !must;
}

unsigned claim_step(struct claim *c, enum handover_event e)
{
    assert_held(&claims_lock);
    enum handover_state before = c->state, next = before;
    unsigned actions = handover_step(&next, e);
    if (!on_record(c, next)) {
        if (next == HO_COMMITTED || e == HO_EV_KEEP)
            return HO_REFUSED;
        next = before;
        handover_step(&next, HO_EV_DROP);
        actions = HO_DISCARD | HO_SEND_NOT_STARTED;
    }
    c->state = next;
    if (c->state != before)
        log_info("migrate", "guest %s %s %s: %s, was %s", c->guest, c->source ? "to" : "from",
                 c->peer, handover_state_name(c->state), handover_state_name(before));
    return actions;
}

bool ownership_in_doubt(const u8 uuid[16])
{
    mutex_lock(&claims_lock);
    const struct claim *c = claim_find_unsettled(uuid);
    bool doubt = c != NULL;
    mutex_unlock(&claims_lock);
    return doubt;
}

// ---- Starting ----------------------------------------------------------------------------------

static struct start_attempt {
    bool used;
    bool asking;  // this host asks its peers just now
    bool allowed; // it was allowed to start it, a moment ago
    bool lost;    // it gave way to another host
    u8 uuid[16];
    u64 lease_until_ns; // promised to another host until then
    u64 allowed_until_ns;
} attempts[CONFIG_MAX_GUESTS * 2]; // under claims_lock

void start_attempts_forget(void)
{
    memset(attempts, 0, sizeof(attempts));
}

static bool attempt_idle(const struct start_attempt *a)
{
    u64 now = time_ns();
    return !a->used || (!a->asking && now >= a->lease_until_ns && now >= a->allowed_until_ns);
}

static struct start_attempt *attempt_find(const u8 uuid[16], bool make)
{
    assert_held(&claims_lock);
    struct start_attempt *free_slot = NULL;
    for (size_t i = 0; i < ARRAY_SIZE(attempts); i++) {
        if (attempts[i].used && memcmp(attempts[i].uuid, uuid, 16) == 0)
            return &attempts[i];
        if (!free_slot && attempt_idle(&attempts[i]))
            free_slot = &attempts[i];
    }
    if (make && free_slot) {
        memset(free_slot, 0, sizeof(*free_slot));
        free_slot->used = true;
        memcpy(free_slot->uuid, uuid, 16);
        return free_slot;
    }
    return NULL;
}

bool start_attempt_begin(const u8 uuid[16])
{
    mutex_lock(&claims_lock);
    struct start_attempt *a = attempt_find(uuid, true);
    bool ok = a && time_ns() >= a->lease_until_ns;
    if (ok) {
        a->asking = true;
        a->lost = false;
    }
    mutex_unlock(&claims_lock);
    return ok;
}

bool start_attempt_lost(const u8 uuid[16])
{
    mutex_lock(&claims_lock);
    const struct start_attempt *a = attempt_find(uuid, false);
    bool lost = !a || a->lost;
    mutex_unlock(&claims_lock);
    return lost;
}

void start_attempt_end(const u8 uuid[16], bool allowed)
{
    mutex_lock(&claims_lock);
    struct start_attempt *a = attempt_find(uuid, false);
    if (a) {
        a->asking = false;
        a->allowed = allowed && !a->lost;
        a->allowed_until_ns = a->allowed ? time_ns() + START_LEASE_NS : 0;
    }
    mutex_unlock(&claims_lock);
}

void ownership_start_over(const u8 uuid[16])
{
    mutex_lock(&claims_lock);
    struct start_attempt *a = attempt_find(uuid, false);
    if (a)
        a->allowed_until_ns = 0;
    mutex_unlock(&claims_lock);
}

// ---- Answers -----------------------------------------------------------------------------------

static enum owner_state guest_owner_state(const u8 uuid[16], u64 *epoch)
{
    enum owner_state s = OWNER_NOTHING;
    mutex_lock(&guests_lock);
    const struct guest *g = guest_find_uuid(uuid);
    if (g) {
        *epoch = g->epoch;
        switch ((enum guest_state)g->state) {
        case GUEST_RUNNING:
        case GUEST_PAUSED:
            s = OWNER_RUNS;
            break;
        case GUEST_INCOMING:
        case GUEST_FROZEN:
            s = OWNER_HOLDS;
            break;
        case GUEST_IN_DOUBT: // a copy in memory, or only a configured guest that waits for peers
            s = g->memory.bytes ? OWNER_HOLDS : OWNER_NOTHING;
            break;
        case GUEST_MOVED:
            s = OWNER_MOVED;
            break;
        case GUEST_OFF:
        case GUEST_CRASHED:
        case GUEST_GONE:
            break;
        }
    }
    mutex_unlock(&guests_lock);
    return s;
}

// Where the guest went: the last move that gave it away.
static void answer_moved(struct wire_owner *out)
{
    assert_held(&claims_lock);
    const struct claim *last = NULL;
    for (u32 i = 0; i < CLAIMS_KEPT; i++) {
        const struct claim *c = &claims[i];
        if (c->used && c->source && c->state == HO_MOVED &&
            memcmp(c->id.uuid, out->uuid, 16) == 0 && (!last || c->order > last->order))
            last = c;
    }
    if (!last) {
        out->state = OWNER_NOTHING; // forgotten; its new owner answers for itself
        return;
    }
    out->epoch = last->id.epoch;
    out->to_boot_id = last->id.dest_boot_id;
    strlcpy(out->to, last->peer, sizeof(out->to));
}

// Another host asks whether it may start what this one does not have.
static enum owner_state answer_start(const struct wire_owner_ask *ask)
{
    assert_held(&claims_lock);
    struct start_attempt *a = attempt_find(ask->uuid, true);
    if (!a)
        return OWNER_STARTING; // no room to remember a promise: it asks again
    u64 now = time_ns();
    if (now < a->allowed_until_ns)
        return OWNER_RUNS; // about to
    if (a->asking && !a->lost && host_boot_id < ask->asker_boot_id)
        return OWNER_STARTING;
    if (a->asking)
        a->lost = true; // the asker goes first
    a->lease_until_ns = now + START_LEASE_NS;
    return OWNER_NOTHING;
}

void ownership_answer(const struct wire_owner_ask *ask, struct wire_owner *out)
{
    memset(out, 0, sizeof(*out));
    memcpy(out->uuid, ask->uuid, 16);
    mutex_lock(&claims_lock); // before the state is read: see ownership_start_over
    out->state = guest_owner_state(ask->uuid, &out->epoch);
    const struct claim *c = claim_find_unsettled(ask->uuid);
    if (out->state != OWNER_RUNS && c)
        out->state = OWNER_HOLDS;
    if (out->state == OWNER_MOVED)
        answer_moved(out);
    if (ask->wants_start && (out->state == OWNER_NOTHING || out->state == OWNER_MOVED)) {
        enum owner_state s = answer_start(ask);
        if (s != OWNER_NOTHING)
            out->state = s;
    }
    mutex_unlock(&claims_lock);
}
