// SPDX-License-Identifier: MIT
// NVMe disks: one I/O queue pair, which all namespaces share. Sections are those of the NVM Express
// Base Specification 1.4.
#include "kernel/lib.h"
#include "kernel/log.h"
#include "kernel/mem.h"
#include "storage/disk.h"

#define MAX_SECTORS    2048u // a slot's list of pages has room for 1 MiB that begins anywhere
#define LIST_BYTES     2048u
#define MAX_NAMESPACES 16u
#define QUEUE_ENTRIES  64u // of all queues: each is one page at most
#define NO_LIMIT       0xffffu

// 3.1
#define CAP       0x00
#define CAP_HIGH  0x04
#define INTMS     0x0c
#define INTMC     0x10
#define CC        0x14
#define CSTS      0x1c
#define AQA       0x24
#define ASQ       0x28
#define ACQ       0x30
#define DOORBELLS 0x1000
#define REG_BYTES 0x2000

#define CAP_MQES       0xffffu     // entries of a queue, less one
#define CAP_TIMEOUT(c) ((c) >> 24) // in units of 500 ms
#define CAPH_STRIDE    0xfu
#define CAPH_NVM       BIT(5)
#define CAPH_PAGE_MIN  (0xfu << 16)               // 4 KiB and as many doublings
#define CC_ENABLE      (1u | 6u << 16 | 4u << 20) // NVM commands, 4 KiB pages, 64 and 16 bytes
#define CC_SHUTDOWN    (1u << 14)
#define CSTS_READY     1u
#define CSTS_SHUT      (3u << 2)
#define CSTS_SHUT_DONE (2u << 2)

// 5 and 6
enum { ADMIN_CREATE_SQ = 1, ADMIN_CREATE_CQ = 5, ADMIN_IDENTIFY = 6, ADMIN_SET_FEATURES = 9 };
enum { IO_FLUSH = 0, IO_WRITE = 1, IO_READ = 2, IO_WRITE_ZEROES = 8, IO_DATASET = 9 };
enum { IDENTIFY_NAMESPACE = 0, IDENTIFY_CONTROLLER = 1, IDENTIFY_LIST = 2 };
#define FEATURE_QUEUES     7
#define QUEUE_CONTIGUOUS   1u
#define QUEUE_INTERRUPTS   2u
#define DATASET_DEALLOCATE BIT(2)
#define ZEROES_DEALLOCATE  BIT(25)

struct nvme_command { // 4.2
    u8 opcode, flags;
    u16 id;
    u32 namespace;
    u64 reserved, metadata, data[2];
    u32 dword[6]; // 10 to 15
};
static_assert(sizeof(struct nvme_command) == 64, "NVMe 1.4, 4.2");

struct nvme_completion { // 4.6
    u32 result, reserved;
    u16 sq_head, sq_id, id;
    volatile u16 status; // bit 0: the phase
};
static_assert(sizeof(struct nvme_completion) == 16, "NVMe 1.4, 4.6");

struct nvme_range { // 6.7
    u32 attributes, sectors;
    u64 sector;
};

struct nvme_ring {
    struct nvme_command *command;
    struct nvme_completion *completion;
    volatile u32 *command_bell, *completion_bell;
    u16 entries, tail, head;
    u16 phase; // of the completions that are new
};

struct nvme {
    struct disk_queue queue;
    volatile u8 *regs;
    struct nvme_ring admin, io;
    u8 *lists;                // LIST_BYTES of each slot
    struct nvme_range *range; // of each slot
    u8 *page;                 // for what is identified
    u32 max_sectors;
    bool write_cache, can_deallocate, can_write_zeroes;
    char name[16];
    char model[41], serial[21];
    struct disk disk[MAX_NAMESPACES];
};

static volatile u32 *reg(struct nvme *n, u32 at)
{
    return (volatile u32 *)(n->regs + at);
}

static void put64(struct nvme *n, u32 at, u64 value)
{
    *reg(n, at) = (u32)value;
    *reg(n, at + 4) = (u32)(value >> 32);
}

static bool nvme_match(u16 vendor, u16 device, u32 class)
{
    (void)vendor, (void)device;
    return class == 0x010802; // 2.1.5
}

// ---- Rings -------------------------------------------------------------------------------------

static int make_ring(struct nvme_ring *ring)
{
    u64 pa = page_alloc(1);
    if (!pa)
        return E_NOMEM;
    ring->command = phys_ptr(pa);
    ring->completion = phys_ptr(pa + PAGE_SIZE);
    return 0;
}

