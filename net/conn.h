// SPDX-License-Identifier: MIT
// A TCP connection as its two sides share it: the owner's thread (conn.c) and lwIP's (tcp.c).
#ifndef SKIFF_NET_CONN_H
#define SKIFF_NET_CONN_H

#include "kernel/thread.h"
#include "net/net.h"
#include "net/ring.h"
#include "net/work.h"

#define CONN_TX_BYTES   (8 * RING_CHUNK) // lwIP's own send buffer comes after it
#define CONN_RX_INITIAL 0xffffu // the window every connection starts with; it grows with use
#define CONN_MAX_IN     12      // connections that peers opened
#define CONN_MAX_OUT    12

struct tcp_pcb;

// Flags and counters are written by one side with release order and read by the other with acquire.
struct tcp_conn {
    struct conn base;           // first: what the rest of the host sees; the owner's
    struct net_work work;       // asks the network thread to look at the connection
    struct net_work close_work; // posted once, by the owner, which then forgets the connection
    struct waitq wait;          // the owner's reader, writer or flusher
    struct ring rx;             // network thread -> owner
    struct ring tx;             // owner -> network thread
    u64 deadline_ns;            // the owner's; 0 none

    bool want_abort; // set by any thread

    // Written by the network thread, read by the owner.
    bool connected;
    bool eof;           // the peer has sent all it will
    int error;          // why nothing moves any more; 0 while it does
    const char *reason; // the same for humans, set before error
    u64 acked;          // bytes of tx that the peer's TCP has
    u64 credited;       // bytes of rx whose room was announced to the peer again
    u32 window;         // rx bytes the peer may have in flight or unread

    // The network thread's alone.
    struct tcp_pcb *pcb; // NULL before it is made and after it is gone
    bool outgoing;
    bool closing;                  // the owner has let go: free it when all is said
    u16 port;                      // outgoing: where to
    u64 window_grew_at;            // bytes received when the window last grew
    u64 close_by_ns;               // when an orderly close turns into an abort
    void (*serve)(struct conn *c); // incoming: the body of its thread
};

static inline bool flag_get(const bool *flag)
{
    return __atomic_load_n(flag, __ATOMIC_ACQUIRE);
}
static inline void flag_set(bool *flag)
{
    __atomic_store_n(flag, true, __ATOMIC_RELEASE);
}
static inline u64 count_get(const u64 *count)
{
    return __atomic_load_n(count, __ATOMIC_ACQUIRE);
}
static inline void count_add(u64 *count, u64 n)
{
    __atomic_store_n(count, *count + n, __ATOMIC_RELEASE);
}
static inline int conn_error(const struct tcp_conn *c)
{
    return __atomic_load_n(&c->error, __ATOMIC_ACQUIRE);
}
// Room that the owner has made is announced in pieces of an eighth of the window.
static inline u32 conn_credit_step(const struct tcp_conn *c)
{
    return __atomic_load_n(&c->window, __ATOMIC_RELAXED) / 8;
}

extern const struct conn_ops tcp_conn_ops;
// The body of an incoming connection's thread; arg is the struct tcp_conn.
void conn_thread(void *arg);

// tcp.c. Network thread: the work functions of a connection, and opening a port (arg: struct
// tcp_listen, kept).
void conn_service(struct net_work *w);
void conn_close_service(struct net_work *w);
struct tcp_listen {
    u16 port;
    void (*serve)(struct conn *c);
};
int tcp_start_listening(void *arg);
struct tcp_conn *conn_new(bool outgoing); // NULL: no memory or too many
u32 conn_count(void);
u64 conn_memory_limit(void); // of all rings

#endif
