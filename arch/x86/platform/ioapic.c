// SPDX-License-Identifier: MIT
// The IOAPIC: 24 pins, version 0x20 with its EOI register (82093AA data sheet; the EOI register as
// in the ICH's). Polarity bits are kept and change nothing: lines here are asserted or not.
#include "arch/x86/platform/platform.h"

#include "kernel/lib.h"

#define VERSION         0x20
#define OFFSET_SELECT   0x00
#define OFFSET_WINDOW   0x10
#define OFFSET_EOI      0x40
#define REG_ID          0
#define REG_VERSION     1
#define REG_ARBITRATION 2
#define REG_REDIRECTION 0x10

#define ENTRY_LOGICAL    BIT(11)
#define ENTRY_STATUS     BIT(12)
#define ENTRY_REMOTE_IRR BIT(14)
#define ENTRY_LEVEL      BIT(15)
#define ENTRY_MASKED     BIT(16)
#define ENTRY_WRITABLE   (0xff0000000000afffull | ENTRY_MASKED)

struct vioapic {
    struct platform *platform;
    // Guarded by platform->irq_lock.
    u32 id; // register value
    u32 select;
    u32 lines; // levels of the pins
    u64 entry[IRQ_LINES];
};

static bool is_level(u64 entry)
{
    return entry & ENTRY_LEVEL;
}

static bool deliver(struct vioapic *io, u64 entry)
{
    struct apic_message m = {
        .dest = (u32)(entry >> 56),
        .logical = entry & ENTRY_LOGICAL,
        .level = is_level(entry),
        .mode = entry >> 8 & 7,
        .vector = entry & 0xff,
    };
    return apic_send(io->platform->guest, &m);
}

// A level that is up and not yet on its way to a CPU is sent.
static void service_level(struct vioapic *io, u32 pin)
{
    u64 *e = &io->entry[pin];
    bool up = io->lines >> pin & 1;
    if (up && is_level(*e) && !(*e & (ENTRY_MASKED | ENTRY_REMOTE_IRR)) && deliver(io, *e))
        *e |= ENTRY_REMOTE_IRR;
}

// An edge that meets a masked pin is lost, as the data sheet says.
void vioapic_line(struct platform *p, u32 pin, bool level)
{
    assert_held(&p->irq_lock);
    struct vioapic *io = p->ioapic;
    bool rise = level && !(io->lines >> pin & 1);
    u64 e = io->entry[pin];
    io->lines = level ? io->lines | 1u << pin : io->lines & ~(1u << pin);
    if (is_level(e))
        service_level(io, pin);
    else if (rise && !(e & ENTRY_MASKED))
        deliver(io, e);
}

static void end_of_interrupt(struct vioapic *io, u8 vector)
{
    for (u32 pin = 0; pin < IRQ_LINES; pin++) {
        u64 e = io->entry[pin];
        if ((e & ENTRY_REMOTE_IRR) && (e & 0xff) == vector) {
            io->entry[pin] &= ~ENTRY_REMOTE_IRR;
            service_level(io, pin);
        }
    }
}

void vioapic_eoi(struct platform *p, u8 vector)
{
    spin_lock(&p->irq_lock);
    end_of_interrupt(p->ioapic, vector);
    spin_unlock(&p->irq_lock);
}

static void write_entry(struct vioapic *io, u32 reg, u32 value)
{
    u32 pin = reg >> 1;
    u64 *e = &io->entry[pin], old = *e, new;
    if (reg & 1)
        new = (old & 0xffffffff) | (u64)value << 32;
    else
        new = (old & ~0xffffffffull) | value;
    new = (new &ENTRY_WRITABLE) | (old & ENTRY_REMOTE_IRR);
    // Software that has no EOI register ends an interrupt by a turn to edge and back.
    if (!is_level(new))
        new &= ~ENTRY_REMOTE_IRR;
    *e = new;
    service_level(io, pin);
}

static u32 read_register(const struct vioapic *io)
{
    u32 reg = io->select;
    if (reg == REG_ID)
        return io->id;
    if (reg == REG_VERSION)
        return VERSION | (IRQ_LINES - 1) << 16;
    if (reg == REG_ARBITRATION)
        return io->id;
    if (reg >= REG_REDIRECTION && reg < REG_REDIRECTION + 2 * IRQ_LINES) {
        u64 e = io->entry[(reg - REG_REDIRECTION) >> 1];
        return (u32)(reg & 1 ? e >> 32 : e);
    }
    return 0;
}

