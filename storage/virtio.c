// SPDX-License-Identifier: MIT
// virtio-blk disks of the host. Sections are those of virtio 1.2.
#include "kernel/lib.h"
#include "kernel/log.h"
#include "kernel/mem.h"
#include "kernel/time.h"
#include "kernel/virtio_pci.h"
#include "storage/disk.h"

#define MAX_SEGMENTS 14u
#define MAX_SECTORS  2048u

// 5.2.3
#define F_SIZE_MAX     BIT(1)
#define F_SEG_MAX      BIT(2)
#define F_RO           BIT(5)
#define F_TOPOLOGY     BIT(10)
#define F_FLUSH        BIT(9)
#define F_DISCARD      BIT(13)
#define F_WRITE_ZEROES BIT(14)
#define F_WANTED                                                                                   \
    (F_SIZE_MAX | F_SEG_MAX | F_RO | F_TOPOLOGY | F_FLUSH | F_DISCARD | F_WRITE_ZEROES |           \
     VIRTIO_VERSION_1)

// 5.2.4
#define CONFIG_CAPACITY         0
#define CONFIG_SIZE_MAX         8
#define CONFIG_SEG_MAX          12
#define CONFIG_PHYSICAL_EXP     24
#define CONFIG_MAX_DISCARD      36
#define CONFIG_MAX_WRITE_ZEROES 48
#define CONFIG_BYTES            8 // what every device has; the rest comes with a feature

// 5.2.6
enum request_type {
    TYPE_IN = 0,
    TYPE_OUT = 1,
    TYPE_FLUSH = 4,
    TYPE_GET_ID = 8,
    TYPE_DISCARD = 11,
    TYPE_WRITE_ZEROES = 13
};
#define STATUS_OK    0
#define STATUS_UNSET 0xff
#define ID_BYTES     20
struct slot {
    u32 type, reserved;
    u64 sector;
    struct { // of discard and write zeroes
        u64 sector;
        u32 sectors, flags;
    } range;
    u8 id[ID_BYTES];
    volatile u8 status;
} __attribute__((aligned(64)));
static_assert(offsetof(struct slot, range) == 16, "virtio 1.2, 5.2.6");

struct virtio_disk {
    struct disk disk;
    struct disk_queue queue;
    struct virtio_pci pci;
    struct virtq ring;
    struct slot *slot; // DISK_SLOTS of them
};

static bool virtio_match(u16 vendor, u16 device, u32 class)
{
    (void)class;
    return vendor == 0x1af4 && (device == 0x1042 || device == 0x1001); // 4.1.2
}

static u64 choose(u64 offered)
{
    return offered & F_WANTED;
}

// ---- Requests ----------------------------------------------------------------------------------

static const struct {
    u32 type;
    bool to_device, from_device, range;
} kinds[] = {
    [BLOCK_READ] = {.type = TYPE_IN, .from_device = true},
    [BLOCK_WRITE] = {.type = TYPE_OUT, .to_device = true},
    [BLOCK_FLUSH] = {.type = TYPE_FLUSH},
    [BLOCK_DISCARD] = {.type = TYPE_DISCARD, .range = true},
    [BLOCK_WRITE_ZEROES] = {.type = TYPE_WRITE_ZEROES, .range = true},
};

static void virtio_issue(struct disk_queue *q, u32 slot, struct block_request *r)
{
    struct virtio_disk *v = q->priv;
    struct slot *s = &v->slot[slot];
    struct virtq_part part[MAX_SEGMENTS + 2] = {{ptr_phys(s), 16}};
    u32 count = 1, data = r->op == BLOCK_READ || r->op == BLOCK_WRITE ? r->segments : 0;
    s->type = kinds[r->op].type;
    s->sector = data ? r->sector : 0; // 5.2.6.1: 0 for all others
    s->status = STATUS_UNSET;
    for (u32 i = 0; i < data; i++)
        part[count++] = (struct virtq_part){ptr_phys(r->segment[i].data), r->segment[i].bytes};
    if (kinds[r->op].range) {
        s->range.sector = r->sector;
        s->range.sectors = r->sectors;
        part[count++] = (struct virtq_part){ptr_phys(&s->range), sizeof(s->range)};
    }
    part[count] = (struct virtq_part){ptr_phys((void *)&s->status), 1};
    u32 read = kinds[r->op].from_device ? 1 : count;
    virtq_add(&v->ring, part, read, count + 1 - read, s);
}

static void virtio_kick(struct disk_queue *q)
{
    struct virtio_disk *v = q->priv;
    virtq_publish(&v->ring);
}

static void virtio_ack(struct disk_queue *q)
{
    struct virtio_disk *v = q->priv;
    virtio_interrupted(&v->pci);
}

static void virtio_reap(struct disk_queue *q)
{
    struct virtio_disk *v = q->priv;
    struct slot *s;
    u32 bytes;
    while ((s = virtq_take(&v->ring, &bytes))) {
        u32 slot = (u32)(s - v->slot);
        if (s->status == STATUS_OK)
            disk_done(q, slot);
        else
            disk_failed(q, slot, "the device says %s (status %u)",
                        s->status == 2 ? "unsupported" : "I/O error", s->status);
    }
}

