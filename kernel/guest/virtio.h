// SPDX-License-Identifier: MIT
// virtio 1.2 devices of a guest, over PCI: transport and split rings once, for all of them.
//
// A device's private structure begins with a struct virtio, and its device_ops use virtio_read and
// virtio_write, virtio_reset, and in pause and resume virtio_pause and virtio_resume.
//
// Locks: everything here belongs to the device's mutex. The framework holds it in all its calls,
// and so do the functions of virtio_ops run; any other thread takes it with virtio_lock. Interrupt
// handlers cannot: they wake a thread. The device's mutex comes before the platform's locks, and
// nobody may wait, with it held, for a thread that takes it.
//
// A guest that breaks the rules breaks its device: nothing more is popped, the driver is told
// (NEEDS_RESET), and the console says why, until the driver or the guest resets it.
#ifndef SKIFF_GUEST_VIRTIO_H
#define SKIFF_GUEST_VIRTIO_H

#include "arch/x86/platform/pci.h"

#define VIRTIO_QUEUES      8   // of a device, at most
#define VIRTIO_QUEUE_MAX   256 // entries of one queue, at most
#define VIRTIO_WHY         96
#define VIRTIO_DESCRIPTION (2 * VIRTIO_WHY + 64)

// Where they sit on the guest's PCI bus, so that a guest finds them again after any move.
enum virtio_slot {
    VIRTIO_SLOT_NET = 2,   // and up to 7
    VIRTIO_SLOT_BLOCK = 8, // to 11
    VIRTIO_SLOT_RNG = 14,
    VIRTIO_SLOT_BALLOON = 15,
};
// virtio 1.2, 5.
enum virtio_id { VIRTIO_NET = 1, VIRTIO_BLOCK = 2, VIRTIO_RNG = 4, VIRTIO_BALLOON = 5 };

// 6; the core offers these for every device.
#define VIRTIO_F_INDIRECT_DESC BIT(28)
#define VIRTIO_F_EVENT_IDX     BIT(29)
#define VIRTIO_F_VERSION_1     BIT(32)

struct virtio;

// What a kind of device is. Every member is mandatory but where it says so.
struct virtio_ops {
    u16 id;         // enum virtio_id
    u32 class_code; // of the PCI function: class << 16 | subclass << 8 | interface
    u32 queues;
    u16 queue_size; // entries each may have, a power of two
    // Fills in device configuration, all of it, for a read. NULL without one.
    void (*get_config)(struct virtio *v, void *config);
    u32 config_bytes;
    // The driver wrote there; may be NULL.
    void (*set_config)(struct virtio *v, u32 offset, u32 size, u32 value);
    // May a driver choose this part of what is offered? For features that need others; may be NULL.
    bool (*accept)(const struct virtio *v, u64 features);
    // The driver has put chains on the queue, or may have: at its kick, after a pause and a move,
    // and when the device becomes a bus master. In the thread of the vCPU that kicked, which waits:
    // what takes long goes to a thread.
    void (*kicked)(struct virtio *v, u32 queue);
    // The driver or the guest resets the device: afterwards no chain popped before is used.
    void (*reset)(struct virtio *v);
};

// Arrays by queue, because field tables describe it. All of it but what follows `paused` moves.
struct virtio {
    struct pci_function pci;
    u64 offered, features; // of the device; chosen by the driver
    u32 device_select, driver_select;
    u8 status, isr, generation;
    bool broken;
    char why[VIRTIO_WHY];
    u16 config_vector, queue_select;
    u16 size[VIRTIO_QUEUES], vector[VIRTIO_QUEUES];
    u16 avail_index[VIRTIO_QUEUES], used_index[VIRTIO_QUEUES]; // next to be popped, published
    u8 enabled[VIRTIO_QUEUES], muted[VIRTIO_QUEUES];
    u64 desc[VIRTIO_QUEUES], driver[VIRTIO_QUEUES], device[VIRTIO_QUEUES]; // 4.1.4.3, addresses
    bool paused;
    u16 pushed[VIRTIO_QUEUES];     // used elements that are written and not published
    u16 told_index[VIRTIO_QUEUES]; // published when it was last seen whether the driver wants to
                                   // know
    bool quiet[VIRTIO_QUEUES];     // its used ring's flags ask for no kick, as far as is known
    u32 breaks;                    // since it was made
    u64 can;                       // what this host can offer
    char trouble[VIRTIO_WHY + 32]; // what went wrong below it here, for the console; "": nothing
    u8 window;                     // where the capability of 4.1.4.9 is
    const struct virtio_ops *ops;
};

// For device_ops.init: puts it on the bus. features are those of the device; its own fields are
// filled in before. 0, E_EXIST or E_NOMEM. fini: takes it off.
int virtio_init(struct device *d, const struct virtio_ops *ops, u32 slot, u64 features);
void virtio_fini(struct device *d);
u64 virtio_read(struct device *d, u32 region, u64 offset, u32 size);
void virtio_write(struct device *d, u32 region, u64 offset, u32 size, u64 value);
void virtio_reset(struct device *d);
void virtio_pause(struct device *d);  // after it nothing is popped; the device has drained before
void virtio_resume(struct device *d); // calls kicked for every queue

