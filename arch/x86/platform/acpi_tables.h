// SPDX-License-Identifier: MIT
// The layouts of the ACPI tables that a guest gets (ACPI 6.5, section 5.2).
#ifndef SKIFF_PLATFORM_ACPI_TABLES_H
#define SKIFF_PLATFORM_ACPI_TABLES_H

#include "arch/x86/acpi.h"
#include "kernel/types.h"

struct acpi_rsdp { // 5.2.5.3
    char signature[8];
    u8 checksum; // of the first 20 bytes
    char oem_id[6];
    u8 revision;
    u32 rsdt;
    u32 length;
    u64 xsdt;
    u8 extended_checksum;
    u8 reserved[3];
} __attribute__((packed));
static_assert(sizeof(struct acpi_rsdp) == 36, "RSDP");

struct acpi_facs { // 5.2.10
    char signature[4];
    u32 length, hardware_signature, waking_vector, global_lock, flags;
    u64 x_waking_vector;
    u8 version, reserved[3];
    u32 ospm_flags;
    u8 reserved2[24];
} __attribute__((packed));
static_assert(sizeof(struct acpi_facs) == 64, "FACS");

struct acpi_fadt { // 5.2.9, revision 5
    struct acpi_header header;
    u32 facs, dsdt;
    u8 reserved, pm_profile;
    u16 sci_interrupt;
    u32 smi_command;
    u8 acpi_enable, acpi_disable, s4bios, pstate_control;
    u32 pm1a_event, pm1b_event, pm1a_control, pm1b_control, pm2_control, pm_timer, gpe0, gpe1;
    u8 pm1_event_bytes, pm1_control_bytes, pm2_control_bytes, pm_timer_bytes, gpe0_bytes,
        gpe1_bytes, gpe1_base, cstate_control;
    u16 c2_latency, c3_latency, flush_size, flush_stride;
    u8 duty_offset, duty_width, day_alarm, month_alarm, century;
    u16 boot_arch;
    u8 reserved2;
    u32 flags;
    struct acpi_gas reset_register;
    u8 reset_value;
    u16 arm_boot_arch;
    u8 minor_revision;
    u64 x_facs, x_dsdt;
    struct acpi_gas x_pm1a_event, x_pm1b_event, x_pm1a_control, x_pm1b_control, x_pm2_control,
        x_pm_timer, x_gpe0, x_gpe1, sleep_control, sleep_status;
} __attribute__((packed));
static_assert(sizeof(struct acpi_fadt) == 268, "FADT revision 5");
static_assert(offsetof(struct acpi_fadt, boot_arch) == 109, "FADT boot architecture flags");
static_assert(offsetof(struct acpi_fadt, x_dsdt) == 140, "FADT X_DSDT");

struct acpi_madt { // 5.2.12
    struct acpi_header header;
    u32 lapic_address, flags;
} __attribute__((packed));
static_assert(sizeof(struct acpi_madt) == 44, "MADT");

struct madt_lapic { // 5.2.12.2
    u8 type, length, processor_uid, apic_id;
    u32 flags;
} __attribute__((packed));
static_assert(sizeof(struct madt_lapic) == 8, "MADT local APIC");

struct madt_ioapic { // 5.2.12.3
    u8 type, length, id, reserved;
    u32 address, gsi_base;
} __attribute__((packed));
static_assert(sizeof(struct madt_ioapic) == 12, "MADT IOAPIC");

struct madt_override { // 5.2.12.5
    u8 type, length, bus, source;
    u32 gsi;
    u16 flags;
} __attribute__((packed));
static_assert(sizeof(struct madt_override) == 10, "MADT interrupt source override");

struct madt_lapic_nmi { // 5.2.12.7
    u8 type, length, processor_uid;
    u16 flags;
    u8 lint;
} __attribute__((packed));
static_assert(sizeof(struct madt_lapic_nmi) == 6, "MADT local APIC NMI");

struct acpi_waet { // Windows ACPI Emulated Devices Table 1.0
    struct acpi_header header;
    u32 flags; // bit 0: RTC good, bit 1: PM timer good
} __attribute__((packed));
static_assert(sizeof(struct acpi_waet) == 40, "WAET");

#endif
