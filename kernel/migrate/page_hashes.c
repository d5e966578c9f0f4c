// SPDX-License-Identifier: MIT
// The table of page hashes, in chunks, so that no guest is too big for one allocation.
#include "kernel/migrate/page_hashes.h"

#include "kernel/lib.h"
#include "kernel/mem.h"
#include "kernel/thread.h"

#define CHUNK_BYTES (PAGE_HASHES_CHUNK * 16u)
#define CHUNK_PAGES (CHUNK_BYTES / PAGE_SIZE)

static u64 chunk_count(u64 pages)
{
    return (pages + PAGE_HASHES_CHUNK - 1) / PAGE_HASHES_CHUNK;
}

u64 page_hashes_bytes(u64 pages)
{
    return chunk_count(pages) * (CHUNK_BYTES + sizeof(void *));
}

static bool add_chunk(struct page_hashes *h, const u64 of_zeros[2])
{
    u64 pa = pages_alloc(CHUNK_PAGES);
    if (!pa)
        return false;
    mem_account(MEM_PAGE_HASHES, CHUNK_BYTES);
    u64(*hashes)[2] = phys_ptr(pa);
    for (u32 i = 0; i < PAGE_HASHES_CHUNK; i++)
        memcpy(hashes[i], of_zeros, sizeof(hashes[i]));
    h->chunk[h->chunks++] = hashes;
    return true;
}

int page_hashes_create(struct page_hashes *h, u64 pages)
{
    static const u64 zeros[PAGE_SIZE / sizeof(u64)];
    u64 of_zeros[2];
    hash_page(zeros, of_zeros);
    *h = (struct page_hashes){.pages = pages};
    h->chunk = kmalloc(chunk_count(pages) * sizeof(h->chunk[0]));
    bool ok = h->chunk;
    while (ok && h->chunks < chunk_count(pages)) {
        ok = add_chunk(h, of_zeros);
        thread_yield_if_needed();
    }
    if (ok)
        return 0;
    page_hashes_free(h);
    return E_NOMEM;
}

void page_hashes_free(struct page_hashes *h)
{
    for (u64 c = 0; c < h->chunks; c++)
        pages_free(ptr_phys(h->chunk[c]), CHUNK_PAGES);
    mem_account(MEM_PAGE_HASHES, -(s64)(h->chunks * CHUNK_BYTES));
    kfree(h->chunk);
    *h = (struct page_hashes){0};
}

void page_hashes_set(struct page_hashes *h, u64 index, const u64 hash[2])
{
    if (index < h->pages)
        memcpy(h->chunk[index / PAGE_HASHES_CHUNK][index % PAGE_HASHES_CHUNK], hash, 16);
}

const u64 *page_hashes_get(const struct page_hashes *h, u64 index)
{
    return h->chunk[index / PAGE_HASHES_CHUNK][index % PAGE_HASHES_CHUNK];
}

void page_hashes_of_chunk(const struct page_hashes *h, u64 chunk, u64 out[2])
{
    struct hash all;
    u64 count = MIN(h->pages - chunk * PAGE_HASHES_CHUNK, (u64)PAGE_HASHES_CHUNK);
    hash_start(&all);
    hash_add(&all, h->chunk[chunk], count * sizeof(h->chunk[chunk][0]));
    hash_finish(&all, out);
}

void page_hashes_read(struct page_hashes *h, struct guest *g)
{
    for (u64 i = 0; i < h->pages; i++) {
        u64 now[2];
        hash_page(guest_page(g, guest_page_gpa(g, i)), now);
        page_hashes_set(h, i, now);
        thread_yield_if_needed();
    }
}
