// SPDX-License-Identifier: MIT
// ELF kernels with a PVH entry note (Xen docs/misc/pvh.pandoc,
// include/public/arch-x86/hvm/start_info.h).
#include "kernel/guest/loader.h"
#include "kernel/guest/vcpu.h"
#include "kernel/lib.h"

#define START_INFO_MAGIC 0x336ec578
#define MODULE_LIST      BOOT_MODULES
#define MEMORY_MAP       (BOOT_MODULES + 0x200)

struct start_info {
    u32 magic, version, flags, module_count;
    u64 modules, cmdline, rsdp, memory_map;
    u32 memory_map_entries, reserved;
};
struct start_module {
    u64 address, bytes, cmdline, reserved;
};
struct start_range {
    u64 base, bytes;
    u32 type, reserved;
};
_Static_assert(sizeof(struct start_info) == 56, "start_info.h, version 1");
_Static_assert(sizeof(struct start_module) == 32, "start_info.h");
_Static_assert(sizeof(struct start_range) == 24, "start_info.h");

static int write_modules(struct load *l)
{
    int error = 0;
    for (u32 i = 0; i < l->module_count && !error; i++) {
        struct start_module m = {.address = l->modules[i].gpa, .bytes = l->modules[i].bytes};
        error = load_write(l, MODULE_LIST + i * sizeof(m), &m, sizeof(m));
    }
    return error;
}

static int write_memory_map(struct load *l, u32 *entries)
{
    struct memory_range map[MAX_RANGES];
    int error = 0;
    *entries = load_memory_map(l->g, map);
    for (u32 i = 0; i < *entries && !error; i++) {
        struct start_range r = {.base = map[i].base, .bytes = map[i].bytes, .type = map[i].type};
        error = load_write(l, MEMORY_MAP + i * sizeof(r), &r, sizeof(r));
    }
    return error;
}

static int write_tables(struct load *l)
{
    struct start_info info = {
        .magic = START_INFO_MAGIC,
        .version = 1,
        .module_count = l->module_count,
        .modules = l->module_count ? MODULE_LIST : 0,
        .cmdline = BOOT_CMDLINE,
        .rsdp = l->rsdp,
        .memory_map = MEMORY_MAP,
    };
    const char *cmdline = l->g->config.cmdline;
    int error = write_modules(l);
    if (!error)
        error = write_memory_map(l, &info.memory_map_entries);
    if (!error)
        error = load_write(l, BOOT_CMDLINE, cmdline, strlen(cmdline) + 1);
    if (!error)
        error = load_write(l, BOOT_PARAMS, &info, sizeof(info));
    return error;
}

int load_pvh(struct load *l, struct vcpu_state *s)
{
    u64 unused;
    u32 entry = 0;
    if (!elf_pvh_entry(l, &entry))
        return load_fail(l, "no PVH note");
    int error = elf_load(l, &unused);
    if (!error)
        error = load_place_modules(l, GUEST_LOW_RAM_MAX);
    if (!error)
        error = write_tables(l);
    if (error)
        return error;
    state_flat32(s, entry);
    s->gpr[GPR_RBX] = BOOT_PARAMS;
    return 0;
}
