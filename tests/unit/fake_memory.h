// SPDX-License-Identifier: MIT
// A machine's memory for tests of the allocators: address space at fixed physical addresses, some
// of it above 4 GiB, and the boot_info that describes it.
#ifndef SKIFF_TESTS_FAKE_MEMORY_H
#define SKIFF_TESTS_FAKE_MEMORY_H

#include <sys/mman.h>

#include "boot/boot_info.h"

#define LOW_BASE  0x10000000ull // 256 MiB
#define LOW_BYTES (32 * MIB)
#define HIGH_BASE 0x140000000ull // 5 GiB
#define HIGH_BYTES (16 * MIB)

static inline void fake_map(u64 base, u64 bytes)
{
    void *p = mmap((void *)base, bytes, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE | MAP_NORESERVE, -1, 0);
    if (p != (void *)base)
        abort();
}

static inline void fake_range(struct boot_info *bi, u64 base, u64 bytes, u32 type, u32 efi_type)
{
    bi->ranges[bi->range_count++] =
        (struct boot_range){.base = base, .bytes = bytes, .type = type, .efi_type = efi_type};
}

// Below 1 MiB, a low part with boot services in its middle, a hole, and a high part.
static inline void fake_memory(struct boot_info *bi)
{
    fake_range(bi, 0, 640 * KIB, BOOT_MEM_USABLE, 7);
    fake_range(bi, LOW_BASE, 8 * MIB, BOOT_MEM_USABLE, 7);
    fake_range(bi, LOW_BASE + 8 * MIB, MIB + 123, BOOT_MEM_USABLE, 4);
    fake_range(bi, LOW_BASE + 10 * MIB, LOW_BYTES - 10 * MIB, BOOT_MEM_USABLE, 7);
    fake_range(bi, 0xe0000000ull, 256 * MIB, BOOT_MEM_MMIO, 11);
    fake_range(bi, HIGH_BASE, HIGH_BYTES, BOOT_MEM_USABLE, 7);
}

#endif
