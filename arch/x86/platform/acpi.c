// SPDX-License-Identifier: MIT
// The ACPI tables of the guest's PC, written below 1 MiB where PC systems search for the RSDP.
#include "arch/x86/platform/acpi_tables.h"
#include "arch/x86/platform/dsdt.h"
#include "arch/x86/platform/platform.h"

#include "kernel/lib.h"
#include "kernel/mem.h"

#define TABLES_GPA   0xe0000ull // to the end of the first megabyte
#define TABLES_BYTES (16 * KIB)

#define FADT_WBINVD       BIT(0)
#define FADT_C1           BIT(2)
#define FADT_NO_SLEEP     BIT(5) // no fixed sleep button
#define FADT_NO_FIXED_RTC BIT(6) // the RTC does not wake through the fixed registers
#define FADT_TIMER_32     BIT(8)
#define FADT_RESET        BIT(10)
#define BOOT_LEGACY       BIT(0) // there are ISA devices; no 8042 (bit 1): no keyboard
#define BOOT_NO_VGA       BIT(2)
#define CMOS_CENTURY      0x32
#define MADT_PCAT         1 // there are 8259s
#define INTI_LEVEL_HIGH   0x0d

struct builder {
    u8 *buf;
    u32 used;
};

static u8 checksum(const void *data, u32 bytes)
{
    const u8 *p = data;
    u8 sum = 0;
    for (u32 i = 0; i < bytes; i++)
        sum += p[i];
    return (u8)-sum;
}

static void *reserve(struct builder *b, u32 bytes, u32 align)
{
    u32 at = ALIGN_UP(b->used, align);
    assert(at + bytes <= TABLES_BYTES);
    b->used = at + bytes;
    return b->buf + at;
}

static u32 gpa_of(const struct builder *b, const void *table)
{
    return (u32)(TABLES_GPA + (u64)((const u8 *)table - b->buf));
}

static void *begin(struct builder *b, const char *signature, u8 revision, u32 bytes)
{
    struct acpi_header *h = reserve(b, bytes, 16);
    memcpy(h->signature, signature, 4);
    h->length = bytes;
    h->revision = revision;
    memcpy(h->oem_id, "SKIFF ", 6);
    memcpy(h->oem_table_id, "SKIFFPC ", 8);
    h->oem_revision = 1;
    h->creator_id = 0x46494b53; // "SKIF"
    h->creator_revision = 1;
    return h;
}

static void *append(struct builder *b, u8 type, u32 bytes)
{
    u8 *entry = reserve(b, bytes, 1);
    entry[0] = type;
    entry[1] = (u8)bytes;
    return entry;
}

static u32 finish(struct builder *b, struct acpi_header *h)
{
    h->length = (u32)(b->buf + b->used - (u8 *)h);
    h->checksum = 0;
    h->checksum = checksum(h, h->length);
    return gpa_of(b, h);
}

static struct acpi_gas port(u16 address, u8 bytes, u8 access)
{
    return (struct acpi_gas){
        .space = 1, .bit_width = bytes * 8, .access = access, .address = address};
}

static void set_power_blocks(struct acpi_fadt *f)
{
    f->pm1a_event = PM_BASE;
    f->pm1a_control = PM_BASE + 4;
    f->pm_timer = PM_BASE + 8;
    f->gpe0 = PM_GPE0;
    f->pm1_event_bytes = 4;
    f->pm1_control_bytes = 2;
    f->pm_timer_bytes = 4;
    f->gpe0_bytes = 4;
    f->x_pm1a_event = port(PM_BASE, 4, 2);
    f->x_pm1a_control = port(PM_BASE + 4, 2, 2);
    f->x_pm_timer = port(PM_BASE + 8, 4, 3);
    f->x_gpe0 = port(PM_GPE0, 4, 1);
    f->reset_register = port(RESET_PORT, 1, 1);
    f->reset_value = RESET_VALUE;
}

static u32 write_fadt(struct builder *b, u32 facs, u32 dsdt)
{
    struct acpi_fadt *f = begin(b, "FACP", 5, sizeof(*f));
    f->facs = facs;
    f->dsdt = dsdt;
    f->x_dsdt = dsdt;
    f->pm_profile = 1; // desktop
    f->sci_interrupt = IRQ_SCI;
    f->c2_latency = 0xfff; // more than 100: no C2, and no C3
    f->c3_latency = 0xfff;
    f->century = CMOS_CENTURY;
    f->boot_arch = BOOT_LEGACY | BOOT_NO_VGA;
    f->flags =
        FADT_WBINVD | FADT_C1 | FADT_NO_SLEEP | FADT_NO_FIXED_RTC | FADT_TIMER_32 | FADT_RESET;
    set_power_blocks(f);
    return finish(b, &f->header);
}

