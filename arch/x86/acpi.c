// SPDX-License-Identifier: MIT
// Finds the host's ACPI tables and reads the few plain facts the host wants from them.
#include "arch/x86/acpi.h"

#include "arch/x86/paging.h"
#include "kernel/lib.h"
#include "kernel/log.h"

struct rsdp { // ACPI 6.5, 5.2.5.3
    char signature[8];
    u8 checksum;
    char oem_id[6];
    u8 revision;
    u32 rsdt;
    u32 length;
    u64 xsdt;
    u8 extended_checksum, reserved[3];
} __attribute__((packed));
static_assert(sizeof(struct rsdp) == 36, "ACPI RSDP");

#define RSDP_V1_BYTES    20
#define MAX_TABLE        (16 * MIB)
#define FADT_PM_TIMER    76
#define FADT_FLAGS       112
#define FADT_RESET_REG   116
#define FADT_RESET_VALUE 128
#define FADT_X_PM_TIMER  208
#define FLAG_TIMER_32    BIT(8)
#define FLAG_RESET_REG   BIT(10)

static const struct acpi_header *root; // XSDT or RSDT
static u32 root_entry_bytes;

static bool checksum_ok(const void *data, u32 bytes)
{
    u8 sum = 0;
    for (u32 i = 0; i < bytes; i++)
        sum += ((const u8 *)data)[i];
    return sum == 0;
}

static const struct acpi_header *map_table(u64 pa)
{
    const struct acpi_header *h = map_firmware(pa, sizeof(*h));
    if (h == NULL || h->length < sizeof(*h) || h->length > MAX_TABLE ||
        map_firmware(pa, h->length) == NULL || !checksum_ok(h, h->length))
        return NULL;
    return h;
}

void acpi_init(u64 rsdp)
{
    const struct rsdp *r = rsdp != 0 ? map_firmware(rsdp, sizeof(*r)) : NULL;
    if (r == NULL || memcmp(r->signature, "RSD PTR ", 8) != 0 || !checksum_ok(r, RSDP_V1_BYTES))
        return;
    if (r->revision >= 2 && r->xsdt != 0) {
        root = map_table(r->xsdt);
        root_entry_bytes = 8;
    }
    if (root == NULL && r->rsdt != 0) {
        root = map_table(r->rsdt);
        root_entry_bytes = 4;
    }
    if (root == NULL)
        log_warn("acpi", "firmware's table of tables is damaged; going on without ACPI");
}

const struct acpi_header *acpi_find(const char *signature)
{
    if (root == NULL)
        return NULL;
    const u8 *entries = (const u8 *)(root + 1);
    u32 count = (root->length - sizeof(*root)) / root_entry_bytes;
    for (u32 i = 0; i < count; i++) {
        u64 pa = 0;
        memcpy(&pa, entries + i * root_entry_bytes, root_entry_bytes);
        const struct acpi_header *h = map_table(pa);
        if (h != NULL && memcmp(h->signature, signature, 4) == 0)
            return h;
    }
    return NULL;
}

// A field of the FADT; 0 when this revision's table ends before it.
static u64 fadt_field(const struct acpi_header *fadt, u32 offset, u32 bytes)
{
    u64 v = 0;
    if (fadt != NULL && offset + bytes <= fadt->length)
        memcpy(&v, (const u8 *)fadt + offset, bytes);
    return v;
}

u16 acpi_pm_timer(bool *wide)
{
    const struct acpi_header *fadt = acpi_find("FACP");
    *wide = fadt_field(fadt, FADT_FLAGS, 4) & FLAG_TIMER_32;
    u16 port = (u16)fadt_field(fadt, FADT_PM_TIMER, 4);
    if (port == 0 && fadt_field(fadt, FADT_X_PM_TIMER, 1) == 1) // I/O space
        port = (u16)fadt_field(fadt, FADT_X_PM_TIMER + 4, 8);
    return port;
}

bool acpi_reset_register(struct acpi_gas *reg, u8 *value)
{
    const struct acpi_header *fadt = acpi_find("FACP");
    if (!(fadt_field(fadt, FADT_FLAGS, 4) & FLAG_RESET_REG) || fadt->length <= FADT_RESET_VALUE)
        return false;
    memcpy(reg, (const u8 *)fadt + FADT_RESET_REG, sizeof(*reg));
    *value = (u8)fadt_field(fadt, FADT_RESET_VALUE, 1);
    return true;
}
