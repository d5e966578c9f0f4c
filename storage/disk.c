// SPDX-License-Identifier: MIT
// Host disks: what all drivers do with requests, from submit to done, and when a device does not
// answer.
#include "storage/disk.h"

#include "kernel/lib.h"
#include "kernel/log.h"
#include "kernel/time.h"

#define TIMEOUT_NS       (30 * NS_PER_SEC)
#define FLUSH_TIMEOUT_NS (120 * NS_PER_SEC) // a disk may have much to write
#define LOG_MOST         10u                // lines a second

static const struct disk_driver *const drivers[] = {&virtio_disks, &nvme_disks, &ahci_disks,
                                                    &ata_disks};
static struct disk_queue *queues; // all; added at boot

static const char *op_name(const struct block_request *r)
{
    static const char *const names[] = {"read", "write", "flush", "discard", "write of zeroes"};
    return names[r->op];
}

// ---- Requests ----------------------------------------------------------------------------------

static void append(struct disk_queue *q, struct block_request *r)
{
    r->next = NULL;
    *q->last = r;
    q->last = &r->next;
}

static struct block_request *take_first(struct disk_queue *q)
{
    struct block_request *r = q->first;
    q->first = r->next;
    if (!q->first)
        q->last = &q->first;
    return r;
}

static u32 free_slot(const struct disk_queue *q)
{
    u32 slot = 0;
    while (q->slot[slot].request)
        slot++;
    return slot;
}

// The lock is held, as in all that follow up to `look`.
static void end(struct disk_queue *q, struct block_request *r, int status)
{
    r->status = status;
    r->next = q->over;
    q->over = r;
}

static struct block_request *release(struct disk_queue *q, u32 slot)
{
    struct block_request *r = q->slot[slot].request;
    q->slot[slot].request = NULL;
    q->busy--;
    return r;
}

void disk_done(struct disk_queue *q, u32 slot)
{
    end(q, release(q, slot), 0);
}

// A guest could fill the log with a bad sector.
static void log_failure(struct disk_queue *q, const struct block_request *r, const char *why)
{
    u64 now = time_ns();
    if (now - q->logged_ns >= NS_PER_SEC) {
        q->logged_ns = now;
        q->logged = 0;
    }
    if (q->logged == LOG_MOST) {
        q->unlogged++;
        return;
    }
    char more[40] = "";
    if (q->unlogged)
        snprintf(more, sizeof(more), " (and %llu others)", (unsigned long long)q->unlogged);
    log_error(disk_of(r)->block.name, "%s of %u sectors at %llu failed: %s%s", op_name(r),
              r->sectors, (unsigned long long)r->sector, why, more);
    q->logged++;
    q->unlogged = 0;
}

void disk_failed(struct disk_queue *q, u32 slot, const char *fmt, ...)
{
    struct block_request *r = release(q, slot);
    char why[80];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(why, sizeof(why), fmt, ap);
    va_end(ap);
    log_failure(q, r, why);
    end(q, r, E_IO);
}

static void issue_waiting(struct disk_queue *q)
{
    bool any = false;
    while (q->first && q->busy < q->depth && !q->halted) {
        struct block_request *r = take_first(q);
        u32 slot = free_slot(q);
        q->slot[slot].request = r;
        q->slot[slot].since_ns = time_ns();
        q->busy++;
        q->ops->issue(q, slot, r);
        any = true;
    }
    if (any)
        q->ops->kick(q);
}

// Ends the work on a queue: the lock goes, and who waits is told.
static void unlock_and_tell(struct disk_queue *q, u64 flags)
{
    struct block_request *r = q->over;
    q->over = NULL;
    spin_unlock_irqrestore(&q->lock, flags);
    while (r) {
        struct block_request *next = r->next; // r is not ours any more once it is done
        r->done(r);
        r = next;
    }
}

void disk_submit(struct block_device *b, struct block_request *r)
{
    struct disk *d = container_of(b, struct disk, block);
    struct disk_queue *q = d->queue;
    r->driver[0] = (u64)(uintptr_t)d;
    r->driver[1] = 0;
    u64 flags = spin_lock_irqsave(&q->lock);
    if (q->dead)
        end(q, r, E_IO);
    else
        append(q, r);
    issue_waiting(q);
    unlock_and_tell(q, flags);
}

static void look(struct disk_queue *q)
{
    u64 flags = spin_lock_irqsave(&q->lock);
    q->ops->ack(q);
    if (!q->halted)
        q->ops->reap(q);
    issue_waiting(q);
    unlock_and_tell(q, flags);
}

void disk_interrupt(void *queue)
{
    look(queue);
}

// ---- Devices that do not answer ----------------------------------------------------------------

