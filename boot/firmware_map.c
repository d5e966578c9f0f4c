// SPDX-License-Identifier: MIT
// The one-to-one page tables that carry the first instructions of the kernel and of further CPUs,
// and firmware's runtime services: everything readable, writable and executable, used for nothing
// else.
#include "arch/x86/cpu.h"
#include "boot/efi.h"
#include "kernel/lib.h"

// Page table entries (SDM 3A 4.5).
#define PTE_RW    (BIT(0) | BIT(1)) // present, writable
#define PTE_LARGE BIT(7)
#define CR4_LA57  BIT(12)
#define ENTRIES   512

static bool have_1g_pages(void)
{
    u32 r[4];
    cpuid(0x80000001, 0, r);
    return r[3] & BIT(26);
}

static u64 top_of_memory(void)
{
    u64 top = 4 * GIB;
    UINTN bytes = 64 * KIB, key, step;
    UINT32 version;
    u8 *map = (u8 *)boot_alloc(bytes);
    if (map == NULL || efi_boot->GetMemoryMap(&bytes, (EFI_MEMORY_DESCRIPTOR *)map, &key, &step,
                                              &version) != EFI_SUCCESS)
        return 0;
    for (u64 at = 0; at + step <= bytes; at += step) {
        const EFI_MEMORY_DESCRIPTOR *d = (const EFI_MEMORY_DESCRIPTOR *)(map + at);
        if (d->Type != EfiReservedMemoryType && d->Type != EfiMemoryMappedIO)
            top = MAX(top, d->PhysicalStart + d->NumberOfPages * PAGE_SIZE);
    }
    efi_boot->FreePages((EFI_PHYSICAL_ADDRESS)map, 16);
    return ALIGN_UP(top, GIB);
}

// A page directory that maps the GiB at pa with 2 MiB pages.
static u64 make_directory(u64 pa)
{
    u64 *pd = (u64 *)boot_alloc(PAGE_SIZE);
    for (u64 i = 0; pd != NULL && i < ENTRIES; i++)
        pd[i] = (pa + i * LARGE_PAGE_SIZE) | PTE_RW | PTE_LARGE;
    return (u64)pd;
}

static int fill(u64 *pml4, u64 top, bool use_1g)
{
    for (u64 pa = 0; pa < top; pa += GIB) {
        u64 *slot = &pml4[pa / (ENTRIES * GIB)];
        if (*slot == 0)
            *slot = boot_alloc(PAGE_SIZE) | PTE_RW;
        u64 *pdpt = (u64 *)(*slot & ~0xfffull);
        if (pdpt == NULL)
            return E_NOMEM;
        u64 directory = use_1g ? 0 : make_directory(pa);
        if (!use_1g && directory == 0)
            return E_NOMEM;
        pdpt[pa / GIB % ENTRIES] = use_1g ? pa | PTE_RW | PTE_LARGE : directory | PTE_RW;
    }
    return 0;
}

// The top table: a CPU that starts loads CR3 while it is in protected mode, where CR3 has 32 bits.
static u64 *alloc_top(void)
{
    EFI_PHYSICAL_ADDRESS pa = 4 * GIB - 1;
    if (efi_boot->AllocatePages(AllocateMaxAddress, EfiLoaderData, 1, &pa) != EFI_SUCCESS)
        return NULL;
    memset((void *)pa, 0, PAGE_SIZE);
    return (u64 *)pa;
}

int boot_make_firmware_map(struct boot_info *bi)
{
    u64 top = top_of_memory();
    u64 *root = alloc_top();
    if (top == 0 || root == NULL || fill(root, MIN(top, ENTRIES * ENTRIES * GIB), have_1g_pages()))
        return E_NOMEM;
    u64 cr4;
    __asm__ volatile("mov %%cr4, %0" : "=r"(cr4));
    if (cr4 & CR4_LA57) { // five levels cannot be left in long mode (SDM 3A 4.1.2): one more on top
        u64 *pml5 = alloc_top();
        if (pml5 == NULL)
            return E_NOMEM;
        pml5[0] = (u64)root | PTE_RW;
        root = pml5;
    }
    bi->firmware_cr3 = (u64)root;
    return 0;
}
