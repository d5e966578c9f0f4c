// SPDX-License-Identifier: MIT
// virtio-net 1.x over PCI: one queue each way. Sections are those of virtio 1.2.
#include "net/nic.h"
#include "net/virtio_net.h"

#include "kernel/lib.h"
#include "kernel/log.h"
#include "kernel/mem.h"
#include "kernel/virtio_pci.h"

#define BUFFER_BYTES 4096u
#define BUFFERS      (VIRTQ_MAX + 512) // what is posted, and what lwIP may hold back
#define TX_PARTS     20u               // pieces of a frame, its header among them

// 5.1.3 and 6
#define F_WANTED                                                                                   \
    (NET_F_CSUM | NET_F_GUEST_CSUM | NET_F_MTU | NET_F_MAC | NET_F_GUEST_TSO4 | NET_F_GUEST_TSO6 | \
     NET_F_HOST_TSO4 | NET_F_MRG_RXBUF | NET_F_STATUS | VIRTIO_VERSION_1)

// 5.1.4
#define CONFIG_MAC     0
#define CONFIG_STATUS  6
#define CONFIG_MTU     10
#define CONFIG_BYTES   12
#define CONFIG_LINK_UP BIT(0)

struct virtio {
    struct virtio_pci pci;
    struct virtq rx, tx;
    struct virtio_net_header *tx_header; // VIRTQ_MAX of them, by the id of the frame's chain
    u32 rx_left;                         // buffers that the frame begun still has
    bool rx_sum_ok;                      // of that frame
    struct nic_frame rx_partial;         // what is left to do for it
    volatile bool masked; // the handler masked interrupts and irq_rearm has not run since
};
static struct virtio the_virtio; // one host NIC

// 4.1.2: a transitional device (1000h) has the same capabilities.
static bool virtio_match(u16 vendor, u16 device)
{
    return vendor == 0x1af4 && (device == 0x1041 || device == 0x1000);
}

// What the device offers and we use, without what depends on something it lacks (5.1.3.1). Segments
// that come merged need buffers that can be joined.
static u64 choose(u64 offered)
{
    u64 f = offered & F_WANTED;
    if (!(f & NET_F_CSUM))
        f &= ~NET_F_HOST_TSO4;
    if (!(f & NET_F_GUEST_CSUM) || !(f & NET_F_MRG_RXBUF))
        f &= ~(NET_F_GUEST_TSO4 | NET_F_GUEST_TSO6);
    return f;
}

static void post(struct virtio *v, struct nic_buffer *b)
{
    struct virtq_part part = {ptr_phys(b->data), BUFFER_BYTES};
    if (virtq_add(&v->rx, &part, 0, 1, b) < 0)
        nic_buffer_put(b);
}

static void post_all(struct virtio *v)
{
    struct nic_buffer *b;
    while (v->rx.free_count > 0 && (b = nic_buffer_get()))
        post(v, b);
    virtq_publish(&v->rx);
}

static void virtio_interrupt(void *arg)
{
    struct nic *n = arg;
    struct virtio *v = n->priv;
    if (!virtio_interrupted(&v->pci))
        return;
    n->irqs++;
    virtq_interrupts(&v->rx, false);
    v->masked = true;
    n->rx_ready(n);
}

static int make_queues(struct virtio *v)
{
    u64 headers = page_alloc_zero(0);
    _Static_assert(VIRTQ_MAX * sizeof(struct virtio_net_header) <= PAGE_SIZE, "one page");
    if (!headers || nic_buffers_init(BUFFERS, BUFFER_BYTES))
        return E_NOMEM;
    v->tx_header = phys_ptr(headers);
    int r = virtio_queue(&v->pci, &v->rx, 0, TX_PARTS);
    return r ? r : virtio_queue(&v->pci, &v->tx, 1, TX_PARTS);
}

