// SPDX-License-Identifier: MIT
// Connections as other threads use them: blocking reads and writes on byte rings. Nothing here
// touches lwIP.
#include "net/conn.h"

#include "kernel/lib.h"
#include "kernel/mem.h"
#include "kernel/time.h"

static struct tcp_conn *tcp(struct conn *c)
{
    return container_of(c, struct tcp_conn, base);
}

// A peer that trickles does not outlive the deadline either.
static int wait_result(const struct tcp_conn *c)
{
    if (flag_get(&c->want_abort))
        return E_ABORT;
    return c->deadline_ns && time_ns() >= c->deadline_ns ? E_TIMEOUT : 0;
}

// Blocks until cond; 0, E_ABORT or E_TIMEOUT.
#define conn_wait(c, cond)                                                                         \
    ((void)wait_event_until(&(c)->wait, flag_get(&(c)->want_abort) || (cond), (c)->deadline_ns),   \
     wait_result(c))

// What has arrived is handed out before an error or the end of the stream is told.
static s64 tcp_read(struct conn *base, void *buf, u64 size)
{
    struct tcp_conn *c = tcp(base);
    if (size == 0)
        return 0;
    int r = conn_wait(c, ring_used(&c->rx) > 0 || flag_get(&c->eof) || conn_error(c));
    if (r)
        return r;
    u64 n = ring_read(&c->rx, buf, size);
    if (n == 0)
        return flag_get(&c->eof) ? 0 : conn_error(c);
    base->bytes_in += n;
    if (c->rx.tail - count_get(&c->credited) >= conn_credit_step(c))
        net_post(&c->work);
    return (s64)n;
}

static u64 tx_room(const struct tcp_conn *c)
{
    return CONN_TX_BYTES - ring_used(&c->tx);
}

static s64 tcp_write_all(struct conn *base, const void *buf, u64 size)
{
    struct tcp_conn *c = tcp(base);
    const u8 *p = buf;
    for (u64 left = size; left > 0;) {
        // Not for every little room: a switch of threads costs more than it would bring.
        int r = conn_wait(c, tx_room(c) >= MIN(left, CONN_TX_BYTES / 2) || conn_error(c));
        if (r || (r = conn_error(c)))
            return r;
        u64 n = MIN(left, tx_room(c));
        if (ring_write(&c->tx, p, n))
            return E_NOMEM;
        base->bytes_out += n;
        p += n;
        left -= n;
        net_post(&c->work);
    }
    return (s64)size;
}

static int tcp_flush(struct conn *base)
{
    struct tcp_conn *c = tcp(base);
    int r = conn_wait(c, count_get(&c->acked) == c->tx.head || conn_error(c));
    if (r)
        return r;
    return count_get(&c->acked) == c->tx.head ? 0 : conn_error(c);
}

// The network thread sends what is left, says goodbye and frees.
static void tcp_close_conn(struct conn *base)
{
    net_post(&tcp(base)->close_work);
}

static void tcp_abort_conn(struct conn *base)
{
    struct tcp_conn *c = tcp(base);
    flag_set(&c->want_abort);
    waitq_wake_all(&c->wait);
    net_post(&c->work);
}

static void tcp_set_deadline(struct conn *base, u64 host_ns)
{
    tcp(base)->deadline_ns = host_ns;
}

const struct conn_ops tcp_conn_ops = {
    .read = tcp_read,
    .write = tcp_write_all,
    .flush = tcp_flush,
    .close = tcp_close_conn,
    .abort = tcp_abort_conn,
    .set_deadline = tcp_set_deadline,
};

int conn_read_full(struct conn *c, void *buf, u64 size)
{
    u8 *p = buf;
    while (size > 0) {
        s64 n = conn_read(c, p, size);
        if (n <= 0)
            return n < 0 ? (int)n : E_IO;
        p += n;
        size -= (u64)n;
    }
    return 0;
}

static void tell_failure(const struct tcp_conn *c, u64 timeout_ns, char *err, size_t size)
{
    char to[64];
    ip_format(&c->base.peer, to, sizeof(to));
    if (conn_error(c))
        snprintf(err, size, "%s port %u: %s", to, c->port, c->reason);
    else
        snprintf(err, size, "%s port %u: %s within %llu ms", to, c->port,
                 c->reason ? c->reason : "no answer", (unsigned long long)(timeout_ns / NS_PER_MS));
}

struct conn *net_connect(const struct ip_address *to, u16 port, u64 timeout_ns, char *err,
                         size_t size)
{
    if (!net_running()) {
        snprintf(err, size, "this host has no network: see the log's lines about net");
        return NULL;
    }
    struct tcp_conn *c = conn_new(true);
    if (!c) {
        snprintf(err, size, "no memory for a connection, or %u are open already", CONN_MAX_OUT);
        return NULL;
    }
    c->base.peer = *to;
    c->base.peer.prefix = 0;
    c->port = port;
    net_post(&c->work);
    c->deadline_ns = time_ns() + timeout_ns;
    if (conn_wait(c, flag_get(&c->connected) || conn_error(c)) == 0 && flag_get(&c->connected)) {
        c->deadline_ns = 0;
        return &c->base;
    }
    tell_failure(c, timeout_ns, err, size);
    flag_set(&c->want_abort);
    tcp_close_conn(&c->base);
    return NULL;
}

int net_listen(u16 port, void (*fn)(struct conn *c))
{
    if (!net_running())
        return E_NOSUP;
    struct tcp_listen *l = kzalloc(sizeof(*l));
    if (!l)
        return E_NOMEM;
    *l = (struct tcp_listen){.port = port, .serve = fn};
    int r = net_call(tcp_start_listening, l);
    if (r)
        kfree(l);
    return r;
}

void conn_thread(void *arg)
{
    struct tcp_conn *c = arg;
    c->serve(&c->base);
}
