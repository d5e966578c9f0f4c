// SPDX-License-Identifier: MIT
// The datastore's metadata becomes durable: marks of what changed, transactions, checkpoints.
#include "storage/meta.h"

#include "kernel/lib.h"
#include "kernel/mem.h"

int meta_fail(int e, char *err, size_t size, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(err, size, fmt, ap);
    va_end(ap);
    return e;
}

u32 meta_crc(u32 seed, const void *structure, size_t crc_at, size_t bytes)
{
    const u8 *p = structure;
    return crc32c(crc32c(seed, p, crc_at), p + crc_at + 4, bytes - crc_at - 4);
}

u64 meta_page_sector(const struct super *s, u32 page, bool second)
{
    u64 block = JOURNAL_START / STORE_BLOCK + s->journal_blocks + 2ull * page + second;
    return block * STORE_BLOCK_SECTORS;
}

u64 meta_data_start(const struct super *s)
{
    return ALIGN_UP(meta_page_sector(s, s->pages, false), MIB / BLOCK_SECTOR);
}

// ---- Marks --------------------------------------------------------------------------------------

static void mark(u64 marks[MARK_WORDS], u32 cell, u32 cells)
{
    for (u32 i = cell; i < cell + cells; i++)
        marks[i / 64] |= BIT(i % 64);
}

static bool marked(const u64 marks[MARK_WORDS], u32 cell)
{
    return marks[cell / 64] >> (cell % 64) & 1;
}

static void list_touched(struct meta *m, struct meta_page *p)
{
    if (p->listed)
        return;
    p->listed = true;
    p->next_touched = m->touched;
    m->touched = p;
}

void meta_touch(struct meta *m, u32 page, u32 cell, u32 cells)
{
    struct meta_page *p = m->page[page];
    assert_held(&m->lock);
    mark(p->open, cell, cells);
    list_touched(m, p);
    if (p->unsaved)
        return;
    p->unsaved = true;
    p->next_unsaved = m->unsaved;
    m->unsaved = p;
}

bool meta_settled(const struct meta *m, u32 page, u32 cell)
{
    const struct meta_page *p = m->page[page];
    return !p || (!marked(p->open, cell) && !marked(p->moving, cell));
}

void meta_account(struct meta *m, s64 bytes)
{
    m->memory_bytes += (u64)bytes;
    mem_account(MEM_DATASTORES, bytes);
}

struct meta_page *meta_add_page(struct meta *m, u32 page)
{
    struct meta_page *p = kzalloc(sizeof(*p));
    u64 pa = p ? page_alloc_zero(0) : 0;
    if (!pa) {
        kfree(p);
        return NULL;
    }
    p->number = page;
    p->cells = (u8 *)phys_ptr(pa) + sizeof(struct page_header);
    meta_account(m, META_PAGE_BYTES);
    m->absent--;
    u64 flags = spin_lock_irqsave(&m->lock);
    m->page[page] = p;
    spin_unlock_irqrestore(&m->lock, flags);
    return p;
}

int meta_need(struct meta *m, u32 page)
{
    return m->page[page] || meta_add_page(m, page) ? 0 : E_NOMEM;
}

// ---- Transactions -------------------------------------------------------------------------------

// Appends the open cells of a page. Returns false when they do not fit; lock held.
static bool append_page(struct meta *m, const struct meta_page *p, struct txn_header *t)
{
    for (u32 cell = 0, cells; cell < CELLS; cell += cells) {
        bool open = marked(p->open, cell);
        for (cells = 1; cell + cells < CELLS && marked(p->open, cell + cells) == open;)
            cells++;
        if (!open)
            continue;
        struct txn_run run = {p->number, (u16)cell, (u16)cells};
        if (t->bytes + sizeof(run) + cells * CELL_BYTES > TXN_MAX)
            return false;
        memcpy(m->buffer + t->bytes, &run, sizeof(run));
        memcpy(m->buffer + t->bytes + sizeof(run), p->cells + cell * CELL_BYTES,
               cells * CELL_BYTES);
        t->bytes += (u32)sizeof(run) + cells * CELL_BYTES;
        t->runs++;
    }
    return true;
}

static void open_to_moving(struct meta_page *p)
{
    for (u32 i = 0; i < MARK_WORDS; i++) {
        p->moving[i] |= p->open[i];
        p->open[i] = 0;
    }
}

// The pages that have changed, linked by `next`. The next transaction is open from here on.
static struct meta_page *take_touched(struct meta *m)
{
    u64 flags = spin_lock_irqsave(&m->lock);
    struct meta_page *list = m->touched;
    for (struct meta_page *p = list; p; p = p->next) {
        p->next = p->next_touched;
        p->listed = false;
    }
    m->touched = NULL;
    m->txn++;
    spin_unlock_irqrestore(&m->lock, flags);
    return list;
}

