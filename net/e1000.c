// SPDX-License-Identifier: MIT
// Intel 82540EM and its close relatives: legacy descriptors, one queue each way, one interrupt.
// "Manual" is Intel's "PCI/PCI-X Family of Gigabit Ethernet Controllers Software Developer's
// Manual" (317453).
#include "net/nic.h"

#include "arch/x86/cpu.h"
#include "kernel/lib.h"
#include "kernel/log.h"
#include "kernel/mem.h"
#include "kernel/time.h"

// Registers (manual, table 13-2).
#define CTRL    0x0000
#define STAT    0x0008
#define EERD    0x0014
#define ICR     0x00c0
#define ITR     0x00c4
#define IMS     0x00d0
#define IMC     0x00d8
#define RCTL    0x0100
#define TCTL    0x0400
#define TIPG    0x0410
#define RDBAL   0x2800
#define RDBAH   0x2804
#define RDLEN   0x2808
#define RDH     0x2810
#define RDT     0x2818
#define RDTR    0x2820
#define TDBAL   0x3800
#define TDBAH   0x3804
#define TDLEN   0x3808
#define TDH     0x3810
#define TDT     0x3818
#define MPC     0x4010 // missed frames: no receive descriptor was free; cleared by reading
#define CRCERRS 0x4000
#define RLEC    0x4040 // frames with a wrong length field
#define MTA     0x5200
#define RAL0    0x5400
#define RAH0    0x5404

#define CTRL_LRST    BIT(3) // manual 13.4.1
#define CTRL_ASDE    BIT(5)
#define CTRL_SLU     BIT(6)
#define CTRL_ILOS    BIT(7)
#define CTRL_RST     BIT(26)
#define CTRL_VME     BIT(30)
#define CTRL_PHY_RST BIT(31)
#define STAT_LU      BIT(1) // manual 13.4.2
#define EERD_START   BIT(0) // manual 13.4.4
#define EERD_DONE    BIT(4)
#define INT_LSC      BIT(2) // manual 13.4.17
#define INT_RXDMT0   BIT(4)
#define INT_RXO      BIT(6)
#define INT_RXT0     BIT(7)
#define INT_WANTED   ((u32)(INT_LSC | INT_RXDMT0 | INT_RXO | INT_RXT0))
#define RCTL_EN      BIT(1) // manual 13.4.22; a buffer size of 0 means 2048 bytes
#define RCTL_UPE     BIT(3)
#define RCTL_MPE     BIT(4)
#define RCTL_BAM     BIT(15)
#define RCTL_SECRC   BIT(26)
#define TCTL_EN      BIT(1) // manual 13.4.33
#define TCTL_PSP     BIT(3)
#define TCTL_CT      (0x0full << 4)
#define TCTL_COLD    (0x40ull << 12)
#define TIPG_VALUE   (10 | 8 << 10 | 6 << 20) // manual 13.4.34, for copper
#define RAH_AV       BIT(31)

// At most 8000 interrupts a second, in units of 256 ns (manual 13.4.18): bulk traffic is handled in
// batches and a single frame after an idle time still interrupts at once.
#define ITR_VALUE (NS_PER_SEC / 8000 / 256)

#define REG_BYTES   0x20000
#define RX_COUNT    256u
#define TX_COUNT    128u
#define BUF_BYTES   2048u
#define FRAME_BYTES 1514u // what we send: no VLAN tag, no checksum
#define MTA_WORDS   128u

struct rx_desc { // manual 3.2.3
    u64 address;
    u16 length;
    u16 checksum;
    u8 status;
    u8 errors;
    u16 special;
};
#define RX_DD  BIT(0)
#define RX_EOP BIT(1)
_Static_assert(sizeof(struct rx_desc) == 16, "manual 3.2.3");

struct tx_desc { // manual 3.3.3
    u64 address;
    u16 length;
    u8 cso;
    u8 cmd;
    u8 status;
    u8 css;
    u16 special;
};
#define TX_DD   BIT(0)
#define TX_EOP  BIT(0)
#define TX_IFCS BIT(1)
#define TX_RS   BIT(3)
_Static_assert(sizeof(struct tx_desc) == 16, "manual 3.3.3");