// As after a reset.
static void empty_ring(struct nvme *n, struct nvme_ring *ring, u32 id, u32 entries)
{
    u32 stride = 4u << (*reg(n, CAP_HIGH) & CAPH_STRIDE);
    memset(ring->command, 0, 2 * PAGE_SIZE);
    ring->command_bell = reg(n, DOORBELLS + 2 * id * stride);
    ring->completion_bell = reg(n, DOORBELLS + (2 * id + 1) * stride);
    ring->entries = (u16)entries;
    ring->tail = ring->head = 0;
    ring->phase = 1;
}

static void put_command(struct nvme_ring *ring, const struct nvme_command *c)
{
    ring->command[ring->tail] = *c;
    ring->tail = (u16)((ring->tail + 1) % ring->entries);
}

static void ring_bell(struct nvme_ring *ring)
{
    __asm__ volatile("" : : : "memory"); // the commands are in memory before the device is told
    *ring->command_bell = ring->tail;
}

// 4.6.1: a completion is new when its phase is.
static struct nvme_completion *next_completion(struct nvme_ring *ring)
{
    struct nvme_completion *c = &ring->completion[ring->head];
    if ((c->status & 1) != ring->phase)
        return NULL;
    __asm__ volatile("" : : : "memory"); // the phase is read before what it vouches for
    if (++ring->head == ring->entries) {
        ring->head = 0;
        ring->phase ^= 1;
    }
    return c;
}

// One admin command at a time, at the start and in a reset. Its status, or -1: no answer.
static int admin(struct nvme *n, const struct nvme_command *c, u32 ms)
{
    struct nvme_completion *done = &n->admin.completion[n->admin.head];
    put_command(&n->admin, c);
    ring_bell(&n->admin);
    // Its last word: the command's id below the status.
    if (!disk_wait((volatile u32 *)done + 3, 1u << 16, (u32)n->admin.phase << 16, ms))
        return -1;
    next_completion(&n->admin);
    *n->admin.completion_bell = n->admin.head;
    return done->status >> 1;
}

static bool identify(struct nvme *n, u32 what, u32 namespace)
{
    struct nvme_command c = {.opcode = ADMIN_IDENTIFY, .namespace = namespace, .dword = {what}};
    c.data[0] = ptr_phys(n->page);
    memset(n->page, 0, PAGE_SIZE);
    return admin(n, &c, 5000) == 0;
}

// ---- Requests ----------------------------------------------------------------------------------

// 4.3: the first page, then the second one, or a list of all the others. One segment, so that pages
// follow one another.
static void put_pages(struct nvme *n, struct nvme_command *c, u32 slot, u64 address, u32 bytes)
{
    u64 *list = (u64 *)(n->lists + slot * LIST_BYTES);
    u64 end = address + bytes, page = ALIGN_DOWN(address, PAGE_SIZE) + PAGE_SIZE;
    c->data[0] = address;
    if (page >= end)
        return;
    c->data[1] = end - page <= PAGE_SIZE ? page : ptr_phys(list);
    for (u32 i = 0; page < end; page += PAGE_SIZE)
        list[i++] = page;
}

static void put_range(struct nvme *n, struct nvme_command *c, u32 slot,
                      const struct block_request *r)
{
    n->range[slot] = (struct nvme_range){0, r->sectors, r->sector};
    c->data[0] = ptr_phys(&n->range[slot]);
    c->dword[1] = DATASET_DEALLOCATE; // dword 10: one range, less one
}

static void nvme_issue(struct disk_queue *q, u32 slot, struct block_request *r)
{
    static const u8 opcodes[] = {IO_READ, IO_WRITE, IO_FLUSH, IO_DATASET, IO_WRITE_ZEROES};
    struct nvme *n = q->priv;
    struct nvme_command c = {.opcode = opcodes[r->op], .id = (u16)slot};
    c.namespace = disk_of(r)->unit;
    if (r->op == BLOCK_DISCARD) {
        put_range(n, &c, slot, r);
    } else if (r->op != BLOCK_FLUSH) {
        c.dword[0] = (u32)r->sector;
        c.dword[1] = (u32)(r->sector >> 32);
        c.dword[2] = (r->sectors - 1) | (r->op == BLOCK_WRITE_ZEROES ? (u32)ZEROES_DEALLOCATE : 0);
    }
    if (r->op == BLOCK_READ || r->op == BLOCK_WRITE)
        put_pages(n, &c, slot, ptr_phys(r->segment[0].data), r->segment[0].bytes);
    put_command(&n->io, &c);
}

