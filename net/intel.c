// SPDX-License-Identifier: MIT
// What Intel's gigabit controllers have in common. Sections are the 82540EM manual's (intel.h).
#include "net/intel.h"

#include "kernel/lib.h"
#include "kernel/log.h"
#include "kernel/mem.h"
#include "kernel/time.h"

#define CRCERRS 0x4000
#define MPC     0x4010 // missed frames: no receive descriptor was free; cleared by reading
#define RLEC    0x4040 // frames with a wrong length field
#define MTA     0x5200
#define RAL0    0x5400
#define RAH0    0x5404
#define RAH_AV  BIT(31)

#define STATUS_LU   BIT(1)            // 13.4.2
#define RXCSUM_WANT (BIT(8) | BIT(9)) // 13.4.36: IPOFL, TUOFL
#define BAH         0x04
#define LEN         0x08
#define HEAD        0x10
#define TAIL        0x18
#define REG_BYTES   0x20000
#define MTA_WORDS   128u
#define TX_PIECE    8192u // of a descriptor's data; 3.3.7 allows 16288
#define TX_MOST     24u   // descriptors of a long frame in pieces of 4 KiB
#define POST_BATCH  (INTEL_RING / 8)

#define IP4_LENGTH 2 // offsets in the header
#define IP4_SUM    10

#define TX_DD BIT(32) // of a descriptor's word, in all formats

static void quiet(struct intel *e)
{
    intel_write(e, INTEL_IMC, ~0u);
    intel_write(e, e->cause_clear, ~0u);
    intel_write(e, INTEL_RCTL, 0);
    intel_write(e, INTEL_TCTL, 0);
    intel_read(e, INTEL_STATUS); // the writes have arrived
}

int intel_open(struct nic *n, struct intel *e, u16 bdf, const struct intel_format *format)
{
    pci_enable(bdf);
    e->format = format;
    e->cause_set = INTEL_IMS;
    e->cause_clear = INTEL_IMC;
    e->causes = (u32)(INT_RXT0 | INT_RXDMT0 | INT_RXO);
    n->priv = e;
    n->can_sum = n->can_check = n->can_segment = true;
    e->regs = pci_map_bar(bdf, 0, 0, REG_BYTES);
    return e->regs ? 0 : E_IO;
}

// 14.3. The first microsecond after a reset must pass before another access (13.4.1).
void intel_reset(struct intel *e)
{
    quiet(e);
    time_delay_us(10000); // DMA under way ends
    intel_write(e, INTEL_CTRL, intel_read(e, INTEL_CTRL) | CTRL_RST);
    time_delay_us(10000); // the EEPROM has been read again
    intel_write(e, INTEL_IMC, ~0u);
    intel_read(e, INTEL_ICR);
    u64 ctrl = intel_read(e, INTEL_CTRL) | CTRL_SLU;
    intel_write(e, INTEL_CTRL, ctrl & ~(CTRL_LRST | CTRL_PHY_RST | CTRL_VME));
}

int intel_read_mac(struct nic *n, struct intel *e)
{
    u32 low = intel_read(e, RAL0), high = intel_read(e, RAH0);
    memcpy(n->mac, &low, 4);
    memcpy(n->mac + 4, &high, 2);
    if (nic_mac_valid(n->mac))
        return 0;
    log_error("net", "%s has no MAC address: neither its EEPROM nor RAL0 holds a valid one",
              n->ops->name);
    return E_IO;
}

int intel_make_rings(struct nic *n, struct intel *e)
{
    u64 rings = page_alloc_zero(1); // a page each, which is aligned beyond the 128 bytes needed
    _Static_assert(INTEL_RING * sizeof(struct intel_desc) <= PAGE_SIZE, "one page");
    if (!rings || nic_buffers_init(INTEL_BUFFERS, INTEL_BUFFER)) {
        log_error("net", "no memory for %s's buffers (%u KiB wanted)", n->ops->name,
                  INTEL_BUFFERS * INTEL_BUFFER / 1024);
        return E_NOMEM;
    }
    e->rx = phys_ptr(rings);
    e->tx = phys_ptr(rings + PAGE_SIZE);
    for (u32 i = 0; i < INTEL_RING; i++) {
        e->rx_buffer[i] = nic_buffer_get();
        e->rx[i].address = ptr_phys(e->rx_buffer[i]->data);
    }
    return 0;
}

