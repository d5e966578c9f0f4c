// SPDX-License-Identifier: MIT
// The two 8259A interrupt controllers with the PIIX's edge/level registers.
// (Intel 8259A data sheet, 1988; PIIX3 data sheet 2.5.4 for the registers at 0x4D0.)
#include "arch/x86/platform/platform.h"

#include "kernel/lib.h"

enum { MASTER, SLAVE };
#define CASCADE_BIT (1u << IRQ_CASCADE)
#define SPURIOUS_IR 7
#define REGION_ELCR 2

struct pic_chip {
    u8 irr, isr, imr;
    u8 lines;    // levels of the inputs
    u8 elcr;     // inputs that are level-triggered
    u8 base;     // first vector
    u8 icw_next; // initialisation word awaited: 2, 3, 4; 0: none
    u8 icw1;
    u8 top; // the input with the highest priority
    u8 auto_eoi, rotate_auto_eoi, special_mask, fully_nested, read_isr, poll;
};

struct vpic {
    struct platform *platform;
    struct pic_chip chip[2]; // guarded by platform->irq_lock
};

static const u8 elcr_mask[2] = {0xf8, 0xde};

// Urgency of the most urgent input in bits: 0 is the highest, 8 when there is none.
static u32 urgency(const struct pic_chip *c, u8 bits)
{
    for (u32 i = 0; i < 8; i++)
        if (bits >> ((c->top + i) & 7) & 1)
            return i;
    return 8;
}

// The input that is served next, -1 when none may be.
static int pending_ir(const struct vpic *p, u32 n)
{
    const struct pic_chip *c = &p->chip[n];
    u8 in_service = c->isr;
    if (c->special_mask)
        in_service &= (u8)~c->imr;
    // Fully nested: the slave may interrupt its own interrupt.
    if (n == MASTER && c->fully_nested)
        in_service &= (u8)~CASCADE_BIT;
    u32 request = urgency(c, c->irr & (u8)~c->imr);
    return request < urgency(c, in_service) ? (int)((c->top + request) & 7) : -1;
}

// After any change: the slave's output is the master's cascade input, the master's goes to the CPU.
static void update(struct vpic *p)
{
    struct pic_chip *m = &p->chip[MASTER];
    if (pending_ir(p, SLAVE) >= 0)
        m->irr |= CASCADE_BIT;
    else
        m->irr &= (u8)~CASCADE_BIT;
    bool intr = pending_ir(p, MASTER) >= 0, before = p->platform->pic_intr;
    p->platform->pic_intr = intr;
    if (intr && !before)
        lapic_lint0_rise(p->platform->guest);
}

// An edge stays requested after the line has dropped, as PC chipsets have it.
static void set_input(struct pic_chip *c, u32 ir, bool level)
{
    u8 bit = (u8)(1u << ir);
    bool rise = level && !(c->lines & bit);
    c->lines = level ? c->lines | bit : c->lines & (u8)~bit;
    if (c->elcr & bit)
        c->irr = level ? c->irr | bit : c->irr & (u8)~bit;
    else if (rise)
        c->irr |= bit;
}

void vpic_line(struct platform *p, u32 line, bool level)
{
    assert_held(&p->irq_lock);
    set_input(&p->pic->chip[line >> 3], line & 7, level);
    update(p->pic);
}

static void acknowledge(struct pic_chip *c, u32 ir)
{
    u8 bit = (u8)(1u << ir);
    if (!(c->elcr & bit))
        c->irr &= (u8)~bit;
    if (!c->auto_eoi)
        c->isr |= bit;
    else if (c->rotate_auto_eoi)
        c->top = (u8)((ir + 1) & 7);
}

int vpic_ack(struct platform *platform)
{
    struct vpic *p = platform->pic;
    spin_lock(&platform->irq_lock);
    u32 n = MASTER;
    int ir = pending_ir(p, MASTER);
    if (ir >= 0)
        acknowledge(&p->chip[MASTER], (u32)ir);
    if (ir == IRQ_CASCADE) {
        n = SLAVE;
        ir = pending_ir(p, SLAVE);
        if (ir >= 0)
            acknowledge(&p->chip[SLAVE], (u32)ir);
    }
    int vector = p->chip[n].base + (ir < 0 ? SPURIOUS_IR : ir);
    update(p);
    spin_unlock(&platform->irq_lock);
    return vector;
}

