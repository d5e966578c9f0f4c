// SPDX-License-Identifier: MIT
// A driver of host disks: one file behind one const struct. And what the drivers share: slots for
// the requests under way, a queue for those that wait, timeouts, errors in the log.
#ifndef SKIFF_STORAGE_DISK_H
#define SKIFF_STORAGE_DISK_H

#include "arch/x86/cpu.h"
#include "kernel/thread.h"
#include "storage/block.h"

#define DISK_SLOTS 64u // of a queue, at most

struct disk_driver {
    const char *name;
    bool (*match)(u16 vendor, u16 device, u32 class); // class, subclass, interface: 24 bits
    void (*start)(u16 bdf);                           // adds its disks; says in the log why not
};
extern const struct disk_driver virtio_disks, nvme_disks, ahci_disks, ata_disks;

struct disk_queue;

struct disk_queue_ops {
    // These four with the queue's lock held and interrupts off.
    void (*issue)(struct disk_queue *q, u32 slot, struct block_request *r);
    void (*kick)(struct disk_queue *q); // tells the device of what was issued since
    void (*ack)(struct disk_queue *q);  // takes the device's interrupt back, whatever its cause
    void (*reap)(struct disk_queue *q); // disk_done or disk_failed for what it is done with
    // In a thread, while nothing else calls the driver: afterwards the device touches no request's
    // memory and takes requests again. False: it does not.
    bool (*reset)(struct disk_queue *q);
    void (*stop)(struct disk_queue *q); // quiet it before the host reboots
};

// What takes requests at its own pace: a disk, or a channel that disks share.
struct disk_queue {
    const struct disk_queue_ops *ops;
    enum pci_interrupt interrupt; // polled: looked at every millisecond
    u32 depth;                    // slots in use, up to DISK_SLOTS
    void *priv;
    struct spinlock lock; // of all below, and of the driver's state
    bool halted, dead;    // being reset; given up
    struct {
        struct block_request *request; // NULL: free
        u64 since_ns;
    } slot[DISK_SLOTS];
    u32 busy;                            // slots taken
    struct block_request *first, **last; // waiting
    struct block_request *over;          // whose done is to be called once the lock is free
    u64 logged_ns, unlogged;             // errors: when their second began, lines left out
    u32 logged;                          // lines of that second
    struct disk_queue *next;
};

struct disk {
    struct block_device block; // first
    struct disk_queue *queue;
    u32 unit; // the driver's: namespace, drive
};
static inline struct disk *disk_of(const struct block_request *r)
{
    return (struct disk *)(uintptr_t)r->driver[0]; // driver[1] is disk.c's too
}

// Finds all disks. Quick: devices that do not answer are given up after a second or so.
void disks_start(void);
void disks_stop(void); // before the host reboots

// For drivers: halted at first, so that the driver may use its device by itself.
void disk_queue_init(struct disk_queue *q, const struct disk_queue_ops *ops, void *priv);
void disk_queue_start(struct disk_queue *q, u32 depth);
void disk_interrupt(void *queue); // the handler of a device with one queue
// Registers a disk whose block device is filled in but for its name.
void disk_add(struct disk *d);
void disk_submit(struct block_device *b, struct block_request *r); // a driver's block_ops.submit
// In reap.
void disk_done(struct disk_queue *q, u32 slot);
void disk_failed(struct disk_queue *q, u32 slot, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
// Copies a string of a fixed width and cuts off the blanks around it.
void disk_text(char *to, size_t size, const char *from, size_t width);
// Waits, without giving the CPU away, until *word & mask == value; false after ms milliseconds.
bool disk_wait(const volatile u32 *word, u32 mask, u32 value, u32 ms);

#endif
