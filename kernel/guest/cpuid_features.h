// SPDX-License-Identifier: MIT
// The table of CPUID feature bits that guests may see.
#ifndef SKIFF_GUEST_CPUID_FEATURES_H
#define SKIFF_GUEST_CPUID_FEATURES_H

#include "kernel/types.h"

enum cpuid_show {
    SHOW_HOST,   // when the host has it
    SHOW_ALWAYS, // made by us, whatever the host has
    SHOW_STEADY, // the same, for guests whose TSC keeps its rate (clock = tsc)
};

struct cpuid_feature {
    u32 leaf;
    u8 sub, reg, bit; // reg: 0..3 = eax..edx
    const char *name;
    u8 show;  // enum cpuid_show
    u8 level; // lowest enum cpu_level that has it; 0: none, only `host` shows it
};
extern const struct cpuid_feature cpuid_features[];
extern const u32 cpuid_feature_count;

#endif
