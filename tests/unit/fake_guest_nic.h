// SPDX-License-Identifier: MIT
// What surrounds a guest's network card in its test: the network thread, a switch that writes down
// what it gets, and the guest's driver. Included once, by the test.
#define in8   cpu_in8 // the fake platform has the guest's
#define in32  cpu_in32
#define out8  cpu_out8
#define out16 cpu_out16
#define out32 cpu_out32
#include "arch/x86/cpu.h"
#undef in8
#undef in32
#undef out8
#undef out16
#undef out32

#include "tests/unit/fake_virtio.h"

#include "boot/boot_info.h"
#include "kernel/host.h"
#include "kernel/time.h"
#include "lwip/init.h"
#include "lwip/nd6.h"
#include "lwip/tcp.h"
#include "net/frame.h"
#include "net/switch.h"
#include "net/work.h"

const struct device_ops vblk_device, vrng_device, vballoon_device;
static struct boot_info boot;
const struct boot_info *host_boot = &boot;

u64 time_ns(void)
{
    return NS_PER_SEC;
}

void *kmalloc(size_t bytes)
{
    return malloc(bytes);
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

// ---- The network thread and its switch ---------------------------------------------------------

static struct net_work *posted;
static struct switch_port *port;
static bool wire_full, network, attended;
static u32 announced, sent_count;
static struct nic_frame sent; // the last one
static u8 sent_bytes[65536];

struct pbuf *frame_alloc(u32 bytes)
{
    return pbuf_alloc(PBUF_LINK, (u16)bytes, PBUF_RAM);
}

bool net_running(void)
{
    return network;
}

int net_call(int (*fn)(void *arg), void *arg)
{
    return fn(arg);
}

void net_post(struct net_work *w)
{
    posted = w;
}

void net_unpost(struct net_work *w)
{
    if (posted == w)
        posted = NULL;
}

// Until there is nothing more to do, and then it sleeps.
static void run_net(void)
{
    do {
        while (posted) {
            struct net_work *w = posted;
            posted = NULL;
            w->fn(w);
        }
        bool rests = attended;
        attended = port && port->blocked;
        if (rests)
            port->ops->rest(port);
    } while (posted);
}

void switch_attend(struct switch_port *p)
{
    assert_ptr_equal(p, port);
    attended = true;
}

int switch_add(struct switch_port *p)
{
    port = p;
    return 0;
}

void switch_remove(struct switch_port *p)
{
    assert_ptr_equal(p, port);
    port = NULL;
}

void switch_port_ready(struct switch_port *p)
{
    assert_ptr_equal(p, port);
}

void switch_announce(struct switch_port *p)
{
    assert_ptr_equal(p, port);
    announced++;
}

void switch_deliver(struct switch_port *p, struct nic_frame *f)
{
    p->ops->deliver(p, f);
    p->ops->flush(p);
}

void switch_wait(struct switch_port *p)
{
    assert_ptr_equal(p, port);
}

int switch_from_port(struct switch_port *p, struct nic_frame *f)
{
    assert_ptr_equal(p, port);
    assert_null(dev("virtio-net")->lock.owner); // an answer may come at once
    p->blocked = wire_full;
    if (wire_full)
        return E_BUSY;
    sent = *f;
    sent_count++;
    pbuf_copy_partial(f->pbuf, sent_bytes, (u16)f->bytes, 0);
    pbuf_free(f->pbuf);
    return 0;
}

// ---- The driver --------------------------------------------------------------------------------

#define CSUM         BIT(0)
#define GUEST_CSUM   BIT(1)
#define GUEST_TSO4   BIT(7)
#define HOST_TSO4    BIT(11)
#define MRG          BIT(15)
#define CTRL         BIT(17)
#define ANNOUNCE     BIT(21)
#define ALL          (CSUM | GUEST_CSUM | GUEST_TSO4 | HOST_TSO4 | MRG | CTRL | ANNOUNCE)
#define DATA         0x200000u
#define RX_INTERRUPT 0x50
#define TX_INTERRUPT 0x60
enum { RX, TX, CONTROL };

struct header {
    u8 flags, gso_type;
    u16 header_bytes, gso_bytes, sum_start, sum_offset, buffers;
};

static void make_nic(void)
{
    assert_non_null(device_add(&guest, &guest_nic_device, 0));
}

static int set_up(void **state)
{
    static bool started;
    if (!started)
        lwip_init();
    started = true;
    pc_one(state);
    memset(ram, 0, sizeof(ram));
    memcpy(guest.config.mac, "\x02\0\0\0\0\x10", 6);
    wire_full = attended = false;
    network = true;
    announced = sent_count = 0;
    make_nic();
    return 0;
}

static void start(u64 features)
{
    drv_start(VIRTIO_SLOT_NET, 3, 64, features);
}

// A frame of `bytes` behind a header, in pieces of `piece`. Returns the chain's head.
static u16 add_frame(const struct header *h, u32 bytes, u32 piece)
{
    struct drv_desc d[40] = {{DATA, sizeof(*h), 0, 0}};
    u32 count = 1;
    memcpy(ram + DATA, h, sizeof(*h));
    for (u32 i = 0; i < bytes; i++)
        ram[DATA + 0x1000 + i] = (u8)(i * 7 + i / 256);
    for (u32 at = 0; at < bytes; at += piece)
        d[count++] = (struct drv_desc){DATA + 0x1000 + at, MIN(piece, bytes - at), 0, 0};
    return drv_add(TX, d, count);
}

static void transmit(u16 head)
{
    ram_watch();
    drv_kick(TX);
    run_net();
    ram_watched();
    u32 written = 1;
    assert_int_equal(drv_take(TX, &written), head);
    assert_int_equal(written, 0);
    assert_int_equal(drv_interrupt(), TX_INTERRUPT);
}

static int deliver(struct nic_frame f, u32 bytes)
{
    f.bytes = bytes;
    f.pbuf = frame_alloc(bytes);
    for (u32 i = 0; i < bytes; i++)
        ((u8 *)f.pbuf->payload)[i] = (u8)(i * 5 + i / 256);
    ((u8 *)f.pbuf->payload)[14] = 0x45;
    ram_watch();
    int r = port->ops->deliver(port, &f);
    port->ops->flush(port);
    ram_watched();
    pbuf_free(f.pbuf);
    return r;
}

static void post(u32 count, u32 bytes)
{
    for (u32 i = 0; i < count; i++)
        drv_add_one(RX, DATA + i * 0x1000, bytes, D_WRITE);
    drv_kick(RX);
    run_net();
}
