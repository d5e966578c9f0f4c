// SPDX-License-Identifier: MIT
// A volume as a block device: requests are cut up by where their chunks are on the disk. What needs
// a change of the metadata, or has to wait, goes to the datastore's worker (volume_work.c).
#include "kernel/lib.h"
#include "kernel/log.h"
#include "kernel/mem.h"
#include "storage/store.h"

#define IOS         128u // under way on the disk at the same time
#define IO_SEGMENTS 32u

struct volume_io {
    struct block_request r; // r.owner is the volume's request
    struct block_segment segment[IO_SEGMENTS];
    struct volume_io *next; // free
};

// In the request's `driver`.
struct progress {
    struct volume *volume;
    u32 left; // ios under way, and one until all are given out; atomic
    s32 status;
    u32 given;           // sectors that are given out
    u32 segment, offset; // where they end in memory
};
static_assert(sizeof(struct progress) <= sizeof(((struct block_request *)0)->driver), "progress");

static struct progress *progress(struct block_request *r)
{
    return (struct progress *)(void *)r->driver;
}

struct volume *request_volume(struct block_request *r)
{
    return progress(r)->volume;
}

int requests_start(struct datastore *s)
{
    s->queue_end = &s->queue;
    s->stalled_end = &s->stalled;
    s->ios = kzalloc(IOS * sizeof(s->ios[0]));
    if (!s->ios)
        return E_NOMEM;
    meta_account(&s->meta, IOS * sizeof(s->ios[0]));
    for (u32 i = 0; i < IOS; i++) {
        s->ios[i].next = s->free_ios;
        s->free_ios = &s->ios[i];
    }
    return 0;
}

void requests_end(struct datastore *s)
{
    kfree(s->ios);
    s->ios = s->free_ios = NULL;
}

// ---- Where the sectors are ----------------------------------------------------------------------

// Sectors from `sector` on, to the chunk's end at most, that are all in a hole or all on the disk,
// at *at (0: a hole). A write may go to all of a chunk. Lock held.
static u64 run_in_chunk(const struct volume *v, u64 sector, bool write, u64 *at)
{
    const struct datastore *s = v->store;
    u64 within = sector % chunk_sectors(s), piece = within / piece_sectors(s);
    u32 chunk = chunk_find(s, v->id, (u32)(sector / chunk_sectors(s)));
    u64 bits = chunk == NO_CHUNK ? 0 : write ? ~0ull : chunk_cell(s, chunk)->valid;
    bool data = bits >> piece & 1;
    u64 other = (data ? ~bits : bits) >> piece;
    u64 pieces = other ? (u64)__builtin_ctzll(other) : 64 - piece;
    *at = data ? chunk_sector(s, chunk) + within : 0;
    return (piece + pieces) * piece_sectors(s) - within;
}

// The same over several chunks, as far as they follow each other on the disk.
static u64 find_run(const struct volume *v, u64 sector, u64 most, bool write, u64 *at)
{
    u64 next, run = run_in_chunk(v, sector, write, at);
    while (run < most && (sector + run) % chunk_sectors(v->store) == 0) {
        u64 more = run_in_chunk(v, sector + run, write, &next);
        if (*at ? next != *at + run : next != 0)
            break;
        run += more;
    }
    return MIN(run, most);
}

bool volume_allocated(struct block_device *b, u64 sector, u64 *run)
{
    struct volume *v = b->priv;
    u64 at, most = MIN(b->sectors - sector, 1024 * chunk_sectors(v->store)); // the lock is held
    u64 flags = spin_lock_irqsave(&v->store->meta.lock);
    *run = find_run(v, sector, most, false, &at);
    spin_unlock_irqrestore(&v->store->meta.lock, flags);
    return at != 0;
}

