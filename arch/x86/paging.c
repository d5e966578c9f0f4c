// SPDX-License-Identifier: MIT
// The host's own page tables: RAM one to one and never executable, the image with the rights of its
// parts, devices uncached, stacks at addresses of their own.
#include "arch/x86/paging.h"

#include "arch/x86/cpu.h"
#include "arch/x86/image.h"
#include "arch/x86/msr.h"
#include "boot/boot_info.h"
#include "kernel/lib.h"
#include "kernel/log.h"
#include "kernel/mem.h"
#include "kernel/thread.h"

#define LEVELS       4
#define TABLE_INDEX  0x1ff
#define DEVICE_FLAGS (PTE_WRITE | PTE_PCD | PTE_PWT) // UC: PAT entry 3

static u64 *root;              // PML4
static u64 top_table;          // what CR3 holds: root, or the PML5 above it
static u64 pte_nx, pte_global; // 0 where the CPU lacks them
static struct spinlock lock;   // entries under root, once threads run

static u64 level_bytes(u32 level) // what one entry of that level maps; level 1 holds pages
{
    return PAGE_SIZE << (9 * (level - 1));
}

static u64 *entry_of(u64 *table, u32 level, u64 va)
{
    return &table[va >> (PAGE_SHIFT + 9 * (level - 1)) & TABLE_INDEX];
}

static u64 *table_of(u64 entry)
{
    return (u64 *)(entry & PTE_ADDRESS);
}

static bool fits(u32 level, u64 va, u64 pa, u64 bytes)
{
    u64 size = level_bytes(level);
    return (level == 1 || level == 2 || (level == 3 && host_features.page1g)) &&
           ((va | pa) & (size - 1)) == 0 && bytes >= size;
}

static u64 leaf(u64 pa, u32 level, u64 flags)
{
    return pa | flags | PTE_PRESENT | pte_global | (level > 1 ? PTE_LARGE : 0);
}

static u64 leaf_address(u64 entry, u32 level)
{
    return entry & PTE_ADDRESS & ~(level_bytes(level) - 1);
}

// Maps as much as one entry can. Returns the bytes mapped, or an error.
static s64 map_step(u64 va, u64 pa, u64 bytes, u64 flags)
{
    u64 *table = root;
    for (u32 level = LEVELS;; level--) {
        u64 *e = entry_of(table, level, va);
        u64 within = va & (level_bytes(level) - 1);
        if ((*e & PTE_PRESENT) && (level == 1 || (*e & PTE_LARGE))) {
            if (leaf_address(*e, level) + within != pa ||
                (*e & DEVICE_FLAGS & ~PTE_WRITE) != (flags & DEVICE_FLAGS & ~PTE_WRITE))
                return E_EXIST;
            return (s64)MIN(bytes, level_bytes(level) - within);
        }
        if (!(*e & PTE_PRESENT) && fits(level, va, pa, bytes)) {
            *e = leaf(pa, level, flags);
            return (s64)level_bytes(level);
        }
        if (!(*e & PTE_PRESENT)) {
            u64 page = page_alloc_zero(0);
            if (page == 0)
                return E_NOMEM;
            *e = page | PTE_PRESENT | PTE_WRITE;
        }
        table = table_of(*e);
    }
}

int paging_map(u64 va, u64 pa, u64 bytes, u64 flags)
{
    u64 saved = spin_lock_irqsave(&lock);
    s64 step = 0;
    while (bytes > 0 && (step = map_step(va, pa, bytes, flags)) > 0) {
        va += (u64)step;
        pa += (u64)step;
        bytes -= (u64)step;
    }
    spin_unlock_irqrestore(&lock, saved);
    return bytes == 0 ? 0 : (int)step;
}

bool paging_is_mapped(u64 va)
{
    if (root == NULL) // still on firmware's map, which has no holes in RAM
        return va >= PAGE_SIZE && va < 4 * GIB;
    if ((va >> 47) != 0 && (va >> 47) != 0x1ffff) // not canonical with four levels
        return false;
    const u64 *table = root;
    for (u32 level = LEVELS; level > 0; level--) {
        u64 e = *entry_of((u64 *)table, level, va);
        if (!(e & PTE_PRESENT))
            return false;
        if (e & PTE_LARGE)
            return true;
        table = table_of(e);
    }
    return true;
}

bool paging_is_stack_guard(u64 va)
{
    if (va >= (u64)boot_stack_guard && va < (u64)boot_stack_bottom)
        return true;
    return va >= STACK_REGION && va < STACK_REGION + STACK_SLOTS * STACK_STRIDE &&
           !paging_is_mapped(va);
}