static u32 mtu_most(struct virtio *v)
{
    u32 most = v->pci.features & NET_F_MRG_RXBUF
                   ? 65535 - ETHERNET_HEADER
                   : BUFFER_BYTES - ETHERNET_HEADER - (u32)sizeof(struct virtio_net_header);
    return v->pci.features & NET_F_MTU ? MIN(most, virtio_get16(v->pci.device, CONFIG_MTU)) : most;
}

static int set_up(struct nic *n, struct virtio *v, u16 bdf)
{
    if (!virtio_pci_reset(&v->pci) || !virtio_negotiate(&v->pci, choose))
        return E_IO;
    n->can_sum = v->pci.features & NET_F_CSUM;
    n->can_check = v->pci.features & NET_F_GUEST_CSUM;
    n->can_segment = v->pci.features & NET_F_HOST_TSO4;
    nic_limit_mtu(n, mtu_most(v));
    if (v->pci.features & NET_F_MAC)
        for (u32 i = 0; i < 6; i++)
            n->mac[i] = virtio_get8(v->pci.device, CONFIG_MAC + i);
    if (!nic_mac_valid(n->mac)) {
        log_error("net", "virtio device has no MAC address");
        return E_IO;
    }
    nic_connect_irq(n, bdf, virtio_interrupt);
    v->pci.interrupt = n->interrupt;
    int r = make_queues(v);
    if (r)
        return r;
    virtq_interrupts(&v->tx, false); // what is sent is looked at when there is more to send
    post_all(v);
    virtio_ready(&v->pci);
    virtq_publish(&v->rx);
    return 0;
}

static int virtio_start(struct nic *n, u16 bdf)
{
    struct virtio *v = &the_virtio;
    n->priv = v;
    v->pci.name = n->ops->name;
    if (!virtio_map(&v->pci, bdf, CONFIG_BYTES))
        return E_IO;
    int r = set_up(n, v, bdf);
    if (r)
        virtio_failed(&v->pci);
    return r;
}

static bool virtio_link_up(struct nic *n)
{
    struct virtio *v = n->priv;
    return !(v->pci.features & NET_F_STATUS) ||
           virtio_get16(v->pci.device, CONFIG_STATUS) & CONFIG_LINK_UP;
}

// Without VIRTIO_NET_F_CTRL_RX there is no filter: every frame arrives (5.1.6.5.1).
static void virtio_set_filter(struct nic *n, const u8 (*multicast)[6], u32 count, bool promiscuous)
{
    (void)n, (void)multicast, (void)count, (void)promiscuous;
}

// ---- Transmission ------------------------------------------------------------------------------

static void reclaim(struct virtio *v)
{
    struct pbuf *p;
    u32 bytes;
    while ((p = virtq_take(&v->tx, &bytes)))
        pbuf_free(p);
}

// 5.1.6.2
static void fill_header(struct virtio_net_header *h, const struct nic_frame *f)
{
    memset(h, 0, sizeof(*h));
    if (!f->l4_offset)
        return;
    h->flags = NET_HEADER_NEEDS_SUM;
    h->sum_start = (u16)f->l4_offset;
    h->sum_offset = (u16)(f->sum_offset - f->l4_offset);
    if (f->segment_bytes) {
        h->gso_type = NET_GSO_TCP4;
        h->gso_bytes = (u16)f->segment_bytes;
        h->header_bytes = (u16)f->header_bytes;
    }
}

static bool virtio_has_room(struct nic *n)
{
    struct virtio *v = n->priv;
    reclaim(v);
    return v->tx.free_count >= TX_PARTS;
}

