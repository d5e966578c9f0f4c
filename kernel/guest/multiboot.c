// SPDX-License-Identifier: MIT
// Multiboot 1 kernels (Multiboot Specification 0.6.96): ELF files, or flat ones with addresses in
// their header.
#include "kernel/guest/loader.h"
#include "kernel/guest/vcpu.h"
#include "kernel/lib.h"

#define HEADER_MAGIC       0x1badb002
#define BOOT_MAGIC         0x2badb002
#define HEADER_SEARCH      8192
#define WANTS_VIDEO        BIT(2)
#define HAS_ADDRESSES      BIT(16)
#define KNOWN_REQUIREMENTS (BIT(0) | BIT(1)) // page-aligned modules, memory information
#define INFO_MEMORY        BIT(0)
#define INFO_CMDLINE       BIT(2)
#define INFO_MODULES       BIT(3)
#define INFO_MEMORY_MAP    BIT(6)
#define INFO_LOADER_NAME   BIT(9)
#define MODULE_LIST        BOOT_MODULES
#define MEMORY_MAP         (BOOT_MODULES + 0x200)
#define LOADER_NAME        (BOOT_MODULES + 0x400)
#define MODULE_NAMES       (BOOT_CMDLINE + 0x1000)

struct multiboot_header {
    u32 magic, flags, checksum;
    u32 header_addr, load_addr, load_end_addr, bss_end_addr, entry_addr; // with HAS_ADDRESSES
};
struct multiboot_info {
    u32 flags, mem_lower, mem_upper, boot_device, cmdline, mods_count, mods_addr;
    u32 syms[4];
    u32 mmap_length, mmap_addr, drives_length, drives_addr, config_table, boot_loader_name;
};
struct multiboot_module {
    u32 start, end, string, reserved;
};
struct multiboot_range {
    u32 size; // of the rest
    u64 base, bytes;
    u32 type;
} __attribute__((packed));
_Static_assert(sizeof(struct multiboot_header) == 32, "Multiboot 3.1.1");
_Static_assert(offsetof(struct multiboot_info, mmap_length) == 44, "Multiboot 3.3");
_Static_assert(offsetof(struct multiboot_info, boot_loader_name) == 64, "Multiboot 3.3");
_Static_assert(sizeof(struct multiboot_range) == 24, "Multiboot 3.3");

// The header and its offset in the file. What lies behind the file's end reads as zero.
static bool find_header(const struct load *l, struct multiboot_header *h, u64 *offset)
{
    u64 end = MIN(l->size, (u64)HEADER_SEARCH);
    for (u64 at = 0; at + 12 <= end; at += 4) {
        memset(h, 0, sizeof(*h));
        memcpy(h, l->image + at, MIN(sizeof(*h), l->size - at));
        if (h->magic == HEADER_MAGIC && h->magic + h->flags + h->checksum == 0) {
            *offset = at;
            return true;
        }
    }
    return false;
}

bool has_multiboot_header(const struct load *l)
{
    struct multiboot_header h;
    u64 offset;
    return find_header(l, &h, &offset);
}

// Section 3.1.3. load_end_addr 0: to the file's end; bss_end_addr 0: no bss.
static int load_flat(struct load *l, const struct multiboot_header *h, u64 offset)
{
    u64 skipped = (u64)h->header_addr - h->load_addr;
    if (l->size - offset < sizeof(*h))
        return load_fail(l, "its Multiboot header is cut short");
    if (h->load_addr > h->header_addr || skipped > offset)
        return load_fail(l,
                         "its Multiboot header is at 0x%llx of the file but wants 0x%llx before "
                         "itself",
                         (unsigned long long)offset, (unsigned long long)skipped);
    u64 start = offset - skipped;
    u64 file = h->load_end_addr ? (u64)h->load_end_addr - h->load_addr : l->size - start;
    u64 memory = h->bss_end_addr ? (u64)h->bss_end_addr - h->load_addr : file;
    if (h->load_end_addr && h->load_end_addr < h->load_addr)
        return load_fail(l, "its Multiboot header ends before it starts");
    return load_segment(l, h->load_addr, start, file, memory);
}

