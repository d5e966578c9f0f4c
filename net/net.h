// SPDX-License-Identifier: MIT
// The host's network for everyone else: byte-stream connections over lwIP's thread, and figures.
#ifndef SKIFF_NET_NET_H
#define SKIFF_NET_NET_H

#include "kernel/config.h"
#include "kernel/types.h"

// Starts NIC, lwIP thread and addresses. Returns 0 or an error (the host runs on without network;
// the log says why).
int net_start(const struct host_config *cfg);
// Quiets the NIC, so that it writes to no memory any more: before a reboot or a power-off.
void net_stop(void);

// A connection: transport is a struct of calls so that TLS or several connections slot in.
// Blocking, thread context. One reader and one writer thread at a time.
struct conn;
struct conn_ops {
    s64 (*read)(struct conn *c, void *buf, u64 size);        // >0 bytes, 0 peer closed, <0 error
    s64 (*write)(struct conn *c, const void *buf, u64 size); // size, or <0 error; blocks for room
    int (*flush)(struct conn *c);  // waits until the peer's TCP has acknowledged all; 0 or error
    void (*close)(struct conn *c); // orderly, frees c
    void (*abort)(struct conn *c); // RST; wakes blocked readers and writers; c stays until close
    void (*set_deadline)(struct conn *c,
                         u64 host_ns); // reads and writes fail with E_TIMEOUT after; 0 none
};
struct conn {
    const struct conn_ops *ops;
    struct ip_address peer;
    u64 bytes_in, bytes_out;
};
static inline s64 conn_read(struct conn *c, void *b, u64 n)
{
    return c->ops->read(c, b, n);
}
static inline s64 conn_write(struct conn *c, const void *b, u64 n)
{
    return c->ops->write(c, b, n);
}
static inline int conn_flush(struct conn *c)
{
    return c->ops->flush(c);
}
static inline void conn_close(struct conn *c)
{
    c->ops->close(c);
}
static inline void conn_abort(struct conn *c)
{
    c->ops->abort(c);
}
static inline void conn_set_deadline(struct conn *c, u64 ns)
{
    c->ops->set_deadline(c, ns);
}
int conn_read_full(struct conn *c, void *buf, u64 size); // 0, E_IO (also on early close), E_TIMEOUT

// NULL with a sentence in err (refused, no route, timeout...).
struct conn *net_connect(const struct ip_address *to, u16 port, u64 timeout_ns, char *err,
                         size_t size);
// Calls fn(conn) in a fresh thread for each accepted connection; fn closes it.
int net_listen(u16 port, void (*fn)(struct conn *c));

struct net_info {
    bool up, link;
    char driver[16], mac[18], interrupt[8], offloads[64];
    u32 mtu; // bytes of an IP packet
    struct ip_address address4, gateway4, address6, link_local6;
    u64 rx_frames, rx_bytes, rx_dropped, rx_errors, tx_frames, tx_bytes, tx_dropped, irqs;
    u64 bad_checksums, bad_lengths, protocol_errors; // received packets lwIP threw away, by reason
    u64 out_of_memory;                               // packets thrown away for want of memory
    u64 heap_bytes, heap_peak_bytes, heap_limit_bytes; // lwIP's
    u64 memory_limit_bytes;                            // of MEM_NETWORK
    u32 connections;
};
void net_get_info(struct net_info *out);

#endif