struct e1000 {
    volatile u8 *regs;
    volatile struct rx_desc *rx;
    volatile struct tx_desc *tx;
    u8 *rx_buffers, *tx_buffers;
    u32 rx_next;          // first descriptor not looked at yet
    u32 tx_next;          // descriptor for the next frame
    volatile bool masked; // the handler masked interrupts and irq_rearm has not run since
};
static struct e1000 the_e1000; // one host NIC

static u32 reg_read(struct e1000 *e, u32 reg)
{
    return *(volatile u32 *)(e->regs + reg);
}

static void reg_write(struct e1000 *e, u32 reg, u64 value)
{
    *(volatile u32 *)(e->regs + reg) = (u32)value;
}

static bool e1000_match(u16 vendor, u16 device)
{
    // 82540EM, 82545EM, 82546EB (copper) and 82543GC (copper): table 5-1 of the manual.
    static const u16 known[] = {0x100e, 0x100f, 0x1010, 0x1004};
    for (u32 i = 0; i < ARRAY_SIZE(known); i++)
        if (vendor == 0x8086 && device == known[i])
            return true;
    return false;
}

static void delay_us(u64 us)
{
    for (u64 end = time_ns() + us * NS_PER_US; time_ns() < end;)
        cpu_relax();
}

static void quiet(struct e1000 *e)
{
    reg_write(e, IMC, ~0u);
    reg_write(e, RCTL, 0);
    reg_write(e, TCTL, 0);
    reg_read(e, STAT); // the writes have arrived
}

// Manual 14.3. The first microsecond after a reset must pass before another access (13.4.1).
static void reset(struct e1000 *e)
{
    quiet(e);
    delay_us(10000); // DMA under way ends
    reg_write(e, CTRL, reg_read(e, CTRL) | CTRL_RST);
    delay_us(10000); // the EEPROM has been read again
    reg_write(e, IMC, ~0u);
    reg_read(e, ICR);
    u64 ctrl = reg_read(e, CTRL) | CTRL_SLU | CTRL_ASDE;
    reg_write(e, CTRL, ctrl & ~(CTRL_LRST | CTRL_PHY_RST | CTRL_ILOS | CTRL_VME));
}

static bool eeprom_read(struct e1000 *e, u32 word, u16 *out)
{
    reg_write(e, EERD, EERD_START | word << 8);
    for (int tries = 0; tries < 1000; tries++) {
        u32 v = reg_read(e, EERD);
        if (v & EERD_DONE) {
            *out = (u16)(v >> 16);
            return true;
        }
        delay_us(5);
    }
    return false;
}

static bool mac_valid(const u8 mac[6])
{
    u8 any = 0;
    for (int i = 0; i < 6; i++)
        any |= mac[i];
    return any && !(mac[0] & 1); // a station address is not a group address
}

// The EEPROM's first three words (manual 5.6.1); else what the device or firmware put in RAL/RAH.
static bool read_mac(struct e1000 *e, u8 mac[6])
{
    u16 w[3];
    bool ok = true;
    for (u32 i = 0; i < 3 && ok; i++)
        ok = eeprom_read(e, i, &w[i]);
    if (ok) {
        memcpy(mac, w, 6);
        if (mac_valid(mac))
            return true;
    }
    u32 low = reg_read(e, RAL0), high = reg_read(e, RAH0);
    memcpy(mac, &low, 4);
    memcpy(mac + 4, &high, 2);
    return mac_valid(mac);
}

static bool alloc_rings(struct e1000 *e)
{
    u64 rings = page_alloc_zero(1); // a page each, which is aligned beyond the 16 bytes needed
    u64 rx = pages_alloc(RX_COUNT * BUF_BYTES / PAGE_SIZE);
    u64 tx = pages_alloc(TX_COUNT * BUF_BYTES / PAGE_SIZE);
    _Static_assert(RX_COUNT * sizeof(struct rx_desc) <= PAGE_SIZE, "one page");
    _Static_assert(TX_COUNT * sizeof(struct tx_desc) <= PAGE_SIZE, "one page");
    if (!rings || !rx || !tx) {
        if (rings)
            page_free(rings, 1);
        if (rx)
            pages_free(rx, RX_COUNT * BUF_BYTES / PAGE_SIZE);
        if (tx)
            pages_free(tx, TX_COUNT * BUF_BYTES / PAGE_SIZE);
        return false;
    }
    e->rx = phys_ptr(rings);
    e->tx = phys_ptr(rings + PAGE_SIZE);
    e->rx_buffers = phys_ptr(rx);
    e->tx_buffers = phys_ptr(tx);
    // Firmware code may have run here, and a page that an emulator has translated code of is slow
    // to write until all of it is overwritten.
    memset(e->tx_buffers, 0, (size_t)TX_COUNT * BUF_BYTES);
    return true;
}

