// SPDX-License-Identifier: MIT
// The host's ACPI tables, as far as they can be used without interpreting AML.
#ifndef SKIFF_ARCH_ACPI_H
#define SKIFF_ARCH_ACPI_H

#include "kernel/types.h"

struct acpi_header { // ACPI 6.5, 5.2.6
    char signature[4];
    u32 length;
    u8 revision, checksum;
    char oem_id[6], oem_table_id[8];
    u32 oem_revision, creator_id, creator_revision;
} __attribute__((packed));
static_assert(sizeof(struct acpi_header) == 36, "ACPI table header");

// Finds the tables once; without an RSDP there are none.
void acpi_init(u64 rsdp);
// The first table with that signature, checksum verified; NULL when there is none.
const struct acpi_header *acpi_find(const char *signature);

// From the FADT (ACPI 6.5, 5.2.9).
struct acpi_gas { // generic address structure, 5.2.3.2
    u8 space, bit_width, bit_offset, access;
    u64 address;
} __attribute__((packed));
static_assert(sizeof(struct acpi_gas) == 12, "ACPI generic address");
// The PM timer's I/O port, 0 when there is none; wide: 32 bits instead of 24.
u16 acpi_pm_timer(bool *wide);
bool acpi_reset_register(struct acpi_gas *reg, u8 *value);

#endif