static void initialise(struct pic_chip *c, u8 icw1)
{
    c->icw1 = icw1;
    c->icw_next = 2;
    c->irr &= c->elcr; // the edge latches are cleared
    c->isr = c->imr = c->top = 0;
    c->auto_eoi = c->rotate_auto_eoi = c->special_mask = c->fully_nested = 0;
    c->read_isr = c->poll = 0;
}

static void write_icw(struct pic_chip *c, u8 value)
{
    bool single = c->icw1 & 2, wants_icw4 = c->icw1 & 1;
    switch (c->icw_next) {
    case 2:
        c->base = value & 0xf8;
        c->icw_next = !single ? 3 : wants_icw4 ? 4 : 0;
        break;
    case 3: // the cascade's wiring is fixed
        c->icw_next = wants_icw4 ? 4 : 0;
        break;
    default:
        c->fully_nested = value >> 4 & 1;
        c->auto_eoi = value >> 1 & 1;
        c->icw_next = 0;
    }
}

static void end_of_interrupt(struct pic_chip *c, u32 ir, bool rotate)
{
    c->isr &= (u8) ~(1u << ir);
    if (rotate)
        c->top = (u8)((ir + 1) & 7);
}

static void write_ocw2(struct pic_chip *c, u8 value)
{
    u32 ir = value & 7;
    // In special mask mode a non-specific EOI leaves masked levels alone.
    u8 in_service = c->special_mask ? c->isr & (u8)~c->imr : c->isr;
    u32 highest = urgency(c, in_service);
    switch (value >> 5) {
    case 0:
    case 4:
        c->rotate_auto_eoi = value >> 7;
        break;
    case 1:
    case 5:
        if (highest < 8)
            end_of_interrupt(c, (c->top + highest) & 7, value >> 7);
        break;
    case 3:
    case 7:
        end_of_interrupt(c, ir, value >> 7);
        break;
    case 6:
        c->top = (u8)((ir + 1) & 7);
        break;
    }
}

static void write_ocw3(struct pic_chip *c, u8 value)
{
    if (value & 0x04)
        c->poll = 1;
    if (value & 0x02)
        c->read_isr = value & 1;
    if (value & 0x40)
        c->special_mask = value >> 5 & 1;
}

static void write_chip(struct pic_chip *c, u64 offset, u8 value)
{
    if (offset == 1) {
        if (c->icw_next)
            write_icw(c, value);
        else
            c->imr = value;
    } else if (value & 0x10) {
        initialise(c, value);
    } else if (value & 0x08) {
        write_ocw3(c, value);
    } else {
        write_ocw2(c, value);
    }
}

// A poll is an acknowledge that the CPU makes by reading.
static u8 poll(struct vpic *p, u32 n)
{
    struct pic_chip *c = &p->chip[n];
    int ir = pending_ir(p, n);
    c->poll = 0;
    if (ir < 0)
        return 0;
    acknowledge(c, (u32)ir);
    return 0x80 | (u8)ir;
}

static u8 read_chip(struct vpic *p, u32 n, u64 offset)
{
    struct pic_chip *c = &p->chip[n];
    if (c->poll)
        return poll(p, n);
    if (offset == 1)
        return c->imr;
    return c->read_isr ? c->isr : c->irr;
}

static u64 pic_read(struct device *d, u32 region, u64 offset, u32 size)
{
    struct vpic *p = d->priv;
    if (size != 1)
        return ~0ull;
    spin_lock(&p->platform->irq_lock);
    u8 value = region == REGION_ELCR ? p->chip[offset].elcr : read_chip(p, region, offset);
    update(p);
    spin_unlock(&p->platform->irq_lock);
    return value;
}

static void write_elcr(struct pic_chip *c, u8 value, u8 mask)
{
    u8 to_level = value & mask & (u8)~c->elcr;
    c->elcr = value & mask;
    c->irr = (c->irr & (u8)~to_level) | (c->lines & c->elcr);
}

static void pic_write(struct device *d, u32 region, u64 offset, u32 size, u64 value)
{
    struct vpic *p = d->priv;
    if (size != 1)
        return;
    spin_lock(&p->platform->irq_lock);
    if (region == REGION_ELCR)
        write_elcr(&p->chip[offset], (u8)value, elcr_mask[offset]);
    else
        write_chip(&p->chip[region], offset, (u8)value);
    update(p);
    spin_unlock(&p->platform->irq_lock);
}

