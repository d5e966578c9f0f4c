// SPDX-License-Identifier: MIT
// virtio-net for a guest, a port of the virtual switch. Sections are those of virtio 1.2.
//
// The network thread moves all frames: straight from the guest's transmit chains into frames, and
// from frames into its receive chains, with the device's mutex held. vCPU threads only wake it, and
// as long as it is awake it looks at the transmit queue by itself: there are no kicks then. That
// the guest's frames are sent, it is told on the next look, for until then frames that it receives
// may have interrupted it anyway.
#include "net/guest_nic.h"

#include "kernel/guest/guest.h"
#include "kernel/guest/virtio.h"
#include "kernel/lib.h"
#include "kernel/log.h"
#include "net/frame.h"
#include "net/switch.h"
#include "net/virtio_net.h"
#include "net/work.h"

enum queue { RX, TX, CONTROL, QUEUES }; // 5.1.2

#define FEATURES                                                                                   \
    (NET_F_CSUM | NET_F_GUEST_CSUM | NET_F_MAC | NET_F_GUEST_TSO4 | NET_F_GUEST_TSO6 |             \
     NET_F_HOST_TSO4 | NET_F_HOST_TSO6 | NET_F_MRG_RXBUF | NET_F_STATUS | NET_F_CTRL_VQ |          \
     NET_F_GUEST_ANNOUNCE)

struct config { // 5.1.4
    u8 mac[6];
    u16 status;
};
_Static_assert(sizeof(struct config) == 8, "virtio 1.2, 5.1.4");
#define STATUS_LINK_UP  1
#define STATUS_ANNOUNCE 2

#define CONTROL_ANNOUNCE     3 // 5.1.6.5.4
#define CONTROL_ANNOUNCE_ACK 0
#define CONTROL_OK           0
#define CONTROL_ERROR        1

#define MAX_FRAME   65535u
#define MAX_CHAINS  64u // of one received frame
#define TURN_CHAINS 64u
#define TURN_BYTES  (128u * 1024) // that one guest may send before others have their turn

struct guest_nic {
    struct virtio v;     // first
    u8 mac[6], announce; // announce: the driver shall tell the network where the guest is
    struct switch_port port;
    struct net_work work;
    struct nic_frame sending;  // the network thread's: popped, and the wire has no room yet
    volatile bool arrived;     // for the network thread: announce the guest
    bool plugged;              // there is a network thread, and the port is in the switch
    struct virtio_chain chain; // of the control queue
};

// Network thread: one chain at a time, and a received frame's first one, which has its header.
static struct virtio_chain chain, first_chain;

static struct guest_nic *nic_of(struct switch_port *p)
{
    return container_of(p, struct guest_nic, port);
}

// ---- From the guest ----------------------------------------------------------------------------

static bool copy_in(struct guest_nic *n, struct nic_frame *f)
{
    u32 offset = sizeof(struct virtio_net_header);
    f->bytes = chain.readable - offset;
    f->pbuf = frame_alloc(f->bytes);
    for (struct pbuf *p = f->pbuf; p; p = p->next) {
        virtio_copy_from(&n->v, &chain, offset, p->payload, p->len);
        offset += p->len;
    }
    return f->pbuf;
}

// What the driver has left out of the frame (5.1.6.2). False where it may not be so.
static bool take_offload(const struct guest_nic *n, const struct virtio_net_header *h,
                         struct nic_frame *f)
{
    if (!(h->flags & NET_HEADER_NEEDS_SUM))
        return h->gso_type == NET_GSO_NONE;
    f->l4_offset = h->sum_start;
    f->sum_offset = (u32)h->sum_start + h->sum_offset;
    if (!virtio_has(&n->v, NET_F_CSUM) || f->l4_offset < ETHERNET_HEADER ||
        f->sum_offset + 2 > f->pbuf->len)
        return false;
    if (h->gso_type == NET_GSO_NONE)
        return true;
    bool ip4 = ((const u8 *)f->pbuf->payload)[ETHERNET_HEADER] >> 4 == 4;
    f->segment_bytes = h->gso_bytes;
    return h->gso_type == (ip4 ? NET_GSO_TCP4 : NET_GSO_TCP6) &&
           virtio_has(&n->v, ip4 ? NET_F_HOST_TSO4 : NET_F_HOST_TSO6) && frame_can_cut(f);
}

