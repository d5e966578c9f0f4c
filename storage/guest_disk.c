// SPDX-License-Identifier: MIT
// Between a guest's block device and the disk below: reads pass, writes are counted and logged.
#include "storage/guest_disk.h"

#include "kernel/lib.h"
#include "kernel/mem.h"
#include "storage/datastore.h"

#define COLLECT_AT_ONCE 256u // blocks moved with the lock held

static bool is_volume(const char *name)
{
    return strchr(name, '/');
}

// ---- Writes ------------------------------------------------------------------------------------

static u64 blocks_of(const struct guest_disk *d, const struct block_request *r)
{
    return (r->sector + r->sectors - 1) / d->block_sectors - r->sector / d->block_sectors + 1;
}

// A request that is longer than all the log may hold goes alone. Lock held, as in the next three.
static bool may_go(const struct guest_disk *d, const struct block_request *r)
{
    u64 before = d->log.count + d->under_way;
    return d->free && (!d->logging || !d->most || !before || before + blocks_of(d, r) <= d->most);
}

// Whether it worked or not: part of it may be on the disk.
static void log_write(struct guest_disk *d, const struct block_request *r)
{
    u64 first = r->sector / d->block_sectors;
    for (u64 i = 0; d->logging && i < blocks_of(d, r); i++)
        dirty_bitmap_set(&d->log, first + i);
}

static void write_done(struct block_request *below);

static struct guest_write *take_next(struct guest_disk *d)
{
    struct block_request *r = d->first;
    struct guest_write *w = d->free;
    if (!r || !may_go(d, r))
        return NULL;
    d->first = r->next;
    if (!d->first)
        d->last = &d->first;
    d->free = w->next;
    d->under_way += blocks_of(d, r);
    w->of = r;
    w->below = *r;
    w->below.done = write_done;
    w->below.owner = w;
    if (d->early)
        log_write(d, r);
    return w;
}

// One at a time, so that a disk that is done at once does not end in a deep recursion.
static void submit_waiting(struct guest_disk *d)
{
    u64 flags = spin_lock_irqsave(&d->lock);
    bool mine = !d->submitting;
    d->submitting = true;
    for (struct guest_write *w; mine && (w = take_next(d));) {
        spin_unlock_irqrestore(&d->lock, flags);
        block_submit(d->below, &w->below);
        flags = spin_lock_irqsave(&d->lock);
    }
    if (mine)
        d->submitting = false;
    spin_unlock_irqrestore(&d->lock, flags);
}

static void write_done(struct block_request *below)
{
    struct guest_write *w = below->owner;
    struct guest_disk *d = w->disk;
    struct block_request *r = w->of;
    int status = below->status;
    u64 flags = spin_lock_irqsave(&d->lock);
    log_write(d, r);
    d->under_way -= blocks_of(d, r);
    w->next = d->free;
    d->free = w;
    spin_unlock_irqrestore(&d->lock, flags);
    r->status = status;
    r->done(r);
    submit_waiting(d);
}

static void guest_disk_submit(struct block_device *b, struct block_request *r)
{
    struct guest_disk *d = container_of(b, struct guest_disk, block);
    if (r->op == BLOCK_READ || r->op == BLOCK_FLUSH) {
        block_submit(d->below, r);
        return;
    }
    u64 flags = spin_lock_irqsave(&d->lock);
    r->next = NULL;
    *d->last = r;
    d->last = &r->next;
    spin_unlock_irqrestore(&d->lock, flags);
    submit_waiting(d);
}

static const struct block_ops guest_disk_ops = {"guest", guest_disk_submit};

// ---- The log -----------------------------------------------------------------------------------

u64 guest_disk_blocks(const struct guest_disk *d)
{
    return (d->block.sectors + d->block_sectors - 1) / d->block_sectors;
}

static void set_log(struct guest_disk *d, struct dirty_bitmap log, bool logging, bool early)
{
    u64 flags = spin_lock_irqsave(&d->lock);
    struct dirty_bitmap before = d->log;
    d->log = log;
    d->most = 0;
    d->logging = logging;
    d->early = early;
    spin_unlock_irqrestore(&d->lock, flags);
    dirty_bitmap_free(&before);
    submit_waiting(d);
}

