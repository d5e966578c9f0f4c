// SPDX-License-Identifier: MIT
// A virtio device of the host behind PCI, from the driver's side (virtio 1.2, 4.1): what its
// drivers share.
#ifndef SKIFF_KERNEL_VIRTIO_PCI_H
#define SKIFF_KERNEL_VIRTIO_PCI_H

#include "arch/x86/cpu.h"
#include "kernel/virtqueue.h"

#define VIRTIO_VERSION_1 BIT(32) // 6

struct virtio_pci {
    const char *name; // in the log
    u16 bdf;
    enum pci_interrupt interrupt;
    volatile u8 *common, *device, *isr, *notify;
    u32 notify_step;
    u64 features; // negotiated
};

u8 virtio_get8(volatile u8 *base, u32 at);
u16 virtio_get16(volatile u8 *base, u32 at);
u32 virtio_get32(volatile u8 *base, u32 at);
u64 virtio_get64(volatile u8 *base, u32 at);

// Finds the device's parts, of which its configuration has at least config_bytes. Errors of all
// these are logged.
bool virtio_map(struct virtio_pci *v, u16 bdf, u32 config_bytes);
bool virtio_pci_reset(struct virtio_pci *v);
// After a reset. choose picks from what is offered; VIRTIO_VERSION_1 must be among it.
bool virtio_negotiate(struct virtio_pci *v, u64 (*choose)(u64 offered));
// Makes a queue of at least `least` descriptors; its interrupt is the device's only message.
int virtio_queue(struct virtio_pci *v, struct virtq *q, u16 number, u32 least);
void virtio_ready(struct virtio_pci *v);
void virtio_failed(struct virtio_pci *v);
// In the interrupt handler: whether it is this device's. Acknowledges it.
bool virtio_interrupted(struct virtio_pci *v);

#endif
