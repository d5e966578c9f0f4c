// SPDX-License-Identifier: MIT
// The datastore's metadata is read: superblocks, pages, the journal; and read again to verify.
#include "kernel/lib.h"
#include "kernel/mem.h"
#include "storage/meta.h"

static int unreadable(const struct meta *m, u64 sector, int e, char *err, size_t size)
{
    return meta_fail(e, err, size, "%s cannot be read at sector %llu", m->disk->name,
                     (unsigned long long)sector);
}

// ---- Superblocks --------------------------------------------------------------------------------

static const char *geometry_wrong(const struct super *s, u64 sectors)
{
    if (s->chunk_shift < CHUNK_SHIFT_MIN || s->chunk_shift > CHUNK_SHIFT_MAX || !s->chunks ||
        s->chunks > CHUNKS_MAX || s->journal_blocks < JOURNAL_MIN ||
        s->journal_blocks > JOURNAL_MAX ||
        s->pages != PAGE_CHUNKS + (s->chunks + CELLS - 1) / CELLS)
        return "has numbers that do not fit each other";
    if (meta_data_start(s) + ((u64)s->chunks << s->chunk_shift) / BLOCK_SECTOR > s->sectors)
        return "has numbers that do not fit each other";
    return s->sectors > sectors ? "is of a larger partition; restore the partition's size" : NULL;
}

// NULL: it is good.
static const char *super_wrong(const struct super *s, u64 sectors)
{
    if (memcmp(s->magic, SUPER_MAGIC, sizeof(s->magic)))
        return "is not there";
    u32 seed = crc32c(0, s->uuid, sizeof(s->uuid));
    if (s->crc != meta_crc(seed, s, offsetof(struct super, crc), sizeof(*s)))
        return "has a wrong checksum";
    if (s->version != SUPER_VERSION)
        return "is of another version; a newer Skiff may read it";
    if (!s->name[0] || s->name[STORE_NAME - 1])
        return "has no proper name";
    return geometry_wrong(s, sectors);
}

// The newest good copy is left in m->super.
static int load_super(struct meta *m, u64 sectors, char *err, size_t size)
{
    struct super *copies = (struct super *)(void *)m->buffer;
    const char *wrong[2];
    for (u32 i = 0; i < 2; i++) {
        u64 sector = m->first + i * (SUPER_SECOND / BLOCK_SECTOR);
        int e = block_read(m->disk, sector, SUPER_BYTES / BLOCK_SECTOR, &copies[i]);
        if (e == E_NOMEM)
            return unreadable(m, sector, e, err, size);
        wrong[i] = e ? "cannot be read" : super_wrong(&copies[i], sectors);
        if (!wrong[i] && copies[i].generation % 2 == i)
            wrong[i] = "is in the other one's place";
    }
    if (wrong[0] && wrong[1])
        return meta_fail(E_IO, err, size,
                         "neither superblock is good: the first one %s, the second one %s",
                         wrong[0], wrong[1]);
    u32 best = wrong[0] || (!wrong[1] && copies[1].generation > copies[0].generation);
    memcpy(m->super, &copies[best], sizeof(*m->super));
    m->seed = crc32c(0, m->super->uuid, sizeof(m->super->uuid));
    return 0;
}

// ---- Pages --------------------------------------------------------------------------------------

static int read_page(const struct meta *m, u32 page, void *to, char *err, size_t size)
{
    const struct page_header *h = to;
    u64 sector = m->first + meta_page_sector(m->super, page, map_bit(m->super->second, page));
    int e = block_read(m->disk, sector, STORE_BLOCK_SECTORS, to);
    if (e)
        return unreadable(m, sector, e, err, size);
    if (h->crc == meta_crc(m->seed, h, offsetof(struct page_header, crc), STORE_BLOCK) &&
        h->page == page && h->generation <= m->super->generation)
        return 0;
    return meta_fail(E_IO, err, size, "page %u of its metadata is damaged (sector %llu of %s)",
                     page, (unsigned long long)sector, m->disk->name);
}

static int load_pages(struct meta *m, char *err, size_t size)
{
    for (u32 i = 0; i < m->super->pages; i++) {
        if (!map_bit(m->super->present, i))
            continue;
        struct meta_page *p = meta_add_page(m, i);
        if (!p)
            return meta_fail(E_NOMEM, err, size, "no memory for its metadata");
        int e = read_page(m, i, page_of(p), err, size);
        if (e)
            return e;
    }
    return 0;
}

