// SPDX-License-Identifier: MIT
// A guest's disk: virtio-blk (virtio 1.2, 5.2) over a block device of the host.
//
// A request takes a slot and goes to the disk in pieces as large as the slot's bounce buffer, so
// that the disk never reads or writes guest memory itself. Pieces that are done, maybe in an
// interrupt, are collected in a list; the device's thread takes them from there, and a pause or a
// reset, which have the device's mutex and wait until nothing is under way, do so themselves.
#include "kernel/guest/vcpu.h"
#include "kernel/guest/virtio.h"
#include "kernel/guest/virtio_devices.h"
#include "kernel/lib.h"
#include "kernel/mem.h"
#include "kernel/time.h"
#include "storage/guest_disk.h"

#define QUEUE_SIZE   128u
#define SLOTS        32u // requests under way; more wait in the queue
#define BOUNCE_ORDER 5u
#define BOUNCE_BYTES ((u32)PAGE_SIZE << BOUNCE_ORDER)
#define CLEAR_MAX    (1u << 22) // sectors of one discard or write of zeroes

// 5.2.3
#define F_SEG_MAX      BIT(2)
#define F_RO           BIT(5)
#define F_BLK_SIZE     BIT(6)
#define F_FLUSH        BIT(9)
#define F_TOPOLOGY     BIT(10)
#define F_DISCARD      BIT(13)
#define F_WRITE_ZEROES BIT(14)

struct config { // 5.2.4
    u64 capacity;
    u32 size_max, seg_max;
    u16 cylinders;
    u8 heads, geometry_sectors;
    u32 blk_size;
    u8 physical_block_exp, alignment_offset;
    u16 min_io_size;
    u32 opt_io_size;
    u8 writeback, unused;
    u16 num_queues;
    u32 max_discard_sectors, max_discard_seg, discard_sector_alignment;
    u32 max_write_zeroes_sectors, max_write_zeroes_seg;
    u8 write_zeroes_may_unmap, unused1[3];
};
static_assert(offsetof(struct config, write_zeroes_may_unmap) == 56, "virtio 1.2, 5.2.4");
static_assert(sizeof(struct config) == 64, "with padding");
#define CONFIG_BYTES 60

// 5.2.6
enum type {
    TYPE_IN = 0,
    TYPE_OUT = 1,
    TYPE_FLUSH = 4,
    TYPE_GET_ID = 8,
    TYPE_DISCARD = 11,
    TYPE_WRITE_ZEROES = 13,
};
struct header {
    u32 type, reserved;
    u64 sector;
};
struct clear_segment {
    u64 sector;
    u32 sectors, flags;
};
#define CLEAR_UNMAP BIT(0)
enum status { STATUS_OK, STATUS_IOERR, STATUS_UNSUPP };
#define ID_BYTES 20

struct vblk;

struct slot {
    struct virtio_chain chain;
    struct block_request io;
    struct block_segment segment;
    struct vblk *disk;
    u8 *bounce;
    u32 type;
    u64 sector, left; // of what has not gone to the disk yet
    u32 done;         // bytes of data that were moved
    struct slot *next;
};

struct vblk {
    struct virtio v;
    u64 sectors; // of the disk, the same wherever the guest goes
    struct block_device *disk;
    struct slot *slots, *free;
    u32 under_way;
    bool dropping; // the driver has forgotten what is under way
    u64 errors, logged_ns;
    struct spinlock lock; // finished
    struct slot *finished;
    struct waitq wake;
    volatile bool stopping, exited;
};

// ---- Ends --------------------------------------------------------------------------------------

static const char *const op_names[] = {"read", "write", "flush", "discard", "write of zeroes"};

// For the console all of them are counted and the last is kept; of a flood the log has one a
// second.
static void tell_error(struct vblk *d, const struct slot *s)
{
    const struct block_request *r = &s->io;
    const char *why = r->status == E_NOMEM   ? "no room left in its datastore"
                      : r->status == E_NOSUP ? "the disk cannot do that"
                                             : "the disk says so";
    char what[80];
    snprintf(what, sizeof(what), r->op == BLOCK_FLUSH ? "flush" : "%s of %u sectors at %llu",
             op_names[r->op], r->sectors, (unsigned long long)r->sector);
    d->errors++;
    snprintf(d->v.trouble, sizeof(d->v.trouble), "I/O error %llu: %s: %s",
             (unsigned long long)d->errors, what, why);
    if (d->logged_ns && time_ns() - d->logged_ns < NS_PER_SEC)
        return;
    d->logged_ns = time_ns();
    guest_log(LOG_ERROR, d->v.pci.device->guest,
              "disk %s: %s failed: %s; the guest gets I/O error %llu", d->disk->name, what, why,
              (unsigned long long)d->errors);
}