// May it go to the disk as it is: are there chunks for all of it, and what lies beside it within
// the first and the last piece? Lock held.
static bool has_room(const struct volume *v, const struct block_request *r)
{
    u64 at, end = r->sector + r->sectors, piece = piece_sectors(v->store);
    for (u64 sector = r->sector, run; sector < end; sector += run) {
        run = run_in_chunk(v, sector, true, &at);
        if (!at)
            return false;
    }
    run_in_chunk(v, r->sector, r->sector % piece == 0, &at);
    if (at)
        run_in_chunk(v, end - 1, end % piece == 0, &at);
    return at != 0;
}

// What a write has covered is valid now. Lock held.
static void set_valid(struct volume *v, const struct block_request *r)
{
    struct datastore *s = v->store;
    u64 piece = piece_sectors(s), end = ALIGN_DOWN(r->sector + r->sectors, piece);
    for (u64 sector = ALIGN_UP(r->sector, piece); sector < end;) {
        u32 first = (u32)(sector % chunk_sectors(s) / piece);
        u32 pieces = (u32)MIN((end - sector) / piece, 64 - first);
        u32 chunk = chunk_find(s, v->id, (u32)(sector / chunk_sectors(s)));
        u64 mask = ~0ull >> (64 - pieces) << first;
        u64 valid = chunk_cell(s, chunk)->valid;
        if ((valid & mask) != mask)
            chunk_set_valid(v, chunk, valid | mask);
        sector += pieces * piece;
    }
}

// ---- A request's course -------------------------------------------------------------------------

static void flush_failed(struct datastore *s)
{
    if (!s->meta.failed)
        log_error("storage", "datastore %s: %s does not flush; nothing is written there any more",
                  s->name, s->disk->name);
    s->meta.failed = true;
}

static void finish(struct block_request *r)
{
    struct progress *p = progress(r);
    struct volume *v = p->volume;
    struct datastore *s = v->store;
    if (p->status && r->op == BLOCK_FLUSH)
        flush_failed(s);
    u64 flags = spin_lock_irqsave(&s->meta.lock);
    if (r->op == BLOCK_WRITE && !p->status)
        set_valid(v, r);
    bool quiet = --v->inflight == 0 && v->closed;
    spin_unlock_irqrestore(&s->meta.lock, flags);
    if (quiet)
        waitq_wake_all(&s->wake);
    r->status = p->status;
    r->done(r);
}

static void put(struct block_request *r)
{
    if (__atomic_sub_fetch(&progress(r)->left, 1, __ATOMIC_ACQ_REL) == 0)
        finish(r);
}

static void io_done(struct block_request *io)
{
    struct volume_io *i = container_of(io, struct volume_io, r);
    struct block_request *r = io->owner, *other;
    struct datastore *s = progress(r)->volume->store;
    if (io->status)
        __atomic_store_n(&progress(r)->status, io->status, __ATOMIC_RELAXED);
    u64 flags = spin_lock_irqsave(&s->meta.lock);
    i->next = s->free_ios;
    s->free_ios = i;
    other = s->stalled;
    if (other) {
        s->stalled = other->next;
        if (!s->stalled)
            s->stalled_end = &s->stalled;
    }
    spin_unlock_irqrestore(&s->meta.lock, flags);
    put(r);
    if (other)
        request_go(other);
}

// Memory of the request, from where it is given out: at most `bytes`, in one piece.
static struct block_segment next_memory(struct block_request *r, u64 bytes)
{
    struct progress *p = progress(r);
    const struct block_segment *s = &r->segment[p->segment];
    struct block_segment out = {(u8 *)s->data + p->offset, (u32)MIN(s->bytes - p->offset, bytes)};
    p->offset += out.bytes;
    if (p->offset == s->bytes) {
        p->segment++;
        p->offset = 0;
    }
    return out;
}

static void read_zeros(struct block_request *r, u64 sectors)
{
    for (u64 bytes = sectors * BLOCK_SECTOR; bytes;) {
        struct block_segment s = next_memory(r, bytes);
        memset(s.data, 0, s.bytes);
        bytes -= s.bytes;
    }
    progress(r)->given += (u32)sectors;
}

