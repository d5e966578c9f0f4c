// SPDX-License-Identifier: MIT
// Linux bzImages, by the 64-bit boot protocol (Linux Documentation/arch/x86/boot.rst,
// zero-page.rst).
#include "kernel/guest/loader.h"
#include "kernel/guest/vcpu.h"
#include "kernel/lib.h"
#include "kernel/mem.h"

#define SETUP_HEADER     0x1f1
#define BOOT_FLAG        0xaa55
#define HEADER_MAGIC     0x53726448 // "HdrS"
#define PROTOCOL_WANTED  0x20c
#define XLF_KERNEL_64    BIT(0)
#define LOADED_HIGH      BIT(0)
#define LOADER_UNDEFINED 0xff
#define ENTRY_64         0x200 // behind the start of the protected-mode part
#define E820_MAX         128
#define PTE_TABLE        0x3  // present, writable
#define PTE_LARGE        0x83 // and a 2 MiB page
#define IDENTITY_GIB     4

struct setup_header {
    u8 setup_sects;
    u16 root_flags;
    u32 syssize;
    u16 ram_size, vid_mode, root_dev, boot_flag, jump;
    u32 header;
    u16 version;
    u32 realmode_swtch;
    u16 start_sys_seg, kernel_version;
    u8 type_of_loader, loadflags;
    u16 setup_move_size;
    u32 code32_start, ramdisk_image, ramdisk_size, bootsect_kludge;
    u16 heap_end_ptr;
    u8 ext_loader_ver, ext_loader_type;
    u32 cmd_line_ptr, initrd_addr_max, kernel_alignment;
    u8 relocatable_kernel, min_alignment;
    u16 xloadflags;
    u32 cmdline_size, hardware_subarch;
    u64 hardware_subarch_data;
    u32 payload_offset, payload_length;
    u64 setup_data, pref_address;
    u32 init_size, handover_offset;
} __attribute__((packed));
_Static_assert(offsetof(struct setup_header, header) == 0x202 - SETUP_HEADER, "boot.rst");
_Static_assert(offsetof(struct setup_header, ramdisk_image) == 0x218 - SETUP_HEADER, "boot.rst");
_Static_assert(offsetof(struct setup_header, init_size) == 0x260 - SETUP_HEADER, "boot.rst");

struct e820_entry {
    u64 base, bytes;
    u32 type;
} __attribute__((packed));

// The zero page; what stays zero is not named.
struct boot_params {
    u8 zero_1[0x70];
    u64 acpi_rsdp_addr;
    u8 zero_2[0x1e8 - 0x78];
    u8 e820_entries;
    u8 zero_3[SETUP_HEADER - 0x1e9];
    struct setup_header hdr;
    u8 zero_4[0x2d0 - SETUP_HEADER - sizeof(struct setup_header)];
    struct e820_entry e820[E820_MAX];
    u8 zero_5[0x1000 - 0x2d0 - E820_MAX * sizeof(struct e820_entry)];
} __attribute__((packed));
_Static_assert(sizeof(struct boot_params) == 4096, "zero-page.rst");
_Static_assert(offsetof(struct boot_params, e820) == 0x2d0, "zero-page.rst");

static bool get_header(const struct load *l, struct setup_header *h)
{
    if (l->size < SETUP_HEADER + sizeof(*h))
        return false;
    memcpy(h, l->image + SETUP_HEADER, sizeof(*h));
    return h->boot_flag == BOOT_FLAG && h->header == HEADER_MAGIC;
}

bool is_linux(const struct load *l)
{
    struct setup_header h;
    return get_header(l, &h);
}

static int check_header(struct load *l, const struct setup_header *h)
{
    if (h->version < PROTOCOL_WANTED)
        return load_fail(l, "boot protocol %u.%02u, wanted 2.12 or newer (Linux 3.8)",
                         h->version >> 8, h->version & 0xff);
    if (!(h->xloadflags & XLF_KERNEL_64))
        return load_fail(l, "no 64-bit entry point; a 64-bit kernel is wanted");
    if (!(h->loadflags & LOADED_HIGH))
        return load_fail(l, "it loads below 1 MiB; a bzImage is wanted");
    if (strlen(l->g->config.cmdline) > h->cmdline_size)
        return load_fail(l, "the command line has %u bytes, the kernel takes %u",
                         (u32)strlen(l->g->config.cmdline), h->cmdline_size);
    return 0;
}