static void must_map(u64 pa, u64 bytes, u64 flags)
{
    if (paging_map(pa, pa, bytes, flags) != 0)
        panic("cannot map %llx..%llx for the host", (unsigned long long)pa,
              (unsigned long long)(pa + bytes));
}

// The image's parts (linker.ld). The first stack's guard page stays out, and so does page 0.
static void map_image(void)
{
    u64 start = (u64)image_start, text = (u64)text_start, rodata = (u64)rodata_start,
        data = (u64)data_start, guard = (u64)boot_stack_guard, stack = (u64)boot_stack_bottom,
        end = (u64)image_end;
    must_map(start, text - start, pte_nx);
    must_map(text, rodata - text, 0);
    must_map(rodata, data - rodata, pte_nx);
    must_map(data, guard - data, PTE_WRITE | pte_nx);
    must_map(stack, end - stack, PTE_WRITE | pte_nx);
}

// Rights of a range in the one-to-one map; false: not mapped at all.
static bool ram_flags(const struct boot_range *r, u64 *flags)
{
    switch (r->type) {
    case BOOT_MEM_USABLE:
    case BOOT_MEM_KEEP:
        *flags = PTE_WRITE | pte_nx;
        return true;
    case BOOT_MEM_ACPI:
        *flags = pte_nx;
        return true;
    default:
        return false;
    }
}

// Maps RAM except for page 0 and the image, which is mapped already.
static void map_ram(u64 from, u64 to, u64 flags)
{
    u64 image = (u64)image_start, image_stop = (u64)image_end;
    from = MAX(from, PAGE_SIZE);
    if (from < image_stop && to > image) {
        if (from < image)
            must_map(from, image - from, flags);
        from = image_stop;
    }
    if (from < to)
        must_map(from, to - from, flags);
}

static void map_all_ram(const struct boot_info *bi)
{
    for (u32 i = 0; i < bi->range_count;) {
        u64 flags, next_flags;
        const struct boot_range *r = &bi->ranges[i++];
        if (!ram_flags(r, &flags))
            continue;
        u64 end = r->base + r->bytes;
        // Neighbours with the same rights go together, for larger pages.
        while (i < bi->range_count && bi->ranges[i].base == end &&
               ram_flags(&bi->ranges[i], &next_flags) && next_flags == flags)
            end += bi->ranges[i++].bytes;
        map_ram(r->base, end, flags);
    }
}

void arch_paging_init(const struct boot_info *bi)
{
    pte_nx = host_features.nx ? PTE_NX : 0;
    pte_global = host_features.pge ? PTE_GLOBAL : 0;
    u64 page = page_alloc_zero(0);
    if (page == 0)
        panic("no memory for page tables");
    u64 *pml4 = phys_ptr(page);
    root = pml4;
    map_image();
    map_all_ram(bi);
    top_table = page;
    if (read_cr4() & CR4_LA57) { // five levels: the same four under the first and the last entry
        u64 pml5 = page_alloc_zero(0);
        if (pml5 == 0)
            panic("no memory for page tables");
        u64 *table = phys_ptr(pml5);
        table[0] = table[TABLE_INDEX] = page | PTE_PRESENT | PTE_WRITE;
        top_table = pml5;
    }
    write_cr3(top_table);
}

void *map_mmio(u64 pa, u64 bytes)
{
    u64 from = ALIGN_DOWN(pa, PAGE_SIZE), to = ALIGN_UP(pa + bytes, PAGE_SIZE);
    if (pa < PAGE_SIZE || to < from || to > BIT(MIN(host_features.phys_bits, 47)) ||
        paging_map(from, from, to - from, DEVICE_FLAGS | pte_nx) != 0) {
        log_error("paging", "cannot map device memory at %llx..%llx", (unsigned long long)pa,
                  (unsigned long long)(pa + bytes));
        return NULL;
    }
    return phys_ptr(pa);
}

const void *map_firmware(u64 pa, u64 bytes)
{
    u64 from = ALIGN_DOWN(pa, PAGE_SIZE), to = ALIGN_UP(pa + bytes, PAGE_SIZE);
    if (pa < PAGE_SIZE || to < from || to > BIT(MIN(host_features.phys_bits, 47)) ||
        paging_map(from, from, to - from, pte_nx) != 0)
        return NULL;
    return phys_ptr(pa);
}