static void add_override(struct builder *b, u8 source, u32 gsi, u16 flags)
{
    struct madt_override *o = append(b, 2, sizeof(*o));
    o->source = source;
    o->gsi = gsi;
    o->flags = flags;
}

static u32 write_madt(struct builder *b, u32 vcpus)
{
    struct acpi_madt *m = begin(b, "APIC", 3, sizeof(*m));
    m->lapic_address = (u32)LAPIC_GPA;
    m->flags = MADT_PCAT;
    for (u32 i = 0; i < vcpus; i++) {
        struct madt_lapic *l = append(b, 0, sizeof(*l));
        l->processor_uid = (u8)i;
        l->apic_id = (u8)i;
        l->flags = 1;
    }
    struct madt_ioapic *io = append(b, 1, sizeof(*io));
    io->address = (u32)IOAPIC_GPA;
    add_override(b, IRQ_PIT, IOAPIC_PIT_PIN, 0);
    add_override(b, IRQ_SCI, IRQ_SCI, INTI_LEVEL_HIGH);
    struct madt_lapic_nmi *nmi = append(b, 4, sizeof(*nmi));
    nmi->processor_uid = 0xff;
    nmi->lint = 1;
    return finish(b, &m->header);
}

static u32 write_waet(struct builder *b)
{
    struct acpi_waet *w = begin(b, "WAET", 1, sizeof(*w));
    w->flags = 3; // the RTC needs no extra reads of register C, the PM timer no second one
    return finish(b, &w->header);
}

static u32 write_facs(struct builder *b)
{
    struct acpi_facs *f = reserve(b, sizeof(*f), 64);
    memcpy(f->signature, "FACS", 4);
    f->length = sizeof(*f);
    f->version = 2;
    return gpa_of(b, f);
}

static u32 write_dsdt(struct builder *b)
{
    void *d = reserve(b, dsdt_aml_bytes, 16);
    memcpy(d, dsdt_aml, dsdt_aml_bytes); // iasl made the header and its checksum
    return gpa_of(b, d);
}

static u32 write_rsdt(struct builder *b, const u32 *tables, u32 count)
{
    struct acpi_header *h = begin(b, "RSDT", 1, (u32)(sizeof(*h) + count * 4));
    memcpy(h + 1, tables, count * 4);
    return finish(b, h);
}

static u32 write_xsdt(struct builder *b, const u32 *tables, u32 count)
{
    struct acpi_header *h = begin(b, "XSDT", 1, (u32)(sizeof(*h) + count * 8));
    for (u32 i = 0; i < count; i++)
        memcpy((u8 *)(h + 1) + i * 8, &(u64){tables[i]}, 8);
    return finish(b, h);
}

static void write_rsdp(struct acpi_rsdp *r, u32 rsdt, u32 xsdt)
{
    memcpy(r->signature, "RSD PTR ", 8);
    memcpy(r->oem_id, "SKIFF ", 6);
    r->revision = 2;
    r->rsdt = rsdt;
    r->length = sizeof(*r);
    r->xsdt = xsdt;
    r->checksum = checksum(r, 20);
    r->extended_checksum = checksum(r, sizeof(*r));
}

// The loader's memory map must have [0xe0000, 0x100000) as reserved. *rsdp_gpa is 16-byte aligned.
int platform_write_acpi(struct guest *g, u64 *rsdp_gpa)
{
    struct builder b = {.buf = kzalloc(TABLES_BYTES)};
    u32 tables[3], count = 0;
    if (!b.buf)
        return E_NOMEM;
    struct acpi_rsdp *rsdp = reserve(&b, sizeof(*rsdp), 16);
    u32 facs = write_facs(&b), dsdt = write_dsdt(&b);
    tables[count++] = write_fadt(&b, facs, dsdt);
    tables[count++] = write_madt(&b, g->vcpu_count);
    tables[count++] = write_waet(&b);
    u32 rsdt = write_rsdt(&b, tables, count), xsdt = write_xsdt(&b, tables, count);
    write_rsdp(rsdp, rsdt, xsdt);
    *rsdp_gpa = TABLES_GPA;
    int error = guest_write(g, TABLES_GPA, b.buf, b.used);
    kfree(b.buf);
    return error;
}
