// SPDX-License-Identifier: MIT
// Split virtqueues (virtio 1.2, 2.7): chains taken and given back, kicks and interrupts held off.
// All that is read here may change while it is: each thing is read once, and checked then.
#include "kernel/guest/virtio.h"

#include "kernel/guest/guest.h"
#include "kernel/guest/virtio_internal.h"
#include "kernel/lib.h"

struct descriptor { // 2.7.5
    u64 gpa;
    u32 bytes;
    u16 flags, next;
};
_Static_assert(sizeof(struct descriptor) == 16, "virtio 1.2, 2.7.5");
#define DESC_NEXT     BIT(0)
#define DESC_WRITE    BIT(1)
#define DESC_INDIRECT BIT(2)

struct used_element { // 2.7.8
    u32 head, bytes;
};

// 2.7.6 and 2.7.8: u16 flags, u16 index, the ring, and the other side's event index.
#define RING_FLAGS    0
#define RING_INDEX    2
#define RING_ENTRIES  4
#define AVAIL_NO_IRQ  1
#define USED_NO_KICKS 1

static struct guest *guest_of(const struct virtio *v)
{
    return v->pci.device->guest;
}

static u64 used_event_gpa(const struct virtio *v, u32 q)
{
    return v->driver[q] + RING_ENTRIES + 2ull * v->size[q];
}

static u64 avail_event_gpa(const struct virtio *v, u32 q)
{
    return v->device[q] + RING_ENTRIES + 8ull * v->size[q];
}

// The rings are aligned (2.7), so that no u16 of them lies on two pages.
static bool get16(struct virtio *v, u32 q, u64 gpa, u16 *value)
{
    const volatile u16 *p = guest_borrow(guest_of(v), gpa, 2);
    if (p)
        *value = *p;
    else
        virtio_break(v, "queue %u lies outside of RAM, at 0x%llx", q, (unsigned long long)gpa);
    return p;
}

static bool put16(struct virtio *v, u32 q, u64 gpa, u16 value)
{
    volatile u16 *p = guest_borrow(guest_of(v), gpa, 2);
    if (!p) {
        virtio_break(v, "queue %u lies outside of RAM, at 0x%llx", q, (unsigned long long)gpa);
        return false;
    }
    if (*p == value)
        return true;
    *p = value;
    guest_release(guest_of(v), gpa, 2, true);
    return true;
}

// ---- Kicks -------------------------------------------------------------------------------------

// Asks for a kick at the next chain, or for none (2.7.7.2, 2.7.10). An event index that the driver
// has passed already asks for none.
static bool set_kicks(struct virtio *v, u32 q, bool wanted)
{
    bool ok;
    if (virtio_has(v, VIRTIO_F_EVENT_IDX))
        ok = put16(v, q, avail_event_gpa(v, q), (u16)(v->avail_index[q] - !wanted));
    else
        ok = put16(v, q, v->device[q] + RING_FLAGS, wanted ? 0 : USED_NO_KICKS);
    v->quiet[q] = !wanted;
    __atomic_thread_fence(__ATOMIC_SEQ_CST); // the driver looks there after it has added a chain
    return ok;
}

// ---- Chains ------------------------------------------------------------------------------------

// Is there a chain that has not been popped? When there is none and the queue is not muted, the
// driver is asked to kick, and it may have added one before it saw that. While there are some it
// need not: event indices stay behind by themselves.
static bool waits(struct virtio *v, u32 q)
{
    u16 index;
    u64 gpa = v->driver[q] + RING_INDEX;
    if (!get16(v, q, gpa, &index))
        return false;
    if (index == v->avail_index[q] && !v->muted[q] &&
        (!set_kicks(v, q, true) || !get16(v, q, gpa, &index)))
        return false;
    u16 count = (u16)(index - v->avail_index[q]);
    if (count > v->size[q])
        virtio_break(v, "queue %u: %u chains are available, it has %u entries", q, count,
                     v->size[q]);
    else if (count && !v->quiet[q] && !virtio_has(v, VIRTIO_F_EVENT_IDX))
        set_kicks(v, q, false);
    return count && !v->broken;
}

