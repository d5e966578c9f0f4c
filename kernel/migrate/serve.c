// SPDX-License-Identifier: MIT
// Connections that peers open: questions about this host, moves to it, and moves in doubt.
#include "kernel/lib.h"
#include "kernel/log.h"
#include "kernel/mem.h"
#include "kernel/migrate/disks.h"
#include "kernel/migrate/forward.h"
#include "kernel/migrate/internal.h"
#include "kernel/migrate/ledger.h"
#include "kernel/thread.h"
#include "kernel/time.h"

#define MAX_CONNECTIONS  8 // each has its stream's buffers
#define MAX_QUESTIONS    64
#define IDLE_TIMEOUT_NS  (10 * NS_PER_SEC)
#define HELLO_TIMEOUT_NS (5 * NS_PER_SEC)

static u32 connections; // atomic

static int answer_info(struct stream *s)
{
    struct wire_info w = {.boot_id = host_boot_id, .time_ns = time_ns()};
    struct mem_stats m;
    mem_get_stats(&m);
    w.free_bytes = m.free_bytes;
    mutex_lock(&guests_lock);
    for (const struct guest *g = guest_first(); g; g = g->next)
        w.guests += g->memory.bytes != 0;
    mutex_unlock(&guests_lock);
    strlcpy(w.host, migrate_cfg->name, sizeof(w.host));
    strlcpy(w.software, s->self.software, sizeof(w.software));
    return stream_send(s, REC_INFO, &w, sizeof(w));
}

static int answer_owner(struct stream *s, const struct record *r)
{
    struct wire_owner w;
    ownership_answer(r->payload, &w);
    return stream_send(s, REC_OWNER, &w, sizeof(w));
}

static int answer(struct stream *s, const struct record *r)
{
    switch (r->type) {
    case REC_INFO_ASK:
        return answer_info(s);
    case REC_OWNER_ASK:
        return answer_owner(s, r);
    case REC_TEST:
        return link_test_answer(s, r);
    case REC_COMMIT:
        return doubt_answer_commit(s, r);
    case REC_QUERY:
        return doubt_answer_query(s, r);
    case REC_GUEST:
        return dest_receive(s, r);
    case REC_FRAME:
        return forward_take(s, r);
    case REC_DISK_HASHES:
    case REC_DISK_ASK:
        return disks_serve(s, r);
    default:
        return stream_fail(s, E_PROTO, "%s does not open anything", record_name(r->type));
    }
}

// Until the peer ends it. 0 when it did in good order.
static int serve(struct stream *s)
{
    struct record r;
    stream_header_fill(&s->self, migrate_cfg->name, host_boot_id, peer_port(migrate_cfg->port));
    s->timeout_ns = HELLO_TIMEOUT_NS;
    ledger_wait();
    int e = stream_receive_header(s);
    if (e && e != E_NOSUP)
        return e;
    s->self.receiver_boot_id = s->peer.sender_boot_id;
    int sent = stream_send_header(s); // also to a peer of another age: it says which versions
    if (e || sent)
        return e ? e : sent;
    for (u32 i = 0; i < MAX_QUESTIONS; i += r.type != REC_FRAME) {
        s->timeout_ns = IDLE_TIMEOUT_NS;
        e = stream_receive(s, &r);
        if (e || r.type == REC_END)
            return e;
        e = answer(s, &r);
        if (e)
            return e;
    }
    return stream_fail(s, E_PROTO, "%u questions on one connection", MAX_QUESTIONS);
}

static void peer_name(const struct stream *s, char *out, size_t size)
{
    if (s->peer.host[0])
        strlcpy(out, s->peer.host, size);
    else
        ip_format(&s->conn->peer, out, size);
}

static void close_failed(struct stream *s, int error)
{
    char name[48];
    peer_name(s, name, sizeof(name));
    log_warn("migrate", "connection from %s ended: %s", name, s->error);
    if (s->peer.host[0] && error != E_IO && error != E_TIMEOUT && error != E_ABORT) {
        char why[sizeof(s->error)];
        strlcpy(why, s->error, sizeof(why));
        s->timeout_ns = NS_PER_SEC;
        stream_send_text(s, REC_ABORT, why);
    }
    stream_close(s, false);
}

void serve_connection(struct conn *c)
{
    struct stream s;
    u32 n = __atomic_add_fetch(&connections, 1, __ATOMIC_RELAXED);
    if (n > MAX_CONNECTIONS || stream_open(&s, c) != 0) {
        log_warn("migrate",
                 n > MAX_CONNECTIONS ? "more than %u connections at once: one is refused"
                                     : "no memory for one of %u connections",
                 MAX_CONNECTIONS);
        conn_close(c);
    } else {
        int e = serve(&s);
        if (e)
            close_failed(&s, e);
        else
            stream_close(&s, true);
    }
    __atomic_sub_fetch(&connections, 1, __ATOMIC_RELAXED);
}