struct virtio *virtio_of(const struct device *d); // NULL when it is no virtio device
void virtio_lock(struct virtio *v);
void virtio_unlock(struct virtio *v);
// The driver is ready, and neither is the device broken nor the guest stopped.
bool virtio_running(const struct virtio *v);
static inline bool virtio_has(const struct virtio *v, u64 feature)
{
    return v->features & feature;
}

// A chain of descriptors (2.7.5), all of whose parts are guest RAM: first those that the device
// reads, then those that it writes.
struct virtio_chain {
    u16 head, queue;
    u32 parts, readable_parts;
    u32 readable, writable; // bytes
    struct virtio_part {
        u64 gpa;
        u32 bytes;
    } part[VIRTIO_QUEUE_MAX];
};

// Takes the next chain of a queue. False when there is none (the driver will kick) or the device is
// not running.
bool virtio_pop(struct virtio *v, u32 queue, struct virtio_chain *c);
// Puts the last `count` chains back, as if they had not been popped; none of them is pushed.
void virtio_unpop(struct virtio *v, u32 queue, u32 count);
// Copies from offset of the chain's readable bytes, or to offset of its writable ones. Returns the
// bytes copied: fewer at its end.
u32 virtio_copy_from(struct virtio *v, const struct virtio_chain *c, u32 offset, void *buf,
                     u32 bytes);
u32 virtio_copy_to(struct virtio *v, const struct virtio_chain *c, u32 offset, const void *buf,
                   u32 bytes);
// Gives a chain back, in any order, with the bytes that were written into it. The driver sees it,
// and all pushed before, at virtio_publish, which interrupts it if it wants that.
void virtio_push(struct virtio *v, u32 queue, u16 head, u32 written);
void virtio_publish(struct virtio *v, u32 queue);
// The two halves of it. Whoever publishes quietly signals soon, and the driver may have seen by
// then what it would have been interrupted for.
void virtio_publish_quietly(struct virtio *v, u32 queue);
void virtio_signal(struct virtio *v, u32 queue);
// A queue asks for kicks when it is found empty, and for none while it is not. A muted one asks for
// none at all: somebody looks at it anyway, without a kick. Unmuting ends that; true: chains wait
// that no kick tells of, and it is on the caller to pop them. A pause ends it as well.
void virtio_mute(struct virtio *v, u32 queue);
bool virtio_unmute(struct virtio *v, u32 queue);

// Device configuration has changed: a new generation, and an interrupt.
void virtio_config_changed(struct virtio *v);
// The guest broke the rules; one sentence. Or the device cannot go on.
void virtio_break(struct virtio *v, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
// The state of a device for the console: "running", "broken: ...", and its trouble.
void virtio_describe(const struct virtio *v, char *buf, size_t size);

// Fields 1 to 39 of a device's state table; `member` is its struct virtio. Its check calls
// virtio_check.
#define VIRTIO_FIELDS(type, member)                                                                \
    PCI_FUNCTION_FIELDS(1, type, member.pci), PCI_MSIX_FIELDS(3, type, member.pci),                \
        FIELD(5, FIELD_COPY, type, member.offered, 1, 0, 0),                                       \
        FIELD(6, FIELD_COPY, type, member.features, 1, 0, 0),                                      \
        FIELD(7, FIELD_COPY, type, member.device_select, 1, 0, 0),                                 \
        FIELD(8, FIELD_COPY, type, member.driver_select, 1, 0, 0),                                 \
        FIELD(9, FIELD_COPY, type, member.status, 1, 0, 0),                                        \
        FIELD(10, FIELD_COPY, type, member.isr, 1, 0, 3),                                          \
        FIELD(11, FIELD_COPY, type, member.generation, 1, 0, 0),                                   \
        FIELD(12, FIELD_COPY, type, member.broken, 1, 0, 1),                                       \
        FIELD_ARRAY(13, FIELD_BYTES, type, member.why, 1),                                         \
        FIELD(14, FIELD_COPY, type, member.config_vector, 1, 0, 0),                                \
        FIELD(15, FIELD_COPY, type, member.queue_select, 1, 0, 0),                                 \
        FIELD_ARRAY(16, FIELD_COPY, type, member.size, 1),                                         \
        FIELD_ARRAY(17, FIELD_COPY, type, member.vector, 1),                                       \
        FIELD_ARRAY(18, FIELD_COPY, type, member.avail_index, 1),                                  \
        FIELD_ARRAY(19, FIELD_COPY, type, member.used_index, 1),                                   \
        FIELD_ARRAY(20, FIELD_COPY, type, member.enabled, 1),                                      \
        FIELD_ARRAY(21, FIELD_COPY, type, member.muted, 1),                                        \
        FIELD_ARRAY(22, FIELD_COPY, type, member.desc, 1),                                         \
        FIELD_ARRAY(23, FIELD_COPY, type, member.driver, 1),                                       \
        FIELD_ARRAY(24, FIELD_COPY, type, member.device, 1)
bool virtio_check(const struct virtio *v, char *err, size_t size);

#endif
