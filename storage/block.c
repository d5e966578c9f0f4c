// SPDX-License-Identifier: MIT
// Block devices: requests are checked, threads wait for them, disks are found by name.
#include "storage/block.h"

#include "kernel/lib.h"
#include "kernel/thread.h"

#define AT_ONCE 8u // requests of one call that are under way together

static struct spinlock lock; // of the list and of every used_by
static struct block_device *disks;

static u64 segment_bytes(const struct block_request *r)
{
    u64 bytes = 0;
    for (u32 i = 0; i < r->segments; i++) {
        if (r->segment[i].bytes == 0 || r->segment[i].bytes % BLOCK_SECTOR)
            return 0;
        bytes += r->segment[i].bytes;
    }
    return bytes;
}

static bool in_range(const struct block_device *b, const struct block_request *r, u32 most)
{
    return r->sectors > 0 && r->sectors <= most && r->sector < b->sectors &&
           r->sectors <= b->sectors - r->sector;
}

static int check_transfer(const struct block_device *b, const struct block_request *r)
{
    if (!in_range(b, r, b->max_sectors) || r->segments > b->max_segments ||
        segment_bytes(r) != (u64)r->sectors * BLOCK_SECTOR)
        return E_INVAL;
    return 0;
}

static int check_clear(const struct block_device *b, const struct block_request *r, bool can)
{
    if (!can)
        return E_NOSUP;
    return in_range(b, r, b->max_clear_sectors) ? 0 : E_INVAL;
}

static int check(const struct block_device *b, const struct block_request *r)
{
    if (b->read_only && r->op != BLOCK_READ && r->op != BLOCK_FLUSH)
        return E_NOSUP;
    switch (r->op) {
    case BLOCK_READ:
    case BLOCK_WRITE:
        return check_transfer(b, r);
    case BLOCK_FLUSH:
        return 0;
    case BLOCK_DISCARD:
        return check_clear(b, r, b->can_discard);
    case BLOCK_WRITE_ZEROES:
        return check_clear(b, r, b->can_write_zeroes);
    }
    return E_INVAL;
}

void block_submit(struct block_device *b, struct block_request *r)
{
    r->status = check(b, r);
    if (r->status)
        r->done(r);
    else
        b->ops->submit(b, r);
}

// ---- Waiting -----------------------------------------------------------------------------------

// Several requests that one thread waits for, on its stack.
struct batch {
    struct waitq waiter;
    volatile bool over;
    u32 left; // requests that are not done, and one while they are being submitted
    int status;
};

static void part_done(struct batch *w)
{
    if (__atomic_sub_fetch(&w->left, 1, __ATOMIC_ACQ_REL) == 0)
        waitq_set_and_wake(&w->waiter, &w->over); // the last look at it: its thread may go on
}

static void request_done(struct block_request *r)
{
    struct batch *w = r->owner;
    if (r->status)
        __atomic_store_n(&w->status, r->status, __ATOMIC_RELAXED);
    part_done(w);
}

// A piece of the whole; *at and *left move on.
static void take_piece(struct block_request *r, struct block_segment *s, u32 most, u64 *sector,
                       u64 *left, u8 **data)
{
    r->sector = *sector;
    r->sectors = (u32)MIN(*left, MAX(most, 1u));
    *sector += r->sectors;
    *left -= r->sectors;
    if (!*data)
        return;
    *s = (struct block_segment){*data, r->sectors * BLOCK_SECTOR};
    r->segment = s;
    r->segments = 1;
    *data += s->bytes;
}

static int run_all(struct block_device *b, enum block_op op, u64 sector, u64 left, u8 *data)
{
    struct block_request r[AT_ONCE];
    struct block_segment s[AT_ONCE];
    // A segment counts its bytes in 32 bits.
    u32 most = data ? MIN(b->max_sectors, 0xffffffffu / BLOCK_SECTOR) : b->max_clear_sectors;
    do {
        struct batch w = {.left = 1};
        for (u32 i = 0; i < AT_ONCE && (left > 0 || op == BLOCK_FLUSH); i++) {
            r[i] = (struct block_request){.op = op, .done = request_done, .owner = &w};
            take_piece(&r[i], &s[i], most, &sector, &left, &data);
            __atomic_add_fetch(&w.left, 1, __ATOMIC_RELAXED);
            block_submit(b, &r[i]);
            if (op == BLOCK_FLUSH)
                break;
        }
        part_done(&w);
        wait_event(&w.waiter, w.over);
        if (w.status)
            return w.status;
    } while (left > 0);
    return 0;
}

int block_read(struct block_device *b, u64 sector, u64 sectors, void *data)
{
    return run_all(b, BLOCK_READ, sector, sectors, data);
}

int block_write(struct block_device *b, u64 sector, u64 sectors, const void *data)
{
    return run_all(b, BLOCK_WRITE, sector, sectors, (u8 *)data);
}

int block_flush(struct block_device *b)
{
    return run_all(b, BLOCK_FLUSH, 0, 0, NULL);
}

int block_clear(struct block_device *b, enum block_op op, u64 sector, u64 sectors)
{
    return run_all(b, op, sector, sectors, NULL);
}

// ---- The host's disks --------------------------------------------------------------------------

void block_register(struct block_device *b)
{
    u32 number = 0;
    u64 flags = spin_lock_irqsave(&lock);
    struct block_device **at = &disks;
    for (; *at; at = &(*at)->next)
        number += (*at)->ops == b->ops;
    snprintf(b->name, sizeof(b->name), "%s%u", b->ops->kind, number);
    b->next = NULL;
    *at = b;
    spin_unlock_irqrestore(&lock, flags);
}

// Disks are added before anything looks for them, and stay.
struct block_device *block_next(const struct block_device *b)
{
    return b ? b->next : disks;
}

struct block_device *block_find(const char *name)
{
    struct block_device *b = disks;
    while (b && strcmp(b->name, name))
        b = b->next;
    return b;
}

int block_claim(struct block_device *b, const char *user)
{
    u64 flags = spin_lock_irqsave(&lock);
    int r = b->used_by[0] ? E_BUSY : 0;
    if (r == 0)
        strlcpy(b->used_by, user, sizeof(b->used_by));
    spin_unlock_irqrestore(&lock, flags);
    return r;
}

void block_release(struct block_device *b)
{
    u64 flags = spin_lock_irqsave(&lock);
    b->used_by[0] = '\0';
    spin_unlock_irqrestore(&lock, flags);
}