static void nvme_kick(struct disk_queue *q)
{
    struct nvme *n = q->priv;
    ring_bell(&n->io);
}

// 7.5.1: a pin stays raised until the completions are taken, which may be later.
static void nvme_ack(struct disk_queue *q)
{
    struct nvme *n = q->priv;
    if (q->interrupt == PCI_INTX)
        *reg(n, INTMS) = 1;
}

static void nvme_reap(struct disk_queue *q)
{
    struct nvme *n = q->priv;
    struct nvme_completion *c;
    bool any = false;
    while ((c = next_completion(&n->io))) {
        u32 status = c->status >> 1;
        any = true;
        if (c->id >= q->depth || !q->slot[c->id].request)
            continue; // it never got that one
        if (status == 0)
            disk_done(q, c->id);
        else
            disk_failed(q, c->id, "status %02xh of type %u (NVMe 1.4, 4.6.1.2)", status & 0xff,
                        status >> 8 & 7);
    }
    if (any)
        *n->io.completion_bell = n->io.head;
    if (q->interrupt == PCI_INTX)
        *reg(n, INTMC) = 1;
}

// ---- Start -------------------------------------------------------------------------------------

// 7.6.1
static bool enable(struct nvme *n)
{
    u32 ms = MAX(CAP_TIMEOUT(*reg(n, CAP)), 1u) * 500;
    *reg(n, CC) = 0;
    if (!disk_wait(reg(n, CSTS), CSTS_READY, 0, ms))
        return false;
    empty_ring(n, &n->admin, 0, QUEUE_ENTRIES);
    *reg(n, AQA) = (QUEUE_ENTRIES - 1) << 16 | (QUEUE_ENTRIES - 1);
    put64(n, ASQ, ptr_phys(n->admin.command));
    put64(n, ACQ, ptr_phys(n->admin.completion));
    *reg(n, CC) = CC_ENABLE;
    return disk_wait(reg(n, CSTS), CSTS_READY, CSTS_READY, ms);
}

static bool make_io_queues(struct nvme *n)
{
    u32 entries = MIN(QUEUE_ENTRIES, (*reg(n, CAP) & CAP_MQES) + 1);
    empty_ring(n, &n->io, 1, entries);
    u32 size = (entries - 1) << 16 | 1; // and the queue's number
    u32 kind = QUEUE_CONTIGUOUS | (n->queue.interrupt == PCI_POLLED ? 0 : QUEUE_INTERRUPTS);
    struct nvme_command count = {.opcode = ADMIN_SET_FEATURES, .dword = {FEATURE_QUEUES, 0}};
    struct nvme_command cq = {.opcode = ADMIN_CREATE_CQ, .dword = {size, kind}};
    struct nvme_command sq = {.opcode = ADMIN_CREATE_SQ, .dword = {size, 1 << 16 | 1}};
    cq.data[0] = ptr_phys(n->io.completion);
    sq.data[0] = ptr_phys(n->io.command);
    bool made = admin(n, &count, 5000) == 0 && admin(n, &cq, 5000) == 0 && admin(n, &sq, 5000) == 0;
    *reg(n, INTMC) = 1; // what the admin queue may have raised is taken
    return made;
}

static bool nvme_reset(struct disk_queue *q)
{
    struct nvme *n = q->priv;
    return enable(n) && make_io_queues(n);
}

// 7.6.2: with a notice, so that it saves its cache.
static void nvme_stop(struct disk_queue *q)
{
    struct nvme *n = q->priv;
    *reg(n, CC) = CC_ENABLE | CC_SHUTDOWN;
    disk_wait(reg(n, CSTS), CSTS_SHUT, CSTS_SHUT_DONE, 3000);
    *reg(n, CC) = 0;
}

static const struct disk_queue_ops queue_ops = {
    .issue = nvme_issue,
    .kick = nvme_kick,
    .ack = nvme_ack,
    .reap = nvme_reap,
    .reset = nvme_reset,
    .stop = nvme_stop,
};

static void nvme_submit(struct block_device *b, struct block_request *r)
{
    struct nvme *n = container_of(b, struct disk, block)->queue->priv;
    if (r->op == BLOCK_FLUSH && !n->write_cache)
        r->done(r);
    else
        disk_submit(b, r);
}

static const struct block_ops block_ops = {"nvme", nvme_submit};