// Gives the chain back with its status, the last byte (5.2.6). Of data, what was moved is told.
static void end(struct slot *s, enum status status)
{
    struct vblk *d = s->disk;
    u32 data = s->chain.writable - 1, written = s->type == TYPE_OUT ? 0 : s->done;
    u8 byte = (u8)status;
    if (!d->dropping) {
        virtio_copy_to(&d->v, &s->chain, data, &byte, 1);
        virtio_push(&d->v, 0, s->chain.head, written == data ? data + 1 : written);
    }
    s->next = d->free;
    d->free = s;
}

static void io_done(struct block_request *r)
{
    struct slot *s = r->owner;
    struct vblk *d = s->disk;
    u64 flags = spin_lock_irqsave(&d->lock);
    s->next = d->finished;
    d->finished = s;
    waitq_wake_all(&d->wake);
    spin_unlock_irqrestore(&d->lock, flags);
}

// ---- Pieces ------------------------------------------------------------------------------------

static void submit(struct slot *s, enum block_op op, u32 sectors)
{
    s->segment = (struct block_segment){s->bounce, sectors * BLOCK_SECTOR};
    s->io = (struct block_request){
        .op = op,
        .sector = op == BLOCK_FLUSH ? 0 : s->sector,
        .sectors = sectors,
        .segments = op == BLOCK_READ || op == BLOCK_WRITE,
        .segment = &s->segment,
        .done = io_done,
        .owner = s,
    };
    s->sector += sectors;
    s->left -= sectors;
    s->disk->under_way++;
    block_submit(s->disk->disk, &s->io);
}

static void move_piece(struct slot *s)
{
    const struct vblk *d = s->disk;
    u32 n = (u32)MIN(MIN(s->left, d->disk->max_sectors), BOUNCE_BYTES / BLOCK_SECTOR);
    if (s->type == TYPE_OUT)
        s->done += virtio_copy_from(&s->disk->v, &s->chain, sizeof(struct header) + s->done,
                                    s->bounce, n * BLOCK_SECTOR);
    submit(s, s->type == TYPE_OUT ? BLOCK_WRITE : BLOCK_READ, n);
}

// Disks that cannot write zeroes are given some.
static void clear_piece(struct slot *s)
{
    const struct block_device *b = s->disk->disk;
    bool discard = s->type == TYPE_DISCARD;
    if (discard || b->can_write_zeroes) {
        submit(s, discard ? BLOCK_DISCARD : BLOCK_WRITE_ZEROES,
               (u32)MIN(s->left, b->max_clear_sectors));
        return;
    }
    u32 n = (u32)MIN(MIN(s->left, b->max_sectors), BOUNCE_BYTES / BLOCK_SECTOR);
    memset(s->bounce, 0, n * BLOCK_SECTOR);
    submit(s, BLOCK_WRITE, n);
}

// A driver that does not flush takes for durable what is written (5.2.6.2).
static bool must_flush(const struct slot *s)
{
    bool writes = s->type == TYPE_OUT || s->type == TYPE_WRITE_ZEROES;
    return writes && s->io.op != BLOCK_FLUSH && !virtio_has(&s->disk->v, F_FLUSH);
}

static void go_on(struct slot *s)
{
    if (s->left && (s->type == TYPE_IN || s->type == TYPE_OUT))
        move_piece(s);
    else if (s->left)
        clear_piece(s);
    else if (must_flush(s))
        submit(s, BLOCK_FLUSH, 0);
    else
        end(s, STATUS_OK);
}

static void piece_done(struct slot *s)
{
    struct vblk *d = s->disk;
    d->under_way--;
    if (s->io.status)
        tell_error(d, s);
    if (s->io.status || d->dropping) {
        end(s, STATUS_IOERR);
        return;
    }
    if (s->io.op == BLOCK_READ)
        s->done += virtio_copy_to(&d->v, &s->chain, s->done, s->bounce, s->segment.bytes);
    go_on(s);
}

// ---- Requests ----------------------------------------------------------------------------------

static bool in_range(const struct vblk *d, u64 sector, u64 sectors)
{
    return sector <= d->sectors && sectors <= d->sectors - sector;
}

static void start_transfer(struct slot *s, u32 bytes)
{
    struct vblk *d = s->disk;
    s->left = bytes / BLOCK_SECTOR;
    bool good = bytes % BLOCK_SECTOR == 0 && in_range(d, s->sector, s->left) &&
                (s->type == TYPE_IN || !d->disk->read_only);
    if (good)
        go_on(s);
    else
        end(s, STATUS_IOERR);
}

