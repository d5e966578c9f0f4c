// SPDX-License-Identifier: MIT
// A datastore's worker: first writes to a place, discards, and flushes that need a commit.
#include "kernel/lib.h"
#include "kernel/log.h"
#include "storage/store.h"

// ---- Quiet --------------------------------------------------------------------------------------

static void close_gate(struct volume *v)
{
    struct datastore *s = v->store;
    u64 flags = spin_lock_irqsave(&s->meta.lock);
    v->closed = true;
    spin_unlock_irqrestore(&s->meta.lock, flags);
    wait_event(&s->wake, __atomic_load_n(&v->inflight, __ATOMIC_ACQUIRE) == 0);
}

static void open_gate(struct volume *v)
{
    u64 flags = spin_lock_irqsave(&v->store->meta.lock);
    v->closed = false;
    spin_unlock_irqrestore(&v->store->meta.lock, flags);
}

// ---- Pieces -------------------------------------------------------------------------------------

static u32 chunk_at(const struct volume *v, u64 sector, u64 *valid)
{
    struct datastore *s = v->store;
    u64 flags = spin_lock_irqsave(&s->meta.lock);
    u32 chunk = chunk_find(s, v->id, (u32)(sector / chunk_sectors(s)));
    *valid = chunk == NO_CHUNK ? 0 : chunk_cell(s, chunk)->valid;
    spin_unlock_irqrestore(&s->meta.lock, flags);
    return chunk;
}

static u64 piece_bit(const struct datastore *s, u64 sector)
{
    return BIT(sector % chunk_sectors(s) / piece_sectors(s));
}

// The commit's buffer serves: whoever holds the datastore's lock has it.
static int write_zeros(struct datastore *s, u64 at, u64 sectors)
{
    int e = 0;
    memset(s->meta.buffer, 0, TXN_MAX);
    for (u64 n; sectors && !e; sectors -= n, at += n) {
        n = MIN(sectors, TXN_MAX / BLOCK_SECTOR);
        e = block_write(s->disk, at, n, s->meta.buffer);
    }
    return e;
}

// A piece that is about to be written in part for the first time: the rest of it is zeros.
static int fill_piece(struct volume *v, u64 sector)
{
    struct datastore *s = v->store;
    u64 valid, piece = piece_sectors(s);
    chunk_at(v, sector, &valid);
    if (valid & piece_bit(s, sector))
        return 0;
    close_gate(v); // another write to the piece may be under way
    u32 chunk = chunk_at(v, sector, &valid);
    int e = 0;
    if (!(valid & piece_bit(s, sector))) {
        u64 within = ALIGN_DOWN(sector % chunk_sectors(s), piece);
        e = write_zeros(s, chunk_sector(s, chunk) + within, piece);
        u64 flags = spin_lock_irqsave(&s->meta.lock);
        if (!e)
            chunk_set_valid(v, chunk, valid | piece_bit(s, sector));
        spin_unlock_irqrestore(&s->meta.lock, flags);
    }
    open_gate(v);
    return e;
}

// ---- Writes -------------------------------------------------------------------------------------

static void tell_full(struct volume *v)
{
    if (!v->full_told)
        log_error("storage", "datastore %s is full: writes to %s fail until there is room",
                  v->store->name, v->dev.name);
    v->full_told = true;
}

static int take(struct volume *v, u32 index, u32 *near)
{
    int e = 0, tries = 0;
    u32 chunk;
    while ((chunk = chunk_take(v, index, *near, &e)) == NO_CHUNK) {
        if (e == E_NOMEM || tries++)
            tell_full(v);
        if (e == E_NOMEM || tries > 1)
            return E_NOMEM;
        e = store_commit(v->store); // what was freed can be had after it
        if (e)
            return e;
    }
    v->full_told = false;
    *near = chunk;
    return 0;
}

static int make_room(struct volume *v, const struct block_request *r)
{
    u64 valid, chunk = chunk_sectors(v->store), end = r->sector + r->sectors;
    u32 near = r->sector < chunk ? NO_CHUNK : chunk_at(v, r->sector - chunk, &valid);
    int e = 0;
    for (u64 at = ALIGN_DOWN(r->sector, chunk); at < end && !e; at += chunk) {
        u32 here = chunk_at(v, at, &valid);
        if (here == NO_CHUNK)
            e = take(v, (u32)(at / chunk), &near);
        else
            near = here;
    }
    u64 piece = piece_sectors(v->store);
    if (!e && r->sector % piece)
        e = fill_piece(v, r->sector);
    if (!e && end % piece)
        e = fill_piece(v, end - 1);
    return e;
}

