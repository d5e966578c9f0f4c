// SPDX-License-Identifier: MIT
// SATA disks behind an AHCI controller: each port is a queue of up to 32 commands. Sections are
// those of Serial ATA AHCI 1.3.1.
#include "kernel/lib.h"
#include "kernel/log.h"
#include "kernel/mem.h"
#include "kernel/time.h"
#include "storage/ata_command.h"
#include "storage/disk.h"

#define PORTS        32u
#define SLOTS        32u
#define MAX_SEGMENTS 24u
#define MAX_SECTORS  2048u

// 3.1
#define HBA_CAP   0x00
#define HBA_GHC   0x04
#define HBA_IS    0x08
#define HBA_PORTS 0x0c
#define HBA_CAP2  0x24
#define HBA_BOHC  0x28
#define REG_BYTES 0x1100

#define CAP_64BIT      BIT(31)
#define CAP_SLOTS(cap) (((cap) >> 8 & 0x1f) + 1)
#define GHC_INTERRUPTS (1u << 1)
#define GHC_AHCI       (1u << 31)
#define CAP2_HANDOFF   1u
#define BOHC_BIOS      1u
#define BOHC_OS        2u

// 3.3
enum {
    PORT_CLB = 0x00,
    PORT_FB = 0x08,
    PORT_IS = 0x10,
    PORT_IE = 0x14,
    PORT_CMD = 0x18,
    PORT_TFD = 0x20,
    PORT_SIG = 0x24,
    PORT_SSTS = 0x28,
    PORT_SCTL = 0x2c,
    PORT_SERR = 0x30,
    PORT_CI = 0x38,
};
#define IS_ERRORS     (0xfu << 27)        // task file, host bus (fatal, data), interface
#define IE_WANTED     (IS_ERRORS | 0x0fu) // and the four kinds of FIS that end a command
#define CMD_START     1u
#define CMD_SPIN_UP   2u
#define CMD_POWER     4u
#define CMD_FIS       (1u << 4)
#define CMD_FIS_RUNS  (1u << 14)
#define CMD_RUNS      (1u << 15)
#define CMD_SLOT(cmd) ((cmd) >> 8 & 0x1f)
#define SIG_ATA       0x00000101u
#define SSTS_DETECT   0xfu
#define SSTS_LINK     3u
#define SCTL_COMRESET 1u
#define SCTL_NO_POWER 0x300u // no link power states
#define TFD_TAKEN     (ATA_BUSY | ATA_DRQ)

struct command_header { // 4.2.2
    u16 flags, prds;
    u32 transferred;
    u64 table;
    u32 reserved[4];
};
static_assert(sizeof(struct command_header) == 32, "AHCI 1.3.1, 4.2.2");
#define HEADER_FIS_WORDS 5u
#define HEADER_WRITE     BIT(6)

struct command_table { // 4.2.3
    u8 fis[64], packet[16], reserved[48];
    struct {
        u64 address;
        u32 reserved, bytes; // less one
    } prd[MAX_SEGMENTS];
};
static_assert(sizeof(struct command_table) == 512, "a power of two, and aligned to 128 bytes");
#define FIS_TO_DEVICE 0x27 // Serial ATA 3.0, 10.3.4
#define FIS_COMMAND   0x80

// What the device reads and writes of a port.
struct port_memory {
    struct command_header header[SLOTS];
    u8 received[PAGE_SIZE - SLOTS * sizeof(struct command_header)]; // 256 bytes of it
    struct command_table table[SLOTS];
    u64 trim[SLOTS][BLOCK_SECTOR / 8];
};

struct port {
    struct disk_queue queue;
    struct disk disk;
    struct ata_disk ata;
    struct ahci *hba;
    volatile u8 *regs;
    u32 number;
    u32 causes; // of interrupts since the last reap
    u32 fresh;  // slots issued since the last kick
    struct port_memory *memory;
};

struct ahci {
    volatile u8 *regs;
    struct port *port[PORTS];
};

