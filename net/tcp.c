// SPDX-License-Identifier: MIT
// The network thread's side of connections: lwIP's callbacks, and the service function that moves
// bytes between a connection's rings and lwIP.
//
// Callbacks only note what happened and post the connection's work; whatever may free a control
// block or the connection happens in conn_service, outside of lwIP.
#include "net/conn.h"

#include "kernel/lib.h"
#include "kernel/log.h"
#include "kernel/mem.h"
#include "kernel/time.h"
#include "lwip/priv/tcp_priv.h"
#include "lwip/stats.h"
#include "lwip/tcp.h"
#include "lwip/sys.h"
#include "lwip/timeouts.h"

#include "net/netif.h"

// A silent peer is given up after IDLE + COUNT * INTERVAL = 7 s, also while data waits for its
// acknowledgement: lwIP counts from the last segment it received.
#define KEEPALIVE_IDLE_MS     2000
#define KEEPALIVE_INTERVAL_MS 1000
#define KEEPALIVE_COUNT       5
#define LINGER_NS             (10 * NS_PER_SEC)
#define LISTEN_BACKLOG        16
#define POLL_TICKS            5 // of 2 * TCP_TMR_INTERVAL: half a second
#define CONNECT_RETRY_MS      50
// What all windows together may grow beyond their first size, and the part of lwIP's heap that bulk
// data leaves to headers, acknowledgements and answers.
#define WINDOW_BUDGET (1024 * 1024)
#define HEAP_RESERVE  (128 * 1024)

static u32 count_in, count_out; // updated atomically: connections are made on any thread
static u32 window_extra;        // of WINDOW_BUDGET, in use

u32 conn_count(void)
{
    return count_in + count_out;
}

// A ring of n bytes touches up to n / RING_CHUNK + 2 chunks, and keeps a spare one.
u64 conn_memory_limit(void)
{
    u64 chunks = CONN_RX_INITIAL / RING_CHUNK + CONN_TX_BYTES / RING_CHUNK + 2 * 3;
    return (CONN_MAX_IN + CONN_MAX_OUT) * chunks * RING_CHUNK + WINDOW_BUDGET;
}

struct tcp_conn *conn_new(bool outgoing)
{
    u32 *count = outgoing ? &count_out : &count_in;
    u32 limit = outgoing ? CONN_MAX_OUT : CONN_MAX_IN;
    struct tcp_conn *c = NULL;
    if (__atomic_add_fetch(count, 1, __ATOMIC_RELAXED) <= limit)
        c = kzalloc(sizeof(*c));
    if (!c) {
        __atomic_sub_fetch(count, 1, __ATOMIC_RELAXED);
        return NULL;
    }
    c->base.ops = &tcp_conn_ops;
    c->work.fn = conn_service;
    c->close_work.fn = conn_close_service;
    c->outgoing = outgoing;
    c->window = CONN_RX_INITIAL;
    return c;
}

// ---- Segments longer than the link's packets ---------------------------------------------------

// With its headers, pbuf and the heap's own header it fits into 32 KiB of pages.
#define LARGE_SEGMENT (32768u - 512)

#define SEGMENT_ARG 0 // the one extra argument a control block has

u16 tcp_segment_bytes(const struct tcp_pcb *pcb)
{
    return (u16)(uintptr_t)tcp_ext_arg_get(pcb, SEGMENT_ARG);
}

// From here on lwIP's segment is what the NIC cuts up, a whole number of the packets that the peer
// and the link agreed on. The congestion window counts in these segments too, and must hold one.
static void use_large_segments(struct tcp_pcb *pcb)
{
    u16 packet = pcb->mss;
    if (!netif_can_segment() || IP_IS_V6_VAL(pcb->remote_ip) || packet > LARGE_SEGMENT / 2)
        return;
    tcp_ext_arg_set(pcb, SEGMENT_ARG, (void *)(uintptr_t)packet);
    pcb->mss = (u16)(LARGE_SEGMENT / packet * packet);
    pcb->cwnd = MAX(pcb->cwnd, (tcpwnd_size_t)pcb->mss);
}

