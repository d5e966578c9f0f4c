// SPDX-License-Identifier: MIT
// A split virtqueue from the driver's side (virtio 1.2, 2.7). The device writes the used ring only,
// and nothing read from there is believed unchecked.
#ifndef SKIFF_KERNEL_VIRTQUEUE_H
#define SKIFF_KERNEL_VIRTQUEUE_H

#include "kernel/types.h"

#define VIRTQ_MAX 256u // descriptors; a power of two

struct virtq_desc { // 2.7.5
    u64 address;
    u32 bytes;
    u16 flags;
    u16 next;
};
_Static_assert(sizeof(struct virtq_desc) == 16, "virtio 1.2, 2.7.5");
#define VIRTQ_NEXT  BIT(0)
#define VIRTQ_WRITE BIT(1)

struct virtq_avail { // 2.7.6
    u16 flags;
    u16 index;
    u16 ring[VIRTQ_MAX];
};
#define VIRTQ_NO_INTERRUPT BIT(0)

struct virtq_used { // 2.7.8
    u16 flags;
    u16 index;
    struct {
        u32 id, bytes;
    } ring[VIRTQ_MAX];
};
#define VIRTQ_NO_NOTIFY BIT(0)

struct virtq {
    u32 size; // a power of two up to VIRTQ_MAX
    struct virtq_desc *desc;
    volatile struct virtq_avail *avail;
    volatile struct virtq_used *used;
    volatile u16 *doorbell;
    u16 number;
    u16 queued; // what avail->index will be; told at virtq_publish
    u16 seen;   // used->index up to here
    u16 free, free_count;
    void *owner[VIRTQ_MAX]; // of the chain that begins here; NULL: the device does not have it
};

// One part of a chain.
struct virtq_part {
    u64 address;
    u32 bytes;
};

// Makes the queue empty, as the device sees it after a reset; the first time with memory for up to
// VIRTQ_MAX descriptors. 0 or E_NOMEM.
int virtq_init(struct virtq *q, u32 size);
// Queues a chain: `read` parts for the device to read, then `written` ones for it to fill. Returns
// its id, or E_BUSY when there are too few free descriptors. owner must not be NULL.
int virtq_add(struct virtq *q, const struct virtq_part *part, u32 read, u32 written, void *owner);
// Makes what was queued visible to the device, and notifies it where it wants that.
void virtq_publish(struct virtq *q);
// The next chain that the device is done with: its owner, and how many bytes it says it has written
// (any number). NULL: none. Frees the descriptors.
void *virtq_take(struct virtq *q, u32 *bytes);
bool virtq_waiting(const struct virtq *q);
// Asks for interrupts, or for none (a hint to the device). After switching them on, virtq_waiting
// tells whether something came before.
void virtq_interrupts(struct virtq *q, bool on);

#endif