void virtio_mute(struct virtio *v, u32 q)
{
    if (v->muted[q] || !v->enabled[q] || !virtio_running(v))
        return;
    v->muted[q] = true;
    set_kicks(v, q, false);
}

bool virtio_unmute(struct virtio *v, u32 q)
{
    v->muted[q] = false;
    return v->enabled[q] && virtio_running(v) && waits(v, q);
}

// Where the next descriptor is: in the queue's table or in an indirect one.
struct cursor {
    u64 table;
    u32 entries, index;
    bool indirect;
};

static bool read_descriptor(struct virtio *v, u32 q, const struct cursor *at, struct descriptor *d)
{
    if (at->index >= at->entries)
        virtio_break(v, "queue %u: descriptor %u of a table of %u", q, at->index, at->entries);
    else if (guest_read(guest_of(v), at->table + at->index * sizeof(*d), d, sizeof(*d)))
        virtio_break(v, "queue %u: a descriptor table outside of RAM, at 0x%llx", q,
                     (unsigned long long)at->table);
    else
        return true;
    return false;
}

// 2.7.5.3
static bool enter_table(struct virtio *v, u32 q, struct cursor *at, const struct descriptor *d)
{
    if (at->indirect || d->flags & DESC_NEXT || !virtio_has(v, VIRTIO_F_INDIRECT_DESC) ||
        d->bytes % sizeof(*d)) {
        virtio_break(v, "queue %u: an indirect descriptor where none may be, or of %u bytes", q,
                     d->bytes);
        return false;
    }
    *at = (struct cursor){d->gpa, d->bytes / sizeof(*d), 0, true};
    return true;
}

static bool add_part(struct virtio *v, struct virtio_chain *c, const struct descriptor *d)
{
    bool writable = d->flags & DESC_WRITE;
    u32 *bytes = writable ? &c->writable : &c->readable;
    if (c->parts == v->size[c->queue]) // 2.7.5.1
        virtio_break(v, "queue %u: a chain of more than %u descriptors", c->queue, c->parts);
    else if (!writable && c->parts > c->readable_parts) // 2.7.4.2
        virtio_break(v, "queue %u: a readable descriptor after a writable one", c->queue);
    else if (!guest_is_ram(guest_of(v), d->gpa, d->bytes))
        virtio_break(v, "queue %u: a buffer of %u bytes outside of RAM, at 0x%llx", c->queue,
                     d->bytes, (unsigned long long)d->gpa);
    else if (*bytes + d->bytes < *bytes) // 2.7.4
        virtio_break(v, "queue %u: a chain of 4 GiB or more", c->queue);
    if (v->broken)
        return false;
    c->part[c->parts++] = (struct virtio_part){d->gpa, d->bytes};
    c->readable_parts += !writable;
    *bytes += d->bytes;
    return true;
}

static bool read_chain(struct virtio *v, u32 q, struct virtio_chain *c)
{
    struct cursor at = {v->desc[q], v->size[q], c->head, false};
    struct descriptor d;
    do {
        if (!read_descriptor(v, q, &at, &d))
            return false;
        if (d.flags & DESC_INDIRECT) {
            if (!enter_table(v, q, &at, &d) || !read_descriptor(v, q, &at, &d))
                return false;
            if (d.flags & DESC_INDIRECT)
                return enter_table(v, q, &at, &d); // it breaks
        }
        if (!add_part(v, c, &d))
            return false;
        at.index = d.next;
    } while (d.flags & DESC_NEXT);
    return true;
}

// A guest whose other vCPUs keep adding chains must not keep this one from being stopped; after the
// pause it is kicked.
static bool vcpu_must_stop(void)
{
    const struct vcpu *v = thread_get_vcpu();
    return v && (v->guest->pause_count || v->guest->stopping);
}

