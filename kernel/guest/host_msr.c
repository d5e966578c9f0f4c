// SPDX-License-Identifier: MIT
// What guests are told of the host's own model-specific registers.
#include "arch/x86/cpu.h"
#include "kernel/guest/msr.h"
#include "kernel/lib.h"

#define MSR_MISC_ENABLE 0x1a0 // SDM 4 table 2-2: Intel's alone

u64 host_misc_enable(void)
{
    return strcmp(host_features.vendor, "GenuineIntel") ? ~0ull : rdmsr(MSR_MISC_ENABLE);
}
