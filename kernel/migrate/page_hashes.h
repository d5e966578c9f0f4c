// SPDX-License-Identifier: MIT
// The hash of every page of a guest, as one side of a move knows it: the source of what it sent,
// the destination of what it put in place. Memory that was never sent is zeros on both.
#ifndef SKIFF_MIGRATE_PAGE_HASHES_H
#define SKIFF_MIGRATE_PAGE_HASHES_H

#include "kernel/guest/memory.h"
#include "kernel/migrate/hash.h"

#define PAGE_HASHES_CHUNK 512u // pages of a chunk, the unit in which two hosts compare

// Belongs to the move's thread. All zero: none are kept.
struct page_hashes {
    u64 pages, chunks;
    u64 (**chunk)[2]; // PAGE_HASHES_CHUNK hashes each
};

u64 page_hashes_bytes(u64 pages); // of host memory
// All as of zero pages. 0, or E_NOMEM (nothing is kept then). Yields.
int page_hashes_create(struct page_hashes *h, u64 pages);
void page_hashes_free(struct page_hashes *h);
// Nothing when no hashes are kept.
void page_hashes_set(struct page_hashes *h, u64 index, const u64 hash[2]);
const u64 *page_hashes_get(const struct page_hashes *h, u64 index); // two words
// The hash over a chunk's hashes.
void page_hashes_of_chunk(const struct page_hashes *h, u64 chunk, u64 out[2]);
// Hashes what the guest's memory really holds now, all of it. Yields.
void page_hashes_read(struct page_hashes *h, struct guest *g);

#endif
