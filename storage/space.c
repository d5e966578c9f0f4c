// SPDX-License-Identifier: MIT
// A datastore's chunks: found by volume and index, taken, freed.
#include "kernel/lib.h"
#include "kernel/mem.h"
#include "storage/store.h"

struct chunk_cell *chunk_cell(const struct datastore *s, u32 chunk)
{
    return meta_cell(&s->meta, PAGE_CHUNKS + chunk / CELLS, chunk % CELLS);
}

static void touch(struct datastore *s, u32 chunk)
{
    meta_touch(&s->meta, PAGE_CHUNKS + chunk / CELLS, chunk % CELLS, 1);
}

// ---- The table: linear probing ------------------------------------------------------------------

static u32 home(const struct datastore *s, u32 volume, u32 index)
{
    u64 h = ((u64)volume << 32 | index) * 0x9e3779b97f4a7c15ull;
    return (u32)(h >> 32) & s->table_mask;
}

u32 chunk_find(const struct datastore *s, u32 volume, u32 index)
{
    assert_held(&s->meta.lock);
    for (u32 i = home(s, volume, index); s->table[i]; i = (i + 1) & s->table_mask) {
        const struct chunk_cell *c = chunk_cell(s, s->table[i] - 1);
        if (c->volume == volume && c->index == index)
            return s->table[i] - 1;
    }
    return NO_CHUNK;
}

static void table_add(struct datastore *s, u32 chunk)
{
    const struct chunk_cell *c = chunk_cell(s, chunk);
    u32 i = home(s, c->volume, c->index);
    while (s->table[i])
        i = (i + 1) & s->table_mask;
    s->table[i] = chunk + 1;
}

// What stands behind the gap moves into it unless that were before its home.
static void table_remove(struct datastore *s, u32 chunk)
{
    const struct chunk_cell *c = chunk_cell(s, chunk);
    u32 gap = home(s, c->volume, c->index);
    while (s->table[gap] != chunk + 1)
        gap = (gap + 1) & s->table_mask;
    for (u32 i = (gap + 1) & s->table_mask; s->table[i]; i = (i + 1) & s->table_mask) {
        c = chunk_cell(s, s->table[i] - 1);
        u32 from_home = (i - home(s, c->volume, c->index)) & s->table_mask;
        if (from_home < ((i - gap) & s->table_mask))
            continue;
        s->table[gap] = s->table[i];
        gap = i;
    }
    s->table[gap] = 0;
}

// ---- Taking and freeing -------------------------------------------------------------------------

static void free_chunk(struct datastore *s, u32 chunk)
{
    memset(chunk_cell(s, chunk), 0, sizeof(struct chunk_cell));
    touch(s, chunk);
    s->page_free[chunk / CELLS]++;
    s->free_chunks++;
}

void chunk_set_valid(struct volume *v, u32 chunk, u64 valid)
{
    struct datastore *s = v->store;
    struct chunk_cell *c = chunk_cell(s, chunk);
    if (valid) {
        c->valid = valid;
        touch(s, chunk);
    } else {
        table_remove(s, chunk);
        free_chunk(s, chunk);
        v->chunks_used--;
    }
    v->changed = s->meta.txn;
}

static bool takeable(const struct datastore *s, u32 chunk)
{
    const struct chunk_cell *c = chunk_cell(s, chunk);
    return chunk < s->meta.super->chunks && (!c || !c->volume) &&
           meta_settled(&s->meta, PAGE_CHUNKS + chunk / CELLS, chunk % CELLS);
}

// Any that may be taken, from the page on where the last one was found. Lock held.
static u32 any_chunk(struct datastore *s)
{
    for (u32 n = 0; n < s->chunk_pages; n++) {
        u32 page = (s->rotor + n) % s->chunk_pages;
        for (u32 i = 0; s->page_free[page] && i < CELLS; i++)
            if (takeable(s, page * CELLS + i)) {
                s->rotor = page;
                return page * CELLS + i;
            }
    }
    return NO_CHUNK;
}

static u32 choose(struct datastore *s, u32 near, int *error)
{
    u64 flags = spin_lock_irqsave(&s->meta.lock);
    u32 chunk = near != NO_CHUNK && takeable(s, near + 1) ? near + 1 : any_chunk(s);
    *error = s->free_chunks ? E_BUSY : E_NOMEM;
    spin_unlock_irqrestore(&s->meta.lock, flags);
    return chunk;
}

