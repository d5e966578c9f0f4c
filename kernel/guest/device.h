// SPDX-License-Identifier: MIT
// The device framework: what a device model is, and all it may reach.
#ifndef SKIFF_GUEST_DEVICE_H
#define SKIFF_GUEST_DEVICE_H

#include "kernel/guest/clock.h"
#include "kernel/guest/state.h"
#include "kernel/thread.h"
#include "kernel/types.h"

struct guest;
struct device;

// A device is one file that ends in one of these. Every member is mandatory.
struct device_ops {
    const char *name;
    const struct state_table *state; // describes *dev->priv
    u32 priv_size;
    int (*init)(struct device *d); // claims ports, MMIO, timers; 0 or error
    void (*fini)(struct device *d);
    void (*reset)(struct device *d); // power-on values (also at guest reset)
    // region is the number given to device_claim_*; offset from its start; size 1, 2, 4 or 8.
    u64 (*read)(struct device *d, u32 region, u64 offset, u32 size);
    void (*write)(struct device *d, u32 region, u64 offset, u32 size, u64 value);
    void (*pause)(struct device *d);  // guest stopped: stop touching it, bring timers into state
    void (*resume)(struct device *d); // guest about to run (also after a load): re-arm timers,
                                      // restore interrupt lines
};

struct device {
    const struct device_ops *ops;
    struct guest *guest;
    void *priv; // zeroed, priv_size bytes
    u32 instance;
    struct mutex lock; // held by the framework around read, write, pause, resume, reset
    struct device *next;
};

// Creates a device and adds it to the guest. NULL without memory or when init fails.
struct device *device_add(struct guest *g, const struct device_ops *ops, u32 instance);
struct device *device_find(struct guest *g, const char *name, u32 instance);
void devices_destroy(struct guest *g);
void devices_reset(struct guest *g);
void devices_pause(struct guest *g);
void devices_resume(struct guest *g);

// Address claims. E_EXIST on overlap.
int device_claim_ports(struct device *d, u16 first, u16 count, u32 region);
int device_claim_mmio(struct device *d, u64 gpa, u64 bytes, u32 region);
void device_release_mmio(struct device *d, u32 region); // BAR remap: release, claim again

// Dispatch, used by the exit handlers. Unclaimed reads give all ones, writes are dropped.
u64 bus_io_read(struct guest *g, u16 port, u32 size);
void bus_io_write(struct guest *g, u16 port, u32 size, u64 value);
u64 bus_mmio_read(struct guest *g, u64 gpa, u32 size);
void bus_mmio_write(struct guest *g, u64 gpa, u32 size, u64 value);

// Interrupts reach the guest through these two alone (implemented in arch/x86/platform).
// line: ISA IRQ 0..15 / GSI 16..23. Levels are or-ed per source: each (device) raises and lowers
// its own. Edge-triggered users raise then lower.
void irq_raise(struct guest *g, u32 line);
void irq_lower(struct guest *g, u32 line);
void msi_send(struct guest *g, u64 addr, u32 data);

#endif