// Makes the chain that was popped the frame to be sent. False: there is no memory for it now.
static bool take_chain(struct guest_nic *n)
{
    struct virtio_net_header h;
    struct nic_frame f = {.pbuf = NULL};
    if (chain.readable < sizeof(h) + ETHERNET_HEADER || chain.readable > sizeof(h) + MAX_FRAME) {
        n->port.figures.tx_refused++;
        return true;
    }
    virtio_copy_from(&n->v, &chain, 0, &h, sizeof(h));
    if (!copy_in(n, &f))
        return false;
    if (take_offload(n, &h, &f)) {
        n->sending = f;
    } else {
        n->port.figures.tx_refused++;
        pbuf_free(f.pbuf);
    }
    return true;
}

// The next frame that the guest has to send. The mutex is not held when it goes on its way, for an
// answer may come back at once.
static bool take_frame(struct guest_nic *n)
{
    u32 chains = 0;
    virtio_lock(&n->v);
    while (!n->sending.pbuf && chains++ < TURN_CHAINS && virtio_pop(&n->v, TX, &chain)) {
        if (!take_chain(n)) {
            virtio_unpop(&n->v, TX, 1);
            switch_wait(&n->port);
            break;
        }
        virtio_push(&n->v, TX, chain.head, 0);
    }
    if (chains > TURN_CHAINS) // none of them a frame
        net_post(&n->work);
    bool gone = n->v.paused; // or about to be: what it sends now it sends elsewhere
    virtio_unlock(&n->v);
    if (gone && n->sending.pbuf) {
        pbuf_free(n->sending.pbuf);
        n->sending.pbuf = NULL;
    }
    return n->sending.pbuf;
}

// From here on the network thread looks at the queue.
static void attend(struct guest_nic *n)
{
    virtio_mute(&n->v, TX);
    switch_attend(&n->port);
}

static void send(struct switch_port *p)
{
    struct guest_nic *n = nic_of(p);
    u32 bytes = 0;
    virtio_lock(&n->v);
    virtio_signal(&n->v, TX);
    attend(n);
    virtio_unlock(&n->v);
    while (bytes < TURN_BYTES && take_frame(n)) {
        bytes += n->sending.bytes;
        if (switch_from_port(p, &n->sending))
            break;
        n->sending.pbuf = NULL;
    }
    virtio_lock(&n->v);
    virtio_publish_quietly(&n->v, TX);
    virtio_unlock(&n->v);
    if (bytes >= TURN_BYTES && !n->sending.pbuf)
        net_post(&n->work);
}

// While a frame waits for the wire, `send` is called without a kick.
static void rest(struct switch_port *p)
{
    struct guest_nic *n = nic_of(p);
    virtio_lock(&n->v);
    virtio_signal(&n->v, TX);
    bool more = !p->blocked && virtio_unmute(&n->v, TX);
    virtio_unlock(&n->v);
    if (more)
        net_post(&n->work);
}

static void work(struct net_work *w)
{
    struct guest_nic *n = container_of(w, struct guest_nic, work);
    if (__atomic_exchange_n(&n->arrived, false, __ATOMIC_ACQUIRE))
        switch_announce(&n->port);
    switch_port_ready(&n->port);
    send(&n->port);
}

// ---- To the guest ------------------------------------------------------------------------------

