// SPDX-License-Identifier: MIT
// Places where lwIP asks the host: the static IPv6 gateway, TCP's initial sequence numbers, and
// segments for the device to cut up.
#ifndef SKIFF_LWIP_HOOKS_H
#define SKIFF_LWIP_HOOKS_H

#include "lwip/ip_addr.h"

struct netif;
const ip6_addr_t *lwip_port_gateway6(struct netif *netif, const ip6_addr_t *dest);
#define LWIP_HOOK_ND6_GET_GW(netif, dest) lwip_port_gateway6(netif, dest)

u32_t lwip_port_isn(const ip_addr_t *local_ip, u16_t local_port, const ip_addr_t *remote_ip,
                    u16_t remote_port);
#define LWIP_HOOK_TCP_ISN(local_ip, local_port, remote_ip, remote_port)                            \
    lwip_port_isn(local_ip, local_port, remote_ip, remote_port)

struct pbuf;
struct tcp_pcb;
// Called with each segment right before IP gets it (netif.c).
u32_t *lwip_port_segment(struct pbuf *segment, const struct tcp_pcb *pcb, u32_t *options);
#define LWIP_HOOK_TCP_OUT_ADD_TCPOPTS(p, hdr, pcb, opts) lwip_port_segment(p, pcb, opts)

#endif
