// SPDX-License-Identifier: MIT
// Places where lwIP asks the host: the static IPv6 gateway and TCP's initial sequence numbers.
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

#endif