static volatile u32 *hba_reg(struct ahci *h, u32 at)
{
    return (volatile u32 *)(h->regs + at);
}

static volatile u32 *port_reg(struct port *p, u32 at)
{
    return (volatile u32 *)(p->regs + at);
}

static bool ahci_match(u16 vendor, u16 device, u32 class)
{
    (void)vendor, (void)device;
    return class == 0x010601; // 2.1.5
}

// ---- Requests ----------------------------------------------------------------------------------

static void put_fis(u8 *fis, const struct ata_command *c)
{
    const u8 bytes[20] = {
        FIS_TO_DEVICE,      FIS_COMMAND,         c->opcode,          (u8)c->features,
        (u8)c->lba,         (u8)(c->lba >> 8),   (u8)(c->lba >> 16), c->device,
        (u8)(c->lba >> 24), (u8)(c->lba >> 32),  (u8)(c->lba >> 40), (u8)(c->features >> 8),
        (u8)c->count,       (u8)(c->count >> 8),
    };
    memcpy(fis, bytes, sizeof(bytes));
}

static void put_command(struct port *p, u32 slot, const struct ata_command *c,
                        const struct block_segment *segment, u32 segments)
{
    struct command_header *h = &p->memory->header[slot];
    struct command_table *t = &p->memory->table[slot];
    put_fis(t->fis, c);
    for (u32 i = 0; i < segments; i++) {
        t->prd[i].address = ptr_phys(segment[i].data);
        t->prd[i].bytes = segment[i].bytes - 1;
    }
    h->flags = (u16)(HEADER_FIS_WORDS | (c->write ? HEADER_WRITE : 0));
    h->prds = (u16)segments;
    h->transferred = 0;
    h->table = ptr_phys(t);
}

static void port_issue(struct disk_queue *q, u32 slot, struct block_request *r)
{
    struct port *p = q->priv;
    struct ata_command c = ata_command(&p->ata, r, p->memory->trim[slot]);
    struct block_segment trim = {p->memory->trim[slot], BLOCK_SECTOR};
    bool ranges = r->op == BLOCK_DISCARD;
    put_command(p, slot, &c, ranges ? &trim : r->segment, ranges ? 1 : c.data ? r->segments : 0);
    p->fresh |= 1u << slot;
}

static void port_kick(struct disk_queue *q)
{
    struct port *p = q->priv;
    __asm__ volatile("" : : : "memory"); // the commands are in memory before the device is told
    *port_reg(p, PORT_CI) = p->fresh;
    p->fresh = 0;
}

// 5.5.3: the port's causes first, then the controller's.
static void port_ack(struct disk_queue *q)
{
    struct port *p = q->priv;
    u32 causes = *port_reg(p, PORT_IS);
    *port_reg(p, PORT_IS) = causes;
    *hba_reg(p->hba, HBA_IS) = 1u << p->number;
    p->causes |= causes;
}

// 10.1.2 and 10.3.2. False: it goes on by itself.
static bool stop_port(struct port *p)
{
    *port_reg(p, PORT_CMD) &= ~CMD_START;
    return disk_wait(port_reg(p, PORT_CMD), CMD_RUNS, 0, 500);
}

static bool start_port(struct port *p)
{
    *port_reg(p, PORT_SERR) = ~0u;
    *port_reg(p, PORT_IS) = ~0u;
    if (!disk_wait(port_reg(p, PORT_TFD), TFD_TAKEN, 0, 10))
        return false;
    *port_reg(p, PORT_CMD) |= CMD_START;
    return true;
}

static u32 under_way(const struct disk_queue *q)
{
    u32 slots = 0;
    for (u32 i = 0; i < q->depth; i++)
        slots |= q->slot[i].request ? 1u << i : 0;
    return slots;
}

