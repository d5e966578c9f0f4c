// SPDX-License-Identifier: MIT
// Intel 82576: advanced descriptors, and queues that are enabled one by one.
// Sections are those of the 82576 Gigabit Ethernet Controller Datasheet, revision 2.63.
#include "net/intel.h"

#include "kernel/lib.h"
#include "kernel/log.h"
#include "kernel/time.h"

#define CTRL_GIO_MASTER_DISABLE BIT(2)  // 8.2.1
#define STATUS_GIO_MASTER       BIT(19) // 8.2.2
#define CTRL_EXT_DRV_LOAD       BIT(28) // 8.2.3
#define MDIC                    0x0020  // 8.2.4: data 15:0, register 20:16, PHY 25:21
#define MDIC_PHY                (1ull << 21)
#define MDIC_WRITE              BIT(26)
#define MDIC_READ               BIT(27)
#define MDIC_READY              BIT(28)
#define PHY_CONTROL             0 // IEEE 802.3, 22.2.4.1
#define PHY_NEGOTIATE           BIT(12)
#define PHY_RESTART_NEGOTIATION BIT(9)
#define RLPML                   0x5004 // 8.10.3: the longest frame with RCTL.LPE
#define RX_QUEUE                0xc000 // 8.10.5 to 8.10.9
#define SRRCTL                  (RX_QUEUE + 0x0c)
#define RXDCTL                  (RX_QUEUE + 0x28)
#define TX_QUEUE                0xe000 // 8.12.8 to 8.12.14
#define TXDCTL                  (TX_QUEUE + 0x28)
#define QUEUE_ENABLE            BIT(25)
#define SRRCTL_2K               2ull // in KiB
#define SRRCTL_ADVANCED         (1ull << 25)
#define GPIE                    0x1514 // 8.8.14
#define GPIE_MULTIPLE_MSIX      BIT(4)
#define GPIE_EIAME              BIT(30)
#define GPIE_PBA                BIT(31)
#define EIMS                    0x1524 // 8.8.3
#define EIMC                    0x1528 // 8.8.4
#define EIAC                    0x152c // 8.8.5
#define EIAM                    0x1530 // 8.8.6
#define EITR0                   0x1680 // 8.8.12: interval in microseconds, bits 14:2
#define IVAR0                   0x1700 // 8.8.13: receive queue 0, bits 7:0
#define IVAR_VALID              BIT(7)
#define EITR_VALUE              (1000000u / INTERRUPTS_MOST << 2)
#define MTU_MOST                9500u // 1.4: frames of up to 9.5 KiB

// Receive descriptor as written back, 7.1.5: status and errors 31:0, length 47:32 of the word.
#define RX_DD   BIT(0)
#define RX_EOP  BIT(1)
#define RX_IXSM BIT(2)
#define RX_L4I  BIT(5)
#define RX_L4E  BIT(29)
#define RX_RXE  BIT(31)
// Transmit descriptors, 7.2.2.
#define TX_CONTEXT     (2ull << 20)
#define TX_DATA        (3ull << 20)
#define TX_EOP         BIT(24)
#define TX_IFCS        BIT(25)
#define TX_RS          BIT(27)
#define TX_DEXT        BIT(29)
#define TX_TSE         BIT(31)
#define TX_IXSM        BIT(40)
#define TX_TXSM        BIT(41)
#define CONTEXT_IP4    BIT(10)
#define CONTEXT_TCP    BIT(11)
#define TCP_SUM_OFFSET 16u // of the field in the header; UDP's is at 6

static struct intel the_igb; // one host NIC

static bool igb_match(u16 vendor, u16 device)
{
    return vendor == 0x8086 && device == 0x10c9; // 82576, copper
}

static void parse(u64 word, struct intel_rx *rx)
{
    rx->bytes = (u16)(word >> 32);
    rx->end = word & RX_EOP;
    rx->bad = word & RX_RXE;
    rx->sum_ok = (word & (RX_IXSM | RX_L4I | RX_L4E)) == RX_L4I;
}

static bool is_ip4(const struct nic_frame *f)
{
    return ((const u8 *)f->pbuf->payload)[ETHERNET_HEADER] >> 4 == 4;
}

static struct intel_desc context(const struct nic_frame *f)
{
    u64 lengths = (f->l4_offset - ETHERNET_HEADER) | ETHERNET_HEADER << 9;
    u64 word = TX_CONTEXT | TX_DEXT | (is_ip4(f) ? CONTEXT_IP4 : 0);
    if (f->sum_offset - f->l4_offset == TCP_SUM_OFFSET)
        word |= CONTEXT_TCP;
    if (f->segment_bytes)
        word |= (u64)(f->header_bytes - f->l4_offset) << 40 | (u64)f->segment_bytes << 48;
    return (struct intel_desc){lengths, word};
}