// ---- Journal ------------------------------------------------------------------------------------

// The transaction that begins at `block`, into the buffer. E_NOENT: none there that is one.
static int read_txn(struct meta *m, u32 block)
{
    struct txn_header *h = (struct txn_header *)(void *)m->buffer;
    u64 sector = m->first + (JOURNAL_START / STORE_BLOCK + block) * STORE_BLOCK_SECTORS;
    int e = block_read(m->disk, sector, STORE_BLOCK_SECTORS, h);
    if (e)
        return e;
    if (memcmp(h->magic, TXN_MAGIC, sizeof(h->magic)) || h->block != block ||
        h->bytes < sizeof(*h) || h->bytes > TXN_MAX)
        return E_NOENT;
    u32 blocks = (h->bytes + STORE_BLOCK - 1) / STORE_BLOCK;
    if (blocks > m->super->journal_blocks - block)
        return E_NOENT;
    if (blocks > 1)
        e = block_read(m->disk, sector + STORE_BLOCK_SECTORS, (blocks - 1) * STORE_BLOCK_SECTORS,
                       m->buffer + STORE_BLOCK);
    if (e)
        return e;
    return h->crc == meta_crc(m->seed, h, offsetof(struct txn_header, crc), h->bytes) ? 0 : E_NOENT;
}

// The run at *at, which moves on. False: the text is wrong.
static bool next_run(const struct meta *m, u32 *at, struct txn_run *run, const u8 **cells)
{
    const struct txn_header *h = (const struct txn_header *)(const void *)m->buffer;
    if (*at + sizeof(*run) > h->bytes)
        return false;
    memcpy(run, m->buffer + *at, sizeof(*run));
    *cells = m->buffer + *at + sizeof(*run);
    *at += (u32)sizeof(*run) + run->cells * CELL_BYTES;
    return *at <= h->bytes && run->page < m->super->pages && run->cells > 0 &&
           run->cell + run->cells <= CELLS;
}

static int replay(struct meta *m, char *err, size_t size)
{
    u32 at = sizeof(struct txn_header);
    struct txn_run run;
    const u8 *cells;
    u32 runs = ((struct txn_header *)(void *)m->buffer)->runs;
    for (u32 i = 0; i < runs; i++) {
        if (!next_run(m, &at, &run, &cells))
            return meta_fail(E_IO, err, size, "transaction %u of its journal says what cannot be",
                             m->sequence);
        if (meta_need(m, run.page))
            return meta_fail(E_NOMEM, err, size, "no memory for its metadata");
        struct meta_page *p = m->page[run.page];
        memcpy(p->cells + run.cell * CELL_BYTES, cells, run.cells * CELL_BYTES);
        if (!p->unsaved) {
            p->unsaved = true;
            p->next_unsaved = m->unsaved;
            m->unsaved = p;
        }
    }
    return 0;
}

static int newer(const struct meta *m, char *err, size_t size)
{
    const struct txn_header *h = (const struct txn_header *)(const void *)m->buffer;
    if (h->generation > m->super->generation)
        return meta_fail(E_IO, err, size,
                         "its newest superblock is damaged: the journal is of generation %llu, the "
                         "superblock that is left of %llu",
                         (unsigned long long)h->generation,
                         (unsigned long long)m->super->generation);
    if (h->generation == m->super->generation && h->sequence > m->sequence)
        return meta_fail(E_IO, err, size, "transaction %u of its journal is damaged, and %u is not",
                         m->sequence, h->sequence);
    return 0;
}

// Nothing that is newer may lie behind the journal's end: it would have been durable.
static int check_rest(struct meta *m, u8 *window, char *err, size_t size)
{
    int e = 0;
    for (u32 at = m->block, n; at < m->super->journal_blocks && !e; at += n) {
        n = MIN(m->super->journal_blocks - at, TXN_MAX / STORE_BLOCK);
        u64 sector = m->first + (JOURNAL_START / STORE_BLOCK + at) * STORE_BLOCK_SECTORS;
        if (block_read(m->disk, sector, n * STORE_BLOCK_SECTORS, window))
            return unreadable(m, sector, E_IO, err, size);
        for (u32 i = 0; i < n && !e; i++)
            if (!memcmp(window + i * STORE_BLOCK, TXN_MAGIC, 4) && !read_txn(m, at + i))
                e = newer(m, err, size);
    }
    return e;
}

