// SPDX-License-Identifier: MIT
// This CPU's CPUID, apart so that tests can put another CPU in its place.
#include "arch/x86/cpu.h"
#include "kernel/guest/cpuid.h"

void host_cpuid(u32 leaf, u32 sub, u32 r[4])
{
    u32 max[4];
    cpuid(leaf & 0x80000000, 0, max);
    if (leaf > max[0]) { // beyond the last leaf Intel answers with the last one (SDM 2A, CPUID)
        r[0] = r[1] = r[2] = r[3] = 0;
        return;
    }
    cpuid(leaf, sub, r);
}
