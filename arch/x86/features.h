// SPDX-License-Identifier: MIT
// CPU feature detection and enabling, once a CPU.
#ifndef SKIFF_ARCH_FEATURES_H
#define SKIFF_ARCH_FEATURES_H

#include "kernel/types.h"

void features_detect(void); // fills host_features, on the boot CPU
void features_enable(void); // control registers, on every CPU

static inline u64 xgetbv(u32 index)
{
    u32 lo, hi;
    __asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(index));
    return (u64)hi << 32 | lo;
}
static inline void xsetbv(u32 index, u64 v)
{
    __asm__ volatile("xsetbv" : : "c"(index), "a"((u32)v), "d"((u32)(v >> 32)) : "memory");
}

#endif
