// SPDX-License-Identifier: MIT
// A guest's network card, as the console and a move see it.
#ifndef SKIFF_NET_GUEST_NIC_H
#define SKIFF_NET_GUEST_NIC_H

#include "kernel/guest/device.h"

extern const struct device_ops guest_nic_device;

struct switch_figures {
    u64 rx_frames, rx_bytes, tx_frames, tx_bytes; // as the guest sees it
    u64 rx_dropped;                               // no room in time
    u64 wrong_source; // sent with a MAC that is not the guest's, or with a tag of its own
    u64 tx_refused;   // malformed, too long, to addresses that a bridge keeps to itself, floods
};

// NULL: the guest has no network card, or there is no network.
struct switch_port;
struct switch_port *guest_nic_port(struct guest *g);
// A frame for the guest that reached another host. The guest's lock held.
void guest_nic_receive(struct guest *g, const void *frame, u32 bytes);
// False: the guest has no network card just now. guests_lock or the guest's lock held.
bool guest_nic_figures(struct guest *g, struct switch_figures *out);

#endif