// Manual 14.4.
static void start_receive(struct e1000 *e)
{
    for (u32 i = 0; i < RX_COUNT; i++)
        e->rx[i].address = ptr_phys(e->rx_buffers) + (u64)i * BUF_BYTES;
    u64 base = ptr_phys((void *)e->rx);
    reg_write(e, RDBAL, base);
    reg_write(e, RDBAH, base >> 32);
    reg_write(e, RDLEN, RX_COUNT * sizeof(struct rx_desc));
    reg_write(e, RDH, 0);
    reg_write(e, RDT, RX_COUNT - 1); // the device stops before the tail: one stays ours
    reg_write(e, RDTR, 0);
    reg_write(e, RCTL, RCTL_EN | RCTL_BAM | RCTL_SECRC);
}

// Manual 14.5.
static void start_transmit(struct e1000 *e)
{
    for (u32 i = 0; i < TX_COUNT; i++) {
        e->tx[i].address = ptr_phys(e->tx_buffers) + (u64)i * BUF_BYTES;
        e->tx[i].status = TX_DD;
    }
    u64 base = ptr_phys((void *)e->tx);
    reg_write(e, TDBAL, base);
    reg_write(e, TDBAH, base >> 32);
    reg_write(e, TDLEN, TX_COUNT * sizeof(struct tx_desc));
    reg_write(e, TDH, 0);
    reg_write(e, TDT, 0);
    reg_write(e, TIPG, TIPG_VALUE);
    reg_write(e, TCTL, TCTL_EN | TCTL_PSP | TCTL_CT | TCTL_COLD);
}

static void set_address(struct e1000 *e, const u8 mac[6])
{
    u32 low, high = 0;
    memcpy(&low, mac, 4);
    memcpy(&high, mac + 4, 2);
    reg_write(e, RAL0, low);
    reg_write(e, RAH0, high | RAH_AV);
    for (u32 i = 0; i < MTA_WORDS; i++)
        reg_write(e, MTA + 4 * i, 0);
}

static void e1000_interrupt(void *arg)
{
    struct nic *n = arg;
    struct e1000 *e = n->priv;
    if (!reg_read(e, ICR)) // another device on the same line; reading acknowledges
        return;
    n->irqs++;
    reg_write(e, IMC, ~0u);
    e->masked = true;
    n->rx_ready(n);
}

static int e1000_start(struct nic *n, u16 bdf)
{
    struct e1000 *e = &the_e1000;
    e->regs = nic_map_bar(bdf, 0, REG_BYTES);
    if (!e->regs) {
        log_error("net", "e1000 at PCI %02x:%02x.%x: BAR 0 is no memory BAR with an address",
                  bdf >> 8, bdf >> 3 & 31, bdf & 7);
        return E_IO;
    }
    n->priv = e;
    n->mtu = 1500;
    reset(e);
    if (!read_mac(e, n->mac)) {
        log_error("net", "e1000 has no MAC address: neither its EEPROM nor RAL0 holds a valid one");
        return E_IO;
    }
    if (!alloc_rings(e)) {
        log_error("net", "no memory for the e1000's rings (%u KiB wanted)",
                  (RX_COUNT + TX_COUNT) * BUF_BYTES / 1024 + 8);
        return E_NOMEM;
    }
    set_address(e, n->mac);
    start_transmit(e);
    start_receive(e);
    nic_connect_irq(n, bdf, e1000_interrupt, n);
    reg_write(e, ITR, ITR_VALUE);
    if (!n->polled)
        reg_write(e, IMS, INT_WANTED);
    return 0;
}

