// SPDX-License-Identifier: MIT
// A datastore's metadata: pages in memory whose changes become durable together, by a journal and
// checkpoints (storage/datastore.md).
#ifndef SKIFF_STORAGE_META_H
#define SKIFF_STORAGE_META_H

#include "kernel/thread.h"
#include "storage/block.h"
#include "storage/format.h"

#define MARK_WORDS 4 // a bit for each cell

struct meta_page {
    u32 number;
    u8 *cells;              // in the page's memory; m->lock
    u64 open[MARK_WORDS];   // changed, in no transaction yet; m->lock
    u64 moving[MARK_WORDS]; // in the transaction that is being made durable; m->lock
    bool unsaved;           // differs from what the superblock points to; m->lock
    bool listed;            // in m->touched; m->lock
    struct meta_page *next_touched, *next_unsaved;
    struct meta_page *next; // of those that are being committed
};

struct meta {
    struct block_device *disk;
    u64 first;           // sector of the disk at which the partition begins
    u32 seed;            // of all checksums
    struct super *super; // as durable; whoever commits
    struct meta_page **page;
    struct spinlock lock;      // cells and marks
    struct meta_page *touched; // with open cells; lock
    struct meta_page *unsaved; // lock
    u64 txn;                   // the transaction that takes what changes now; lock
    u64 durable;               // the last one that is; lock
    u32 block, sequence;       // of the next transaction in the journal; whoever commits
    u8 *buffer;                // TXN_MAX; whoever commits
    bool failed;               // a write or flush failed; lock
    u64 memory_bytes, absent;  // absent: pages that are not present
    u64 commits, checkpoints;
};

// Reads and checks everything below the cells' meaning. Returns 0, or an error with a sentence.
int meta_mount(struct meta *m, struct block_device *disk, u64 first, u64 sectors, char *err,
               size_t size);
void meta_unmount(struct meta *m); // nothing is written
// Reads all of it again: is it what memory holds? Nobody commits meanwhile.
int meta_verify(struct meta *m, char *err, size_t size);
// Writes an empty datastore.
int meta_format(struct block_device *disk, u64 first, u64 sectors, const char *name,
                const u8 uuid[16], char *err, size_t size);
int meta_fail(int e, char *err, size_t size, const char *fmt, ...) // returns e
    __attribute__((format(printf, 4, 5)));
// Memory that its owner takes or gives back for it; and what a page takes.
void meta_account(struct meta *m, s64 bytes);
#define META_PAGE_BYTES (STORE_BLOCK + sizeof(struct meta_page))
u64 meta_data_start(const struct super *s); // first sector of chunk 0, from the partition's start

// m->lock held from here on -----------------------------------------------------------------------

// NULL: the page is not present, so all zeros.
static inline void *meta_cell(const struct meta *m, u32 page, u32 cell)
{
    return m->page[page] ? m->page[page]->cells + cell * CELL_BYTES : NULL;
}
void meta_touch(struct meta *m, u32 page, u32 cell, u32 cells); // they change; the page is present
bool meta_settled(const struct meta *m, u32 page, u32 cell);    // memory is as the disk is

// m->lock not held, in a thread; one at a time ----------------------------------------------------

int meta_need(struct meta *m, u32 page); // makes it present. 0 or E_NOMEM
// Everything that has changed, and all data written before, is durable when it returns 0.
int meta_commit(struct meta *m);

// For meta.c, meta_load.c and meta_format.c
// ----------------------------------------------------------------------

u32 meta_crc(u32 seed, const void *structure, size_t crc_at, size_t bytes);
u64 meta_page_sector(const struct super *s, u32 page, bool second);
struct meta_page *meta_add_page(struct meta *m, u32 page);
static inline bool map_bit(const u8 *map, u32 i)
{
    return map[i / 8] >> (i % 8) & 1;
}
static inline struct page_header *page_of(const struct meta_page *p)
{
    return (struct page_header *)(void *)(p->cells - sizeof(struct page_header));
}
int meta_write_super(struct block_device *disk, u64 first, u32 seed, struct super *s);

#endif
