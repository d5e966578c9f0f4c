// SPDX-License-Identifier: MIT
// The UEFI part's own view: firmware tables, and what its files do for each other.
#ifndef SKIFF_BOOT_EFI_H
#define SKIFF_BOOT_EFI_H

#include <efi.h>

#include "boot/boot_info.h"

extern EFI_HANDLE efi_image;
extern EFI_SYSTEM_TABLE *efi_table;
extern EFI_BOOT_SERVICES *efi_boot;

// One line of progress on COM1.
void boot_print(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

// Page-aligned memory that the kernel keeps (EfiLoaderData). Returns 0 when there is none.
u64 boot_alloc(u64 bytes);

// Reads \skiff\host.cfg and the files of the guests named there. What could not be read is told in
// bi->config_error; it never fails the boot.
void boot_read_files(struct boot_info *bi);

void boot_find_cpus(struct boot_info *bi);
void boot_find_rsdp(struct boot_info *bi);
void boot_gather_entropy(struct boot_info *bi);

// Page tables that map all physical memory one to one, readable, writable and executable, as
// firmware expects it. Needs the memory map's top; returns 0 or E_NOMEM.
int boot_make_firmware_map(struct boot_info *bi);

// Leaves boot services and fills bi->ranges. Returns 0, or E_IO when the firmware refuses.
int boot_leave_services(struct boot_info *bi);

// boot/start.S: onto the kernel's first stack and page tables, then kernel_main(bi).
void boot_enter_kernel(const struct boot_info *bi, u64 cr3, u64 canary) __attribute__((noreturn));

#endif
