// SPDX-License-Identifier: MIT
// ATA disks behind a PCI controller with bus-master DMA, as Intel's PIIX has it (82371AB datasheet,
// and Programming Interface for Bus Master IDE Controller, revision 1.0). One command at a time on
// each of its two channels.
#include "kernel/lib.h"
#include "kernel/log.h"
#include "kernel/mem.h"
#include "kernel/time.h"
#include "storage/ata_command.h"
#include "storage/disk.h"

#define MAX_SECTORS  256u // what 28-bit commands count to
#define MAX_SEGMENTS 16u
#define BOUNCE_ORDER 5 // MAX_SECTORS of 512 bytes
#define DRIVES       2u
#define BORDER       (4 * GIB) // the controller's addresses have 32 bits
#define PRD_BORDER   0x10000u  // no piece may cross a multiple of this

// Ports of a channel's command block, its control block and its bus master.
enum { DATA, FEATURES, COUNT, LBA_LOW, LBA_MID, LBA_HIGH, DEVICE, COMMAND, ERROR = FEATURES };
enum { CONTROL = 0 };
enum { MASTER_COMMAND = 0, MASTER_STATUS = 2, MASTER_TABLE = 4, MASTER_CHANNEL = 8 };
#define CONTROL_NO_INTERRUPT 0x02
#define CONTROL_RESET        0x04
#define MASTER_START         0x01
#define MASTER_TO_MEMORY     0x08
#define MASTER_ERROR         0x02
#define MASTER_INTERRUPT     0x04
#define DEVICE_SECOND        0x10
#define PRD_LAST             0x8000

struct prd {
    u32 address;
    u16 bytes, flags; // 0 bytes count as 64 KiB
};

struct channel {
    struct disk_queue queue;
    u16 command, control, master;
    u8 irq;
    struct prd *prd;
    u8 *bounce;    // for segments that the controller does not reach
    u64 *trim;     // a sector
    bool bouncing; // the request under way
    struct disk disk[DRIVES];
    struct ata_disk ata[DRIVES];
};

static bool ata_match(u16 vendor, u16 device, u32 class)
{
    (void)vendor, (void)device;
    return class >> 8 == 0x0101 && class & 0x80; // PCI Local Bus 3.0, D: IDE, bus master
}

// The status, read where that does not acknowledge an interrupt. Four reads are the 400 ns that a
// drive has until its answer counts.
static u8 settled_status(const struct channel *c)
{
    for (u32 i = 0; i < 4; i++)
        in8(c->control);
    return in8(c->control);
}

static bool wait_idle(const struct channel *c, u64 ms)
{
    for (u64 end = time_ns() + ms * NS_PER_MS; settled_status(c) & (ATA_BUSY | ATA_DRQ);)
        if (time_ns() >= end)
            return false;
    return true;
}

// ---- Requests ----------------------------------------------------------------------------------

static u32 put_piece(struct prd *prd, u32 count, u64 address, u32 bytes)
{
    while (bytes) {
        u32 part = MIN(bytes, PRD_BORDER - (u32)(address % PRD_BORDER));
        prd[count++] = (struct prd){(u32)address, (u16)part, 0};
        address += part;
        bytes -= part;
    }
    return count;
}

static bool reachable(const struct block_request *r)
{
    for (u32 i = 0; i < r->segments; i++)
        if (ptr_phys(r->segment[i].data) + r->segment[i].bytes > BORDER)
            return false;
    return true;
}

static void copy_bounced(struct channel *c, const struct block_request *r)
{
    u8 *at = c->bounce;
    for (u32 i = 0; i < r->segments; at += r->segment[i++].bytes) {
        if (r->op == BLOCK_WRITE)
            memcpy(at, r->segment[i].data, r->segment[i].bytes);
        else
            memcpy(r->segment[i].data, at, r->segment[i].bytes);
    }
}

static void put_table(struct channel *c, const struct block_request *r)
{
    u32 count = 0;
    c->bouncing = r->op != BLOCK_DISCARD && !reachable(r);
    if (r->op == BLOCK_DISCARD)
        count = put_piece(c->prd, 0, ptr_phys(c->trim), BLOCK_SECTOR);
    else if (c->bouncing)
        count = put_piece(c->prd, 0, ptr_phys(c->bounce), r->sectors * BLOCK_SECTOR);
    else
        for (u32 i = 0; i < r->segments; i++)
            count = put_piece(c->prd, count, ptr_phys(r->segment[i].data), r->segment[i].bytes);
    c->prd[count - 1].flags = PRD_LAST;
    if (c->bouncing && r->op == BLOCK_WRITE)
        copy_bounced(c, r);
}

