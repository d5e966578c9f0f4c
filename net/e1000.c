// SPDX-License-Identifier: MIT
// Intel 82540EM and its close relatives, and the descriptors they share with the 82574.
// Sections are the 82540EM manual's (intel.h).
#include "net/intel.h"

#include "kernel/lib.h"
#include "kernel/time.h"

#define EERD_START BIT(0) // 13.4.4
#define EERD_DONE  BIT(4)
#define CTRL_ASDE  BIT(5) // 13.4.1
#define CTRL_ILOS  BIT(7)
#define ITR_VALUE  (NS_PER_SEC / INTERRUPTS_MOST / 256) // 13.4.18: in units of 256 ns
#define MTU_MOST   (16110u - 18)                        // 13.4.22, RCTL.LPE: 16384 in a buffer

// Receive descriptor, 3.2.3: length 15:0, status 39:32, errors 47:40 of the word.
#define RX_DD    BIT(32)
#define RX_EOP   BIT(33)
#define RX_IXSM  BIT(34)
#define RX_TCPCS BIT(37)
#define RX_TCPE  BIT(45)
#define RX_BAD   (BIT(40) | BIT(41) | BIT(42) | BIT(44) | BIT(47)) // CE, SE, SEQ, CXE, RXE
// Transmit descriptors, 3.3.6 and 3.3.7: command 31:24 and POPTS 47:40 of the word.
#define TX_DATA     (1ull << 20)
#define TX_EOP      BIT(24)
#define TX_IFCS     BIT(25)
#define TX_TSE      BIT(26)
#define TX_RS       BIT(27)
#define TX_DEXT     BIT(29)
#define TX_IXSM     BIT(40)
#define TX_TXSM     BIT(41)
#define CONTEXT_TCP BIT(24)
#define CONTEXT_IP4 BIT(25)
#define CONTEXT_TSE BIT(26)
#define IP4_HEADER  20
#define IP4_SUM     10 // offset of the header's checksum

static struct intel the_e1000; // one host NIC

static bool e1000_match(u16 vendor, u16 device)
{
    // 82540EM, 82545EM, 82546EB (copper) and 82543GC (copper): table 5-1 of the manual.
    static const u16 known[] = {0x100e, 0x100f, 0x1010, 0x1004};
    for (u32 i = 0; i < ARRAY_SIZE(known); i++)
        if (vendor == 0x8086 && device == known[i])
            return true;
    return false;
}

static void parse(u64 word, struct intel_rx *rx)
{
    rx->bytes = (u16)word;
    rx->end = word & RX_EOP;
    rx->bad = word & RX_BAD;
    rx->sum_ok = (word & (RX_IXSM | RX_TCPCS | RX_TCPE)) == RX_TCPCS;
}

static struct intel_desc context(const struct nic_frame *f)
{
    // Offsets: where a sum begins, where it goes, and its last byte (0: the packet's end).
    u64 ip = ETHERNET_HEADER | (ETHERNET_HEADER + IP4_SUM) << 8 |
             (u64)(ETHERNET_HEADER + IP4_HEADER - 1) << 16;
    u64 l4 = f->l4_offset | f->sum_offset << 8;
    u64 word = TX_DEXT;
    if (f->segment_bytes)
        word |= CONTEXT_TCP | CONTEXT_IP4 | CONTEXT_TSE | (f->bytes - f->header_bytes) |
                (u64)f->header_bytes << 40 | (u64)f->segment_bytes << 48;
    return (struct intel_desc){ip | l4 << 32, word};
}

static u64 data(const struct nic_frame *f, u32 bytes, bool last)
{
    u64 word = bytes | TX_DATA | TX_DEXT | TX_IFCS;
    if (f->l4_offset)
        word |= TX_TXSM;
    if (f->segment_bytes)
        word |= TX_TSE | TX_IXSM;
    return word | (last ? TX_EOP | TX_RS : 0);
}

const struct intel_format e1000_format = {
    .rx_regs = 0x2800,
    .tx_regs = 0x3800,
    .rx_done = RX_DD,
    .parse = parse,
    .context = context,
    .data = data,
};

static bool eeprom_read(struct intel *e, u32 word, u16 *out)
{
    intel_write(e, INTEL_EERD, EERD_START | word << 8);
    for (int tries = 0; tries < 1000; tries++) {
        u32 v = intel_read(e, INTEL_EERD);
        if (v & EERD_DONE) {
            *out = (u16)(v >> 16);
            return true;
        }
        time_delay_us(5);
    }
    return false;
}

// The EEPROM's first three words (5.6.1); else what the device or firmware put in RAL0.
static int read_mac(struct nic *n, struct intel *e)
{
    u16 w[3];
    bool ok = true;
    for (u32 i = 0; i < 3 && ok; i++)
        ok = eeprom_read(e, i, &w[i]);
    if (ok)
        memcpy(n->mac, w, 6);
    return ok && nic_mac_valid(n->mac) ? 0 : intel_read_mac(n, e);
}

static int e1000_start(struct nic *n, u16 bdf)
{
    struct intel *e = &the_e1000;
    int r = intel_open(n, e, bdf, &e1000_format);
    if (r)
        return r;
    nic_limit_mtu(n, MTU_MOST);
    intel_reset(e);
    u64 ctrl = intel_read(e, INTEL_CTRL) | CTRL_ASDE;
    intel_write(e, INTEL_CTRL, ctrl & ~CTRL_ILOS);
    if ((r = read_mac(n, e)) || (r = intel_make_rings(n, e)))
        return r;
    intel_write(e, INTEL_TIPG, TIPG_COPPER);
    intel_start_rings(n, e);
    intel_post_all(e);
    nic_connect_irq(n, bdf, intel_interrupt);
    intel_write(e, INTEL_ITR, ITR_VALUE);
    if (n->interrupt != PCI_POLLED)
        intel_write(e, INTEL_IMS, e->causes);
    return 0;
}

const struct nic_ops e1000_nic = {
    .name = "e1000",
    .match = e1000_match,
    .start = e1000_start,
    .link_up = intel_link_up,
    .set_filter = intel_set_filter,
    .has_room = intel_has_room,
    .transmit = intel_transmit,
    .flush = intel_flush,
    .poll = intel_poll,
    .irq_rearm = intel_irq_rearm,
    .stop = intel_stop,
};