static struct virtio_net_header header_of(const struct guest_nic *n, const struct nic_frame *f)
{
    struct virtio_net_header h = {.buffers = 1};
    if (f->l4_offset) {
        h.flags = NET_HEADER_NEEDS_SUM;
        h.sum_start = (u16)f->l4_offset;
        h.sum_offset = (u16)(f->sum_offset - f->l4_offset);
    } else if (f->sum_ok && virtio_has(&n->v, NET_F_GUEST_CSUM)) {
        h.flags = NET_HEADER_SUM_OK;
    }
    if (f->segment_bytes) {
        bool ip4 = ((const u8 *)f->pbuf->payload)[ETHERNET_HEADER] >> 4 == 4;
        h.gso_type = ip4 ? NET_GSO_TCP4 : NET_GSO_TCP6;
        h.gso_bytes = (u16)f->segment_bytes;
        h.header_bytes = (u16)f->header_bytes;
    }
    return h;
}

// The frame's bytes from `from` on into the chain behind `at`; returns how many fit.
static u32 copy_out(struct guest_nic *n, const struct virtio_chain *c, u32 at,
                    const struct nic_frame *f, u32 from)
{
    u32 done = 0;
    for (const struct pbuf *p = f->pbuf; p && at + done < c->writable; p = p->next) {
        if (from >= p->len) {
            from -= p->len;
            continue;
        }
        done += virtio_copy_to(&n->v, c, at + done, (u8 *)p->payload + from, p->len - from);
        from = 0;
    }
    return done;
}

// Puts the frame into as many chains as it takes. E_BUSY: there are not enough; none is used.
static int receive(struct guest_nic *n, const struct nic_frame *f)
{
    struct {
        u16 head;
        u32 bytes;
    } used[MAX_CHAINS];
    struct virtio_net_header h = header_of(n, f);
    u32 most = virtio_has(&n->v, NET_F_MRG_RXBUF) ? MAX_CHAINS : 1, count = 0, done = 0;
    while (done < f->bytes && count < most) {
        struct virtio_chain *c = count ? &chain : &first_chain;
        u32 at = count ? 0 : (u32)sizeof(h);
        if (!virtio_pop(&n->v, RX, c)) {
            virtio_unpop(&n->v, RX, count);
            return E_BUSY;
        }
        u32 bytes = copy_out(n, c, at, f, done);
        used[count].head = c->head;
        used[count++].bytes = at + bytes;
        done += bytes;
        if (!bytes) // not even room for the header
            break;
    }
    if (done < f->bytes) {
        virtio_unpop(&n->v, RX, count);
        return E_INVAL;
    }
    h.buffers = (u16)count;
    virtio_copy_to(&n->v, &first_chain, 0, &h, sizeof(h));
    for (u32 i = 0; i < count; i++)
        virtio_push(&n->v, RX, used[i].head, used[i].bytes);
    return 0;
}

// A guest that stands still finds its frames when it goes on; not so one that is being received,
// for what it missed reached it where it ran.
static int deliver(struct switch_port *p, const struct nic_frame *f)
{
    struct guest_nic *n = nic_of(p);
    virtio_lock(&n->v);
    int r = E_IO;
    bool takes = (!f->l4_offset || p->can_sum) && (!f->segment_bytes || p->can_cut4);
    if (n->v.paused)
        r = E_BUSY;
    else if (virtio_running(&n->v) && takes)
        r = receive(n, f);
    virtio_unlock(&n->v);
    return r;
}

static void flush(struct switch_port *p)
{
    struct guest_nic *n = nic_of(p);
    virtio_lock(&n->v);
    virtio_publish(&n->v, RX);
    attend(n); // it may answer
    virtio_unlock(&n->v);
}

static void replaced(struct switch_port *p)
{
    (void)p; // it has not departed
}

static const struct switch_port_ops port_ops = {
    .deliver = deliver,
    .flush = flush,
    .send = send,
    .rest = rest,
    .replaced = replaced,
};

