// SPDX-License-Identifier: MIT
// Loading kernels: what the loaders of the three image types share.
#ifndef SKIFF_GUEST_LOADER_H
#define SKIFF_GUEST_LOADER_H

#include "kernel/guest/guest.h"

// Guest-physical places of what the loaders make; kernels may not be loaded over them.
#define BOOT_GDT     0x1000ull
#define BOOT_PARAMS  0x2000ull // also hvm_start_info and the Multiboot information
#define BOOT_CMDLINE 0x3000ull // and what else has text
#define BOOT_MODULES 0x5000ull // lists of modules, memory map
#define BOOT_PAGES   0x6000ull // 1 PML4, 1 PDPT, 4 page directories
#define BOOT_END     0xc000ull
#define LOW_RAM_END  0x9fc00ull // conventional memory, the EBDA behind it
#define BIOS_AREA    0xa0000ull // video memory, option ROMs, ACPI tables: not for kernels
#define HIGH_MEMORY  0x100000ull

enum range_type { RANGE_RAM = 1, RANGE_RESERVED = 2 }; // numbers of E820, PVH and Multiboot alike

struct memory_range {
    u64 base, bytes;
    u32 type;
};
#define MAX_RANGES 8

struct module {
    const u8 *data;
    u64 bytes;
    u64 gpa; // once placed
};

// One kernel on its way into a guest.
struct load {
    struct guest *g;
    const u8 *image;
    u64 size;
    struct module modules[CONFIG_MAX_MODULES];
    u32 module_count;
    u64 kernel_end; // first address behind the kernel: modules stay above
    u64 rsdp;       // ACPI tables
    char *err;
    size_t err_size;
};

// A loader puts kernel, modules and tables into RAM and fills in the first vCPU's start state.
// Returns 0 or an error with a sentence in l->err.
int load_linux(struct load *l, struct vcpu_state *s);
int load_pvh(struct load *l, struct vcpu_state *s);
int load_multiboot(struct load *l, struct vcpu_state *s);
bool is_linux(const struct load *l);
bool is_elf(const struct load *l);
bool has_multiboot_header(const struct load *l);

// elf.c. Copies all PT_LOAD segments to their physical addresses; entry: e_entry.
int elf_load(struct load *l, u64 *entry);
// The PVH note's 32-bit entry point (type 18, owner "Xen"). False when there is none.
bool elf_pvh_entry(const struct load *l, u32 *entry);

// loader.c
__attribute__((format(printf, 2, 3))) int load_fail(struct load *l, const char *fmt, ...);
u32 load_memory_map(const struct guest *g, struct memory_range out[MAX_RANGES]);
// Is [gpa, gpa+bytes) RAM that a kernel may be put in?
int load_check_place(struct load *l, u64 gpa, u64 bytes);
// Copies `file` bytes from the image, zeroes up to `memory` bytes. Checks both ends.
int load_segment(struct load *l, u64 gpa, u64 offset, u64 file, u64 memory);
// Puts all modules as high as `limit` (exclusive) and low RAM allow, above the kernel.
int load_place_modules(struct load *l, u64 limit);
int load_write(struct load *l, u64 gpa, const void *data, u64 bytes); // boot tables
void load_write_gdt(struct load *l, struct vcpu_state *s);

#endif
