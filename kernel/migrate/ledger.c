// SPDX-License-Identifier: MIT
// Writes claims to the datastore's records, and takes them up after a restart.
#include "kernel/migrate/ledger.h"

#include "kernel/lib.h"
#include "kernel/log.h"
#include "kernel/mem.h"
#include "kernel/migrate/describe.h"
#include "kernel/migrate/disks.h"
#include "storage/datastore.h"

#define LEDGER_VERSION 2
#define PREFIX         "move-" // of a key; the guest's UUID follows

struct entry {
    u32 version;
    u8 source, state; // enum handover_state
    u16 port;
    struct move_ident id;
    char guest[CONFIG_NAME], peer[CONFIG_NAME];
    u8 address[16];
    u8 family;
    u8 has_config, autostart;
    u8 reserved[5];
    struct wire_guest config;
    char disks[CONFIG_MAX_DISKS][CONFIG_DISK];
    u64 disk_id[CONFIG_MAX_DISKS];
    u32 disk_count, reserved32;
};
static_assert(offsetof(struct entry, config) == 144, "a record's fields lie without gaps");
static_assert(sizeof(struct entry) <= RECORD_MAX, "a claim fits into a record");

static void make_key(const u8 uuid[16], char key[RECORD_KEY])
{
    char text[37];
    uuid_format(uuid, text);
    snprintf(key, RECORD_KEY, PREFIX "%s", text);
}

static void fill_config(struct entry *e)
{
    struct guest *g = guest_get_uuid(e->id.uuid);
    if (!g)
        return;
    describe_config_save(g, &e->config);
    e->has_config = 1;
    e->autostart = g->config.autostart;
    guest_put(g);
}

// Records are few. One may go that is settled and of a guest that is not listed here any more: all
// it is good for is a late question.
static bool may_go(const char *key, struct entry *e)
{
    u32 bytes = RECORD_MAX;
    if (strncmp(key, PREFIX, sizeof(PREFIX) - 1) != 0 || record_get(key, e, &bytes) != 0 ||
        bytes != sizeof(*e) || !handover_final(e->state))
        return false;
    struct guest *g = guest_get_uuid(e->id.uuid);
    guest_put(g);
    return !g;
}

static int put_in_place_of_another(const char *key, const struct entry *e)
{
    char other[RECORD_KEY];
    struct entry *room = kmalloc(RECORD_MAX);
    bool freed = false;
    for (u32 at = 0; room && !freed && record_next(&at, other);)
        freed = may_go(other, room) && record_delete(other) == 0;
    kfree(room);
    return freed ? record_put(key, e, sizeof(*e)) : E_NOMEM;
}

int ledger_write(const struct claim *c, enum handover_state state)
{
    char key[RECORD_KEY];
    struct entry *e = kzalloc(sizeof(*e));
    if (!e)
        return E_NOMEM;
    e->version = LEDGER_VERSION;
    e->source = c->source;
    e->state = (u8)state;
    e->port = c->port;
    e->id = c->id;
    e->family = c->address.family;
    memcpy(e->address, c->address.bytes, sizeof(e->address));
    strlcpy(e->guest, c->guest, sizeof(e->guest));
    strlcpy(e->peer, c->peer, sizeof(e->peer));
    e->disk_count = c->disk_count;
    memcpy(e->disks, c->disks, sizeof(e->disks));
    memcpy(e->disk_id, c->disk_id, sizeof(e->disk_id));
    fill_config(e);
    make_key(c->id.uuid, key);
    int error = record_put(key, e, sizeof(*e));
    if (error == E_NOMEM)
        error = put_in_place_of_another(key, e);
    kfree(e);
    return error == E_NOENT ? 0 : error;
}

// ---- After a restart ---------------------------------------------------------------------------

static bool disks_valid(const struct entry *e)
{
    bool valid = e->disk_count <= CONFIG_MAX_DISKS;
    for (u32 i = 0; i < CONFIG_MAX_DISKS; i++)
        valid = valid && wire_text_ok(e->disks[i], sizeof(e->disks[i]));
    return valid;
}

static bool valid(const struct entry *e, u32 bytes)
{
    bool right_side = e->source ? e->state <= HO_ABORTED : e->state >= HO_RECEIVING;
    return bytes == sizeof(*e) && e->version == LEDGER_VERSION && e->state < HO_STATES &&
           right_side && wire_name_ok(e->guest, sizeof(e->guest)) &&
           wire_name_ok(e->peer, sizeof(e->peer)) &&
           (!e->has_config || describe_config_valid(&e->config)) && disks_valid(e);
}

