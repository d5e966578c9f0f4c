// SPDX-License-Identifier: MIT
// Finding the host's NIC, and what its drivers need from the PCI bus.
#ifndef SKIFF_NET_NIC_H
#define SKIFF_NET_NIC_H

#include "net/net.h"

// Starts the first NIC that a driver knows. Returns 0, E_NOENT when there is none, or the driver's
// error (logged).
int nic_probe(struct nic *n);

// Lets the device answer memory accesses and write to memory; maps its memory BAR. NULL when the
// BAR is not a memory BAR or has no address.
void *nic_map_bar(u16 bdf, u32 index, u64 bytes);
// Connects the function's interrupt pin. Without a usable line n->polled is set instead.
void nic_connect_irq(struct nic *n, u16 bdf, void (*handler)(void *arg), void *arg);

#endif
