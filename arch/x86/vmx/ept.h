// SPDX-License-Identifier: MIT
// Extended page tables: entry bits and the walk that ept.c and ept_dirty.c share (SDM 3C 28.2.2).
#ifndef SKIFF_VMX_EPT_H
#define SKIFF_VMX_EPT_H

#include "kernel/mem.h"
#include "kernel/types.h"

#define EPT_R       BIT(0)
#define EPT_W       BIT(1)
#define EPT_X       BIT(2)
#define EPT_RWX     (EPT_R | EPT_W | EPT_X)
#define EPT_WB      (6ull << 3)
#define EPT_LARGE   BIT(7)
#define EPT_A       BIT(8)
#define EPT_D       BIT(9)
#define EPT_ADDR    0x000ffffffffff000ull
#define EPT_ENTRIES 512
#define EPT_LEVELS  4 // 4: PML4, 3: PDPT, 2: PD, 1: PT
#define EPT_GPA_END BIT(48)

// Bits of EPTP (SDM 3C 24.6.11).
#define EPTP_WB    6ull
#define EPTP_WALK4 (3ull << 3)
#define EPTP_AD    BIT(6)

struct ept_table {
    u64 entry[EPT_ENTRIES];
};
static_assert(sizeof(struct ept_table) == PAGE_SIZE, "SDM 3C 28.2.2");

static inline struct ept_table *ept_table_at(u64 entry)
{
    return phys_ptr(entry & EPT_ADDR);
}
static inline unsigned ept_index(u64 gpa, int level)
{
    return (gpa >> (PAGE_SHIFT + 9 * (level - 1))) & (EPT_ENTRIES - 1);
}
static inline bool ept_is_leaf(u64 entry, int level)
{
    return level == 1 || (level == 2 && (entry & EPT_LARGE));
}
// The CPU sets accessed and dirty flags in these entries on its own: changes must be atomic.
static inline u64 ept_get(const u64 *e)
{
    return __atomic_load_n(e, __ATOMIC_ACQUIRE);
}
static inline void ept_put(u64 *e, u64 value)
{
    __atomic_store_n(e, value, __ATOMIC_RELEASE);
}
static inline void ept_set(u64 *e, u64 bits)
{
    __atomic_fetch_or(e, bits, __ATOMIC_SEQ_CST);
}
static inline void ept_clear(u64 *e, u64 bits)
{
    __atomic_fetch_and(e, ~bits, __ATOMIC_SEQ_CST);
}

#endif