// 6.2.2.1: the command that failed is the current one; stopping the port drops the others, which
// are given to it again. Where it does not start, their time runs out and the port is reset.
static void after_error(struct disk_queue *q, struct port *p)
{
    u32 task = *port_reg(p, PORT_TFD), slot = CMD_SLOT(*port_reg(p, PORT_CMD));
    if (slot < q->depth && q->slot[slot].request)
        disk_failed(q, slot, "status %02xh, error %02xh, causes %08xh", task & 0xff,
                    task >> 8 & 0xff, p->causes);
    if (stop_port(p) && start_port(p))
        *port_reg(p, PORT_CI) = under_way(q);
}

static void port_reap(struct disk_queue *q)
{
    struct port *p = q->priv;
    u32 over = under_way(q) & ~*port_reg(p, PORT_CI);
    __asm__ volatile("" : : : "memory"); // what is over is known before its data is read
    for (u32 i = 0; i < q->depth; i++)
        if (over & 1u << i)
            disk_done(q, i);
    if (p->causes & IS_ERRORS)
        after_error(q, p);
    p->causes = 0;
}

static void ahci_interrupt(void *arg)
{
    struct ahci *h = arg;
    u32 ports = *hba_reg(h, HBA_IS);
    for (u32 i = 0; i < PORTS; i++)
        if (ports & 1u << i && h->port[i])
            disk_interrupt(&h->port[i]->queue);
        else if (ports & 1u << i)
            *hba_reg(h, HBA_IS) = 1u << i;
}

// ---- Start -------------------------------------------------------------------------------------

// 10.4.2: COMRESET for at least a millisecond, then the link comes up.
static bool reset_link(struct port *p)
{
    *port_reg(p, PORT_SCTL) = SCTL_NO_POWER | SCTL_COMRESET;
    time_delay_us(1500);
    *port_reg(p, PORT_SCTL) = SCTL_NO_POWER;
    return disk_wait(port_reg(p, PORT_SSTS), SSTS_DETECT, SSTS_LINK, 1000);
}

static bool begin(struct port *p)
{
    return disk_wait(port_reg(p, PORT_TFD), TFD_TAKEN, 0, 10000) && start_port(p);
}

static bool port_reset(struct disk_queue *q)
{
    struct port *p = q->priv;
    stop_port(p);
    p->causes = p->fresh = 0;
    return reset_link(p) && begin(p);
}

static void port_stop(struct disk_queue *q)
{
    struct port *p = q->priv;
    *port_reg(p, PORT_IE) = 0;
    stop_port(p);
    *port_reg(p, PORT_CMD) &= ~CMD_FIS;
}

static const struct disk_queue_ops queue_ops = {
    .issue = port_issue,
    .kick = port_kick,
    .ack = port_ack,
    .reap = port_reap,
    .reset = port_reset,
    .stop = port_stop,
};

static void ahci_submit(struct block_device *b, struct block_request *r)
{
    struct port *p = container_of(b, struct port, disk.block);
    if (r->op == BLOCK_FLUSH && !p->ata.flush && !p->ata.flush_ext)
        r->done(r);
    else
        disk_submit(b, r);
}

static const struct block_ops block_ops = {"ahci", ahci_submit};

static bool identify(struct port *p, u16 *word)
{
    struct ata_command c = {.opcode = ATA_IDENTIFY};
    struct block_segment answer = {p->memory->trim[0], ATA_WORDS * 2};
    put_command(p, 0, &c, &answer, 1);
    *port_reg(p, PORT_CI) = 1;
    bool answered = disk_wait(port_reg(p, PORT_CI), 1, 0, 5000);
    answered &= !(*port_reg(p, PORT_TFD) & (ATA_ERROR | ATA_FAULT));
    memcpy(word, p->memory->trim[0], ATA_WORDS * 2);
    return answered;
}