static struct claim *take_claim(const struct entry *e)
{
    char why[160];
    struct claim *c = claim_new(e->source, &e->id, e->guest, e->peer, why, sizeof(why));
    if (!c) {
        log_error("migrate", "the record of guest %s's move is not taken up: %s", e->guest, why);
        return NULL;
    }
    c->state = handover_after_restart(e->state);
    c->disk_count = e->disk_count;
    memcpy(c->disks, e->disks, sizeof(c->disks));
    memcpy(c->disk_id, e->disk_id, sizeof(c->disk_id));
    c->port = e->port;
    c->address.family = e->family;
    memcpy(c->address.bytes, e->address, sizeof(e->address));
    return c;
}

// A guest that had come from elsewhere is in no host.cfg here: the record is all there is of it.
static struct guest *list_again(const struct entry *e)
{
    struct guest_config cfg;
    char err[200];
    describe_config(&e->config, e->id.uuid, &cfg);
    cfg.autostart = e->autostart;
    cfg.disk_count = e->disk_count;
    memcpy(cfg.disks, e->disks, sizeof(cfg.disks));
    struct guest *g = guest_add(&cfg, err, sizeof(err));
    if (!g)
        log_error("migrate", "guest %s, which belongs to this host, cannot be listed: %s", e->guest,
                  err);
    else
        g->autostart_pending = e->autostart;
    return guest_hold(g);
}

// This host's guest, this host's no more, or not decided: as its last move left it.
static void place_guest(const struct claim *c, struct guest *g)
{
    bool here = c->state == HO_STARTED || c->state == HO_ABORTED;
    bool gone = c->state == HO_MOVED || c->state == HO_DROPPED;
    g->epoch = c->state == HO_STARTED || c->state == HO_MOVED ? c->id.epoch : c->id.epoch - 1;
    if (here)
        return;
    g->state = gone ? GUEST_MOVED : GUEST_IN_DOUBT;
    snprintf(g->why, sizeof(g->why),
             gone ? "belongs to %s" : "this host restarted before %s had answered COMMIT", c->peer);
}

// The power failed while the volumes were made: none of their names was here before, so what is
// and holds nothing is the move's. Once only: later somebody else may make one.
static void drop_unrecorded(struct claim *c)
{
    disks_identify_empty(c->disks, c->disk_count, c->disk_id);
    mutex_lock(&claims_lock);
    int error = ledger_write(c, c->state);
    mutex_unlock(&claims_lock);
    if (error)
        log_error("migrate", "guest %s: that its move here has ended cannot be recorded (%d)",
                  c->guest, error);
}

static void take_up(const struct entry *e)
{
    struct claim *c = take_claim(e);
    if (!c)
        return;
    if (e->state == HO_RECEIVING)
        drop_unrecorded(c);
    // A copy that was never whole, or is not to be used, or that the power left when its guest had
    // gone.
    if (c->state == HO_DROPPED || c->state == HO_MOVED)
        disks_delete(c->disks, c->disk_count, c->disk_id);
    bool ours = c->state == HO_STARTED || c->state == HO_ABORTED || c->state == HO_COMMITTED;
    struct guest *g = guest_get_uuid(e->id.uuid);
    if (!g && ours && e->has_config)
        g = list_again(e);
    if (g)
        place_guest(c, g);
    guest_put(g);
    c->linked = false;
    log_info("migrate", "guest %s %s %s: %s, on record", c->guest, c->source ? "to" : "from",
             c->peer, handover_state_name(c->state));
}

static struct waitq over_wait;
static volatile bool over;

static void take_up_all(void *arg)
{
    char key[RECORD_KEY];
    struct entry *e = kmalloc(RECORD_MAX);
    u32 bytes;
    (void)arg;
    for (u32 at = 0; e && record_next(&at, key);) {
        if (strncmp(key, PREFIX, sizeof(PREFIX) - 1) != 0)
            continue;
        bytes = RECORD_MAX;
        if (record_get(key, e, &bytes) == 0 && valid(e, bytes))
            take_up(e);
        else
            log_error("migrate", "the record %s is not one of this version: ignored", key);
    }
    if (!e)
        log_error("migrate", "no memory to read what is on record of moves");
    kfree(e);
    over = true;
    waitq_wake_all(&over_wait);
}

void ledger_start(void)
{
    if (!thread_create("migrate-ledger", take_up_all, NULL, THREAD_BIG_STACK))
        log_error("migrate", "no memory to read what is on record of moves: nothing is started");
}

void ledger_wait(void)
{
    wait_event(&over_wait, over);
}