static int virtio_transmit(struct nic *n, const struct nic_frame *f)
{
    struct virtio *v = n->priv;
    struct virtq_part part[TX_PARTS];
    u32 count = 1;
    reclaim(v);
    for (const struct pbuf *p = f->pbuf; p; p = p->next) {
        if (count == TX_PARTS)
            return E_INVAL;
        part[count++] = (struct virtq_part){ptr_phys(p->payload), p->len};
    }
    if (count > v->tx.free_count)
        return E_BUSY;
    struct virtio_net_header *h = &v->tx_header[v->tx.free];
    fill_header(h, f);
    part[0] = (struct virtq_part){ptr_phys(h), sizeof(*h)};
    virtq_add(&v->tx, part, count, 0, f->pbuf);
    pbuf_ref(f->pbuf);
    return 0;
}

static void virtio_flush(struct nic *n)
{
    struct virtio *v = n->priv;
    virtq_publish(&v->tx);
}

// ---- Reception ---------------------------------------------------------------------------------

// The first buffer of a frame begins with the header (5.1.6.4).
static bool begin_frame(struct virtio *v, const struct nic_buffer *b, u32 bytes)
{
    const struct virtio_net_header *h = (const void *)b->data;
    if (bytes <= sizeof(*h) || bytes > BUFFER_BYTES)
        return false;
    v->rx_left = v->pci.features & NET_F_MRG_RXBUF ? h->buffers : 1;
    v->rx_sum_ok = h->flags & NET_HEADER_SUM_OK;
    v->rx_partial = (struct nic_frame){.pbuf = NULL};
    if (h->flags & NET_HEADER_NEEDS_SUM) { // 5.1.6.4.1: it never was on a wire
        v->rx_partial.l4_offset = h->sum_start;
        v->rx_partial.sum_offset = (u32)h->sum_start + h->sum_offset;
        v->rx_partial.segment_bytes = h->gso_type == NET_GSO_NONE ? 0 : h->gso_bytes;
    }
    return v->rx_left > 0 && v->rx_left <= v->rx.size;
}

// Returns whether a frame ended.
static bool receive_one(struct nic *n, struct virtio *v, struct nic_buffer *b, u32 bytes)
{
    u32 from = v->rx_left ? 0 : (u32)sizeof(struct virtio_net_header);
    bool good = from ? begin_frame(v, b, bytes) : bytes > 0 && bytes <= BUFFER_BYTES;
    if (!good) {
        n->rx_errors++;
        v->rx_left = 0;
        nic_receive_failed(n);
        nic_buffer_put(b);
        return true;
    }
    if (v->rx_left == 1)
        nic_received_partial(&v->rx_partial);
    u32 end = --v->rx_left == 0 ? NIC_RX_END | (v->rx_sum_ok ? NIC_RX_SUM_OK : 0) : 0;
    nic_received(n, b, from, bytes - from, end);
    return end;
}

static int virtio_poll(struct nic *n, int budget)
{
    struct virtio *v = n->priv;
    struct nic_buffer *b;
    int frames = 0;
    u32 bytes;
    while (frames < budget && (b = virtq_take(&v->rx, &bytes)))
        frames += receive_one(n, v, b, bytes);
    if (v->rx.free_count >= v->rx.size / 8)
        post_all(v);
    reclaim(v);
    return frames;
}

static bool virtio_irq_rearm(struct nic *n)
{
    struct virtio *v = n->priv;
    if (n->interrupt == PCI_POLLED || !v->masked)
        return false;
    v->masked = false; // before the unmask: the next interrupt sets it again
    virtq_interrupts(&v->rx, true);
    return virtq_waiting(&v->rx);
}

static void virtio_stop(struct nic *n)
{
    struct virtio *v = n->priv;
    virtio_pci_reset(&v->pci);
}

const struct nic_ops virtio_nic = {
    .name = "virtio-net",
    .match = virtio_match,
    .start = virtio_start,
    .link_up = virtio_link_up,
    .set_filter = virtio_set_filter,
    .has_room = virtio_has_room,
    .transmit = virtio_transmit,
    .flush = virtio_flush,
    .poll = virtio_poll,
    .irq_rearm = virtio_irq_rearm,
    .stop = virtio_stop,
};
