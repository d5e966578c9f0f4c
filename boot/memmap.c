// SPDX-License-Identifier: MIT
// Leaves boot services and turns the firmware's memory map into sorted, merged ranges.
#include "boot/efi.h"
#include "kernel/lib.h"

#define MAP_BYTES (64 * KIB)

static u32 range_type(const EFI_MEMORY_DESCRIPTOR *d)
{
    switch (d->Type) {
    case EfiConventionalMemory:
    case EfiBootServicesCode:
    case EfiBootServicesData:
        return d->Attribute & EFI_MEMORY_WB ? BOOT_MEM_USABLE : BOOT_MEM_RESERVED;
    case EfiLoaderCode:
    case EfiLoaderData:
        return BOOT_MEM_KEEP;
    case EfiACPIReclaimMemory:
    case EfiACPIMemoryNVS:
        return BOOT_MEM_ACPI;
    case EfiRuntimeServicesCode:
        return BOOT_MEM_RUNTIME_CODE;
    case EfiRuntimeServicesData:
        return BOOT_MEM_RUNTIME_DATA;
    case EfiMemoryMappedIO:
    case EfiMemoryMappedIOPortSpace:
        return BOOT_MEM_MMIO;
    default:
        return BOOT_MEM_RESERVED;
    }
}

static bool can_merge(const struct boot_range *a, const struct boot_range *b)
{
    return a->base + a->bytes == b->base && a->type == b->type && a->efi_type == b->efi_type &&
           a->efi_attr == b->efi_attr;
}

// Inserts in order of base, and merges with the neighbours. A range too many is left out: memory
// nobody knows of is memory nobody uses.
static void add_range(struct boot_info *bi, struct boot_range r)
{
    struct boot_range *list = bi->ranges;
    u32 at = bi->range_count;
    while (at > 0 && list[at - 1].base > r.base)
        at--;
    if (at > 0 && can_merge(&list[at - 1], &r)) {
        list[at - 1].bytes += r.bytes;
        at--;
    } else {
        if (bi->range_count == BOOT_MAX_RANGES)
            return;
        memmove(&list[at + 1], &list[at], (bi->range_count - at) * sizeof(r));
        list[at] = r;
        bi->range_count++;
    }
    if (at + 1 < bi->range_count && can_merge(&list[at], &list[at + 1])) {
        list[at].bytes += list[at + 1].bytes;
        bi->range_count--;
        memmove(&list[at + 1], &list[at + 2], (bi->range_count - at - 1) * sizeof(r));
    }
}

static void take_map(struct boot_info *bi, const u8 *map, u64 bytes, u64 step)
{
    for (u64 at = 0; at + step <= bytes; at += step) {
        const EFI_MEMORY_DESCRIPTOR *d = (const EFI_MEMORY_DESCRIPTOR *)(map + at);
        struct boot_range r = {.base = d->PhysicalStart,
                               .bytes = d->NumberOfPages * PAGE_SIZE,
                               .type = range_type(d),
                               .efi_type = d->Type,
                               .efi_attr = d->Attribute};
        // Boot services are over, and with the kernel's own stack and tables nothing of theirs is
        // in use any more: it is ordinary memory.
        if (r.type == BOOT_MEM_USABLE)
            r.efi_type = EfiConventionalMemory;
        add_range(bi, r);
    }
}

int boot_leave_services(struct boot_info *bi)
{
    void *map = (void *)boot_alloc(MAP_BYTES);
    if (map == NULL)
        return E_NOMEM;
    // The map's key is stale when firmware allocated in between: ask again (UEFI 2.10, 7.4.6).
    for (int tries = 0; tries < 8; tries++) {
        UINTN bytes = MAP_BYTES, key, step;
        UINT32 version;
        if (efi_boot->GetMemoryMap(&bytes, map, &key, &step, &version) != EFI_SUCCESS)
            return E_IO;
        if (efi_boot->ExitBootServices(efi_image, key) == EFI_SUCCESS) {
            take_map(bi, map, bytes, step);
            return 0;
        }
    }
    return E_IO;
}