// ATA-6, 6.20: the upper halves first, where the command has them.
static void put_registers(const struct channel *c, const struct ata_command *a)
{
    if (a->ext) {
        out8(c->command + COUNT, (u8)(a->count >> 8));
        out8(c->command + LBA_LOW, (u8)(a->lba >> 24));
        out8(c->command + LBA_MID, (u8)(a->lba >> 32));
        out8(c->command + LBA_HIGH, (u8)(a->lba >> 40));
    }
    out8(c->command + FEATURES, (u8)a->features);
    out8(c->command + COUNT, (u8)a->count);
    out8(c->command + LBA_LOW, (u8)a->lba);
    out8(c->command + LBA_MID, (u8)(a->lba >> 8));
    out8(c->command + LBA_HIGH, (u8)(a->lba >> 16));
}

// Bus Master IDE 3.1: the table, then the command, then the start.
static void channel_issue(struct disk_queue *q, u32 slot, struct block_request *r)
{
    struct channel *c = q->priv;
    u32 drive = disk_of(r)->unit;
    struct ata_command a = ata_command(&c->ata[drive], r, c->trim);
    out8(c->command + DEVICE, a.device | (drive ? DEVICE_SECOND : 0));
    if (!wait_idle(c, 10)) {
        disk_failed(q, slot, "the channel is busy, status %02xh", settled_status(c));
        return;
    }
    u8 direction = a.write ? 0 : MASTER_TO_MEMORY;
    out8(c->master + MASTER_STATUS, MASTER_INTERRUPT | MASTER_ERROR); // written ones clear
    if (a.data) {
        put_table(c, r);
        out32(c->master + MASTER_TABLE, (u32)ptr_phys(c->prd));
        out8(c->master + MASTER_COMMAND, direction);
    }
    put_registers(c, &a);
    out8(c->command + COMMAND, a.opcode);
    if (a.data)
        out8(c->master + MASTER_COMMAND, direction | MASTER_START);
}

static void channel_kick(struct disk_queue *q)
{
    (void)q; // the command register was the kick
}

// Its interrupt is an edge, and reap reads the status.
static void channel_ack(struct disk_queue *q)
{
    (void)q;
}

static void channel_reap(struct disk_queue *q)
{
    struct channel *c = q->priv;
    u8 master = in8(c->master + MASTER_STATUS);
    struct block_request *r = q->slot[0].request;
    if (!(master & MASTER_INTERRUPT) || !r)
        return;
    out8(c->master + MASTER_COMMAND, 0);
    u8 status = in8(c->command + COMMAND); // acknowledges
    if (status & ATA_BUSY)
        return;
    out8(c->master + MASTER_STATUS, MASTER_INTERRUPT | MASTER_ERROR);
    if (status & (ATA_ERROR | ATA_FAULT)) {
        disk_failed(q, 0, "status %02xh, error %02xh", status, in8(c->command + ERROR));
    } else if (master & MASTER_ERROR) {
        disk_failed(q, 0, "the controller reports a bus error, status %02xh", master);
    } else {
        if (c->bouncing && r->op == BLOCK_READ)
            copy_bounced(c, r);
        disk_done(q, 0);
    }
}

// ---- Start -------------------------------------------------------------------------------------

// ATA-6, 9.2: the reset line is held for 5 us, and drives take up to 31 s to spin up.
static bool reset_channel(struct channel *c, u64 ms)
{
    out8(c->master + MASTER_COMMAND, 0);
    out8(c->control, CONTROL_RESET | CONTROL_NO_INTERRUPT);
    time_delay_us(10);
    out8(c->control, CONTROL_NO_INTERRUPT);
    time_delay_us(2000);
    out8(c->command + DEVICE, 0);
    return wait_idle(c, ms);
}

static bool channel_reset(struct disk_queue *q)
{
    struct channel *c = q->priv;
    bool works = reset_channel(c, 31000);
    out8(c->master + MASTER_STATUS, MASTER_INTERRUPT | MASTER_ERROR);
    out8(c->control, 0);
    return works;
}

static void channel_stop(struct disk_queue *q)
{
    struct channel *c = q->priv;
    out8(c->master + MASTER_COMMAND, 0);
    out8(c->control, CONTROL_NO_INTERRUPT);
}

static const struct disk_queue_ops queue_ops = {
    .issue = channel_issue,
    .kick = channel_kick,
    .ack = channel_ack,
    .reap = channel_reap,
    .reset = channel_reset,
    .stop = channel_stop,
};

static void ata_submit(struct block_device *b, struct block_request *r)
{
    struct disk *d = container_of(b, struct disk, block);
    struct channel *c = d->queue->priv;
    if (r->op == BLOCK_FLUSH && !c->ata[d->unit].flush && !c->ata[d->unit].flush_ext)
        r->done(r);
    else
        disk_submit(b, r);
}

