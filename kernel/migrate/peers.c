// SPDX-License-Identifier: MIT
// Talks to the configured peers: connecting, how they are, and whether they own a guest.
#include "kernel/lib.h"
#include "kernel/log.h"
#include "kernel/migrate/internal.h"
#include "kernel/migrate/ledger.h"
#include "kernel/thread.h"
#include "kernel/time.h"

#define START_TRIES    5
#define START_PAUSE_NS (500 * NS_PER_MS)

const struct peer_config *peer_find(const char *name)
{
    for (u32 i = 0; i < migrate_cfg->peer_count; i++)
        if (strcasecmp(migrate_cfg->peers[i].name, name) == 0)
            return &migrate_cfg->peers[i];
    return NULL;
}

u16 peer_port(u16 configured)
{
    return configured ? configured : MIGRATE_PORT;
}

int peer_open(struct stream *s, const char *name, const struct ip_address *to, u16 port,
              const struct move_ident *id, u32 flags, u64 timeout_ns, char *err, size_t size)
{
    char why[120] = "";
    struct conn *c = net_connect(to, port, timeout_ns, why, sizeof(why));
    if (!c) {
        snprintf(err, size, "%s cannot be reached: %s", name, why);
        return E_IO;
    }
    if (stream_open(s, c) != 0) {
        conn_close(c);
        strlcpy(err, s->error, size);
        return E_NOMEM;
    }
    stream_header_fill(&s->self, migrate_cfg->name, host_boot_id, peer_port(migrate_cfg->port));
    s->timeout_ns = timeout_ns;
    s->self.flags = flags;
    if (id) {
        memcpy(s->self.uuid, id->uuid, 16);
        s->self.epoch = id->epoch;
        s->self.move_id = id->move_id;
    }
    int e = stream_send_header(s);
    if (e == 0)
        e = stream_receive_header(s);
    if (e) {
        snprintf(err, size, "%s: %s", name, s->error);
        stream_close(s, false);
    }
    return e;
}

// ---- How a peer is -----------------------------------------------------------------------------

static int ask_info(const struct peer_config *p, struct peer_info *out)
{
    struct stream s;
    struct record r;
    int e = peer_open(&s, p->name, &p->address, peer_port(p->port), NULL, 0, ASK_TIMEOUT_NS,
                      out->error, sizeof(out->error));
    if (e)
        return e;
    u64 sent = time_ns();
    e = stream_send(&s, REC_INFO_ASK, NULL, 0);
    if (e == 0)
        e = stream_expect(&s, REC_INFO, &r);
    if (e) {
        strlcpy(out->error, s.error, sizeof(out->error));
    } else {
        const struct wire_info *w = r.payload;
        out->reachable = true;
        out->rtt_us = (time_ns() - sent) / NS_PER_US;
        out->boot_id = w->boot_id;
        out->guests = w->guests;
        out->free_bytes = w->free_bytes;
        strlcpy(out->version, s.peer.software, sizeof(out->version));
    }
    stream_close(&s, e == 0);
    return e;
}

bool peer_query(unsigned i, struct peer_info *out)
{
    if (!migrate_cfg || i >= migrate_cfg->peer_count)
        return false;
    const struct peer_config *p = &migrate_cfg->peers[i];
    memset(out, 0, sizeof(*out));
    strlcpy(out->name, p->name, sizeof(out->name));
    out->address = p->address;
    out->port = peer_port(p->port);
    ask_info(p, out);
    return true;
}

// ---- Design rule 17 ----------------------------------------------------------------------------

static int ask_owner(const struct peer_config *p, const u8 uuid[16], struct wire_owner *out,
                     char *err, size_t size)
{
    struct stream s;
    struct record r;
    int e =
        peer_open(&s, p->name, &p->address, peer_port(p->port), NULL, 0, ASK_TIMEOUT_NS, err, size);
    if (e)
        return e;
    struct wire_owner_ask ask = {.asker_boot_id = host_boot_id, .wants_start = 1};
    memcpy(ask.uuid, uuid, 16);
    strlcpy(ask.asker, migrate_cfg->name, sizeof(ask.asker));
    e = stream_send(&s, REC_OWNER_ASK, &ask, sizeof(ask));
    if (e == 0)
        e = stream_expect(&s, REC_OWNER, &r);
    if (e)
        snprintf(err, size, "%s cannot be asked: %s", p->name, s.error);
    else
        *out = *(const struct wire_owner *)r.payload;
    stream_close(&s, e == 0);
    if (e == 0 && (memcmp(out->uuid, uuid, 16) != 0 || !wire_text_ok(out->to, sizeof(out->to)))) {
        snprintf(err, size, "%s answered about another guest", p->name);
        e = E_PROTO;
    }
    return e;
}

// One peer's answer. 1: it may be started, as far as this peer is concerned; 0: no; E_BUSY: ask
// again in a moment.
static int judge_answer(const struct peer_config *p, const struct wire_owner *o, char *why,
                        size_t size)
{
    switch (o->state) {
    case OWNER_NOTHING:
        return 1;
    case OWNER_RUNS:
        snprintf(why, size, "it runs on %s", p->name);
        return 0;
    case OWNER_HOLDS:
        snprintf(why, size, "%s holds a copy whose fate is not settled; see `list` there", p->name);
        return 0;
    case OWNER_MOVED:
        // Given to this host, which has restarted since: that copy is gone. Given to another
        // peer: that one answers for itself.
        if (strcasecmp(o->to, migrate_cfg->name) == 0 || peer_find(o->to))
            return 1;
        snprintf(why, size, "%s gave it to %s, which is not a peer of this host", p->name, o->to);
        return 0;
    case OWNER_STARTING:
        snprintf(why, size, "%s wants to start it at the same time", p->name);
        return E_BUSY;
    }
    snprintf(why, size, "%s answered with state %u, which this version does not know", p->name,
             o->state);
    return 0;
}

static int ask_all(const u8 uuid[16], char *why, size_t size)
{
    for (u32 i = 0; i < migrate_cfg->peer_count; i++) {
        struct wire_owner o;
        if (ask_owner(&migrate_cfg->peers[i], uuid, &o, why, size) != 0)
            return 0;
        int verdict = judge_answer(&migrate_cfg->peers[i], &o, why, size);
        if (verdict != 1)
            return verdict;
        if (start_attempt_lost(uuid)) {
            snprintf(why, size, "%s asked to start it first", migrate_cfg->peers[i].name);
            return E_BUSY;
        }
    }
    return 1;
}

bool ownership_may_start(const u8 uuid[16], char *why, size_t size)
{
    ledger_wait();
    if (ownership_in_doubt(uuid)) {
        snprintf(why, size, "its last move is not settled; see `jobs` and `log`");
        return false;
    }
    if (!migrate_cfg || !migrate_cfg->autostart_wait || migrate_cfg->peer_count == 0)
        return true;
    int verdict = E_BUSY;
    for (u32 i = 0; i < START_TRIES && verdict == E_BUSY; i++) {
        if (i)
            thread_sleep_ns(START_PAUSE_NS);
        if (!start_attempt_begin(uuid)) {
            snprintf(why, size, "another host has asked to start it; asking again");
            continue;
        }
        verdict = ask_all(uuid, why, size);
        start_attempt_end(uuid, verdict == 1);
        if (verdict == 1 && start_attempt_lost(uuid)) // it asked in the last moment
            verdict = E_BUSY;
    }
    return verdict == 1;
}