static void write_register(struct vioapic *io, u32 value)
{
    u32 reg = io->select;
    if (reg == REG_ID)
        io->id = value & 0x0f000000;
    else if (reg >= REG_REDIRECTION && reg < REG_REDIRECTION + 2 * IRQ_LINES)
        write_entry(io, reg - REG_REDIRECTION, value);
}

// The registers are reached with 32-bit accesses (the select register's upper bits are reserved).
static u64 ioapic_read(struct device *d, u32 region, u64 offset, u32 size)
{
    (void)region;
    struct vioapic *io = d->priv;
    u64 value = 0;
    spin_lock(&io->platform->irq_lock);
    if (offset == OFFSET_SELECT)
        value = io->select;
    else if (offset == OFFSET_WINDOW && size == 4)
        value = read_register(io);
    spin_unlock(&io->platform->irq_lock);
    return value;
}

static void ioapic_write(struct device *d, u32 region, u64 offset, u32 size, u64 value)
{
    (void)region;
    struct vioapic *io = d->priv;
    spin_lock(&io->platform->irq_lock);
    if (offset == OFFSET_SELECT)
        io->select = value & 0xff;
    else if (offset == OFFSET_WINDOW && size == 4)
        write_register(io, (u32)value);
    else if (offset == OFFSET_EOI && size == 4)
        end_of_interrupt(io, (u8)value);
    spin_unlock(&io->platform->irq_lock);
}

// The lines keep their levels: they belong to the devices that drive them.
static void ioapic_reset(struct device *d)
{
    struct vioapic *io = d->priv;
    spin_lock(&io->platform->irq_lock);
    io->id = io->select = 0;
    for (u32 pin = 0; pin < IRQ_LINES; pin++)
        io->entry[pin] = ENTRY_MASKED;
    spin_unlock(&io->platform->irq_lock);
}

static int ioapic_init(struct device *d)
{
    struct vioapic *io = d->priv;
    io->platform = platform_of(d->guest);
    io->platform->ioapic = io;
    ioapic_reset(d);
    return device_claim_mmio(d, IOAPIC_GPA, PAGE_SIZE, 0);
}

static void ioapic_fini(struct device *d)
{
    platform_of(d->guest)->ioapic = NULL;
}

static void ioapic_pause(struct device *d)
{
    (void)d; // no timers
}

// The local APICs have their state already, so that a level nobody took before finds them.
static void ioapic_resume(struct device *d)
{
    struct vioapic *io = d->priv;
    spin_lock(&io->platform->irq_lock);
    for (u32 pin = 0; pin < IRQ_LINES; pin++)
        service_level(io, pin);
    spin_unlock(&io->platform->irq_lock);
}

static bool check(const void *copy, char *err, size_t size)
{
    const struct vioapic *io = copy;
    for (u32 pin = 0; pin < IRQ_LINES; pin++) {
        u64 e = io->entry[pin];
        bool odd = (e & ENTRY_REMOTE_IRR) && !is_level(e);
        if ((e & ~(ENTRY_WRITABLE | ENTRY_REMOTE_IRR)) || odd) {
            snprintf(err, size, "IOAPIC: pin %u has an impossible redirection entry 0x%llx", pin,
                     (unsigned long long)e);
            return false;
        }
    }
    if (io->id & ~0x0f000000u) {
        snprintf(err, size, "IOAPIC: impossible ID register 0x%x", io->id);
        return false;
    }
    return true;
}

static const struct state_field fields[] = {
    FIELD(1, FIELD_COPY, struct vioapic, id, 1, 0, 0),
    FIELD(2, FIELD_COPY, struct vioapic, select, 1, 0, 0xff),
    FIELD(3, FIELD_COPY, struct vioapic, lines, 1, 0, (1u << IRQ_LINES) - 1),
    FIELD_ARRAY(4, FIELD_COPY, struct vioapic, entry, 1),
    FIELD_LAST,
};
static const struct state_table state = {
    .name = "ioapic",
    .version = 1,
    .fields = fields,
    .check = check,
    .struct_size = sizeof(struct vioapic),
};

const struct device_ops vioapic_device = {
    .name = "ioapic",
    .state = &state,
    .priv_size = sizeof(struct vioapic),
    .init = ioapic_init,
    .fini = ioapic_fini,
    .reset = ioapic_reset,
    .read = ioapic_read,
    .write = ioapic_write,
    .pause = ioapic_pause,
    .resume = ioapic_resume,
};