static void start_clear(struct slot *s)
{
    struct vblk *d = s->disk;
    struct clear_segment c;
    u32 allowed = s->type == TYPE_WRITE_ZEROES ? CLEAR_UNMAP : 0;
    u32 bytes = virtio_copy_from(&d->v, &s->chain, sizeof(struct header), &c, sizeof(c));
    bool whole = bytes == sizeof(c) && s->chain.readable == sizeof(struct header) + sizeof(c);
    if (whole && c.flags & ~allowed) { // 5.2.6.2
        end(s, STATUS_UNSUPP);
    } else if (!whole || c.sectors > CLEAR_MAX || !in_range(d, c.sector, c.sectors) ||
               d->disk->read_only) {
        end(s, STATUS_IOERR);
    } else {
        s->sector = c.sector;
        // Discarding is advice: a disk that cannot keeps what it has.
        s->left = s->type == TYPE_DISCARD && !d->disk->can_discard ? 0 : c.sectors;
        go_on(s);
    }
}

// The same wherever the guest goes.
static void get_id(struct slot *s)
{
    const struct device *dev = s->disk->v.pci.device;
    const u8 *u = dev->guest->uuid;
    char id[ID_BYTES + 1] = "";
    snprintf(id, sizeof(id), "%02x%02x%02x%02x-disk%u", u[0], u[1], u[2], u[3], dev->instance);
    s->done = virtio_copy_to(&s->disk->v, &s->chain, 0, id, MIN(s->chain.writable - 1, ID_BYTES));
    end(s, STATUS_OK);
}

static void start(struct slot *s)
{
    struct header h;
    struct vblk *d = s->disk;
    virtio_copy_from(&d->v, &s->chain, 0, &h, sizeof(h));
    s->type = h.type;
    s->sector = h.sector;
    s->left = s->done = 0;
    s->io.op = BLOCK_READ; // nothing of the slot's last request counts
    if (h.type == TYPE_IN)
        start_transfer(s, s->chain.writable - 1);
    else if (h.type == TYPE_OUT)
        start_transfer(s, s->chain.readable - (u32)sizeof(h));
    else if (h.type == TYPE_FLUSH)
        submit(s, BLOCK_FLUSH, 0);
    else if (h.type == TYPE_GET_ID)
        get_id(s);
    else if (h.type == TYPE_DISCARD || h.type == TYPE_WRITE_ZEROES)
        start_clear(s);
    else
        end(s, STATUS_UNSUPP);
}

static void start_all(struct vblk *d)
{
    while (d->free && virtio_pop(&d->v, 0, &d->free->chain)) {
        struct slot *s = d->free;
        if (s->chain.readable < sizeof(struct header) || !s->chain.writable) {
            virtio_break(&d->v, "a request without a header or a status");
            return;
        }
        d->free = s->next;
        start(s);
    }
}

// ---- Who does it -------------------------------------------------------------------------------

static struct slot *take_finished(struct vblk *d)
{
    u64 flags = spin_lock_irqsave(&d->lock);
    struct slot *s = d->finished;
    d->finished = NULL;
    spin_unlock_irqrestore(&d->lock, flags);
    return s;
}

static void take_all(struct vblk *d)
{
    struct slot *s = take_finished(d);
    for (struct slot *next; s; s = next) {
        next = s->next;
        piece_done(s);
    }
}

static void worker(void *arg)
{
    struct vblk *d = arg;
    while (!d->stopping) {
        wait_event(&d->wake, d->finished || d->stopping);
        virtio_lock(&d->v);
        take_all(d);
        start_all(d); // what waited for a slot
        virtio_publish(&d->v, 0);
        virtio_unlock(&d->v);
    }
    waitq_set_and_wake(&d->wake, &d->exited);
}

// Until nothing is under way. Nobody starts another: that takes the device's mutex.
static void drain(struct vblk *d)
{
    while (d->under_way) {
        wait_event(&d->wake, d->finished);
        take_all(d);
    }
    virtio_publish(&d->v, 0);
}

static void drop_all(struct vblk *d)
{
    d->dropping = true;
    drain(d);
    d->dropping = false;
}

static void kicked(struct virtio *v, u32 q)
{
    start_all(container_of(v, struct vblk, v));
    virtio_publish(v, q); // those that needed no disk
}

static void reset(struct virtio *v)
{
    drop_all(container_of(v, struct vblk, v));
}

