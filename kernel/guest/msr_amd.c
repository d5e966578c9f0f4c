// SPDX-License-Identifier: MIT
// The few MSRs that a kernel takes for granted once CPUID says AuthenticAMD.
#include "kernel/guest/msr.h"

#define MSR_SYSCFG 0xc0010010 // memory typing; none of it is used
#define MSR_HWCR   0xc0010015
#define MSR_NB_CFG 0xc001001f // access to extended PCI configuration space

#define HWCR_TSC_AT_P0 BIT(24)    // the TSC's rate does not follow the core's
#define VENDOR_AMD_EBX 0x68747541 // "Auth"

static bool is_amd(const struct guest *g)
{
    return g->cpuid_count && g->cpuid[0].leaf == 0 && g->cpuid[0].ebx == VENDOR_AMD_EBX;
}

static bool known(const struct guest *g, u32 index)
{
    return is_amd(g) && (index == MSR_SYSCFG || index == MSR_HWCR || index == MSR_NB_CFG);
}

int msr_amd_read(struct vcpu *v, u32 index, u64 *value)
{
    if (!known(v->guest, index))
        return E_NOENT;
    *value = index == MSR_HWCR ? HWCR_TSC_AT_P0 : 0;
    return 0;
}

// What they would switch does not exist here: the write is dropped, as other hypervisors do.
int msr_amd_write(struct vcpu *v, u32 index, u64 value)
{
    (void)value;
    return known(v->guest, index) ? 0 : E_NOENT;
}
