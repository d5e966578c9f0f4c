// SPDX-License-Identifier: MIT
// What the files of the virtio core share: registers' bits, interrupts.
#ifndef SKIFF_GUEST_VIRTIO_INTERNAL_H
#define SKIFF_GUEST_VIRTIO_INTERNAL_H

#include "kernel/guest/virtio.h"

#define VIRTIO_NO_VECTOR  0xffff
#define VIRTIO_CONFIG_MAX 256u

// virtio 1.2, 2.1
#define VIRTIO_STATUS_ACKNOWLEDGE BIT(0)
#define VIRTIO_STATUS_DRIVER      BIT(1)
#define VIRTIO_STATUS_DRIVER_OK   BIT(2)
#define VIRTIO_STATUS_FEATURES_OK BIT(3)
#define VIRTIO_STATUS_NEEDS_RESET BIT(6)
#define VIRTIO_STATUS_FAILED      BIT(7)

// 4.1.4.5
#define VIRTIO_ISR_QUEUE  BIT(0)
#define VIRTIO_ISR_CONFIG BIT(1)

// The driver's writes to its registers (virtio.c).
void virtio_set_status(struct virtio *v, u8 status);
void virtio_enable_queue(struct virtio *v, u32 queue);
bool virtio_size_possible(const struct virtio *v, u32 queue, u32 size);
void virtio_kick_all(struct virtio *v); // as if the driver had kicked every queue

// Tells the driver, by a message or the pin (virtio_pci.c).
void virtio_interrupt(struct virtio *v, u16 vector, u8 isr);
// Builds the PCI function but for its place on the bus.
void virtio_pci_describe(struct virtio *v);

#endif