// ---- The device --------------------------------------------------------------------------------

static void get_config(struct virtio *v, void *config)
{
    struct guest_nic *n = container_of(v, struct guest_nic, v);
    struct config *c = config;
    memcpy(c->mac, n->mac, sizeof(c->mac));
    c->status = (n->plugged ? STATUS_LINK_UP : 0) | (n->announce ? STATUS_ANNOUNCE : 0);
}

// 5.1.3.1
static bool accept(const struct virtio *v, u64 features)
{
    (void)v;
    return !((features & (NET_F_GUEST_TSO4 | NET_F_GUEST_TSO6) && !(features & NET_F_GUEST_CSUM)) ||
             (features & (NET_F_HOST_TSO4 | NET_F_HOST_TSO6) && !(features & NET_F_CSUM)) ||
             (features & NET_F_GUEST_ANNOUNCE && !(features & NET_F_CTRL_VQ)));
}

// The network thread looks at these without the mutex, and again in deliver with it. Long frames
// need chains that are joined, or every chain would have to hold 64 KiB.
static void set_offloads(struct guest_nic *n)
{
    bool cut = virtio_has(&n->v, NET_F_MRG_RXBUF);
    n->port.can_sum = virtio_has(&n->v, NET_F_GUEST_CSUM);
    n->port.can_cut4 = cut && virtio_has(&n->v, NET_F_GUEST_TSO4);
    n->port.can_cut6 = cut && virtio_has(&n->v, NET_F_GUEST_TSO6);
}

// 5.1.6.5: a class and a command, and a byte for the answer.
static void control(struct guest_nic *n)
{
    const struct virtio_chain *c = &n->chain;
    while (virtio_pop(&n->v, CONTROL, &n->chain)) {
        u8 command[2] = {0xff}, answer = CONTROL_ERROR;
        virtio_copy_from(&n->v, c, 0, command, sizeof(command));
        if (command[0] == CONTROL_ANNOUNCE && command[1] == CONTROL_ANNOUNCE_ACK) {
            answer = CONTROL_OK;
            n->announce = 0;
        }
        u32 at = c->writable ? c->writable - 1 : 0;
        virtio_push(&n->v, CONTROL, c->head, virtio_copy_to(&n->v, c, at, &answer, 1));
        virtio_publish(&n->v, CONTROL);
    }
}

static void kicked(struct virtio *v, u32 queue)
{
    struct guest_nic *n = container_of(v, struct guest_nic, v);
    if (queue == CONTROL) {
        control(n);
        return;
    }
    set_offloads(n);
    if (n->plugged)
        net_post(&n->work);
}

static void nic_reset(struct virtio *v)
{
    struct guest_nic *n = container_of(v, struct guest_nic, v);
    n->announce = 0;
    n->port.can_sum = n->port.can_cut4 = n->port.can_cut6 = false;
}

static const struct virtio_ops ops = {
    .id = VIRTIO_NET,
    .class_code = 0x020000,
    .queues = QUEUES,
    .queue_size = VIRTIO_QUEUE_MAX,
    .get_config = get_config,
    .config_bytes = sizeof(struct config),
    .accept = accept,
    .kicked = kicked,
    .reset = nic_reset,
};

static int plug(void *arg)
{
    struct guest_nic *n = arg;
    return switch_add(&n->port);
}

static int unplug(void *arg)
{
    struct guest_nic *n = arg;
    net_unpost(&n->work);
    switch_remove(&n->port);
    if (n->sending.pbuf)
        pbuf_free(n->sending.pbuf);
    return 0;
}

