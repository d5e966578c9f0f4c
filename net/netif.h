// SPDX-License-Identifier: MIT
// The host's one lwIP interface: its NIC's frames, its addresses.
#ifndef SKIFF_NET_NETIF_H
#define SKIFF_NET_NETIF_H

#include "lwip/ip_addr.h"

#include "net/net.h"

// On the network thread, after lwip_init.
void netif_start(struct nic *n, const struct host_config *cfg);
// One received frame, copied; called by the driver's poll.
void netif_receive(struct nic *n, const void *frame, u32 bytes);
// A frame found no room in the NIC since the last call: senders must be tried again.
bool netif_send_was_refused(void);
bool netif_link_is_up(void);
void netif_get_info(struct net_info *out);

void address_to_lwip(const struct ip_address *a, ip_addr_t *out);
void address_from_lwip(const ip_addr_t *a, u8 prefix, struct ip_address *out);

#endif
