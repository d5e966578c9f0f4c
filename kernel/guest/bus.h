// SPDX-License-Identifier: MIT
// The address spaces of a guest's devices; for guest.c and device.c (devices use device.h).
#ifndef SKIFF_GUEST_BUS_H
#define SKIFF_GUEST_BUS_H

struct device;
struct guest;

int bus_create(struct guest *g); // 0 or E_NOMEM
void bus_destroy(struct guest *g);
void bus_forget(struct device *d); // drops every claim of a device that failed to start

#endif