static u64 data(const struct nic_frame *f, u32 bytes, bool last)
{
    u64 word = bytes | TX_DATA | TX_DEXT | TX_IFCS;
    if (f->l4_offset)
        word |= TX_TXSM;
    if (f->segment_bytes)
        word |= TX_TSE | TX_IXSM;
    word |= (u64)(f->bytes - (f->segment_bytes ? f->header_bytes : 0)) << 46; // PAYLEN
    return word | (last ? TX_EOP | TX_RS : 0);
}

static const struct intel_format igb_format = {
    .rx_regs = RX_QUEUE,
    .tx_regs = TX_QUEUE,
    .rx_done = RX_DD,
    .parse = parse,
    .context = context,
    .data = data,
};

// 4.3.1: no request of ours may be under way when the device is reset.
static void disable_master(struct intel *e)
{
    intel_write(e, INTEL_CTRL, intel_read(e, INTEL_CTRL) | CTRL_GIO_MASTER_DISABLE);
    for (int tries = 0; tries < 800 && intel_read(e, INTEL_STATUS) & STATUS_GIO_MASTER; tries++)
        time_delay_us(100);
}

// Returns the register's value, with an operation that is over.
static u32 phy_access(struct intel *e, u64 operation, u32 reg, u64 value)
{
    intel_write(e, MDIC, operation | MDIC_PHY | reg << 16 | value);
    for (int tries = 0; tries < 100; tries++) {
        u32 v = intel_read(e, MDIC);
        if (v & MDIC_READY)
            return (u16)v;
        time_delay_us(50);
    }
    return 0;
}

// The link comes up by itself after a reset of the PHY, which a reset of the device is not.
static void negotiate_link(struct intel *e)
{
    u64 control = phy_access(e, MDIC_READ, PHY_CONTROL, 0);
    phy_access(e, MDIC_WRITE, PHY_CONTROL, control | PHY_NEGOTIATE | PHY_RESTART_NEGOTIATION);
}

static bool enable_queue(struct intel *e, u32 control)
{
    intel_write(e, control, intel_read(e, control) | QUEUE_ENABLE);
    for (int tries = 0; tries < 100; tries++) {
        if (intel_read(e, control) & QUEUE_ENABLE)
            return true;
        time_delay_us(100);
    }
    return false;
}

// 7.3.2: one message for the receive queue; it clears and masks its cause. Other causes stay
// masked, since the link is looked at by the clock.
static void start_interrupts(struct nic *n, struct intel *e)
{
    intel_write(e, INTEL_CTRL_EXT, intel_read(e, INTEL_CTRL_EXT) | CTRL_EXT_DRV_LOAD);
    if (n->interrupt != PCI_MSIX) {
        n->interrupt = PCI_POLLED;
        log_warn("net", "igb has no MSI-X: polling it every millisecond");
        return;
    }
    e->causes = 1;
    e->cause_set = EIMS;
    e->cause_clear = EIMC;
    intel_write(e, GPIE, GPIE_MULTIPLE_MSIX | GPIE_EIAME | GPIE_PBA);
    intel_write(e, IVAR0, IVAR_VALID);
    intel_write(e, EITR0, EITR_VALUE);
    intel_write(e, EIAC, 1);
    intel_write(e, EIAM, 1);
    intel_write(e, EIMS, 1);
}

static int igb_start(struct nic *n, u16 bdf)
{
    struct intel *e = &the_igb;
    int r = intel_open(n, e, bdf, &igb_format);
    if (r)
        return r;
    nic_limit_mtu(n, MTU_MOST);
    disable_master(e);
    intel_write(e, EIMC, ~0u);
    intel_reset(e);
    if ((r = intel_read_mac(n, e)) || (r = intel_make_rings(n, e)))
        return r;
    negotiate_link(e);
    intel_write(e, RLPML, n->mtu + ETHERNET_HEADER + 4);
    intel_write(e, SRRCTL, SRRCTL_2K | SRRCTL_ADVANCED);
    intel_start_rings(n, e);
    if (!enable_queue(e, RXDCTL) || !enable_queue(e, TXDCTL)) {
        log_error("net", "igb does not enable its queues");
        return E_IO;
    }
    intel_post_all(e); // only to an enabled queue (8.10.8)
    nic_connect_irq(n, bdf, intel_interrupt);
    start_interrupts(n, e);
    return 0;
}

const struct nic_ops igb_nic = {
    .name = "igb",
    .match = igb_match,
    .start = igb_start,
    .link_up = intel_link_up,
    .set_filter = intel_set_filter,
    .has_room = intel_has_room,
    .transmit = intel_transmit,
    .flush = intel_flush,
    .poll = intel_poll,
    .irq_rearm = intel_irq_rearm,
    .stop = intel_stop,
};