static int guest_nic_init(struct device *d)
{
    struct guest_nic *n = d->priv;
    const struct guest_config *cfg = &d->guest->config;
    memcpy(n->mac, cfg->mac, sizeof(n->mac));
    memcpy(n->port.mac, cfg->mac, sizeof(n->port.mac));
    n->port.ops = &port_ops;
    n->port.vlan = cfg->vlan;
    n->port.stations = cfg->macs;
    n->work.fn = work;
    int error = virtio_init(d, &ops, VIRTIO_SLOT_NET, FEATURES);
    if (error || !net_running()) // without a network its link stays down
        return error;
    error = net_call(plug, n);
    n->plugged = !error;
    if (error)
        virtio_fini(d);
    if (error == E_EXIST)
        log_error("net",
                  "guest %s has MAC address %02x:%02x:%02x:%02x:%02x:%02x, which this host or "
                  "another guest of its VLAN has: give it its own with mac =",
                  d->guest->name, n->mac[0], n->mac[1], n->mac[2], n->mac[3], n->mac[4], n->mac[5]);
    return error;
}

static void guest_nic_fini(struct device *d)
{
    struct guest_nic *n = d->priv;
    if (n->plugged)
        net_call(unplug, n);
    virtio_fini(d);
}

// What was handed over is told: it does not move otherwise.
static void guest_nic_pause(struct device *d)
{
    struct guest_nic *n = d->priv;
    virtio_publish(&n->v, RX);
    virtio_publish(&n->v, TX);
    virtio_pause(d);
}

static void guest_nic_resume(struct device *d)
{
    struct guest_nic *n = d->priv;
    virtio_resume(d);
    if (!n->plugged)
        return;
    n->arrived = true;
    net_post(&n->work);
    if (virtio_running(&n->v) && virtio_has(&n->v, NET_F_GUEST_ANNOUNCE)) {
        n->announce = 1;
        virtio_config_changed(&n->v);
    }
}

static bool check(const void *copy, char *err, size_t size)
{
    return virtio_check(&((const struct guest_nic *)copy)->v, err, size);
}

static const struct state_field fields[] = {
    VIRTIO_FIELDS(struct guest_nic, v),
    {"mac", 40, FIELD_MUST_MATCH, 1, 6, offsetof(struct guest_nic, mac), 1, 0, 0},
    FIELD(41, FIELD_COPY, struct guest_nic, announce, 1, 0, 1),
    FIELD_LAST,
};
static const struct state_table state = {
    .name = "virtio-net",
    .version = 1,
    .fields = fields,
    .check = check,
    .struct_size = sizeof(struct guest_nic),
};

const struct device_ops guest_nic_device = {
    .name = "virtio-net",
    .state = &state,
    .priv_size = sizeof(struct guest_nic),
    .init = guest_nic_init,
    .fini = guest_nic_fini,
    .reset = virtio_reset,
    .read = virtio_read,
    .write = virtio_write,
    .pause = guest_nic_pause,
    .resume = guest_nic_resume,
};

struct switch_port *guest_nic_port(struct guest *g)
{
    struct device *d = device_find(g, guest_nic_device.name, 0);
    struct guest_nic *n = d ? d->priv : NULL;
    return n && n->plugged ? &n->port : NULL;
}

bool guest_nic_figures(struct guest *g, struct switch_figures *out)
{
    const struct switch_port *p = guest_nic_port(g);
    if (p)
        *out = p->figures;
    return p;
}

struct arrival {
    struct switch_port *port;
    const void *bytes;
    u32 count;
};

static int inject(void *arg)
{
    const struct arrival *a = arg;
    struct nic_frame f = {.pbuf = frame_alloc(a->count), .bytes = a->count};
    if (!f.pbuf)
        return E_NOMEM;
    pbuf_take(f.pbuf, a->bytes, (u16)a->count);
    switch_deliver(a->port, &f);
    pbuf_free(f.pbuf);
    return 0;
}

void guest_nic_receive(struct guest *g, const void *frame, u32 bytes)
{
    struct arrival a = {guest_nic_port(g), frame, bytes};
    if (a.port && bytes >= ETHERNET_HEADER && bytes <= MAX_FRAME)
        net_call(inject, &a);
}