static u32 log2_of(u32 n)
{
    u32 log = 0;
    while (n >>= 1)
        log++;
    return log;
}

static void get_config(struct virtio *v, void *out)
{
    const struct vblk *d = container_of(v, struct vblk, v);
    struct config c = {
        .capacity = d->sectors,
        .seg_max = QUEUE_SIZE - 2, // header and status
        .blk_size = BLOCK_SECTOR,
        .physical_block_exp =
            (u8)log2_of(MAX(d->disk->physical_bytes, BLOCK_SECTOR) / BLOCK_SECTOR),
        .max_discard_sectors = CLEAR_MAX,
        .max_discard_seg = 1,
        .discard_sector_alignment = MAX(d->disk->physical_bytes, BLOCK_SECTOR) / BLOCK_SECTOR,
        .max_write_zeroes_sectors = CLEAR_MAX,
        .max_write_zeroes_seg = 1,
        .write_zeroes_may_unmap = 1,
    };
    memcpy(out, &c, CONFIG_BYTES);
}

static const struct virtio_ops ops = {
    .id = VIRTIO_BLOCK,
    .class_code = 0x018000,
    .queues = 1,
    .queue_size = QUEUE_SIZE,
    .get_config = get_config,
    .config_bytes = CONFIG_BYTES,
    .kicked = kicked,
    .reset = reset,
};

// ---- The device --------------------------------------------------------------------------------

static void free_slots(struct vblk *d)
{
    for (u32 i = 0; d->slots && i < SLOTS; i++)
        if (d->slots[i].bounce)
            page_free(ptr_phys(d->slots[i].bounce), BOUNCE_ORDER);
    kfree(d->slots);
}

static int make_slots(struct vblk *d)
{
    d->slots = kzalloc(SLOTS * sizeof(d->slots[0]));
    for (u32 i = 0; i < SLOTS; i++) {
        u64 bounce = d->slots ? page_alloc(BOUNCE_ORDER) : 0;
        if (!bounce)
            return E_NOMEM;
        d->slots[i].bounce = phys_ptr(bounce);
        d->slots[i].disk = d;
        d->slots[i].next = d->free;
        d->free = &d->slots[i];
    }
    return 0;
}

static int vblk_init(struct device *dev)
{
    struct vblk *d = dev->priv;
    d->disk = &dev->guest->disk[dev->instance]->block;
    d->sectors = d->disk->sectors;
    // Discards and writes of zeroes are there whatever the disk can do: the guest may move.
    u64 features = F_SEG_MAX | F_BLK_SIZE | F_FLUSH | F_TOPOLOGY | F_DISCARD | F_WRITE_ZEROES |
                   (d->disk->read_only ? F_RO : 0);
    int error = make_slots(d);
    if (!error)
        error = virtio_init(dev, &ops, VIRTIO_SLOT_BLOCK + dev->instance, features);
    if (!error && !thread_create("disk", worker, d, THREAD_MOVABLE)) {
        virtio_fini(dev);
        error = E_NOMEM;
    }
    if (error)
        free_slots(d);
    return error;
}

static void vblk_fini(struct device *dev)
{
    struct vblk *d = dev->priv;
    virtio_lock(&d->v);
    drop_all(d);
    virtio_unlock(&d->v);
    d->stopping = true;
    waitq_wake_all(&d->wake);
    wait_event(&d->wake, d->exited);
    virtio_fini(dev);
    free_slots(d);
}

// Requests under way are carried out, so that this host writes nothing after it: whoever lets
// writes wait (guest_disk_limit) has stopped that before.
static void vblk_pause(struct device *dev)
{
    struct vblk *d = dev->priv;
    drain(d);
    virtio_pause(dev);
}

static bool check(const void *copy, char *err, size_t size)
{
    return virtio_check(&((const struct vblk *)copy)->v, err, size);
}

static const struct state_field fields[] = {
    VIRTIO_FIELDS(struct vblk, v),
    FIELD(40, FIELD_MUST_MATCH, struct vblk, sectors, 1, 0, 0),
    FIELD_LAST,
};
static const struct state_table state = {
    .name = "virtio-blk",
    .version = 1,
    .fields = fields,
    .check = check,
    .struct_size = sizeof(struct vblk),
};

const struct device_ops vblk_device = {
    .name = "virtio-blk",
    .state = &state,
    .priv_size = sizeof(struct vblk),
    .init = vblk_init,
    .fini = vblk_fini,
    .reset = virtio_reset,
    .read = virtio_read,
    .write = virtio_write,
    .pause = vblk_pause,
    .resume = virtio_resume,
};