// The lines keep their levels: they belong to the devices that drive them.
static void pic_reset(struct device *d)
{
    struct vpic *p = d->priv;
    spin_lock(&p->platform->irq_lock);
    for (u32 n = MASTER; n <= SLAVE; n++) {
        u8 lines = p->chip[n].lines;
        memset(&p->chip[n], 0, sizeof(p->chip[n]));
        p->chip[n].lines = lines;
        p->chip[n].imr = 0xff; // undefined in the chip: nothing comes before it is initialised
    }
    update(p);
    spin_unlock(&p->platform->irq_lock);
}

static int pic_init(struct device *d)
{
    struct vpic *p = d->priv;
    p->platform = platform_of(d->guest);
    p->platform->pic = p;
    pic_reset(d);
    int error = device_claim_ports(d, 0x20, 2, MASTER);
    if (!error)
        error = device_claim_ports(d, 0xa0, 2, SLAVE);
    return error ? error : device_claim_ports(d, 0x4d0, 2, REGION_ELCR);
}

static void pic_fini(struct device *d)
{
    platform_of(d->guest)->pic = NULL;
}

static void pic_pause(struct device *d)
{
    (void)d; // no timers
}

static void pic_resume(struct device *d)
{
    struct vpic *p = d->priv;
    spin_lock(&p->platform->irq_lock);
    p->platform->pic_intr = false; // not part of the state: follows from it
    update(p);
    spin_unlock(&p->platform->irq_lock);
}

static bool check(const void *copy, char *err, size_t size)
{
    const struct vpic *p = copy;
    for (u32 n = MASTER; n <= SLAVE; n++) {
        const struct pic_chip *c = &p->chip[n];
        u8 level_only = c->elcr & (n == MASTER ? (u8)~CASCADE_BIT : 0xff);
        const char *wrong = NULL;
        if (c->elcr & ~elcr_mask[n])
            wrong = "an input that is always edge-triggered is level-triggered";
        else if ((c->irr ^ c->lines) & level_only)
            wrong = "a level request does not follow its line";
        else if (c->base & 7)
            wrong = "the first vector is no multiple of 8";
        else if (c->icw_next == 1)
            wrong = "it awaits an impossible initialisation word";
        if (wrong) {
            snprintf(err, size, "PIC %u: %s (irr 0x%x, lines 0x%x, elcr 0x%x, base 0x%x, icw %u)",
                     n, wrong, c->irr, c->lines, c->elcr, c->base, c->icw_next);
            return false;
        }
    }
    return true;
}

#define CHIP_FIELD(id, n, member, max) FIELD(id, FIELD_COPY, struct vpic, chip[n].member, 1, 0, max)
#define CHIP_FIELDS(id, n)                                                                         \
    CHIP_FIELD(id + 0, n, irr, 0xff), CHIP_FIELD(id + 1, n, isr, 0xff),                            \
        CHIP_FIELD(id + 2, n, imr, 0xff), CHIP_FIELD(id + 3, n, lines, 0xff),                      \
        CHIP_FIELD(id + 4, n, elcr, 0xff), CHIP_FIELD(id + 5, n, base, 0xff),                      \
        CHIP_FIELD(id + 6, n, icw_next, 4), CHIP_FIELD(id + 7, n, icw1, 0xff),                     \
        CHIP_FIELD(id + 8, n, top, 7), CHIP_FIELD(id + 9, n, auto_eoi, 1),                         \
        CHIP_FIELD(id + 10, n, rotate_auto_eoi, 1), CHIP_FIELD(id + 11, n, special_mask, 1),       \
        CHIP_FIELD(id + 12, n, fully_nested, 1), CHIP_FIELD(id + 13, n, read_isr, 1),              \
        CHIP_FIELD(id + 14, n, poll, 1)

static const struct state_field fields[] = {
    CHIP_FIELDS(1, MASTER),
    CHIP_FIELDS(33, SLAVE),
    FIELD_LAST,
};
static const struct state_table state = {
    .name = "pic",
    .version = 1,
    .fields = fields,
    .check = check,
    .struct_size = sizeof(struct vpic),
};

const struct device_ops vpic_device = {
    .name = "pic",
    .state = &state,
    .priv_size = sizeof(struct vpic),
    .init = pic_init,
    .fini = pic_fini,
    .reset = pic_reset,
    .read = pic_read,
    .write = pic_write,
    .pause = pic_pause,
    .resume = pic_resume,
};