static int load_image(struct load *l, u64 *entry)
{
    struct multiboot_header h;
    u64 offset;
    if (!find_header(l, &h, &offset))
        return load_fail(l, "no Multiboot header");
    if (h.flags & 0xffff & ~(KNOWN_REQUIREMENTS | WANTS_VIDEO))
        return load_fail(l, "its Multiboot header requires 0x%x, known are bits 0 and 1",
                         h.flags & 0xffff);
    if (h.flags & WANTS_VIDEO)
        return load_fail(l,
                         "its Multiboot header requires a video mode; guests have a serial port");
    if (!(h.flags & HAS_ADDRESSES))
        return elf_load(l, entry);
    *entry = h.entry_addr;
    return load_flat(l, &h, offset);
}

static int write_text(struct load *l, u64 gpa, const char *text)
{
    return load_write(l, gpa, text, strlen(text) + 1);
}

static int write_modules(struct load *l, struct multiboot_info *info)
{
    int error = 0;
    u64 names = MODULE_NAMES;
    for (u32 i = 0; i < l->module_count && !error; i++) {
        const struct module *m = &l->modules[i];
        struct multiboot_module out = {
            .start = (u32)m->gpa, .end = (u32)(m->gpa + m->bytes), .string = (u32)names};
        error = write_text(l, names, l->g->config.modules[i]);
        names += CONFIG_PATH;
        if (!error)
            error = load_write(l, MODULE_LIST + i * sizeof(out), &out, sizeof(out));
    }
    info->flags |= INFO_MODULES;
    info->mods_count = l->module_count;
    info->mods_addr = (u32)MODULE_LIST;
    return error;
}

static int write_memory_map(struct load *l, struct multiboot_info *info)
{
    struct memory_range map[MAX_RANGES];
    u32 entries = load_memory_map(l->g, map);
    int error = 0;
    for (u32 i = 0; i < entries && !error; i++) {
        struct multiboot_range r = {
            .size = sizeof(r) - 4, .base = map[i].base, .bytes = map[i].bytes, .type = map[i].type};
        error = load_write(l, MEMORY_MAP + i * sizeof(r), &r, sizeof(r));
    }
    info->flags |= INFO_MEMORY_MAP | INFO_MEMORY;
    info->mmap_addr = (u32)MEMORY_MAP;
    info->mmap_length = entries * sizeof(struct multiboot_range);
    info->mem_lower = (u32)(LOW_RAM_END / KIB);
    info->mem_upper = (u32)((l->g->memory.region[0].bytes - HIGH_MEMORY) / KIB);
    return error;
}

static int write_tables(struct load *l)
{
    struct multiboot_info info = {
        .flags = INFO_CMDLINE | INFO_LOADER_NAME,
        .cmdline = (u32)BOOT_CMDLINE,
        .boot_loader_name = (u32)LOADER_NAME,
    };
    int error = write_modules(l, &info);
    if (!error)
        error = write_memory_map(l, &info);
    if (!error)
        error = write_text(l, BOOT_CMDLINE, l->g->config.cmdline);
    if (!error)
        error = write_text(l, LOADER_NAME, "Skiff");
    if (!error)
        error = load_write(l, BOOT_PARAMS, &info, sizeof(info));
    return error;
}

int load_multiboot(struct load *l, struct vcpu_state *s)
{
    u64 entry = 0;
    int error = load_image(l, &entry);
    if (!error)
        error = load_place_modules(l, GUEST_LOW_RAM_MAX);
    if (!error)
        error = write_tables(l);
    if (error)
        return error;
    if (entry >> 32)
        return load_fail(l, "its entry point 0x%llx is above 4 GiB", (unsigned long long)entry);
    state_flat32(s, entry);
    s->gpr[GPR_RAX] = BOOT_MAGIC;
    s->gpr[GPR_RBX] = BOOT_PARAMS;
    return 0;
}