// The transaction's text, checksum left out. Returns false when it is too long.
static bool write_text(struct meta *m, struct meta_page *list, struct txn_header *t)
{
    bool fits = true;
    for (struct meta_page *p = list; p && fits; p = p->next) {
        u64 flags = spin_lock_irqsave(&m->lock);
        fits = append_page(m, p, t);
        if (fits)
            open_to_moving(p);
        spin_unlock_irqrestore(&m->lock, flags);
    }
    u32 end = MIN(ALIGN_UP(t->bytes, STORE_BLOCK), TXN_MAX);
    memset(m->buffer + t->bytes, 0, end - t->bytes);
    return fits && end / STORE_BLOCK <= m->super->journal_blocks - m->block;
}

static int write_txn(struct meta *m, const struct txn_header *t)
{
    u32 blocks = (t->bytes + STORE_BLOCK - 1) / STORE_BLOCK;
    struct txn_header *h = (struct txn_header *)(void *)m->buffer;
    *h = *t;
    h->crc = meta_crc(m->seed, h, offsetof(struct txn_header, crc), h->bytes);
    u64 sector = m->first + (JOURNAL_START / STORE_BLOCK + m->block) * STORE_BLOCK_SECTORS;
    int e = block_flush(m->disk); // the data that the copied cells speak of
    if (!e)
        e = block_write(m->disk, sector, blocks * STORE_BLOCK_SECTORS, h);
    if (!e)
        e = block_flush(m->disk);
    m->block += blocks;
    m->sequence++;
    return e;
}

// ---- Checkpoints --------------------------------------------------------------------------------

static struct meta_page *take_unsaved(struct meta *m)
{
    u64 flags = spin_lock_irqsave(&m->lock);
    struct meta_page *list = m->unsaved;
    for (struct meta_page *p = list; p; p = p->next)
        p->next = p->next_unsaved;
    m->unsaved = NULL;
    spin_unlock_irqrestore(&m->lock, flags);
    return list;
}

static int write_page(struct meta *m, struct meta_page *p, struct super *next)
{
    u8 *copy = m->buffer;
    u64 flags = spin_lock_irqsave(&m->lock);
    memcpy(copy, page_of(p), STORE_BLOCK);
    open_to_moving(p);
    p->unsaved = false;
    spin_unlock_irqrestore(&m->lock, flags);
    struct page_header *h = (struct page_header *)(void *)copy;
    *h = (struct page_header){.page = p->number, .generation = next->generation};
    h->crc = meta_crc(m->seed, h, offsetof(struct page_header, crc), STORE_BLOCK);
    u8 bit = (u8)BIT(p->number % 8);
    if (next->present[p->number / 8] & bit)
        next->second[p->number / 8] ^= bit;
    next->present[p->number / 8] |= bit;
    return block_write(
        m->disk, m->first + meta_page_sector(next, p->number, map_bit(next->second, p->number)),
        STORE_BLOCK_SECTORS, copy);
}

int meta_write_super(struct block_device *disk, u64 first, u32 seed, struct super *s)
{
    s->crc = meta_crc(seed, s, offsetof(struct super, crc), sizeof(*s));
    u64 sector = first + (s->generation % 2 ? 0 : SUPER_SECOND / BLOCK_SECTOR);
    int e = block_write(disk, sector, SUPER_BYTES / BLOCK_SECTOR, s);
    return e ? e : block_flush(disk);
}

static int checkpoint(struct meta *m, struct meta_page *list)
{
    struct super *next = m->super; // what is on the disk is not needed in memory any more
    int e = 0;
    next->generation++;
    for (struct meta_page *p = list; p && !e; p = p->next)
        e = write_page(m, p, next);
    if (!e)
        e = block_flush(m->disk);
    if (!e)
        e = meta_write_super(m->disk, m->first, m->seed, next);
    m->block = m->sequence = 0;
    m->checkpoints++;
    return e;
}

// ---- Commit -------------------------------------------------------------------------------------

// The changes of `list` and of everything before transaction `txn` was closed are durable.
static void settle(struct meta *m, struct meta_page *list, u64 txn)
{
    u64 flags = spin_lock_irqsave(&m->lock);
    for (struct meta_page *p = list; p; p = p->next)
        memset(p->moving, 0, sizeof(p->moving));
    m->durable = txn;
    spin_unlock_irqrestore(&m->lock, flags);
}

int meta_commit(struct meta *m)
{
    struct txn_header t = {.generation = m->super->generation,
                           .sequence = m->sequence,
                           .block = m->block,
                           .bytes = sizeof(t)};
    if (m->failed)
        return E_IO;
    memcpy(t.magic, TXN_MAGIC, sizeof(t.magic));
    struct meta_page *list = take_touched(m);
    u64 txn = m->txn - 1;
    bool fits = write_text(m, list, &t);
    int e;
    if (t.runs == 0 && fits) {
        e = block_flush(m->disk);
    } else if (fits) {
        e = write_txn(m, &t);
    } else {
        list = take_unsaved(m); // all of the touched are among them
        e = checkpoint(m, list);
    }
    m->commits++;
    if (e)
        m->failed = true; // and every mark stays, so that nothing freed is given away
    else
        settle(m, list, txn);
    return e;
}
