// SPDX-License-Identifier: MIT
// A block device: what host disks and volumes offer, and what guests' disks are made of.
#ifndef SKIFF_STORAGE_BLOCK_H
#define SKIFF_STORAGE_BLOCK_H

#include "kernel/types.h"

#define BLOCK_SECTOR 512u // bytes; the unit of all addresses and counts, whatever the disk's own is

enum block_op { BLOCK_READ, BLOCK_WRITE, BLOCK_FLUSH, BLOCK_DISCARD, BLOCK_WRITE_ZEROES };

// A piece of host memory within the one-to-one map (mem.h), so contiguous for a device as well.
struct block_segment {
    void *data;
    u32 bytes; // a multiple of BLOCK_SECTOR
};

struct block_device;

struct block_request {
    enum block_op op;
    u64 sector;
    u32 sectors; // 0 for BLOCK_FLUSH
    u32 segments;
    const struct block_segment *segment; // READ and WRITE: together as long as the sectors
    // Called once, from an interrupt handler or from any thread; it may free or submit the request
    // again. status is 0, or an error: E_IO the medium failed, E_INVAL outside of the device,
    // E_NOSUP, E_NOMEM no room left in what backs the device.
    void (*done)(struct block_request *r);
    int status;
    void *owner;                // the submitter's
    struct block_request *next; // from submit to done the device's, as `driver` is
    u64 driver[4];
};

struct block_ops {
    const char *kind; // "nvme", "ahci", "volume"...
    // The device's part of block_submit, which has checked the request.
    void (*submit)(struct block_device *b, struct block_request *r);
};

struct block_device {
    const struct block_ops *ops;
    char name[64];              // as the console shows it; a volume is "STORE/NAME"
    char model[41], serial[21]; // what a disk says of itself; others leave them empty
    u64 sectors;                // its size
    u32 physical_bytes;         // a write of fewer bytes, or beside a multiple of them, is slow
    u32 max_sectors;            // of one request
    u32 max_segments;           // of one request
    bool read_only;
    bool can_discard, can_write_zeroes; // else E_NOSUP
    u32 max_clear_sectors;              // of one such request
    void *priv;
    char used_by[48];          // by whom it is claimed; "": nobody
    struct block_device *next; // in the list of disks
};

// Never blocks, never fails: errors come through done, maybe before this returns. From any context.
// The device queues what it cannot take at once. A write that is done is durable only after a flush
// that was submitted later is done. Requests under way at the same time go in any order.
void block_submit(struct block_device *b, struct block_request *r);

// Waits for one request, in a thread. Any length: cut up as the device needs. Returns as `status`.
int block_read(struct block_device *b, u64 sector, u64 sectors, void *data);
int block_write(struct block_device *b, u64 sector, u64 sectors, const void *data);
int block_flush(struct block_device *b);
// Discard and write zeroes: ranges.
int block_clear(struct block_device *b, enum block_op op, u64 sector, u64 sectors);

// The host's disks, from boot on. Adds one, and names it: its kind and a number.
void block_register(struct block_device *b);
struct block_device *block_find(const char *name);             // NULL: there is none
struct block_device *block_next(const struct block_device *b); // NULL: the first; NULL at the end

// A device has one user ("datastore fast", "guest web"). E_BUSY: another has it.
int block_claim(struct block_device *b, const char *user);
void block_release(struct block_device *b);

#endif