// ---- Discards -----------------------------------------------------------------------------------

// The part of a piece that is cleared becomes zeros where the piece was written.
static int clear_part(struct volume *v, u64 sector, u64 end)
{
    struct datastore *s = v->store;
    u64 valid;
    u32 chunk = chunk_at(v, sector, &valid);
    if (!(valid & piece_bit(s, sector)))
        return 0;
    return write_zeros(s, chunk_sector(s, chunk) + sector % chunk_sectors(s), end - sector);
}

static void clear_pieces(struct volume *v, u64 sector, u64 end)
{
    struct datastore *s = v->store;
    u64 first = sector % chunk_sectors(s) / piece_sectors(s);
    u64 mask = ~0ull >> (64 - (end - sector) / piece_sectors(s)) << first;
    u64 flags = spin_lock_irqsave(&s->meta.lock);
    u32 chunk = chunk_find(s, v->id, (u32)(sector / chunk_sectors(s)));
    if (chunk != NO_CHUNK)
        chunk_set_valid(v, chunk, chunk_cell(s, chunk)->valid & ~mask);
    spin_unlock_irqrestore(&s->meta.lock, flags);
}

// The part of the range that one chunk, or a part of one piece, holds. Its end.
static u64 clear_some(struct volume *v, u64 sector, u64 end, int *error)
{
    u64 piece = piece_sectors(v->store), chunk = chunk_sectors(v->store);
    u64 whole = MIN(ALIGN_DOWN(end, piece), ALIGN_DOWN(sector, chunk) + chunk);
    if (sector % piece || whole <= sector) {
        end = MIN(end, ALIGN_DOWN(sector, piece) + piece);
        *error = clear_part(v, sector, end);
        return end;
    }
    clear_pieces(v, sector, whole);
    return whole;
}

int volume_clear(struct volume *v, u64 sector, u64 end)
{
    int e = 0;
    while (sector < end && !e) {
        sector = clear_some(v, sector, end, &e);
        thread_yield_if_needed();
    }
    return e;
}

static int clear(struct volume *v, const struct block_request *r)
{
    close_gate(v); // a chunk that is freed has no request under way
    int e = volume_clear(v, r->sector, r->sector + r->sectors);
    open_gate(v);
    return e;
}

// ---- The worker ---------------------------------------------------------------------------------

int store_commit(struct datastore *s)
{
    assert_held(&s->lock);
    bool told = s->meta.failed;
    int e = meta_commit(&s->meta);
    if (e && !told)
        log_error(
            "storage",
            "datastore %s: %s failed to write or flush its metadata; nothing is written there "
            "any more",
            s->name, s->disk->name);
    return e;
}

static void end_flushes(struct block_request *flushes, int status)
{
    while (flushes) {
        struct block_request *r = flushes;
        flushes = r->next;
        request_end(r, status);
    }
}

static struct block_request *take_queue(struct datastore *s)
{
    u64 flags = spin_lock_irqsave(&s->meta.lock);
    struct block_request *list = s->queue;
    s->queue = NULL;
    s->queue_end = &s->queue;
    spin_unlock_irqrestore(&s->meta.lock, flags);
    return list;
}

// A read or a write goes on its way, a discard is done.
static void work_on(struct datastore *s, struct block_request *r)
{
    struct volume *v = request_volume(r);
    int e = s->meta.failed && r->op != BLOCK_READ ? E_IO : 0;
    if (r->op == BLOCK_WRITE && !e)
        e = make_room(v, r);
    else if (r->op != BLOCK_READ && !e)
        e = clear(v, r);
    if (!e && (r->op == BLOCK_READ || r->op == BLOCK_WRITE))
        request_start(v, r);
    else
        request_end(r, e);
}

void store_work(struct datastore *s)
{
    struct block_request *flushes = NULL, *next;
    mutex_lock(&s->lock);
    for (struct block_request *r = take_queue(s); r; r = next) {
        next = r->next;
        if (r->op == BLOCK_FLUSH) {
            r->next = flushes;
            flushes = r;
        } else {
            work_on(s, r);
        }
    }
    if (flushes)
        end_flushes(flushes, store_commit(s)); // one for all of them
    mutex_unlock(&s->lock);
}

void store_worker(void *arg)
{
    struct datastore *s = arg;
    for (;;) {
        wait_event(&s->wake, __atomic_load_n(&s->queue, __ATOMIC_ACQUIRE) != NULL);
        store_work(s);
    }
}
