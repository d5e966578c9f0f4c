// SPDX-License-Identifier: MIT
// Split virtqueues (virtio 1.2, 2.7).
#include "kernel/virtqueue.h"

#include "kernel/lib.h"
#include "kernel/mem.h"

// 2.7.13: what was written before is seen first by the device (x86 keeps stores in order), and what
// is read afterwards is read after it.
static void full_barrier(void)
{
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
}

int virtq_init(struct virtq *q, u32 size)
{
    assert(size && size <= VIRTQ_MAX && !(size & (size - 1)));
    // A page for each part, which is aligned beyond what 2.7 wants.
    u64 pa = q->desc ? ptr_phys(q->desc) : page_alloc(2);
    _Static_assert(VIRTQ_MAX * sizeof(struct virtq_desc) <= PAGE_SIZE, "one page");
    _Static_assert(sizeof(struct virtq_used) <= PAGE_SIZE, "one page");
    if (!pa)
        return E_NOMEM;
    memset(phys_ptr(pa), 0, 3 * PAGE_SIZE);
    memset(q, 0, sizeof(*q));
    q->size = size;
    q->desc = phys_ptr(pa);
    q->avail = phys_ptr(pa + PAGE_SIZE);
    q->used = phys_ptr(pa + 2 * PAGE_SIZE);
    for (u32 i = 0; i < size; i++)
        q->desc[i].next = (u16)(i + 1);
    q->free_count = (u16)size;
    return 0;
}

int virtq_add(struct virtq *q, const struct virtq_part *part, u32 read, u32 written, void *owner)
{
    u32 count = read + written;
    if (count > q->free_count)
        return E_BUSY;
    u16 head = q->free, last = head;
    for (u32 i = 0; i < count; i++) {
        struct virtq_desc *d = &q->desc[last = q->free];
        d->address = part[i].address;
        d->bytes = part[i].bytes;
        d->flags = (u16)((i >= read ? VIRTQ_WRITE : 0) | (i + 1 < count ? VIRTQ_NEXT : 0));
        q->free = d->next;
    }
    q->free_count = (u16)(q->free_count - count);
    q->owner[head] = owner;
    q->avail->ring[q->queued++ % q->size] = head;
    return head;
}

void virtq_publish(struct virtq *q)
{
    if (q->avail->index == q->queued)
        return;
    __asm__ volatile("" : : : "memory"); // the ring's entries first
    q->avail->index = q->queued;
    full_barrier(); // the device that sees the index late has set its flag late too
    if (!(q->used->flags & VIRTQ_NO_NOTIFY))
        *q->doorbell = q->number;
}

bool virtq_waiting(const struct virtq *q)
{
    return q->used->index != q->seen;
}

// A chain's links are ours and were never the device's to write.
static void free_chain(struct virtq *q, u16 head)
{
    u16 last = head, count = 1;
    for (; q->desc[last].flags & VIRTQ_NEXT; count++)
        last = q->desc[last].next;
    q->desc[last].next = q->free;
    q->free = head;
    q->free_count = (u16)(q->free_count + count);
}

void *virtq_take(struct virtq *q, u32 *bytes)
{
    while (virtq_waiting(q)) {
        __asm__ volatile("" : : : "memory"); // the index before what it vouches for
        u32 slot = q->seen++ % q->size, id = q->used->ring[slot].id;
        *bytes = q->used->ring[slot].bytes;
        if (id >= q->size || !q->owner[id])
            continue; // it never got that one
        void *owner = q->owner[id];
        q->owner[id] = NULL;
        free_chain(q, (u16)id);
        return owner;
    }
    return NULL;
}

void virtq_interrupts(struct virtq *q, bool on)
{
    q->avail->flags = on ? 0 : (u16)VIRTQ_NO_INTERRUPT;
    full_barrier(); // 2.7.7.1: the flag before the next look at the used ring
}
