// SPDX-License-Identifier: MIT
// Saving and loading the x87, SSE, AVX and AVX-512 registers of threads that own an XSAVE area.
#include "arch/x86/cpu.h"
#include "arch/x86/features.h"
#include "kernel/lib.h"
#include "kernel/mem.h"

#define AREA_ALIGN    64 // SDM 1 13.4
#define FCW_OFFSET    0
#define MXCSR_OFFSET  24
#define FCW_INITIAL   0x37f
#define MXCSR_INITIAL 0x1f80

void *xsave_area_alloc(void)
{
    // The heap aligns to 16: the byte before the area tells how far it was moved up.
    u8 *raw = kzalloc(host_features.xsave_size + AREA_ALIGN);
    if (raw == NULL)
        return NULL;
    u8 *area = (u8 *)ALIGN_UP((u64)raw + 1, (u64)AREA_ALIGN);
    area[-1] = (u8)(area - raw);
    *(u16 *)(area + FCW_OFFSET) = FCW_INITIAL;
    *(u32 *)(area + MXCSR_OFFSET) = MXCSR_INITIAL;
    return area;
}

void xsave_area_free(void *area)
{
    if (area != NULL)
        kfree((u8 *)area - ((u8 *)area)[-1]);
}

// Components outside XCR0 are neither saved nor restored, and a guest may have switched some off.
static void use_all_components(void)
{
    if (xgetbv(0) != host_features.xcr0_supported)
        xsetbv(0, host_features.xcr0_supported);
}

void xsave_save(void *area)
{
    if (!host_features.xsave) {
        __asm__ volatile("fxsave64 (%0)" : : "r"(area) : "memory");
        return;
    }
    use_all_components();
    __asm__ volatile("xsave64 (%0)" : : "r"(area), "a"(~0u), "d"(~0u) : "memory");
}

void xsave_restore(const void *area)
{
    if (!host_features.xsave) {
        __asm__ volatile("fxrstor64 (%0)" : : "r"(area) : "memory");
        return;
    }
    use_all_components();
    __asm__ volatile("xrstor64 (%0)" : : "r"(area), "a"(~0u), "d"(~0u) : "memory");
}
