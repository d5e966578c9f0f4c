// SPDX-License-Identifier: MIT
// Rules of a guest's CPU that a backend applies in software, the same for both vendors.
#include "arch/x86/guest_cpu.h"

#include "kernel/guest/guest.h"

#define CR0_PG    BIT(31)
#define CR4_PAE   BIT(5)
#define CR4_PCIDE BIT(17)
#define EFER_LME  BIT(8)
#define EFER_LMA  BIT(10)

// Each with the CPUID bit that announces it; leaf 0: always there.
static const struct {
    u8 bit;
    u8 leaf;
    u8 reg; // 0 EAX .. 3 EDX
    u8 cpuid_bit;
} cr4_bits[] = {
    {0, 1, 3, 1},   // VME
    {1, 1, 3, 1},   // PVI
    {2, 1, 3, 4},   // TSD
    {3, 1, 3, 2},   // DE
    {4, 1, 3, 3},   // PSE
    {5, 1, 3, 6},   // PAE
    {6, 0, 0, 0},   // MCE: machine checks stay the host's, the bit is only shown
    {7, 1, 3, 13},  // PGE
    {8, 0, 0, 0},   // PCE: RDPMC exits
    {9, 1, 3, 24},  // OSFXSR
    {10, 1, 3, 25}, // OSXMMEXCPT
    {11, 7, 2, 2},  // UMIP
    {16, 7, 1, 0},  // FSGSBASE
    {17, 1, 2, 17}, // PCIDE
    {18, 1, 2, 26}, // OSXSAVE
    {20, 7, 1, 7},  // SMEP
    {21, 7, 1, 20}, // SMAP
    {22, 7, 2, 3},  // PKE
};

static bool shows(const struct guest *g, u32 leaf, u32 reg, u32 bit)
{
    for (u32 i = 0; i < g->cpuid_count; i++) {
        const struct cpuid_entry *e = &g->cpuid[i];
        u32 r[4] = {e->eax, e->ebx, e->ecx, e->edx};
        if (e->leaf == leaf && e->sub == 0)
            return r[reg] >> bit & 1;
    }
    return false;
}

u64 guest_cr4_allowed(const struct guest *g)
{
    u64 allowed = 0;
    for (size_t i = 0; i < ARRAY_SIZE(cr4_bits); i++)
        if (!cr4_bits[i].leaf || shows(g, cr4_bits[i].leaf, cr4_bits[i].reg, cr4_bits[i].cpuid_bit))
            allowed |= BIT(cr4_bits[i].bit);
    return allowed;
}

bool guest_cr4_write_valid(u64 old, u64 value, u64 allowed, u64 cr3, u64 efer)
{
    bool pcide_goes_on = value & ~old & CR4_PCIDE;
    if (value & ~allowed)
        return false;
    if ((efer & EFER_LMA) && !(value & CR4_PAE))
        return false;
    return !pcide_goes_on || ((efer & EFER_LMA) && !(cr3 & 0xfff));
}

bool guest_efer_write_valid(u64 old, u64 value, u64 writable, u64 cr0)
{
    if (value & ~(writable | EFER_LMA))
        return false;
    return !((old ^ value) & EFER_LME) || !(cr0 & CR0_PG);
}

enum class { BENIGN, CONTRIBUTORY, PAGE_FAULT, DOUBLE_FAULT };

static enum class class_of(u8 vector) {
    if (vector == 0 || (vector >= 10 && vector <= 13)) return CONTRIBUTORY;
    return vector == 14  ? PAGE_FAULT
           : vector == 8 ? DOUBLE_FAULT
                         : BENIGN;
}

enum exceptions_meet exceptions_meet(u8 first, u8 second)
{
    enum class a = class_of(first), b = class_of(second);
    if (a == BENIGN || b == BENIGN)
        return EXCEPTION_ALONE;
    if (a == DOUBLE_FAULT)
        return EXCEPTION_TRIPLE_FAULT;
    if (a == CONTRIBUTORY && b == PAGE_FAULT)
        return EXCEPTION_ALONE;
    return EXCEPTION_DOUBLE_FAULT;
}

bool exception_pushes_error(u8 vector)
{
    return vector == 8 || (vector >= 10 && vector <= 14) || vector == 17;
}
