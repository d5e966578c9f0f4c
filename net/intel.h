// SPDX-License-Identifier: MIT
// What Intel's gigabit controllers have in common: registers, one ring each way, their filter.
#ifndef SKIFF_NET_INTEL_H
#define SKIFF_NET_INTEL_H

#include "net/nic.h"

#define INTEL_RING    256u
#define INTEL_BUFFER  2048u              // RCTL.BSIZE 0; a longer frame takes several descriptors
#define INTEL_BUFFERS (INTEL_RING + 512) // what is posted, and what lwIP may hold back

// Registers that all of them have at the same place with the same meaning ("82540EM" is Intel's
// PCI/PCI-X Family of Gigabit Ethernet Controllers Software Developer's Manual, 317453, table
// 13-2).
#define INTEL_CTRL     0x0000
#define INTEL_STATUS   0x0008
#define INTEL_EERD     0x0014
#define INTEL_CTRL_EXT 0x0018
#define INTEL_ICR      0x00c0
#define INTEL_ITR      0x00c4
#define INTEL_IMS      0x00d0
#define INTEL_IMC      0x00d8
#define INTEL_RCTL     0x0100
#define INTEL_TCTL     0x0400
#define INTEL_TIPG     0x0410
#define INTEL_RXCSUM   0x5000

#define CTRL_LRST       BIT(3) // 82540EM 13.4.1
#define CTRL_SLU        BIT(6)
#define CTRL_RST        BIT(26)
#define CTRL_VME        BIT(30)
#define CTRL_PHY_RST    BIT(31)
#define RCTL_EN         BIT(1) // 13.4.22
#define RCTL_UPE        BIT(3)
#define RCTL_MPE        BIT(4)
#define RCTL_LPE        BIT(5)
#define RCTL_BAM        BIT(15)
#define RCTL_SECRC      BIT(26)
#define TCTL_EN         BIT(1) // 13.4.33
#define TCTL_PSP        BIT(3)
#define TCTL_CT         (0x0full << 4)
#define TCTL_COLD       (0x40ull << 12)
#define TIPG_COPPER     (10 | 8 << 10 | 6 << 20) // 13.4.34
#define INT_RXDMT0      BIT(4)                   // 13.4.17
#define INT_RXO         BIT(6)
#define INT_RXT0        BIT(7)
#define INTERRUPTS_MOST 8000 // a second: bulk traffic is handled in batches

// A descriptor of either ring and any format.
struct intel_desc {
    u64 address;
    u64 word;
};
_Static_assert(sizeof(struct intel_desc) == 16, "82540EM 3.2.3");

struct intel_rx { // a receive descriptor that the device has written back
    u32 bytes;
    bool end, bad, sum_ok;
};

// How a family of controllers writes its descriptors.
struct intel_format {
    u32 rx_regs, tx_regs; // queue 0: BAL, BAH +4, LEN +8, H +10h, T +18h
    u64 rx_done;          // bit of a receive descriptor's word
    void (*parse)(u64 word, struct intel_rx *rx);
    struct intel_desc (*context)(const struct nic_frame *f);
    u64 (*data)(const struct nic_frame *f, u32 bytes, bool last); // a data descriptor's word
};
extern const struct intel_format e1000_format; // 82540EM to 82574

struct intel {
    const struct intel_format *format;
    volatile u8 *regs;
    volatile struct intel_desc *rx, *tx;
    struct nic_buffer *rx_buffer[INTEL_RING];
    struct pbuf *tx_pbuf[INTEL_RING]; // of the frame that begins with this descriptor
    u16 tx_last[INTEL_RING];          // its last descriptor
    u32 rx_next;                      // first descriptor not looked at yet
    u32 rx_unposted;                  // descriptors before it that the device does not know of
    u32 tx_next, tx_told, tx_clean;
    u32 rctl;
    u32 causes, cause_set, cause_clear; // interrupts wanted; registers that unmask and mask them
    volatile bool masked; // the handler masked interrupts and irq_rearm has not run since
};

static inline u32 intel_read(struct intel *e, u32 reg)
{
    return *(volatile u32 *)(e->regs + reg);
}
static inline void intel_write(struct intel *e, u32 reg, u64 value)
{
    *(volatile u32 *)(e->regs + reg) = (u32)value;
}

// The steps of a start, in this order: maps and resets; finds the address (read from RAL0, where
// the device or firmware put it); makes rings and buffers and starts both ways.
int intel_open(struct nic *n, struct intel *e, u16 bdf, const struct intel_format *format);
void intel_reset(struct intel *e);
int intel_read_mac(struct nic *n, struct intel *e);
int intel_make_rings(struct nic *n, struct intel *e);
void intel_start_rings(struct nic *n, struct intel *e);
// Tells the device of all receive buffers: after its queue is enabled.
void intel_post_all(struct intel *e);
void intel_interrupt(void *nic); // the handler

// Members of struct nic_ops.
bool intel_link_up(struct nic *n);
void intel_set_filter(struct nic *n, const u8 (*multicast)[6], u32 count, bool promiscuous);
bool intel_has_room(struct nic *n);
int intel_transmit(struct nic *n, const struct nic_frame *f);
void intel_flush(struct nic *n);
int intel_poll(struct nic *n, int budget);
bool intel_irq_rearm(struct nic *n);
void intel_stop(struct nic *n);

#endif