static const struct block_ops block_ops = {"ata", ata_submit};

// Reads what a drive says of itself, by its data port. A drive that is not there leaves the bus at
// 0 or FFh; one with packets (a CD drive) ends the command with an error.
static bool identify(struct channel *c, u32 drive, u16 *word)
{
    out8(c->command + DEVICE, drive ? DEVICE_SECOND : 0);
    u8 status = settled_status(c);
    if (status == 0 || status == 0xff || !wait_idle(c, 1000))
        return false;
    out8(c->command + COMMAND, ATA_IDENTIFY);
    for (u64 end = time_ns() + NS_PER_SEC; (status = settled_status(c)) & ATA_BUSY;)
        if (time_ns() >= end)
            return false;
    if (!(status & ATA_DRQ))
        return false;
    for (u32 i = 0; i < ATA_WORDS; i++)
        word[i] = in16(c->command + DATA);
    return true;
}

static bool find_drive(struct channel *c, u32 drive)
{
    u16 word[ATA_WORDS];
    const char *why;
    struct disk *d = &c->disk[drive];
    if (!identify(c, drive, word))
        return false;
    d->queue = &c->queue;
    d->unit = drive;
    d->block.ops = &block_ops;
    d->block.max_sectors = MAX_SECTORS;
    d->block.max_segments = MAX_SEGMENTS;
    if (ata_understand(word, &c->ata[drive], &d->block, &why))
        return true;
    log_warn("storage", "the disk %s is not used: %s", d->block.model, why);
    return false;
}

static bool get_memory(struct channel *c)
{
    u64 page = page_alloc(0), bounce = page_alloc(BOUNCE_ORDER);
    if (!page || !bounce || page >= BORDER || bounce >= BORDER)
        return false;
    c->prd = phys_ptr(page);
    c->trim = phys_ptr(page + PAGE_SIZE / 2);
    c->bounce = phys_ptr(bounce);
    return true;
}

static void start_channel(struct channel *c, u16 bdf)
{
    bool found[DRIVES];
    if (in8(c->control) == 0xff || !reset_channel(c, 2000))
        return; // nothing there
    for (u32 i = 0; i < DRIVES; i++)
        found[i] = find_drive(c, i);
    if (!found[0] && !found[1])
        return;
    if (!get_memory(c)) {
        log_error("storage", "no memory below 4 GiB for the ATA disks at port %03xh", c->command);
        return;
    }
    int vector = irq_alloc_vector(disk_interrupt, &c->queue);
    if (c->irq && vector > 0 && irq_route_pin(c->irq, vector, false, false) == 0)
        c->queue.interrupt = PCI_INTX;
    else if (!c->irq)
        c->queue.interrupt = pci_connect(bdf, vector);
    disk_queue_start(&c->queue, 1);
    in8(c->command + COMMAND); // an interrupt of IDENTIFY's is taken back
    out8(c->master + MASTER_STATUS, MASTER_INTERRUPT | MASTER_ERROR);
    out8(c->control, 0);
    for (u32 i = 0; i < DRIVES; i++)
        if (found[i])
            disk_add(&c->disk[i]);
}

static u16 io_bar(u16 bdf, u32 index)
{
    u32 bar = pci_read(bdf, (u16)(0x10 + 4 * index), 4);
    return bar & 1 ? (u16)(bar & ~3u) : 0;
}

// PCI IDE Controller Specification 1.0: where a channel's interface bit is 0, it is at the places a
// PC has always had for it.
static void ata_start(u16 bdf)
{
    static const u16 command[] = {0x1f0, 0x170}, control[] = {0x3f6, 0x376};
    u32 interface = pci_read(bdf, 0x09, 1);
    pci_enable(bdf);
    u16 master = io_bar(bdf, 4);
    for (u32 i = 0; i < 2 && master; i++) {
        struct channel *c = kzalloc(sizeof(*c));
        if (!c)
            return;
        bool native = interface & 1u << 2 * i;
        c->command = native ? io_bar(bdf, 2 * i) : command[i];
        c->control = native ? (u16)(io_bar(bdf, 2 * i + 1) + 2) : control[i];
        c->irq = native ? 0 : (u8)(14 + i);
        c->master = (u16)(master + i * MASTER_CHANNEL);
        disk_queue_init(&c->queue, &queue_ops, c);
        start_channel(c, bdf);
        if (!c->disk[0].queue && !c->disk[1].queue)
            kfree(c);
    }
}

const struct disk_driver ata_disks = {"ata", ata_match, ata_start};