// ---- Start -------------------------------------------------------------------------------------

static bool set_up(struct virtio_disk *v)
{
    if (!virtio_pci_reset(&v->pci) || !virtio_negotiate(&v->pci, choose) ||
        virtio_queue(&v->pci, &v->ring, 0, 4) != 0) {
        virtio_failed(&v->pci);
        return false;
    }
    virtio_ready(&v->pci);
    return true;
}

static bool virtio_disk_reset(struct disk_queue *q)
{
    return set_up(q->priv);
}

static void virtio_disk_stop(struct disk_queue *q)
{
    struct virtio_disk *v = q->priv;
    virtio_pci_reset(&v->pci);
}

static const struct disk_queue_ops queue_ops = {
    .issue = virtio_issue,
    .kick = virtio_kick,
    .ack = virtio_ack,
    .reap = virtio_reap,
    .reset = virtio_disk_reset,
    .stop = virtio_disk_stop,
};

// 5.2.6.1: not every device has an identity to tell.
static void ask_serial(struct virtio_disk *v)
{
    struct slot *s = &v->slot[0];
    struct virtq_part part[] = {
        {ptr_phys(s), 16}, {ptr_phys(s->id), ID_BYTES}, {ptr_phys((void *)&s->status), 1}};
    u32 bytes;
    s->type = TYPE_GET_ID;
    s->status = STATUS_UNSET;
    virtq_add(&v->ring, part, 1, 2, s);
    virtq_publish(&v->ring);
    for (u32 tries = 0; !virtq_take(&v->ring, &bytes) && tries < 10000; tries++)
        time_delay_us(100);
    if (s->status == STATUS_OK)
        disk_text(v->disk.block.serial, sizeof(v->disk.block.serial), (char *)s->id, ID_BYTES);
}

static void fill_limits(struct virtio_disk *v, struct block_device *b)
{
    volatile u8 *config = v->pci.device;
    u64 features = v->pci.features;
    u32 segment = features & F_SIZE_MAX ? virtio_get32(config, CONFIG_SIZE_MAX) : ~0u;
    u32 segments = features & F_SEG_MAX ? virtio_get32(config, CONFIG_SEG_MAX) : 1;
    b->sectors = virtio_get64(config, CONFIG_CAPACITY);
    b->read_only = features & F_RO;
    b->physical_bytes = BLOCK_SECTOR;
    if (features & F_TOPOLOGY)
        b->physical_bytes <<= MIN(virtio_get8(config, CONFIG_PHYSICAL_EXP), 12);
    b->max_sectors = MAX(MIN(MAX_SECTORS, segment / BLOCK_SECTOR), 1u);
    b->max_segments = MAX(MIN(MIN(segments, MAX_SEGMENTS), v->ring.size - 2), 1u);
    b->can_discard = features & F_DISCARD;
    b->can_write_zeroes = features & F_WRITE_ZEROES;
    u32 discard = b->can_discard ? virtio_get32(config, CONFIG_MAX_DISCARD) : ~0u;
    u32 zeroes = b->can_write_zeroes ? virtio_get32(config, CONFIG_MAX_WRITE_ZEROES) : ~0u;
    b->max_clear_sectors = MIN(discard, zeroes);
}

// Without F_FLUSH a write that is done is durable (5.2.6.2).
static void virtio_submit(struct block_device *b, struct block_request *r)
{
    struct virtio_disk *v = container_of(b, struct virtio_disk, disk.block);
    if (r->op == BLOCK_FLUSH && !(v->pci.features & F_FLUSH))
        r->done(r);
    else
        disk_submit(b, r);
}

static const struct block_ops block_ops = {"virtio", virtio_submit};

static void virtio_start(u16 bdf)
{
    struct virtio_disk *v = kzalloc(sizeof(*v));
    u64 slots = page_alloc_zero(0);
    static_assert(DISK_SLOTS * sizeof(struct slot) <= PAGE_SIZE, "one page");
    if (!v || !slots) {
        log_error("storage", "no memory for a virtio disk");
        kfree(v);
        return;
    }
    v->slot = phys_ptr(slots);
    v->pci.name = "virtio disk";
    disk_queue_init(&v->queue, &queue_ops, v);
    v->disk.queue = &v->queue;
    v->disk.block.ops = &block_ops;
    if (!virtio_map(&v->pci, bdf, CONFIG_BYTES))
        return;
    v->queue.interrupt = v->pci.interrupt =
        pci_connect(bdf, irq_alloc_vector(disk_interrupt, &v->queue));
    if (!set_up(v))
        return;
    ask_serial(v);
    fill_limits(v, &v->disk.block);
    strlcpy(v->disk.block.model, "virtio disk", sizeof(v->disk.block.model));
    disk_queue_start(&v->queue, v->ring.size / (v->disk.block.max_segments + 2));
    disk_add(&v->disk);
}

const struct disk_driver virtio_disks = {"virtio", virtio_match, virtio_start};
