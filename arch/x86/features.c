// SPDX-License-Identifier: MIT
// What the CPU can do, and the control registers set accordingly.
#include "arch/x86/cpu.h"
#include "arch/x86/features.h"
#include "arch/x86/msr.h"
#include "kernel/lib.h"

struct host_features host_features;

// XSAVE components a guest may have here (SDM 1 13.1): x87, SSE, AVX, AVX-512 (three), PKRU.
// Not the retired MPX, and not AMX, whose tiles alone are 8 KiB.
#define XCR0_WANTED  (BIT(0) | BIT(1) | BIT(2) | BIT(5) | BIT(6) | BIT(7) | BIT(9))
#define XCR0_AVX512  (BIT(5) | BIT(6) | BIT(7))
#define LEGACY_BYTES 512 // FXSAVE's area
#define HEADER_BYTES 64

static void identify(struct host_features *f)
{
    u32 r[4];
    cpuid(0, 0, r);
    memcpy(f->vendor, &r[1], 4);
    memcpy(f->vendor + 4, &r[3], 4);
    memcpy(f->vendor + 8, &r[2], 4);
    cpuid(1, 0, r);
    f->stepping = r[0] & 15;
    f->model = r[0] >> 4 & 15;
    f->family = r[0] >> 8 & 15;
    if (f->family == 6 || f->family == 15) // SDM 2A, CPUID, leaf 1
        f->model |= r[0] >> 12 & 0xf0;
    if (f->family == 15)
        f->family += r[0] >> 20 & 0xff;
    cpuid(0x80000000, 0, r);
    for (u32 i = 0; r[0] >= 0x80000004 && i < 3; i++) {
        u32 part[4];
        cpuid(0x80000002 + i, 0, part);
        memcpy(f->brand + 16 * i, part, 16);
    }
}

static void read_basic(struct host_features *f)
{
    u32 top[4], r[4] = {0};
    cpuid(0, 0, top);
    cpuid(1, 0, r);
    f->vmx = r[2] & BIT(5);
    f->x2apic = r[2] & BIT(21);
    f->tsc_deadline = r[2] & BIT(24);
    f->xsave = r[2] & BIT(26);
    f->avx = r[2] & BIT(28);
    f->rdrand = r[2] & BIT(30);
    f->pge = r[3] & BIT(13);
    if (top[0] < 7)
        return;
    cpuid(7, 0, r);
    f->fsgsbase = r[1] & BIT(0);
    f->smep = r[1] & BIT(7);
    f->invpcid = r[1] & BIT(10);
    f->avx512 = r[1] & BIT(16);
    f->smap = r[1] & BIT(20);
}

static void read_extended(struct host_features *f)
{
    u32 top[4], r[4];
    f->phys_bits = 36;
    cpuid(0x80000000, 0, top);
    if (top[0] >= 0x80000001) {
        cpuid(0x80000001, 0, r);
        f->svm = r[2] & BIT(2);
        f->nx = r[3] & BIT(20);
        f->page1g = r[3] & BIT(26);
        f->rdtscp = r[3] & BIT(27);
    }
    if (top[0] >= 0x80000008) {
        cpuid(0x80000008, 0, r);
        f->phys_bits = r[0] & 0xff;
    }
}

// The area must hold every component at its place in the standard format (SDM 1 13.4.3).
static void read_xsave(struct host_features *f)
{
    u32 r[4];
    f->xsave_size = LEGACY_BYTES;
    if (!f->xsave)
        return;
    cpuid(0xd, 0, r);
    f->xcr0_supported = (r[0] | (u64)r[3] << 32) & XCR0_WANTED;
    if ((f->xcr0_supported & XCR0_AVX512) != XCR0_AVX512)
        f->xcr0_supported &= ~XCR0_AVX512;
    f->xsave_size = LEGACY_BYTES + HEADER_BYTES;
    for (u32 i = 2; i < 63; i++) {
        if (!(f->xcr0_supported & BIT(i)))
            continue;
        cpuid(0xd, i, r);
        f->xsave_size = MAX(f->xsave_size, r[0] + r[1]);
    }
    cpuid(0xd, 1, r);
    f->xsaves = r[0] & BIT(3);
    f->xss_supported = f->xsaves ? r[2] | (u64)r[3] << 32 : 0;
}

void features_detect(void)
{
    struct host_features *f = &host_features;
    identify(f);
    read_basic(f);
    read_extended(f);
    read_xsave(f);
}

void features_enable(void)
{
    const struct host_features *f = &host_features;
    u64 cr0 = read_cr0();
    cr0 |= CR0_WP | CR0_NE | CR0_MP;
    cr0 &= ~(CR0_EM | CR0_TS | CR0_CD | CR0_NW);
    // Nothing of what firmware chose stays (shadow stacks, PCIDs, protection keys), except for the
    // number of paging levels, which cannot be changed here.
    u64 cr4 = (read_cr4() & CR4_LA57) | CR4_PAE | CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_DE | CR4_MCE;
    cr4 |= (f->pge ? CR4_PGE : 0) | (f->smep ? CR4_SMEP : 0) | (f->smap ? CR4_SMAP : 0) |
           (f->xsave ? CR4_OSXSAVE : 0);
    write_cr0(cr0);
    write_cr4(cr4);
    if (f->nx)
        wrmsr(MSR_EFER, rdmsr(MSR_EFER) | EFER_NXE);
    wrmsr(MSR_PAT, PAT_POWER_ON);
    if (f->xsave)
        xsetbv(0, f->xcr0_supported);
}