static void start_ring(struct intel *e, u32 regs, volatile struct intel_desc *ring)
{
    u64 base = ptr_phys((void *)ring);
    intel_write(e, regs, base);
    intel_write(e, regs + BAH, base >> 32);
    intel_write(e, regs + LEN, INTEL_RING * sizeof(struct intel_desc));
    intel_write(e, regs + HEAD, 0);
    intel_write(e, regs + TAIL, 0);
}

static void set_address(struct intel *e, const u8 mac[6])
{
    u32 low, high = 0;
    memcpy(&low, mac, 4);
    memcpy(&high, mac + 4, 2);
    intel_write(e, RAL0, low);
    intel_write(e, RAH0, high | RAH_AV);
    for (u32 i = 0; i < MTA_WORDS; i++)
        intel_write(e, MTA + 4 * i, 0);
}

// 14.4 and 14.5.
void intel_start_rings(struct nic *n, struct intel *e)
{
    set_address(e, n->mac);
    start_ring(e, e->format->tx_regs, e->tx);
    intel_write(e, INTEL_TCTL, TCTL_EN | TCTL_PSP | TCTL_CT | TCTL_COLD);
    start_ring(e, e->format->rx_regs, e->rx);
    intel_write(e, INTEL_RXCSUM, RXCSUM_WANT);
    e->rctl = (u32)(RCTL_EN | RCTL_BAM | RCTL_SECRC | (n->mtu > 1500 ? RCTL_LPE : 0));
    intel_write(e, INTEL_RCTL, e->rctl);
}

void intel_post_all(struct intel *e)
{
    // The device stops before the tail: one stays ours.
    intel_write(e, e->format->rx_regs + TAIL, INTEL_RING - 1);
}

void intel_interrupt(void *arg)
{
    struct nic *n = arg;
    struct intel *e = n->priv;
    // A pin may be another device's; reading acknowledges. A message's cause clears itself.
    if (n->interrupt != PCI_MSIX && !intel_read(e, INTEL_ICR))
        return;
    n->irqs++;
    intel_write(e, e->cause_clear, e->causes);
    e->masked = true;
    n->rx_ready(n);
}

bool intel_link_up(struct nic *n)
{
    struct intel *e = n->priv;
    n->rx_dropped += intel_read(e, MPC);
    n->rx_errors += intel_read(e, CRCERRS) + intel_read(e, RLEC);
    return intel_read(e, INTEL_STATUS) & STATUS_LU;
}

// 13.5.1: with RCTL.MO 0, bits 47:36 of the address pick one of 4096 bits.
void intel_set_filter(struct nic *n, const u8 (*multicast)[6], u32 count, bool promiscuous)
{
    struct intel *e = n->priv;
    u32 table[MTA_WORDS] = {0};
    for (u32 i = 0; i < count; i++) {
        u32 hash = multicast[i][4] >> 4 | (u32)multicast[i][5] << 4;
        table[hash >> 5] |= 1u << (hash & 31);
    }
    for (u32 i = 0; i < MTA_WORDS; i++)
        intel_write(e, MTA + 4 * i, table[i]);
    u32 rctl = e->rctl | (promiscuous ? (u32)(RCTL_UPE | RCTL_MPE) : 0);
    // QEMU's model of the 82540EM receives nothing for a second after every write.
    if (intel_read(e, INTEL_RCTL) != rctl)
        intel_write(e, INTEL_RCTL, rctl);
}

// ---- Transmission ------------------------------------------------------------------------------

static u32 after(u32 i)
{
    return (i + 1) % INTEL_RING;
}

static void reclaim(struct intel *e)
{
    while (e->tx_clean != e->tx_next) {
        u32 last = e->tx_last[e->tx_clean];
        if (!(e->tx[last].word & TX_DD))
            return;
        pbuf_free(e->tx_pbuf[e->tx_clean]);
        e->tx_clean = after(last);
    }
}

static u32 descriptors(const struct nic_frame *f)
{
    u32 count = f->l4_offset ? 1 : 0;
    for (const struct pbuf *p = f->pbuf; p; p = p->next)
        count += (p->len + TX_PIECE - 1) / TX_PIECE;
    return count;
}

// The next descriptor, and whether it is the frame's last.
static void put(struct intel *e, struct intel_desc d)
{
    e->tx[e->tx_next].address = d.address;
    e->tx[e->tx_next].word = d.word;
    e->tx_next = after(e->tx_next);
}