static const struct block_request *overdue(const struct disk_queue *q, u64 now)
{
    for (u32 i = 0; i < q->depth; i++) {
        const struct block_request *r = q->slot[i].request;
        if (r && now > q->slot[i].since_ns &&
            now - q->slot[i].since_ns > (r->op == BLOCK_FLUSH ? FLUSH_TIMEOUT_NS : TIMEOUT_NS))
            return r;
    }
    return NULL;
}

// What was under way is tried once more; a device that is given up ends all there is.
static void take_back(struct disk_queue *q, bool works)
{
    for (u32 i = 0; i < q->depth; i++) {
        struct block_request *r = q->slot[i].request ? release(q, i) : NULL;
        if (!r)
            continue;
        if (works && r->driver[1]++ == 0)
            append(q, r);
        else
            end(q, r, E_IO);
    }
    while (!works && q->first)
        end(q, take_first(q), E_IO);
    q->dead = !works;
}

static void recover(struct disk_queue *q)
{
    u64 flags = spin_lock_irqsave(&q->lock);
    const struct block_request *r = overdue(q, time_ns());
    if (r)
        log_error(disk_of(r)->block.name, "no answer to a %s of %u sectors at %llu: resetting it",
                  op_name(r), r->sectors, (unsigned long long)r->sector);
    q->halted = r != NULL;
    const char *name = r ? disk_of(r)->block.name : "";
    spin_unlock_irqrestore(&q->lock, flags);
    if (!r)
        return;
    bool works = q->ops->reset(q);
    if (!works)
        log_error(name, "it does not come back: every request fails from now on");
    flags = spin_lock_irqsave(&q->lock);
    take_back(q, works);
    q->halted = false;
    issue_waiting(q);
    unlock_and_tell(q, flags);
}

static void watch(void *arg)
{
    (void)arg;
    for (u64 checked = 0;;) {
        bool polled = false;
        bool check = time_ns() - checked >= NS_PER_SEC;
        for (struct disk_queue *q = queues; q; q = q->next) {
            if (q->interrupt == PCI_POLLED)
                look(q);
            if (check && q->busy)
                recover(q);
            polled |= q->interrupt == PCI_POLLED;
        }
        checked = check ? time_ns() : checked;
        thread_sleep_ns(polled ? NS_PER_MS : NS_PER_SEC);
    }
}

// ---- Finding disks -----------------------------------------------------------------------------

void disk_queue_init(struct disk_queue *q, const struct disk_queue_ops *ops, void *priv)
{
    q->ops = ops;
    q->priv = priv;
    q->last = &q->first;
    q->halted = true;
}

void disk_queue_start(struct disk_queue *q, u32 depth)
{
    q->depth = MAX(MIN(depth, DISK_SLOTS), 1u);
    q->halted = false;
    q->next = queues;
    queues = q;
}

void disk_add(struct disk *d)
{
    static const char *const interrupts[] = {"polled", "pin", "MSI", "MSI-X"};
    struct block_device *b = &d->block;
    block_register(b);
    log_info(b->name, "%s, serial %s, %llu MiB, interrupt by %s", b->model[0] ? b->model : "disk",
             b->serial[0] ? b->serial : "unknown",
             (unsigned long long)(b->sectors * BLOCK_SECTOR / MIB),
             interrupts[d->queue->interrupt]);
}

void disk_text(char *to, size_t size, const char *from, size_t width)
{
    while (width && (*from == ' ' || *from == '\0'))
        from++, width--;
    while (width && (from[width - 1] == ' ' || from[width - 1] == '\0'))
        width--;
    width = MIN(width, size - 1);
    for (size_t i = 0; i < width; i++)
        to[i] = from[i] > ' ' && from[i] < 127 ? from[i] : ' ';
    to[width] = '\0';
}

bool disk_wait(const volatile u32 *word, u32 mask, u32 value, u32 ms)
{
    for (u32 tries = 0; (*word & mask) != value; tries++) {
        if (tries == ms * 10)
            return false;
        time_delay_us(100);
    }
    return true;
}

static bool start_driver(u16 bdf, u16 vendor, u16 device, void *arg)
{
    u32 class = pci_read(bdf, 0x08, 4) >> 8;
    (void)arg;
    for (u32 i = 0; i < ARRAY_SIZE(drivers); i++)
        if (drivers[i]->match(vendor, device, class))
            drivers[i]->start(bdf);
    return false; // on to the next
}

void disks_start(void)
{
    pci_find(start_driver, NULL);
    if (queues && !thread_create("disks", watch, NULL, 0))
        log_warn("storage", "no memory to watch over disks: one that does not answer stays so");
}

void disks_stop(void)
{
    for (struct disk_queue *q = queues; q; q = q->next) {
        u64 flags = spin_lock_irqsave(&q->lock);
        q->halted = true;
        spin_unlock_irqrestore(&q->lock, flags);
        q->ops->stop(q);
    }
}
