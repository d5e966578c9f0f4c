// SPDX-License-Identifier: MIT
// A disk in memory for one test: its requests are done at once, and it can be told to fail.
// Included once, by the test.
#include "storage/block.h"

#include "kernel/lib.h"

static u8 *disk_data; // as reads see it
static struct block_device disk;
static u32 fail_reads, fail_writes, fail_flushes; // so many of the next ones
static u64 disk_writes, disk_flushes, disk_reads;
static void (*disk_wrote)(u64 sector, u32 sectors, const u8 *data); // before it is on the disk
static void (*disk_flushed)(void);

static void disk_transfer(struct block_request *r)
{
    u64 sector = r->sector;
    for (u32 i = 0; i < r->segments; i++) {
        u32 sectors = r->segment[i].bytes / BLOCK_SECTOR;
        u8 *at = disk_data + sector * BLOCK_SECTOR;
        if (r->op == BLOCK_WRITE && disk_wrote)
            disk_wrote(sector, sectors, r->segment[i].data);
        if (r->op == BLOCK_WRITE)
            memcpy(at, r->segment[i].data, r->segment[i].bytes);
        else
            memcpy(r->segment[i].data, at, r->segment[i].bytes);
        sector += sectors;
    }
}

static bool disk_fails(const struct block_request *r)
{
    u32 *left = r->op == BLOCK_READ ? &fail_reads : r->op == BLOCK_WRITE ? &fail_writes : &fail_flushes;
    return *left && (*left)--;
}

static void disk_submit(struct block_device *b, struct block_request *r)
{
    (void)b;
    u64 *count = r->op == BLOCK_READ ? &disk_reads : r->op == BLOCK_WRITE ? &disk_writes : &disk_flushes;
    ++*count;
    r->status = disk_fails(r) ? E_IO : 0;
    if (!r->status && r->op == BLOCK_FLUSH && disk_flushed)
        disk_flushed();
    else if (!r->status && r->op != BLOCK_FLUSH)
        disk_transfer(r);
    r->done(r);
}

static const struct block_ops disk_ops = {"fake", disk_submit};

static void disk_make(u64 bytes)
{
    disk = (struct block_device){.ops = &disk_ops,
                                 .sectors = bytes / BLOCK_SECTOR,
                                 .physical_bytes = 512,
                                 .max_sectors = 96, // so that requests have to be cut up
                                 .max_segments = 3};
    disk_data = calloc(1, bytes);
    block_register(&disk);
}