static bool e1000_link_up(struct nic *n)
{
    struct e1000 *e = n->priv;
    n->rx_dropped += reg_read(e, MPC);
    n->rx_errors += reg_read(e, CRCERRS) + reg_read(e, RLEC);
    return reg_read(e, STAT) & STAT_LU;
}

// Manual 13.5.1: with RCTL.MO 0, bits 47:36 of the address pick one of 4096 bits.
static void e1000_set_filter(struct nic *n, const u8 (*multicast)[6], u32 count, bool promiscuous)
{
    struct e1000 *e = n->priv;
    u32 table[MTA_WORDS] = {0};
    for (u32 i = 0; i < count; i++) {
        u32 hash = multicast[i][4] >> 4 | (u32)multicast[i][5] << 4;
        table[hash >> 5] |= 1u << (hash & 31);
    }
    for (u32 i = 0; i < MTA_WORDS; i++)
        reg_write(e, MTA + 4 * i, table[i]);
    u32 rctl = (u32)(RCTL_EN | RCTL_BAM | RCTL_SECRC);
    if (promiscuous)
        rctl |= (u32)(RCTL_UPE | RCTL_MPE);
    // QEMU's model receives nothing for a second after every write.
    if (reg_read(e, RCTL) != rctl)
        reg_write(e, RCTL, rctl);
}

static int e1000_transmit(struct nic *n, const void *frame, u32 bytes)
{
    struct e1000 *e = n->priv;
    u32 i = e->tx_next, after = (i + 1) % TX_COUNT;
    if (bytes > FRAME_BYTES)
        return E_INVAL;
    // One descriptor stays free, for a full ring would look like an empty one (manual 3.4).
    if (!(e->tx[i].status & TX_DD) || !(e->tx[after].status & TX_DD))
        return E_BUSY;
    memcpy(e->tx_buffers + (u64)i * BUF_BYTES, frame, bytes);
    e->tx[i].length = (u16)bytes;
    e->tx[i].status = 0;
    e->tx[i].cmd = TX_EOP | TX_IFCS | TX_RS;
    e->tx_next = after;
    __asm__ volatile("" : : : "memory"); // the frame is in memory before the device is told
    reg_write(e, TDT, after);
    n->tx_frames++;
    n->tx_bytes += bytes;
    return 0;
}

// A frame that spans descriptors would be longer than any we allow: each of its parts is an error.
static void receive_one(struct nic *n, struct e1000 *e, u32 i,
                        void (*deliver)(struct nic *n, const void *frame, u32 bytes))
{
    u16 length = e->rx[i].length;
    u8 status = e->rx[i].status, errors = e->rx[i].errors;
    if (!(status & RX_EOP) || errors || length == 0 || length > BUF_BYTES) {
        n->rx_errors++;
        return;
    }
    n->rx_frames++;
    n->rx_bytes += length;
    deliver(n, e->rx_buffers + (u64)i * BUF_BYTES, length);
}

static int e1000_poll(struct nic *n, int budget,
                      void (*deliver)(struct nic *n, const void *frame, u32 bytes))
{
    struct e1000 *e = n->priv;
    int done = 0;
    while (done < budget && (e->rx[e->rx_next].status & RX_DD)) {
        u32 i = e->rx_next;
        __asm__ volatile("" : : : "memory"); // DD is read before what it vouches for
        receive_one(n, e, i, deliver);
        e->rx[i].status = 0;
        e->rx_next = (i + 1) % RX_COUNT;
        done++;
    }
    if (done > 0)
        reg_write(e, RDT, (e->rx_next + RX_COUNT - 1) % RX_COUNT);
    return done;
}

static void e1000_irq_rearm(struct nic *n)
{
    struct e1000 *e = n->priv;
    if (!e->masked)
        return;
    e->masked = false; // before the unmask: the next interrupt sets it again
    reg_write(e, IMS, INT_WANTED);
}

static void e1000_stop(struct nic *n)
{
    quiet(n->priv);
}

const struct nic_ops e1000_nic = {
    .name = "e1000",
    .match = e1000_match,
    .start = e1000_start,
    .link_up = e1000_link_up,
    .set_filter = e1000_set_filter,
    .transmit = e1000_transmit,
    .poll = e1000_poll,
    .irq_rearm = e1000_irq_rearm,
    .stop = e1000_stop,
};