// 10.1.2: where the port puts what it receives, and finds its commands.
static bool set_up_port(struct port *p)
{
    volatile u32 *cmd = port_reg(p, PORT_CMD);
    u64 pa = ptr_phys(p->memory);
    if (!stop_port(p))
        return false;
    *cmd &= ~CMD_FIS;
    if (!disk_wait(cmd, CMD_FIS_RUNS, 0, 500))
        return false;
    *port_reg(p, PORT_CLB) = (u32)pa;
    *port_reg(p, PORT_CLB + 4) = (u32)(pa >> 32);
    *port_reg(p, PORT_FB) = (u32)ptr_phys(p->memory->received);
    *port_reg(p, PORT_FB + 4) = (u32)(ptr_phys(p->memory->received) >> 32);
    *cmd |= CMD_FIS | CMD_SPIN_UP | CMD_POWER;
    // A device shows within 10 ms, or there is none.
    bool link = disk_wait(port_reg(p, PORT_SSTS), SSTS_DETECT, SSTS_LINK, 20) ||
                ((*port_reg(p, PORT_SSTS) & SSTS_DETECT) && reset_link(p));
    return link && begin(p) && *port_reg(p, PORT_SIG) == SIG_ATA;
}

static bool understand(struct port *p)
{
    u16 word[ATA_WORDS];
    const char *why = "it does not tell what it is";
    struct block_device *b = &p->disk.block;
    if (identify(p, word) && ata_understand(word, &p->ata, b, &why)) {
        b->ops = &block_ops;
        b->max_sectors = p->ata.lba48 ? MAX_SECTORS : 256;
        b->max_segments = MAX_SEGMENTS;
        return true;
    }
    log_warn("storage", "the disk at AHCI port %u is not used: %s", p->number, why);
    return false;
}

static void start_one(struct ahci *h, u32 number, enum pci_interrupt interrupt)
{
    struct port *p = kzalloc(sizeof(*p));
    u64 pages = sizeof(struct port_memory) / PAGE_SIZE, pa = p ? pages_alloc(pages) : 0;
    if (!pa) {
        log_error("storage", "no memory for AHCI port %u", number);
        kfree(p);
        return;
    }
    memset(phys_ptr(pa), 0, sizeof(struct port_memory));
    p->hba = h;
    p->number = number;
    p->regs = h->regs + 0x100 + 0x80 * number;
    p->memory = phys_ptr(pa);
    p->disk.queue = &p->queue;
    disk_queue_init(&p->queue, &queue_ops, p);
    p->queue.interrupt = interrupt;
    if (!set_up_port(p) || !understand(p)) {
        port_stop(&p->queue);
        pages_free(pa, pages);
        kfree(p);
        return;
    }
    h->port[number] = p;
    disk_queue_start(&p->queue, CAP_SLOTS(*hba_reg(h, HBA_CAP)));
    *port_reg(p, PORT_IS) = ~0u;
    *port_reg(p, PORT_IE) = IE_WANTED;
    disk_add(&p->disk);
}

// 10.6: the firmware lets go of the controller.
static void take_over(struct ahci *h)
{
    if (!(*hba_reg(h, HBA_CAP2) & CAP2_HANDOFF))
        return;
    *hba_reg(h, HBA_BOHC) |= BOHC_OS;
    disk_wait(hba_reg(h, HBA_BOHC), BOHC_BIOS, 0, 2000);
}

static void ahci_start(u16 bdf)
{
    struct ahci *h = kzalloc(sizeof(*h));
    pci_enable(bdf);
    if (!h || !(h->regs = pci_map_bar(bdf, 5, 0, REG_BYTES)))
        return;
    take_over(h);
    *hba_reg(h, HBA_GHC) |= GHC_AHCI;
    if (!(*hba_reg(h, HBA_CAP) & CAP_64BIT)) {
        log_warn("storage", "the AHCI controller reaches 32 bits of memory only: not used");
        return;
    }
    enum pci_interrupt interrupt = pci_connect(bdf, irq_alloc_vector(ahci_interrupt, h));
    u32 ports = *hba_reg(h, HBA_PORTS);
    *hba_reg(h, HBA_IS) = ~0u;
    *hba_reg(h, HBA_GHC) |= GHC_INTERRUPTS;
    for (u32 i = 0; i < PORTS; i++)
        if (ports & 1u << i)
            start_one(h, i, interrupt);
}

const struct disk_driver ahci_disks = {"ahci", ahci_match, ahci_start};