static void conn_fail(struct tcp_conn *c, int error, const char *reason)
{
    c->reason = reason;
    __atomic_store_n(&c->error, error, __ATOMIC_RELEASE);
    waitq_wake_all(&c->wait);
}

static void connect_retry(void *arg)
{
    net_post(&((struct tcp_conn *)arg)->work);
}

static void conn_free(struct tcp_conn *c)
{
    sys_untimeout(connect_retry, c);
    window_extra -= c->window - CONN_RX_INITIAL;
    __atomic_sub_fetch(c->outgoing ? &count_out : &count_in, 1, __ATOMIC_RELAXED);
    ring_free(&c->rx);
    ring_free(&c->tx);
    kfree(c);
}

// From here on lwIP calls nothing of ours for this control block.
static struct tcp_pcb *detach(struct tcp_conn *c)
{
    struct tcp_pcb *pcb = c->pcb;
    tcp_arg(pcb, NULL);
    tcp_recv(pcb, NULL);
    tcp_sent(pcb, NULL);
    tcp_err(pcb, NULL);
    tcp_poll(pcb, NULL, 0);
    c->pcb = NULL;
    return pcb;
}

static err_t on_recv(void *arg, struct tcp_pcb *pcb, struct pbuf *p, err_t err)
{
    struct tcp_conn *c = arg;
    (void)err;
    if (!p) {
        flag_set(&c->eof);
        waitq_wake_all(&c->wait);
        return ERR_OK;
    }
    // Within the window the ring always has room; memory may be short, then lwIP keeps the data and
    // offers it again. An owner that let go reads no more.
    if (!c->closing) {
        if (ring_reserve(&c->rx, p->tot_len))
            return ERR_MEM;
        for (struct pbuf *q = p; q; q = q->next)
            ring_write(&c->rx, q->payload, q->len);
        waitq_wake_all(&c->wait);
    } else {
        tcp_recved(pcb, p->tot_len);
    }
    // The end of what the sender had to say: it may wait for this acknowledgement (conn_flush).
    if (p->flags & PBUF_FLAG_PUSH)
        tcp_ack_now(pcb);
    pbuf_free(p);
    return ERR_OK;
}

static err_t on_sent(void *arg, struct tcp_pcb *pcb, u16_t bytes)
{
    struct tcp_conn *c = arg;
    (void)pcb;
    count_add(&c->acked, bytes);
    if (c->acked == c->tx.tail) // nothing is under way any more: what conn_flush waits for
        waitq_wake_all(&c->wait);
    net_post(&c->work);
    return ERR_OK;
}

static err_t on_poll(void *arg, struct tcp_pcb *pcb)
{
    struct tcp_conn *c = arg;
    (void)pcb;
    net_post(&c->work);
    return ERR_OK;
}

static void log_lost(const struct tcp_conn *c, const char *reason)
{
    char peer[64];
    ip_format(&c->base.peer, peer, sizeof(peer));
    log_warn("net", "connection with %s lost: %s", peer, reason);
}

// lwIP has freed the control block.
static void on_error(void *arg, err_t err)
{
    struct tcp_conn *c = arg;
    bool refused = !c->connected && c->outgoing;
    c->pcb = NULL;
    if (err == ERR_RST)
        conn_fail(c, E_IO,
                  refused ? "connection refused: nothing listens there"
                          : "the peer reset the connection");
    else
        conn_fail(c, E_IO, refused ? "no answer" : "the peer has been silent for too long");
    net_post(&c->work);
}

// A new connection starts with a small receive window, so that many idle ones cannot claim more
// memory than the host has set aside. lwIP would offer TCP_WND; nothing beyond 0xffff was announced
// yet, for the window of a SYN is not scaled (RFC 7323, 2.2).
static void established(struct tcp_conn *c, struct tcp_pcb *pcb)
{
    pcb->rcv_wnd = CONN_RX_INITIAL;
    pcb->rcv_ann_wnd = CONN_RX_INITIAL;
    pcb->rcv_ann_right_edge = pcb->rcv_nxt + CONN_RX_INITIAL;
    use_large_segments(pcb);
    tcp_nagle_disable(pcb);
    ip_set_option(pcb, SOF_KEEPALIVE);
    pcb->keep_idle = KEEPALIVE_IDLE_MS;
    pcb->keep_intvl = KEEPALIVE_INTERVAL_MS;
    pcb->keep_cnt = KEEPALIVE_COUNT;
    tcp_recv(pcb, on_recv);
    tcp_sent(pcb, on_sent);
    tcp_poll(pcb, on_poll, POLL_TICKS);
    flag_set(&c->connected);
    waitq_wake_all(&c->wait);
}

