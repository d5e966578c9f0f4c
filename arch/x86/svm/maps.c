// SPDX-License-Identifier: MIT
// The permission maps guests share: all ports exit, and all MSRs but those the hardware switches
// (APM 2 15.10.1, 15.11).
#include "arch/x86/svm/svm.h"
#include "kernel/lib.h"
#include "kernel/mem.h"

u64 svm_msrpm_pa, svm_level_msrpm_pa, svm_iopm_pa;

#define MSRPM_PAGES 2
#define IOPM_PAGES  3

// Read and written by the guest alone.
static const u32 direct[] = {
    MSR_STAR, MSR_SFMASK, MSR_FS_BASE, MSR_GS_BASE, MSR_KERNEL_GS_BASE,
};

// The same, but not for guests on a CPU level: see syscall.c.
static const u32 direct_own_vendor[] = {
    MSR_SYSENTER_CS, MSR_SYSENTER_ESP, MSR_SYSENTER_EIP, MSR_LSTAR, MSR_CSTAR,
};

// Two bits an MSR, set: exits. 8192 MSRs from 0, then as many from C000_0000h.
static void allow(u8 *map, u32 msr)
{
    u32 n = msr >= 0xc0000000 ? 8192 + (msr - 0xc0000000) : msr;
    map[n / 4] &= ~(3u << n % 4 * 2);
}

static void allow_all(u8 *map, const u32 *msrs, size_t count)
{
    for (size_t i = 0; i < count; i++)
        allow(map, msrs[i]);
}

static u64 msrpm_new(bool level)
{
    u64 pa = pages_alloc(MSRPM_PAGES);
    if (!pa)
        return 0;
    u8 *map = phys_ptr(pa);
    memset(map, 0xff, MSRPM_PAGES * PAGE_SIZE);
    allow_all(map, direct, ARRAY_SIZE(direct));
    if (!level)
        allow_all(map, direct_own_vendor, ARRAY_SIZE(direct_own_vendor));
    if (svm_caps.rdtscp)
        allow(map, MSR_TSC_AUX);
    if (svm_caps.spec_ctrl_bits && !level) // no level shows it
        allow(map, MSR_SPEC_CTRL);
    return pa;
}

int svm_maps_init(void)
{
    if (svm_iopm_pa)
        return 0;
    svm_msrpm_pa = msrpm_new(false);
    svm_level_msrpm_pa = msrpm_new(true);
    svm_iopm_pa = pages_alloc(IOPM_PAGES);
    if (!svm_msrpm_pa || !svm_level_msrpm_pa || !svm_iopm_pa)
        return E_NOMEM; // at boot: there will be no guests
    memset(phys_ptr(svm_iopm_pa), 0xff, IOPM_PAGES * PAGE_SIZE);
    return 0;
}