static void put_data(struct intel *e, const struct nic_frame *f)
{
    u32 left = f->bytes;
    for (const struct pbuf *p = f->pbuf; p; p = p->next) {
        for (u32 at = 0; at < p->len; at += TX_PIECE) {
            u32 bytes = MIN(p->len - at, TX_PIECE);
            left -= bytes;
            put(e, (struct intel_desc){ptr_phys((u8 *)p->payload + at),
                                       e->format->data(f, bytes, left == 0)});
        }
    }
}

// 3.5.4: the device writes each segment's lengths and sums, and wants the packet's own left out.
static void leave_out_lengths(const struct nic_frame *f)
{
    u8 *frame = f->pbuf->payload, *sum = frame + f->sum_offset;
    u32 length = f->bytes - f->l4_offset;
    u32 rest = (u32)(sum[0] << 8 | sum[1]) + (0xffff ^ length);
    rest = (rest & 0xffff) + (rest >> 16);
    sum[0] = (u8)(rest >> 8);
    sum[1] = (u8)rest;
    memset(frame + ETHERNET_HEADER + IP4_LENGTH, 0, 2);
    memset(frame + ETHERNET_HEADER + IP4_SUM, 0, 2);
}

// One descriptor stays free, for a full ring would look like an empty one (3.4).
static u32 room(const struct intel *e)
{
    return (e->tx_clean + INTEL_RING - e->tx_next - 1) % INTEL_RING;
}

bool intel_has_room(struct nic *n)
{
    reclaim(n->priv);
    return room(n->priv) >= TX_MOST;
}

int intel_transmit(struct nic *n, const struct nic_frame *f)
{
    struct intel *e = n->priv;
    reclaim(e);
    if (descriptors(f) > room(e))
        return E_BUSY;
    u32 first = e->tx_next;
    if (f->segment_bytes)
        leave_out_lengths(f);
    if (f->l4_offset)
        put(e, e->format->context(f));
    put_data(e, f);
    e->tx_last[first] = (u16)((e->tx_next + INTEL_RING - 1) % INTEL_RING);
    e->tx_pbuf[first] = f->pbuf;
    pbuf_ref(f->pbuf);
    return 0;
}

void intel_flush(struct nic *n)
{
    struct intel *e = n->priv;
    if (e->tx_told == e->tx_next)
        return;
    e->tx_told = e->tx_next;
    __asm__ volatile("" : : : "memory"); // the descriptors are in memory before the device is told
    intel_write(e, e->format->tx_regs + TAIL, e->tx_told);
}

// ---- Reception ---------------------------------------------------------------------------------

// Returns whether a frame ended. Without a buffer to take its place, what arrived is given up.
static bool receive_one(struct nic *n, struct intel *e, u32 i)
{
    struct intel_rx rx;
    e->format->parse(e->rx[i].word, &rx);
    struct nic_buffer *fresh = NULL;
    if (rx.bad || rx.bytes == 0 || rx.bytes > INTEL_BUFFER)
        n->rx_errors++;
    else if (!(fresh = nic_buffer_get()))
        n->rx_dropped++;
    if (!fresh) {
        nic_receive_failed(n);
    } else {
        u32 flags = (rx.end ? NIC_RX_END : 0) | (rx.sum_ok ? NIC_RX_SUM_OK : 0);
        nic_received(n, e->rx_buffer[i], 0, rx.bytes, flags);
        e->rx_buffer[i] = fresh;
    }
    e->rx[i].address = ptr_phys(e->rx_buffer[i]->data);
    e->rx[i].word = 0;
    return rx.end;
}

static bool waiting(const struct intel *e)
{
    return e->rx[e->rx_next].word & e->format->rx_done;
}

int intel_poll(struct nic *n, int budget)
{
    struct intel *e = n->priv;
    int frames = 0;
    while (frames < budget && waiting(e)) {
        __asm__ volatile("" : : : "memory"); // done is read before what it vouches for
        frames += receive_one(n, e, e->rx_next);
        e->rx_next = after(e->rx_next);
        if (++e->rx_unposted == POST_BATCH) {
            intel_write(e, e->format->rx_regs + TAIL, (e->rx_next + INTEL_RING - 1) % INTEL_RING);
            e->rx_unposted = 0;
        }
    }
    reclaim(e);
    return frames;
}

bool intel_irq_rearm(struct nic *n)
{
    struct intel *e = n->priv;
    if (n->interrupt == PCI_POLLED || !e->masked)
        return false;
    e->masked = false; // before the unmask: the next interrupt sets it again
    intel_write(e, e->cause_set, e->causes);
    return waiting(e);
}

void intel_stop(struct nic *n)
{
    quiet(n->priv);
}