// At its preferred address, which is where an unrelocated kernel must be anyway. kernel_end covers
// what it needs to unpack itself.
static int load_protected_part(struct load *l, const struct setup_header *h, u64 *start)
{
    u64 offset = ((h->setup_sects ? h->setup_sects : 4) + 1) * 512ull;
    if (offset >= l->size)
        return load_fail(l, "cut short: it ends within its setup code");
    u64 bytes = l->size - offset;
    *start = h->pref_address ? h->pref_address : HIGH_MEMORY;
    int error = load_check_place(l, *start, MAX((u64)h->init_size, bytes));
    if (!error)
        error = load_segment(l, *start, offset, bytes, bytes);
    l->kernel_end = *start + MAX((u64)h->init_size, bytes);
    return error;
}

static void fill_e820(struct load *l, struct boot_params *p)
{
    struct memory_range map[MAX_RANGES];
    p->e820_entries = (u8)load_memory_map(l->g, map);
    for (u32 i = 0; i < p->e820_entries; i++)
        p->e820[i] = (struct e820_entry){map[i].base, map[i].bytes, map[i].type};
}

static int write_params(struct load *l, const struct setup_header *h)
{
    struct boot_params *p = kzalloc(sizeof(*p));
    if (!p)
        return load_fail(l, "no host memory for its boot parameters");
    p->acpi_rsdp_addr = l->rsdp;
    p->hdr = *h;
    p->hdr.type_of_loader = LOADER_UNDEFINED;
    p->hdr.cmd_line_ptr = (u32)BOOT_CMDLINE;
    p->hdr.setup_data = 0;
    if (l->module_count) {
        p->hdr.ramdisk_image = (u32)l->modules[0].gpa;
        p->hdr.ramdisk_size = (u32)l->modules[0].bytes;
    }
    fill_e820(l, p);
    int error = load_write(l, BOOT_PARAMS, p, sizeof(*p));
    kfree(p);
    return error;
}

// The first 4 GiB one to one: kernel, boot parameters and command line must be mapped.
static int write_page_tables(struct load *l)
{
    u64 pdpt = BOOT_PAGES + PAGE_SIZE, directories = pdpt + PAGE_SIZE;
    u64 entry = pdpt | PTE_TABLE, batch[64];
    int error = guest_zero(l->g, BOOT_PAGES, (2 + IDENTITY_GIB) * PAGE_SIZE);
    if (!error)
        error = load_write(l, BOOT_PAGES, &entry, sizeof(entry));
    for (u64 i = 0; i < IDENTITY_GIB && !error; i++) {
        entry = (directories + i * PAGE_SIZE) | PTE_TABLE;
        error = load_write(l, pdpt + i * 8, &entry, sizeof(entry));
    }
    for (u64 i = 0; i < IDENTITY_GIB * 512 && !error; i += ARRAY_SIZE(batch)) {
        for (u64 k = 0; k < ARRAY_SIZE(batch); k++)
            batch[k] = (i + k) * LARGE_PAGE_SIZE | PTE_LARGE;
        error = load_write(l, directories + i * 8, batch, sizeof(batch));
    }
    return error;
}

int load_linux(struct load *l, struct vcpu_state *s)
{
    struct setup_header h;
    u64 start = 0;
    if (!get_header(l, &h))
        return load_fail(l, "its setup header is cut short");
    if (l->module_count > 1)
        return load_fail(l, "Linux takes one module, its initrd; %u are configured",
                         l->module_count);
    int error = check_header(l, &h);
    if (!error)
        error = load_protected_part(l, &h, &start);
    if (!error)
        error = load_place_modules(l, (u64)h.initrd_addr_max + 1);
    if (!error)
        error = load_write(l, BOOT_CMDLINE, l->g->config.cmdline, strlen(l->g->config.cmdline) + 1);
    if (!error)
        error = write_params(l, &h);
    if (!error)
        error = write_page_tables(l);
    if (error)
        return error;
    state_long(s, start + ENTRY_64, BOOT_PAGES);
    s->gpr[GPR_RSI] = BOOT_PARAMS;
    return 0;
}