// 5.15.2.2
static bool read_controller(struct nvme *n)
{
    if (!identify(n, IDENTIFY_CONTROLLER, 0))
        return false;
    disk_text(n->serial, sizeof(n->serial), (char *)n->page + 4, 20);
    disk_text(n->model, sizeof(n->model), (char *)n->page + 24, 40);
    u32 transfer = n->page[77]; // 0: no limit; else a power of two of pages
    n->max_sectors = transfer && transfer < 8 ? MIN(8u << transfer, MAX_SECTORS) : MAX_SECTORS;
    n->write_cache = n->page[525] & 1;
    n->can_deallocate = n->page[520] & BIT(2);
    n->can_write_zeroes = n->page[520] & BIT(3);
    return true;
}

// 5.15.2.1: the format in use says how long a logical block is.
static void add_namespace(struct nvme *n, struct disk *d, u32 id)
{
    u32 format;
    u64 sectors;
    if (!identify(n, IDENTIFY_NAMESPACE, id))
        return;
    memcpy(&sectors, n->page, 8);
    memcpy(&format, n->page + 128 + 4 * (n->page[26] & 0xf), 4);
    u32 block = format >> 16 & 0xff, metadata = format & 0xffff;
    if (block != 9 || metadata) {
        log_warn("storage",
                 "namespace %u of %s has blocks of %llu bytes with %u of metadata: Skiff takes 512 "
                 "and none, so format it anew",
                 id, n->model, (unsigned long long)BIT(MIN(block, 31)), metadata);
        return;
    }
    struct block_device *b = &d->block;
    d->queue = &n->queue;
    d->unit = id;
    *b = (struct block_device){.ops = &block_ops, .sectors = sectors};
    strlcpy(b->model, n->model, sizeof(b->model));
    strlcpy(b->serial, n->serial, sizeof(b->serial));
    b->physical_bytes = BLOCK_SECTOR;
    b->max_sectors = n->max_sectors;
    b->max_segments = 1;
    b->can_discard = n->can_deallocate;
    b->can_write_zeroes = n->can_write_zeroes;
    b->max_clear_sectors = 0x10000; // a count of 16 bits, less one
    disk_add(d);
}

static void add_namespaces(struct nvme *n)
{
    u32 id[MAX_NAMESPACES];
    if (!identify(n, IDENTIFY_LIST, 0))
        return;
    memcpy(id, n->page, sizeof(id));
    for (u32 i = 0; i < MAX_NAMESPACES && id[i]; i++)
        add_namespace(n, &n->disk[i], id[i]);
}

static int get_memory(struct nvme *n)
{
    u64 lists = pages_alloc(DISK_SLOTS * LIST_BYTES / PAGE_SIZE), pages = page_alloc(1);
    static_assert(DISK_SLOTS * sizeof(struct nvme_range) <= PAGE_SIZE, "one page");
    if (!lists || !pages || make_ring(&n->admin) || make_ring(&n->io))
        return E_NOMEM;
    n->lists = phys_ptr(lists);
    n->page = phys_ptr(pages);
    n->range = phys_ptr(pages + PAGE_SIZE);
    return 0;
}

static const char *set_up(struct nvme *n, u16 bdf)
{
    n->regs = pci_map_bar(bdf, 0, 0, REG_BYTES);
    if (!n->regs)
        return "has no registers";
    if (!(*reg(n, CAP_HIGH) & CAPH_NVM) || (*reg(n, CAP_HIGH) & CAPH_PAGE_MIN))
        return "does not know NVM commands or pages of 4 KiB";
    if ((*reg(n, CAP_HIGH) & CAPH_STRIDE) > 8)
        return "has its doorbells farther apart than Skiff maps";
    if (!enable(n))
        return "does not become ready";
    n->queue.interrupt = pci_connect(bdf, irq_alloc_vector(disk_interrupt, &n->queue));
    if (!read_controller(n))
        return "does not tell what it is";
    return make_io_queues(n) ? NULL : "does not make a queue for I/O";
}

static void nvme_start(u16 bdf)
{
    struct nvme *n = kzalloc(sizeof(*n));
    const char *why = "cannot be used: no memory";
    if (n && get_memory(n) == 0) {
        pci_enable(bdf);
        disk_queue_init(&n->queue, &queue_ops, n);
        why = set_up(n, bdf);
    }
    if (why) {
        log_error("storage", "the NVMe controller at PCI %02x:%02x.%x %s", bdf >> 8, bdf >> 3 & 31,
                  bdf & 7, why);
        return;
    }
    // One entry stays free, for a full ring would look like an empty one (4.1.2).
    disk_queue_start(&n->queue, n->io.entries - 1u);
    add_namespaces(n);
}

const struct disk_driver nvme_disks = {"nvme", nvme_match, nvme_start};
