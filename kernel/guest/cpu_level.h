// SPDX-License-Identifier: MIT
// The levels of the x86-64 psABI as CPUs of their own: what a guest sees instead of its host.
#ifndef SKIFF_GUEST_CPU_LEVEL_H
#define SKIFF_GUEST_CPU_LEVEL_H

#include "kernel/guest/cpuid.h"

const char *cpu_level_name(u8 level); // "host", "x86-64-v2"...
// CPUID of a CPU that has exactly this level. The layout of the XSAVE area is the host's.
void cpu_level_cpuid(u8 level, cpuid_source host, u32 leaf, u32 sub, u32 r[4]);
u64 cpu_level_xcr0(u8 level); // XSAVE components of that CPU
// 0 when this host has all of the guest's level; E_NOSUP with a sentence that names what it lacks.
// xcr0: components the host saves.
int cpu_level_check(const struct guest_config *c, cpuid_source host, u64 xcr0, char *err,
                    size_t size);

#endif
