// SPDX-License-Identifier: MIT
// Joins TCP segments of one poll that continue each other, so that lwIP sees, and acknowledges, a
// few long ones. Network thread only.
#ifndef SKIFF_NET_GRO_H
#define SKIFF_NET_GRO_H

#include "lwip/pbuf.h"

#include "kernel/types.h"

// A whole Ethernet frame from the NIC; sum_ok: its TCP or UDP checksum is verified. It goes on to
// gro_deliver at once, joined with others at a later call, or at the next gro_flush; the order of
// frames stays.
void gro_receive(struct pbuf *p, bool sum_ok);
void gro_flush(void);

// Where frames go on to (netif.c). Takes p over.
void gro_deliver(struct pbuf *p, bool sum_ok);

#endif
