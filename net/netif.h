// SPDX-License-Identifier: MIT
// The host's one lwIP interface: its NIC's frames, its addresses.
#ifndef SKIFF_NET_NETIF_H
#define SKIFF_NET_NETIF_H

#include "lwip/ip_addr.h"

#include "net/nic.h"

// On the network thread, after lwip_init.
void netif_start(struct nic *n, const struct host_config *cfg);
// Whether the host listens to this destination address.
bool netif_wants(const u8 mac[6]);
bool netif_link_is_up(void);
void netif_get_info(struct net_info *out);

struct tcp_pcb;
// Bytes of data in the packets of a connection whose segments may be longer (tcp.c).
u16 tcp_segment_bytes(const struct tcp_pcb *pcb);
// Whether the NIC cuts TCP segments into packets.
bool netif_can_segment(void);

void address_to_lwip(const struct ip_address *a, ip_addr_t *out);
void address_from_lwip(const ip_addr_t *a, u8 prefix, struct ip_address *out);

#endif