static void attach(struct tcp_conn *c, struct tcp_pcb *pcb)
{
    c->pcb = pcb;
    tcp_arg(pcb, c);
    tcp_err(pcb, on_error);
}

static err_t on_connected(void *arg, struct tcp_pcb *pcb, err_t err)
{
    (void)err;
    established(arg, pcb);
    net_post(&((struct tcp_conn *)arg)->work);
    return ERR_OK;
}

static err_t on_accept(void *arg, struct tcp_pcb *pcb, err_t err)
{
    const struct tcp_listen *l = arg;
    if (err != ERR_OK || !pcb)
        return ERR_VAL;
    struct tcp_conn *c = conn_new(false);
    if (!c) {
        log_warn("net", "refused a connection to port %u: no memory, or %u are open already",
                 l->port, CONN_MAX_IN);
        return ERR_MEM; // lwIP aborts it
    }
    c->serve = l->serve;
    address_from_lwip(&pcb->remote_ip, 0, &c->base.peer);
    attach(c, pcb);
    established(c, pcb);
    if (!thread_create("conn", conn_thread, c, THREAD_BIG_STACK)) {
        log_warn("net", "refused a connection to port %u: no memory for its thread", l->port);
        detach(c);
        conn_free(c);
        return ERR_MEM;
    }
    return ERR_OK;
}

int tcp_start_listening(void *arg)
{
    struct tcp_listen *l = arg;
    struct tcp_pcb *pcb = tcp_new_ip_type(IPADDR_TYPE_ANY);
    if (!pcb)
        return E_NOMEM;
    if (tcp_bind(pcb, IP_ANY_TYPE, l->port) != ERR_OK) {
        tcp_close(pcb);
        return E_EXIST;
    }
    err_t err;
    struct tcp_pcb *listener = tcp_listen_with_backlog_and_err(pcb, LISTEN_BACKLOG, &err);
    if (!listener) {
        tcp_close(pcb);
        return err == ERR_USE ? E_EXIST : E_NOMEM;
    }
    tcp_arg(listener, l);
    tcp_accept(listener, on_accept);
    return 0;
}

// Tried again until the owner's deadline: the link may still be coming up, an address may be
// missing (DHCP) or not yet checked for duplicates (IPv6).
static void try_connect(struct tcp_conn *c)
{
    ip_addr_t to;
    sys_untimeout(connect_retry, c);
    c->reason = "no link";
    if (netif_link_is_up()) {
        address_to_lwip(&c->base.peer, &to);
        struct tcp_pcb *pcb = tcp_new_ip_type(IP_GET_TYPE(&to));
        if (pcb) {
            attach(c, pcb);
            err_t err = tcp_connect(pcb, &to, c->port, on_connected);
            c->reason = "no answer";
            if (err == ERR_OK)
                return;
            tcp_abort(detach(c));
            c->reason = err == ERR_RTE ? "no route there" : "no memory to connect";
        }
    }
    sys_timeout(CONNECT_RETRY_MS, connect_retry, c);
}

static bool heap_has_room(u32 bytes)
{
    return lwip_stats.mem.used + bytes + HEAP_RESERVE <= NET_HEAP_LIMIT;
}