static int load_journal(struct meta *m, char *err, size_t size)
{
    const struct txn_header *h = (const struct txn_header *)(const void *)m->buffer;
    while (m->block < m->super->journal_blocks) {
        int e = read_txn(m, m->block);
        if (e && e != E_NOENT)
            return meta_fail(e, err, size, "its journal cannot be read from %s", m->disk->name);
        if (e || h->generation != m->super->generation || h->sequence != m->sequence)
            break;
        e = replay(m, err, size);
        if (e)
            return e;
        m->block += (h->bytes + STORE_BLOCK - 1) / STORE_BLOCK;
        m->sequence++;
    }
    u8 *window = kmalloc(TXN_MAX);
    int e = window ? check_rest(m, window, err, size)
                   : meta_fail(E_NOMEM, err, size, "no memory for its metadata");
    kfree(window);
    return e;
}

// ---- All of it ----------------------------------------------------------------------------------

static int allocate(struct meta *m)
{
    m->super = kzalloc(sizeof(*m->super));
    m->buffer = kzalloc(TXN_MAX);
    meta_account(m, sizeof(*m->super) + TXN_MAX);
    return m->super && m->buffer ? 0 : E_NOMEM;
}

int meta_mount(struct meta *m, struct block_device *disk, u64 first, u64 sectors, char *err,
               size_t size)
{
    memset(m, 0, sizeof(*m));
    m->disk = disk;
    m->first = first;
    m->txn = 1;
    int e = allocate(m) ? meta_fail(E_NOMEM, err, size, "no memory for its metadata") : 0;
    if (!e)
        e = load_super(m, sectors, err, size);
    if (!e) {
        m->page = kzalloc(m->super->pages * sizeof(m->page[0]));
        m->absent = m->super->pages;
        meta_account(m, (s64)(m->super->pages * sizeof(m->page[0])));
        e = m->page ? 0 : meta_fail(E_NOMEM, err, size, "no memory for its metadata");
    }
    if (!e)
        e = load_pages(m, err, size);
    if (!e)
        e = load_journal(m, err, size);
    if (e)
        meta_unmount(m);
    return e;
}

void meta_unmount(struct meta *m)
{
    for (u32 i = 0; m->page && i < m->super->pages; i++) {
        if (!m->page[i])
            continue;
        page_free(ptr_phys(page_of(m->page[i])), 0);
        kfree(m->page[i]);
    }
    kfree(m->page);
    kfree(m->buffer);
    kfree(m->super);
    meta_account(m, -(s64)m->memory_bytes);
    m->page = NULL;
    m->buffer = NULL;
    m->super = NULL;
}

// What the disk says, from the superblock on, is read into a second set of pages and compared.
static int compare(struct meta *m, struct meta *disk, char *err, size_t size)
{
    if (memcmp(disk->super, m->super, sizeof(*m->super)) || disk->block != m->block ||
        disk->sequence != m->sequence)
        return meta_fail(E_IO, err, size,
                         "the disk's superblock or journal is not what was written");
    for (u32 i = 0; i < m->super->pages; i++) {
        static const u8 nothing[CELLS * CELL_BYTES];
        const u8 *ours = m->page[i] ? m->page[i]->cells : nothing;
        const u8 *its = disk->page[i] ? disk->page[i]->cells : nothing;
        u64 flags = spin_lock_irqsave(&m->lock);
        bool same = !memcmp(ours, its, sizeof(nothing)) || (m->page[i] && m->page[i]->listed);
        spin_unlock_irqrestore(&m->lock, flags);
        if (!same)
            return meta_fail(E_IO, err, size, "page %u of its metadata is not what was written", i);
        thread_yield_if_needed();
    }
    return 0;
}

int meta_verify(struct meta *m, char *err, size_t size)
{
    struct meta disk;
    if (m->failed)
        return meta_fail(E_IO, err, size,
                         "%s failed to write or flush; restart this host to use it", m->disk->name);
    int e = meta_mount(&disk, m->disk, m->first, m->super->sectors, err, size);
    if (e)
        return e;
    e = compare(m, &disk, err, size);
    meta_unmount(&disk);
    return e;
}