bool virtio_pop(struct virtio *v, u32 q, struct virtio_chain *c)
{
    u16 head;
    if (!virtio_running(v) || !v->enabled[q] || vcpu_must_stop() || !waits(v, q))
        return false;
    __atomic_thread_fence(__ATOMIC_ACQUIRE); // the index first, then what it covers
    u16 slot = v->avail_index[q] & (v->size[q] - 1);
    if (!get16(v, q, v->driver[q] + RING_ENTRIES + 2 * slot, &head))
        return false;
    c->head = head;
    c->queue = (u16)q;
    c->parts = c->readable_parts = c->readable = c->writable = 0;
    if (!read_chain(v, q, c))
        return false;
    v->avail_index[q]++;
    return true;
}

void virtio_unpop(struct virtio *v, u32 q, u32 count)
{
    v->avail_index[q] -= (u16)count;
}

// Copies up to `bytes` between buf and parts [first, last), from `offset` of their bytes on.
static u32 copy(struct virtio *v, const struct virtio_part *first, const struct virtio_part *last,
                u32 offset, void *to, const void *from, u32 bytes)
{
    u32 done = 0;
    for (const struct virtio_part *p = first; p < last && done < bytes; p++) {
        if (offset >= p->bytes) {
            offset -= p->bytes;
            continue;
        }
        u32 n = MIN(p->bytes - offset, bytes - done);
        int error = to ? guest_read(guest_of(v), p->gpa + offset, (u8 *)to + done, n)
                       : guest_write(guest_of(v), p->gpa + offset, (const u8 *)from + done, n);
        assert(!error); // read_chain has looked, and RAM stays where it is
        done += n;
        offset = 0;
    }
    return done;
}

u32 virtio_copy_from(struct virtio *v, const struct virtio_chain *c, u32 offset, void *buf,
                     u32 bytes)
{
    return copy(v, c->part, c->part + c->readable_parts, offset, buf, NULL, bytes);
}

u32 virtio_copy_to(struct virtio *v, const struct virtio_chain *c, u32 offset, const void *buf,
                   u32 bytes)
{
    return copy(v, c->part + c->readable_parts, c->part + c->parts, offset, NULL, buf, bytes);
}

// ---- Used chains -------------------------------------------------------------------------------

void virtio_push(struct virtio *v, u32 q, u16 head, u32 written)
{
    struct used_element e = {head, written};
    assert(!v->paused);
    if (v->broken || !v->enabled[q])
        return;
    u16 slot = (u16)(v->used_index[q] + v->pushed[q]) & (v->size[q] - 1);
    if (guest_write(guest_of(v), v->device[q] + RING_ENTRIES + 8ull * slot, &e, sizeof(e)))
        virtio_break(v, "queue %u: its used ring lies outside of RAM", q);
    else
        v->pushed[q]++;
}

// Does the driver want to hear that the used index went from `old` to `now` (2.7.7, 2.7.10)?
static bool wants_interrupt(struct virtio *v, u32 q, u16 old, u16 now)
{
    u16 value;
    if (!virtio_has(v, VIRTIO_F_EVENT_IDX))
        return get16(v, q, v->driver[q] + RING_FLAGS, &value) && !(value & AVAIL_NO_IRQ);
    return get16(v, q, used_event_gpa(v, q), &value) && (u16)(now - value - 1) < (u16)(now - old);
}

void virtio_publish_quietly(struct virtio *v, u32 q)
{
    u16 old = v->used_index[q], now = (u16)(old + v->pushed[q]);
    v->pushed[q] = 0;
    if (now == old || v->broken)
        return;
    v->used_index[q] = now;
    __atomic_thread_fence(__ATOMIC_RELEASE); // elements and buffers first, then the index
    put16(v, q, v->device[q] + RING_INDEX, now);
}

void virtio_signal(struct virtio *v, u32 q)
{
    u16 old = v->told_index[q], now = v->used_index[q];
    v->told_index[q] = now;
    if (now == old || v->broken || v->paused)
        return;
    __atomic_thread_fence(__ATOMIC_SEQ_CST); // the driver looks again after it has asked
    if (wants_interrupt(v, q, old, now))
        virtio_interrupt(v, v->vector[q], VIRTIO_ISR_QUEUE);
}

void virtio_publish(struct virtio *v, u32 q)
{
    virtio_publish_quietly(v, q);
    virtio_signal(v, q);
}