// One piece, 16 KiB at most: the next one comes in its turn, after other threads had theirs. While
// more is to come, Nagle's rule (RFC 1122, 4.2.3.4) lets lwIP fill a segment before it goes out.
static void push_tx(struct tcp_conn *c)
{
    u64 piece;
    const void *p = ring_peek(&c->tx, &piece);
    u32 n = (u32)MIN(piece, (u64)MIN(tcp_sndbuf(c->pcb), 0xffffu));
    if (n == 0 || !heap_has_room(n))
        return; // on_sent and on_poll come back here
    bool last = n == ring_used(&c->tx);
    if (tcp_write(c->pcb, p, (u16)n, TCP_WRITE_FLAG_COPY | (last ? 0 : TCP_WRITE_FLAG_MORE)))
        return; // no memory now: likewise
    ring_consume(&c->tx, n);
    if (last)
        tcp_nagle_disable(c->pcb);
    else
        tcp_nagle_enable(c->pcb);
    tcp_output(c->pcb);
    if (ring_used(&c->tx) <= CONN_TX_BYTES / 2)
        waitq_wake_all(&c->wait);
    if (!last)
        net_post(&c->work);
}

// A window that was used up twice since it last grew doubles, while the budget lasts.
static u32 window_growth(struct tcp_conn *c)
{
    u64 received = c->rx.head;
    if (received - c->window_grew_at < 2ull * c->window)
        return 0;
    u32 most = TCP_WND_MAX(c->pcb);
    u32 extra = c->window < most ? MIN(c->window, most - c->window) : 0;
    extra = MIN(extra, WINDOW_BUDGET - window_extra);
    c->window_grew_at = received;
    window_extra += extra;
    __atomic_store_n(&c->window, c->window + extra, __ATOMIC_RELAXED);
    return extra;
}

// Announces the room that the owner's reading has made. tcp_recved takes 16 bits.
static void credit_rx(struct tcp_conn *c)
{
    u64 room = count_get(&c->rx.tail) - c->credited;
    if (room < conn_credit_step(c))
        return;
    count_add(&c->credited, room);
    room += window_growth(c);
    while (room > 0) {
        u16 n = (u16)MIN(room, 0xffffull);
        tcp_recved(c->pcb, n);
        room -= n;
    }
}

// After tcp_close lwIP finishes alone, within this time.
static err_t linger(void *arg, struct tcp_pcb *pcb)
{
    u32 until_ms = (u32)(uintptr_t)arg;
    if ((s32)(sys_now() - until_ms) < 0)
        return ERR_OK;
    tcp_abort(pcb);
    return ERR_ABRT;
}

// Orderly: everything written goes out first, and unread bytes are no reason for a reset (which
// lwIP would send as long as its window is not full), since it could destroy our last message on
// its way to the peer's reader.
static void close_conn(struct tcp_conn *c)
{
    if (!c->close_by_ns)
        c->close_by_ns = time_ns() + LINGER_NS;
    if (c->pcb && time_ns() > c->close_by_ns) {
        log_lost(c, "after its close the peer took too long to read the rest");
        tcp_abort(detach(c));
    }
    if (c->pcb && (ring_used(&c->tx) > 0 || c->pcb->refused_data))
        return; // on_sent and on_poll come back here
    if (c->pcb) {
        struct tcp_pcb *pcb = c->pcb;
        pcb->rcv_wnd = TCP_WND_MAX(pcb);
        if (tcp_close(pcb) != ERR_OK)
            return; // no memory for the FIN yet
        detach(c);
        tcp_arg(pcb, (void *)(uintptr_t)(sys_now() + (u32)(LINGER_NS / NS_PER_MS)));
        tcp_poll(pcb, linger, POLL_TICKS);
    }
    // The owner is gone and we are the only one who posts: an item still queued will come back
    // here.
    if (!c->work.queued)
        conn_free(c);
}

void conn_service(struct net_work *w)
{
    struct tcp_conn *c = container_of(w, struct tcp_conn, work);
    if (flag_get(&c->want_abort)) {
        if (c->pcb)
            tcp_abort(detach(c));
        if (!c->error)
            conn_fail(c, E_ABORT, "aborted");
    }
    if (c->pcb && c->connected) {
        push_tx(c);
        credit_rx(c);
    } else if (c->outgoing && !c->pcb && !c->error && !c->closing) {
        try_connect(c);
    }
    if (c->closing)
        close_conn(c);
}

void conn_close_service(struct net_work *w)
{
    struct tcp_conn *c = container_of(w, struct tcp_conn, close_work);
    c->closing = true;
    conn_service(&c->work);
}
