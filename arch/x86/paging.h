// SPDX-License-Identifier: MIT
// The host's page tables, for the parts of arch/x86 that look into them.
#ifndef SKIFF_ARCH_PAGING_H
#define SKIFF_ARCH_PAGING_H

#include "kernel/types.h"

// Page table entry bits (SDM 3A 4.5, table 4-20).
#define PTE_PRESENT BIT(0)
#define PTE_WRITE   BIT(1)
#define PTE_PWT     BIT(3)
#define PTE_PCD     BIT(4)
#define PTE_LARGE   BIT(7)
#define PTE_GLOBAL  BIT(8)
#define PTE_NX      BIT(63)
#define PTE_ADDRESS 0x000ffffffffff000ull

// Stacks have addresses of their own, so that a page under each can stay unmapped.
#define STACK_REGION 0xffff800000000000ull
#define STACK_SLOTS  4096
#define STACK_STRIDE (128 * KIB) // the lowest page of a slot is never mapped

// Maps [va, va + bytes) to pa; what is mapped there with the same address already is left alone.
// Returns 0, E_NOMEM, or E_EXIST when something else is mapped there. All page aligned.
int paging_map(u64 va, u64 pa, u64 bytes, u64 flags);
bool paging_is_mapped(u64 va);
bool paging_is_stack_guard(u64 va);

// Firmware's tables (ACPI), wherever they lie: mapped read-only, one to one. NULL when impossible.
const void *map_firmware(u64 pa, u64 bytes);

#endif
