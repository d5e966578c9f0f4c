// SPDX-License-Identifier: MIT
// A NIC driver: one file behind one const struct. Buffers, and what all drivers need from the PCI
// bus.
#ifndef SKIFF_NET_NIC_H
#define SKIFF_NET_NIC_H

#include "lwip/pbuf.h"

#include "arch/x86/cpu.h"
#include "net/net.h"

#define ETHERNET_HEADER 14u
#define MIN_FRAME       60u // IEEE 802.3, 3.2.7; every buffer holds one

struct nic;

struct nic_pool;

// One receive buffer. lwIP knows it as a pbuf and may keep it for a while, so a driver that has
// given one away posts another one to its device.
struct nic_buffer {
    struct pbuf_custom pbuf; // first
    struct nic_pool *pool;
    struct nic_buffer *next; // in the list of free ones
    u8 data[] __attribute__((aligned(16)));
};

// Network thread only, as all below. nic_buffers_init: the NIC's pool, `count` buffers of `bytes`.
int nic_buffers_init(u32 count, u32 bytes);
struct nic_buffer *nic_buffer_get(void); // NULL: none is free
void nic_buffer_put(struct nic_buffer *b);
// Part of the buffer as a pbuf; pbuf_free puts the buffer back.
struct pbuf *nic_buffer_pbuf(struct nic_buffer *b, u32 from, u32 bytes);

// Frames that this host makes, guests' among them, live in a pool of their own. The first pbuf has
// room for FRAME_HEADROOM bytes before it, and for all headers.
#define FRAME_HEADROOM 16u
u64 nic_pools_bytes(void);           // of memory
int frame_pool_init(void);           // E_NOMEM; nothing to do when it is there already
struct pbuf *frame_alloc(u32 bytes); // up to 65535, not cleared; NULL: the pool is empty

// A frame on its way, and what its receiver shall still do with it.
struct nic_frame {
    struct pbuf *pbuf; // all headers lie in the first one
    u32 bytes;
    // 0, or where TCP's or UDP's header begins: the device makes the sum at sum_offset over all
    // from there; the field holds the pseudo header's sum (not inverted, as RFC 1071's partial
    // sum).
    u32 l4_offset, sum_offset;
    // 0, or: the frame is longer than the link takes, and the device cuts the TCP segment behind
    // its header_bytes of headers into segments of this many bytes. NICs: IPv4 only.
    u32 segment_bytes, header_bytes;
    bool sum_ok; // TCP's or UDP's checksum was verified
};

enum nic_rx_flags {
    NIC_RX_END = 1 << 0,    // the frame's last buffer
    NIC_RX_SUM_OK = 1 << 1, // with END: the device has verified TCP's or UDP's checksum
};

// All calls on the network thread, but the interrupt handler that `start` connects, which calls
// rx_ready to wake it.
struct nic_ops {
    const char *name;
    bool (*match)(u16 vendor, u16 device);
    // n->mtu holds what is wanted and is lowered to what the device can; fills mac and the can_
    // flags, connects the interrupt, posts receive buffers.
    int (*start)(struct nic *n, u16 bdf);
    // Whether the cable carries a link; adds the device's own error counters to n's. A few times a
    // second.
    bool (*link_up)(struct nic *n);
    // Receive these multicast addresses (all of them when count is beyond what the device can
    // filter), and with promiscuous every frame there is.
    void (*set_filter)(struct nic *n, const u8 (*multicast)[6], u32 count, bool promiscuous);
    // Whether the ring has room for a frame of any kind. Lets go of frames that are sent.
    bool (*has_room)(struct nic *n);
    // Queues a frame without copying it: keeps a reference to its pbuf until it is sent. E_BUSY
    // when the ring is full.
    int (*transmit)(struct nic *n, const struct nic_frame *f);
    void (*flush)(struct nic *n); // tells the device of what transmit has queued since
    // Hands the buffers of up to `budget` received frames to nic_received, posts new ones; returns
    // how many frames. Lets go of frames that are sent.
    int (*poll)(struct nic *n, int budget);
    // After rx_ready: interrupts may come again. True when something has arrived meanwhile.
    bool (*irq_rearm)(struct nic *n);
    void (*stop)(struct nic *n); // quiet the device before reboot
};
struct nic {
    const struct nic_ops *ops;
    u8 mac[6];
    u32 mtu; // bytes of an IP packet
    bool can_sum, can_check, can_segment;
    enum pci_interrupt interrupt; // polled: the network thread looks every millisecond
    void *priv;
    void (*rx_ready)(struct nic *n);
    u64 rx_frames, rx_bytes, rx_dropped, rx_errors, tx_frames, tx_bytes, tx_dropped, irqs;
};
extern const struct nic_ops e1000_nic, e1000e_nic, igb_nic, virtio_nic;

// Starts the first NIC that a driver knows. Returns 0, E_NOENT when there is none, or the driver's
// error (logged).
int nic_probe(struct nic *n);

// For drivers. What one buffer holds of a received frame (uplink.c); without END the next call goes
// on with that frame. Takes the buffer over.
void nic_received(struct nic *n, struct nic_buffer *b, u32 from, u32 bytes, u32 flags);
// Before the call with END: the frame came with its sum left out or not cut up, as it says.
void nic_received_partial(const struct nic_frame *f);
// Gives up the frame whose last buffer is not there yet.
void nic_receive_failed(struct nic *n);

// Connects the function's interrupt and sets n->interrupt.
void nic_connect_irq(struct nic *n, u16 bdf, void (*handler)(void *arg));
// Lowers n->mtu, and says so, where the device cannot carry as much.
void nic_limit_mtu(struct nic *n, u32 most);
bool nic_mac_valid(const u8 mac[6]);

#endif
