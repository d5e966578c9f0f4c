// SPDX-License-Identifier: MIT
// What the UEFI part hands to the kernel, once, after leaving boot services.
// All pointers are physical addresses, valid in the one-to-one map, in memory the kernel keeps.
#ifndef SKIFF_BOOT_INFO_H
#define SKIFF_BOOT_INFO_H

#include "kernel/types.h"

#define BOOT_MAX_RANGES 512
#define BOOT_MAX_CPUS   256
#define BOOT_MAX_FILES  64

enum boot_mem_type {
    BOOT_MEM_USABLE, // free after ExitBootServices (conventional, boot services code and data)
    BOOT_MEM_KEEP,   // loader code and data: the image, boot_info, files read from the ESP
    BOOT_MEM_ACPI,   // ACPI reclaim and NVS
    BOOT_MEM_RUNTIME_CODE, // UEFI runtime services
    BOOT_MEM_RUNTIME_DATA,
    BOOT_MEM_MMIO,
    BOOT_MEM_RESERVED,
};

struct boot_range {
    u64 base;
    u64 bytes;
    u32 type; // enum boot_mem_type
    u32 efi_type;
    u64 efi_attr;
};

struct boot_file {
    char path[128]; // as written in host.cfg, e.g. \skiff\vmlinuz
    const void *data;
    u64 size;
};

struct boot_info {
    u64 image_base, image_size;
    u32 range_count, cpu_count, file_count;
    struct boot_range ranges[BOOT_MAX_RANGES]; // sorted by base, not overlapping
    u32 cpu_apic_id[BOOT_MAX_CPUS];            // enabled CPUs; [0] is the one that booted
    struct boot_file files[BOOT_MAX_FILES];
    u64 rsdp;             // ACPI RSDP, 0 where the firmware gives none
    u64 ap_start_page;    // a free page below 1 MiB for AP start-up code
    u64 runtime_services; // EFI_RUNTIME_SERVICES *
    const char *config;   // text of \skiff\host.cfg, NUL-terminated; NULL when missing
    u64 config_size;
    char config_error[160]; // why config is NULL, or which file could not be read
    u8 entropy[32];         // EFI_RNG_PROTOCOL, or mixed from TSC and RTC where there is none
    u64 tsc_at_entry;       // rdtsc at the first instruction of efi_main
    u64 firmware_cr3;       // one-to-one map of everything, all rights: runtime services run on it
};

#endif