u32 chunk_take(struct volume *v, u32 index, u32 near, int *error)
{
    struct datastore *s = v->store;
    assert_held(&s->lock);
    u32 chunk = choose(s, near, error); // stays free: nobody else takes one meanwhile
    if (chunk == NO_CHUNK)
        return NO_CHUNK;
    if (meta_need(&s->meta, PAGE_CHUNKS + chunk / CELLS)) {
        *error = E_NOMEM;
        return NO_CHUNK;
    }
    u64 flags = spin_lock_irqsave(&s->meta.lock);
    *chunk_cell(s, chunk) = (struct chunk_cell){.volume = v->id, .index = index};
    touch(s, chunk);
    table_add(s, chunk);
    s->page_free[chunk / CELLS]--;
    s->free_chunks--;
    v->chunks_used++;
    spin_unlock_irqrestore(&s->meta.lock, flags);
    return chunk;
}

static void drop_in_page(struct volume *v, u32 page, u32 first)
{
    struct datastore *s = v->store;
    u64 flags = spin_lock_irqsave(&s->meta.lock);
    struct chunk_cell *c = meta_cell(&s->meta, PAGE_CHUNKS + page, 0);
    for (u32 i = 0; c && i < CELLS; i++)
        if (c[i].volume == v->id && c[i].index >= first)
            chunk_set_valid(v, page * CELLS + i, 0);
    spin_unlock_irqrestore(&s->meta.lock, flags);
}

void chunks_drop(struct volume *v, u32 first)
{
    assert_held(&v->store->lock);
    for (u32 page = 0; page < v->store->chunk_pages && v->chunks_used; page++) {
        drop_in_page(v, page, first);
        thread_yield_if_needed();
    }
}

// ---- Mounting -----------------------------------------------------------------------------------

static struct volume *volume_of(const struct datastore *s, const struct chunk_cell *c)
{
    struct volume *v = s->volumes;
    while (v && v->id != c->volume)
        v = v->next;
    bool within = v && (u64)c->index * chunk_sectors(s) < v->dev.sectors;
    return within && c->valid ? v : NULL;
}

static int mount_chunk(struct datastore *s, u32 chunk, char *err, size_t size)
{
    struct chunk_cell *c = chunk_cell(s, chunk);
    struct volume *v = volume_of(s, c);
    if (!v) {
        free_chunk(s, chunk);
        return 0;
    }
    u32 other = chunk_find(s, c->volume, c->index);
    if (other != NO_CHUNK) {
        return meta_fail(E_IO, err, size, "chunks %u and %u both claim to be part %u of volume %s",
                         other, chunk, c->index, v->dev.name);
    }
    table_add(s, chunk);
    v->chunks_used++;
    return 0;
}

static int mount_page(struct datastore *s, u32 page, char *err, size_t size)
{
    u32 chunks = s->meta.super->chunks;
    const struct chunk_cell *c = meta_cell(&s->meta, PAGE_CHUNKS + page, 0);
    int e = 0;
    for (u32 chunk = page * CELLS, i = 0; i < CELLS && !e; i++, chunk++) {
        bool used = c && (c[i].volume || c[i].index || c[i].valid);
        if (used && chunk >= chunks) {
            e = meta_fail(E_IO, err, size, "chunk %u is in use, and there are %u", chunk, chunks);
        } else if (used) {
            e = mount_chunk(s, chunk, err, size);
        } else if (chunk < chunks) {
            s->page_free[page]++;
            s->free_chunks++;
        }
    }
    return e;
}

int space_mount(struct datastore *s, char *err, size_t size)
{
    u64 slots = 64;
    while (slots < (u64)s->meta.super->chunks * 5 / 4)
        slots *= 2;
    s->chunk_pages = s->meta.super->pages - PAGE_CHUNKS;
    s->table_mask = (u32)slots - 1;
    s->table = kzalloc(slots * sizeof(s->table[0]));
    s->page_free = kzalloc(s->chunk_pages * sizeof(s->page_free[0]));
    meta_account(&s->meta,
                 (s64)(slots * sizeof(s->table[0]) + s->chunk_pages * sizeof(s->page_free[0])));
    int e = s->table && s->page_free ? 0 : E_NOMEM;
    if (e)
        meta_fail(e, err, size, "no memory for its tables");
    for (u32 page = 0; page < s->chunk_pages && !e; page++) {
        u64 flags = spin_lock_irqsave(&s->meta.lock);
        e = mount_page(s, page, err, size);
        spin_unlock_irqrestore(&s->meta.lock, flags);
        thread_yield_if_needed();
    }
    return e;
}

void space_unmount(struct datastore *s)
{
    kfree(s->table);
    kfree(s->page_free);
    s->table = NULL;
    s->page_free = NULL;
}
