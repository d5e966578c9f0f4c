// SPDX-License-Identifier: MIT
// The permission maps every guest shares: all ports exit, and all MSRs but those the hardware
// switches (APM 2 15.10.1, 15.11).
#include "arch/x86/svm/svm.h"
#include "kernel/lib.h"
#include "kernel/mem.h"

u64 svm_msrpm_pa, svm_iopm_pa;

#define MSRPM_PAGES 2
#define IOPM_PAGES  3

// Read and written by the guest alone.
static const u32 direct[] = {
    MSR_SYSENTER_CS, MSR_SYSENTER_ESP, MSR_SYSENTER_EIP, MSR_STAR,    MSR_LSTAR,
    MSR_CSTAR,       MSR_SFMASK,       MSR_FS_BASE,      MSR_GS_BASE, MSR_KERNEL_GS_BASE,
};

// Two bits an MSR, set: exits. 8192 MSRs from 0, then as many from C000_0000h.
static void allow(u8 *map, u32 msr)
{
    u32 n = msr >= 0xc0000000 ? 8192 + (msr - 0xc0000000) : msr;
    map[n / 4] &= ~(3u << n % 4 * 2);
}

int svm_maps_init(void)
{
    if (svm_msrpm_pa)
        return 0;
    u64 msrpm = pages_alloc(MSRPM_PAGES), iopm = pages_alloc(IOPM_PAGES);
    if (!msrpm || !iopm) {
        if (msrpm)
            pages_free(msrpm, MSRPM_PAGES);
        return E_NOMEM;
    }
    memset(phys_ptr(msrpm), 0xff, MSRPM_PAGES * PAGE_SIZE);
    memset(phys_ptr(iopm), 0xff, IOPM_PAGES * PAGE_SIZE);
    for (size_t i = 0; i < ARRAY_SIZE(direct); i++)
        allow(phys_ptr(msrpm), direct[i]);
    if (svm_caps.rdtscp)
        allow(phys_ptr(msrpm), MSR_TSC_AUX);
    if (svm_caps.spec_ctrl_bits)
        allow(phys_ptr(msrpm), MSR_SPEC_CTRL);
    svm_iopm_pa = iopm;
    svm_msrpm_pa = msrpm;
    return 0;
}