static void send(struct datastore *s, struct volume_io *io, struct block_request *r, u64 at,
                 u64 sectors)
{
    u32 most = MIN(s->disk->max_segments, IO_SEGMENTS), segments = 0;
    u64 bytes = MIN(sectors, s->disk->max_sectors) * BLOCK_SECTOR, left = bytes;
    for (; left && segments < most; segments++) {
        io->segment[segments] = next_memory(r, left);
        left -= io->segment[segments].bytes;
    }
    io->r = (struct block_request){.op = r->op,
                                   .sector = at,
                                   .sectors = (u32)((bytes - left) / BLOCK_SECTOR),
                                   .segments = segments,
                                   .segment = io->segment,
                                   .done = io_done,
                                   .owner = r};
    progress(r)->given += io->r.sectors;
    __atomic_add_fetch(&progress(r)->left, 1, __ATOMIC_RELAXED);
    block_submit(s->disk, &io->r);
}

static void stall(struct datastore *s, struct block_request *r)
{
    r->next = NULL;
    *s->stalled_end = r;
    s->stalled_end = &r->next;
}

// One more part of it. False: it has to wait for an io, and this context is through with it.
static bool go_on(struct datastore *s, struct block_request *r)
{
    struct progress *p = progress(r);
    u64 at = 0, run = 0;
    struct volume_io *io = NULL;
    u64 flags = spin_lock_irqsave(&s->meta.lock);
    if (r->op != BLOCK_FLUSH)
        run = find_run(p->volume, r->sector + p->given, r->sectors - p->given, r->op == BLOCK_WRITE,
                       &at);
    bool hole = r->op == BLOCK_READ && !at;
    if (!hole && (io = s->free_ios))
        s->free_ios = io->next;
    else if (!hole)
        stall(s, r);
    spin_unlock_irqrestore(&s->meta.lock, flags);
    if (hole)
        read_zeros(r, run);
    else if (io)
        send(s, io, r, at, run);
    return hole || io;
}

void request_go(struct block_request *r)
{
    struct datastore *s = progress(r)->volume->store;
    do {
        if (!go_on(s, r))
            return;
    } while (progress(r)->given < r->sectors);
    put(r);
}

static void begin(struct volume *v, struct block_request *r)
{
    *progress(r) = (struct progress){.volume = v, .left = 1};
    v->inflight++;
}

void request_start(struct volume *v, struct block_request *r)
{
    u64 flags = spin_lock_irqsave(&v->store->meta.lock);
    begin(v, r);
    spin_unlock_irqrestore(&v->store->meta.lock, flags);
    request_go(r);
}

void request_end(struct block_request *r, int status)
{
    r->status = status;
    r->done(r);
}

// Whether it needs nobody's help. Lock held.
static bool can_go(const struct volume *v, const struct block_request *r)
{
    switch (r->op) {
    case BLOCK_READ:
        return !v->closed;
    case BLOCK_WRITE:
        return !v->closed && has_room(v, r);
    case BLOCK_FLUSH: // the disk's alone, where the metadata that leads to the data is durable
        return !v->closed && v->changed <= v->store->meta.durable;
    default:
        return false;
    }
}

static void queue(struct volume *v, struct block_request *r)
{
    struct datastore *s = v->store;
    progress(r)->volume = v;
    r->next = NULL;
    *s->queue_end = r;
    s->queue_end = &r->next;
}

static void submit(struct block_device *b, struct block_request *r)
{
    struct volume *v = b->priv;
    struct datastore *s = v->store;
    u64 flags = spin_lock_irqsave(&s->meta.lock);
    bool refused = s->meta.failed && r->op != BLOCK_READ;
    bool now = !refused && can_go(v, r);
    if (now)
        begin(v, r);
    else if (!refused)
        queue(v, r);
    spin_unlock_irqrestore(&s->meta.lock, flags);
    if (refused)
        request_end(r, E_IO);
    else if (now)
        request_go(r);
    else
        waitq_wake_all(&s->wake);
}

const struct block_ops volume_ops = {.kind = "volume", .submit = submit};