int guest_disk_log_start(struct guest_disk *d, bool early)
{
    struct dirty_bitmap log;
    int e = dirty_bitmap_init(&log, guest_disk_blocks(d));
    if (e == 0)
        set_log(d, log, true, early);
    return e;
}

void guest_disk_log_stop(struct guest_disk *d)
{
    set_log(d, (struct dirty_bitmap){.pages = 0}, false, false);
}

bool guest_disk_logged(struct guest_disk *d, u64 block)
{
    u64 flags = spin_lock_irqsave(&d->lock);
    bool logged = !d->logging || dirty_bitmap_test(&d->log, block);
    spin_unlock_irqrestore(&d->lock, flags);
    return logged;
}

// Moves a few, from *at on. False when that was all.
static bool collect_some(struct guest_disk *d, struct dirty_bitmap *todo, u64 *at, u64 *moved)
{
    u64 flags = spin_lock_irqsave(&d->lock);
    for (u32 n = 0; n < COLLECT_AT_ONCE && *at != ~0ull; n++) {
        *at = d->logging ? dirty_bitmap_take_next(&d->log, *at) : ~0ull;
        if (*at == ~0ull)
            break;
        dirty_bitmap_set(todo, *at);
        ++*moved;
    }
    spin_unlock_irqrestore(&d->lock, flags);
    return *at != ~0ull;
}

u64 guest_disk_collect(struct guest_disk *d, struct dirty_bitmap *todo)
{
    u64 at = 0, moved = 0;
    while (collect_some(d, todo, &at, &moved))
        thread_yield_if_needed();
    submit_waiting(d);
    return moved;
}

bool guest_disk_allocated(const struct guest_disk *d, u64 sector, u64 *run)
{
    if (is_volume(d->block.name))
        return volume_allocated(d->below, sector, run);
    *run = d->block.sectors - sector;
    return true;
}

void guest_disk_limit(struct guest_disk *d, u64 most)
{
    u64 flags = spin_lock_irqsave(&d->lock);
    d->most = most;
    spin_unlock_irqrestore(&d->lock, flags);
    submit_waiting(d);
}

// ---- Open and close ----------------------------------------------------------------------------

static void put_on(struct guest_disk *d, struct block_device *below)
{
    d->below = below;
    d->block = *below;
    d->block.ops = &guest_disk_ops;
    d->block_sectors = GUEST_DISK_BLOCK;
    while (guest_disk_blocks(d) > GUEST_DISK_BITS)
        d->block_sectors *= 2;
    // A request marks its blocks with interrupts off.
    d->block.max_clear_sectors = MIN(below->max_clear_sectors, 0x10000u);
    d->last = &d->first;
    for (u32 i = 0; i < GUEST_DISK_WRITES; i++) {
        d->write[i].disk = d;
        d->write[i].next = d->free;
        d->free = &d->write[i];
    }
}

static struct block_device *open_below(const char *name, const char *user, char *err, size_t size)
{
    if (is_volume(name))
        return volume_open(name, user, err, size);
    struct block_device *b = block_find(name);
    if (!b)
        snprintf(err, size, "there is no disk \"%s\"; `disks` lists them", name);
    else if (block_claim(b, user) == 0)
        return b;
    else
        snprintf(err, size, "disk %s is in use by %s", name, b->used_by);
    return NULL;
}

int guest_disk_open(const char *name, const char *user, struct guest_disk **out, char *err,
                    size_t size)
{
    struct guest_disk *d = kzalloc(sizeof(*d));
    if (!d) {
        snprintf(err, size, "no memory for disk %s", name);
        return E_NOMEM;
    }
    struct block_device *below = open_below(name, user, err, size);
    if (!below) {
        kfree(d);
        return E_BUSY;
    }
    put_on(d, below);
    *out = d;
    return 0;
}

void guest_disk_close(struct guest_disk *d)
{
    if (!d)
        return;
    assert(!d->under_way && !d->first);
    guest_disk_log_stop(d);
    if (is_volume(d->block.name))
        volume_close(d->below);
    else
        block_release(d->below);
    kfree(d);
}
