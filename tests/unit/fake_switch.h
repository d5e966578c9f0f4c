// SPDX-License-Identifier: MIT
// What surrounds the switch in its test and its fuzzer: a NIC and guests that write down what they
// get, a host that listens to one address, memory and time.
#ifndef SKIFF_FAKE_SWITCH_H
#define SKIFF_FAKE_SWITCH_H

#include <stdlib.h>
#include <string.h>

#include "boot/boot_info.h"
#include "kernel/host.h"
#include "kernel/lib.h"
#include "kernel/log.h"
#include "kernel/mem.h"
#include "kernel/time.h"

#include "lwip/init.h"
#include "lwip/nd6.h"
#include "lwip/tcp.h"
#include "lwip/timeouts.h"

#include "net/frame.h"
#include "net/gro.h"
#include "net/netif.h"
#include "net/switch.h"
#include "net/uplink.h"

#define SEEN_MOST 512u
#define GUESTS    4u

static struct boot_info bi;
const struct boot_info *host_boot = &bi;
static u64 now_ns = 1000 * NS_PER_SEC;
static u32 buffers; // pbufs from the NIC that live

// Frames as somebody got them.
struct seen {
    struct nic_frame frame; // pbuf is not kept
    u8 bytes[65536];
};
struct inbox {
    u32 count; // those beyond SEEN_MOST are not kept
    struct seen *seen[SEEN_MOST];
};

struct fake_guest {
    struct switch_port port; // first
    struct inbox in;
    bool busy;
    u32 flushes, sends, rests;
};

static struct inbox wire, host;
static struct fake_guest guest[GUESTS];
static bool wire_full, promiscuous;
static u8 host_mac[6] = {0x52, 0x54, 0, 0x5f, 0, 1};

u64 time_ns(void)
{
    return now_ns;
}

void *kmalloc(size_t bytes)
{
    return malloc(bytes);
}

void log_write(enum log_level level, const char *area, const char *fmt, ...)
{
    (void)level, (void)area, (void)fmt;
}

u32_t *lwip_port_segment(struct pbuf *segment, const struct tcp_pcb *pcb, u32_t *options)
{
    (void)segment, (void)pcb;
    return options;
}

const ip6_addr_t *lwip_port_gateway6(struct netif *netif, const ip6_addr_t *dest)
{
    (void)netif, (void)dest;
    return NULL;
}

static void keep(struct inbox *in, const struct nic_frame *f)
{
    u32 at = in->count++;
    assert(f->bytes == f->pbuf->tot_len);
    if (at >= SEEN_MOST)
        return;
    if (!in->seen[at])
        in->seen[at] = malloc(sizeof(struct seen));
    in->seen[at]->frame = *f;
    pbuf_copy_partial(f->pbuf, in->seen[at]->bytes, (u16)f->bytes, 0);
}

static void empty(struct inbox *in)
{
    in->count = 0;
}

// ---- The NIC -----------------------------------------------------------------------------------

static void nic_set_filter(struct nic *n, const u8 (*multicast)[6], u32 count, bool all)
{
    (void)n, (void)multicast, (void)count;
    promiscuous = all;
}

static bool nic_has_room(struct nic *n)
{
    (void)n;
    return !wire_full;
}

static int nic_transmit(struct nic *n, const struct nic_frame *f)
{
    (void)n;
    if (wire_full)
        return E_BUSY;
    keep(&wire, f);
    return 0;
}

static const struct nic_ops nic_ops = {
    .name = "fake",
    .set_filter = nic_set_filter,
    .has_room = nic_has_room,
    .transmit = nic_transmit,
};
static struct nic nic = {.ops = &nic_ops, .mtu = 1500};

static void buffer_freed(struct pbuf *p)
{
    buffers--;
    free(p);
}

struct pbuf *nic_buffer_pbuf(struct nic_buffer *b, u32 from, u32 bytes)
{
    buffers++;
    b->pbuf.custom_free_function = buffer_freed;
    return pbuf_alloced_custom(PBUF_RAW, (u16)bytes, PBUF_REF, &b->pbuf, b->data + from,
                               (u16)bytes);
}

int frame_pool_init(void)
{
    return 0;
}

// As the real one: pieces, and room before the first byte.
struct pbuf *frame_alloc(u32 bytes)
{
    const u32 most = 4096;
    struct pbuf *frame = NULL;
    for (u32 n, from = FRAME_HEADROOM; bytes; bytes -= n, from = 0) {
        n = MIN(bytes, most - from);
        struct nic_buffer *b = malloc(sizeof(*b) + from + n);
        struct pbuf *p = nic_buffer_pbuf(b, from, n);
        if (frame)
            pbuf_cat(frame, p);
        else
            frame = p;
    }
    return frame;
}

static struct pbuf *pbuf_of(const void *bytes, u32 count)
{
    struct pbuf *p = frame_alloc(count);
    pbuf_take(p, bytes, (u16)count);
    return p;
}

// ---- The host's own stack ----------------------------------------------------------------------

bool netif_link_is_up(void)
{
    return true;
}

bool netif_wants(const u8 mac[6])
{
    static const u8 broadcast[6] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
    return memcmp(mac, host_mac, 6) == 0 || memcmp(mac, broadcast, 6) == 0;
}

void gro_deliver(struct pbuf *p, bool sum_ok)
{
    struct nic_frame f = {.pbuf = p, .bytes = p->tot_len, .sum_ok = sum_ok};
    assert(p->ref == 1); // it may change it
    keep(&host, &f);
    memset(p->payload, 0xee, p->len);
    pbuf_free(p);
}

// ---- Guests ------------------------------------------------------------------------------------

static int guest_deliver(struct switch_port *p, const struct nic_frame *f)
{
    struct fake_guest *g = (struct fake_guest *)p;
    if (g->busy)
        return E_BUSY;
    assert(!f->l4_offset || p->can_sum);
    assert(!f->segment_bytes || p->can_cut4 || p->can_cut6);
    keep(&g->in, f);
    return 0;
}

static void guest_flush(struct switch_port *p)
{
    ((struct fake_guest *)p)->flushes++;
}

static void guest_send(struct switch_port *p)
{
    ((struct fake_guest *)p)->sends++;
}

static void guest_rest(struct switch_port *p)
{
    ((struct fake_guest *)p)->rests++;
}

static void guest_replaced(struct switch_port *p)
{
    p->departed = false;
}

static const struct switch_port_ops guest_ops = {
    .deliver = guest_deliver,
    .flush = guest_flush,
    .send = guest_send,
    .rest = guest_rest,
    .replaced = guest_replaced,
};

static void add_guest(u32 i, u16 vlan, u32 stations)
{
    struct fake_guest *g = &guest[i];
    g->port = (struct switch_port){
        .ops = &guest_ops,
        .mac = {2, 0, 0, 0, 0, (u8)(0x10 + i)},
        .vlan = vlan,
        .stations = stations,
    };
    g->busy = false;
    g->flushes = g->sends = g->rests = 0;
    assert(switch_add(&g->port) == 0);
}

static void empty_all(void)
{
    empty(&wire);
    empty(&host);
    for (u32 i = 0; i < GUESTS; i++)
        empty(&guest[i].in);
}

__attribute__((unused)) static void from_wire(const void *bytes, u32 count)
{
    struct nic_frame f = {.pbuf = pbuf_of(bytes, count), .bytes = count};
    switch_from_uplink(&f);
    gro_flush();
}

#endif
