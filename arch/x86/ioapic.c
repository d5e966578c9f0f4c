// SPDX-License-Identifier: MIT
// The host's IOAPICs: found in the MADT, or the one at the well-known address (82093AA manual).
#include "arch/x86/acpi.h"
#include "arch/x86/apic.h"
#include "arch/x86/cpu.h"
#include "kernel/lib.h"
#include "kernel/log.h"
#include "kernel/thread.h"

#define MAX_IOAPICS    16
#define ISA_PINS       16
#define DEFAULT_BASE   0xfec00000
#define REG_SELECT     0x00
#define REG_WINDOW     0x10
#define INDEX_VERSION  1
#define INDEX_PIN(n)   (0x10 + 2 * (n))
#define PIN_ACTIVE_LOW BIT(13)
#define PIN_LEVEL      BIT(15)
#define PIN_MASKED     BIT(16)

// MADT (ACPI 6.5, 5.2.12)
#define MADT_ENTRIES  44
#define MADT_IOAPIC   1
#define MADT_OVERRIDE 2

struct ioapic {
    volatile u8 *base;
    u32 first_gsi, pins;
};
struct isa_override {
    bool given;
    u32 gsi;
    u8 flags; // MPS INTI: polarity bits 0-1 (3 is low), trigger bits 2-3 (3 is level)
};
static struct ioapic ioapics[MAX_IOAPICS];
static u32 ioapic_count;
static struct isa_override overrides[ISA_PINS];
static struct spinlock lock; // select and window are one transaction

static u32 reg_read(const struct ioapic *io, u32 index)
{
    *(volatile u32 *)(io->base + REG_SELECT) = index;
    return *(volatile u32 *)(io->base + REG_WINDOW);
}

static void reg_write(const struct ioapic *io, u32 index, u32 value)
{
    *(volatile u32 *)(io->base + REG_SELECT) = index;
    *(volatile u32 *)(io->base + REG_WINDOW) = value;
}

static void add(u64 pa, u32 first_gsi)
{
    if (ioapic_count == MAX_IOAPICS)
        return;
    struct ioapic *io = &ioapics[ioapic_count];
    io->base = map_mmio(pa, 32);
    if (io->base == NULL)
        return;
    io->first_gsi = first_gsi;
    io->pins = (reg_read(io, INDEX_VERSION) >> 16 & 0xff) + 1;
    ioapic_count++;
    for (u32 pin = 0; pin < io->pins; pin++)
        reg_write(io, INDEX_PIN(pin), PIN_MASKED);
}

static void add_override(const u8 *entry)
{
    u8 irq = entry[3];
    if (irq >= ISA_PINS)
        return;
    overrides[irq].given = true;
    memcpy(&overrides[irq].gsi, entry + 4, 4);
    overrides[irq].flags = entry[8];
}

static void read_madt(const struct acpi_header *madt)
{
    const u8 *table = (const u8 *)madt;
    for (u32 at = MADT_ENTRIES; at + 2 <= madt->length; at += table[at + 1]) {
        const u8 *e = table + at;
        if (e[1] < 2 || at + e[1] > madt->length)
            break;
        u32 word[2] = {0};
        if (e[0] == MADT_IOAPIC && e[1] >= 12) {
            memcpy(word, e + 4, 8);
            add(word[0], word[1]);
        } else if (e[0] == MADT_OVERRIDE && e[1] >= 10) {
            add_override(e);
        }
    }
}

void ioapic_init(void)
{
    const struct acpi_header *madt = acpi_find("APIC");
    if (madt != NULL)
        read_madt(madt);
    if (ioapic_count == 0)
        add(DEFAULT_BASE, 0);
}

static const struct ioapic *find(u32 gsi)
{
    for (u32 i = 0; i < ioapic_count; i++) {
        if (gsi >= ioapics[i].first_gsi && gsi - ioapics[i].first_gsi < ioapics[i].pins)
            return &ioapics[i];
    }
    return NULL;
}

static void apply_override(u32 *gsi, bool *level, bool *active_low)
{
    if (*gsi >= ISA_PINS || !overrides[*gsi].given)
        return;
    const struct isa_override *o = &overrides[*gsi];
    if ((o->flags & 3) != 0)
        *active_low = (o->flags & 3) == 3;
    if ((o->flags >> 2 & 3) != 0)
        *level = (o->flags >> 2 & 3) == 3;
    *gsi = o->gsi;
}

int ioapic_route(u32 gsi, u8 vector, u32 apic_id, bool level, bool active_low)
{
    apply_override(&gsi, &level, &active_low);
    const struct ioapic *io = find(gsi);
    if (io == NULL || apic_id > 0xff) // the destination field has 8 bits
        return E_NOENT;
    u32 pin = gsi - io->first_gsi;
    u64 flags = spin_lock_irqsave(&lock);
    reg_write(io, INDEX_PIN(pin), PIN_MASKED);
    reg_write(io, INDEX_PIN(pin) + 1, apic_id << 24);
    reg_write(io, INDEX_PIN(pin),
              vector | (level ? PIN_LEVEL : 0) | (active_low ? PIN_ACTIVE_LOW : 0));
    spin_unlock_irqrestore(&lock, flags);
    return 0;
}
