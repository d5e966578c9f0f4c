// SPDX-License-Identifier: MIT
// Memory type range registers: kept and checked as the hardware does, without effect on memory
// types, which EPT decides (SDM 3A 11.11).
#include "kernel/guest/cpuid.h"
#include "kernel/guest/msr.h"
#include "kernel/lib.h"

#define MSR_MTRRCAP       0xfe
#define MSR_MTRR_VARIABLE 0x200
#define MSR_MTRR_DEF_TYPE 0x2ff
#define CAP_FIXED         BIT(8)
#define CAP_WC            BIT(10)
#define DEF_ENABLE        BIT(11)
#define DEF_FIXED         BIT(10)
#define MASK_VALID        BIT(11)
#define TYPE_UC           0
#define PHYS_BITS_MAX     52

static const u16 fixed_index[MTRR_FIXED] = {
    0x250, 0x258, 0x259, 0x268, 0x269, 0x26a, 0x26b, 0x26c, 0x26d, 0x26e, 0x26f,
};

static bool type_valid(u64 type)
{
    return type < 7 && type != 2 && type != 3; // UC, WC, WT, WP, WB
}

static bool fixed_valid(u64 value)
{
    for (int i = 0; i < 8; i++)
        if (!type_valid(value >> i * 8 & 0xff))
            return false;
    return true;
}

static bool def_type_valid(u64 value)
{
    return !(value & ~(0xffull | DEF_FIXED | DEF_ENABLE)) && type_valid(value & 0xff);
}

static bool base_valid(u64 value)
{
    return !(value >> PHYS_BITS_MAX) && !(value & 0xf00) && type_valid(value & 0xff);
}

static bool mask_valid(u64 value)
{
    return !(value >> PHYS_BITS_MAX) && !(value & 0x7ff);
}

bool mtrr_valid(u64 def_type, const u64 *fixed, const u64 *base, const u64 *mask)
{
    bool ok = def_type_valid(def_type);
    for (int i = 0; i < MTRR_FIXED; i++)
        ok = ok && fixed_valid(fixed[i]);
    for (int i = 0; i < MTRR_VARIABLE; i++)
        ok = ok && base_valid(base[i]) && mask_valid(mask[i]);
    return ok;
}

// Where an MSR is kept, and the check its values have to pass. NULL: not an MTRR.
static u64 *slot(struct vcpu *v, u32 index, bool (**valid)(u64 value))
{
    if (index == MSR_MTRR_DEF_TYPE) {
        *valid = def_type_valid;
        return &v->mtrr_def_type;
    }
    if (index - MSR_MTRR_VARIABLE < 2 * MTRR_VARIABLE) {
        u32 pair = (index - MSR_MTRR_VARIABLE) / 2;
        *valid = index & 1 ? mask_valid : base_valid;
        return index & 1 ? &v->mtrr_mask[pair] : &v->mtrr_base[pair];
    }
    for (u32 i = 0; i < MTRR_FIXED; i++) {
        if (fixed_index[i] == index) {
            *valid = fixed_valid;
            return &v->mtrr_fixed[i];
        }
    }
    return NULL;
}

int mtrr_read(struct vcpu *v, u32 index, u64 *value)
{
    bool (*valid)(u64);
    if (index == MSR_MTRRCAP) {
        *value = MTRR_VARIABLE | CAP_FIXED | CAP_WC;
        return 0;
    }
    const u64 *at = slot(v, index, &valid);
    if (!at)
        return E_NOENT;
    *value = *at;
    return 0;
}

int mtrr_write(struct vcpu *v, u32 index, u64 value)
{
    bool (*valid)(u64);
    if (index == MSR_MTRRCAP)
        return E_INVAL;
    u64 *at = slot(v, index, &valid);
    if (!at)
        return E_NOENT;
    if (!valid(value))
        return E_INVAL;
    *at = value;
    return 0;
}

// As firmware leaves them: RAM is write-back by default, the hole below 4 GiB is uncached. Guests
// are started without firmware, and Linux believes what it finds here.
void mtrr_reset(struct vcpu *v)
{
    u64 phys_mask = (BIT(36) - 1) & ~0xfffull;
    for (u32 i = 0; i < v->guest->cpuid_count; i++)
        if (v->guest->cpuid[i].leaf == 0x80000008)
            phys_mask = (BIT(v->guest->cpuid[i].eax & 0x3f) - 1) & ~0xfffull;
    memset(v->mtrr_base, 0, sizeof(v->mtrr_base));
    memset(v->mtrr_mask, 0, sizeof(v->mtrr_mask));
    for (u32 i = 0; i < MTRR_FIXED; i++)
        v->mtrr_fixed[i] = fixed_index[i] == 0x259 ? 0 : 0x0606060606060606ull; // 0xa0000: UC
    v->mtrr_def_type = DEF_ENABLE | DEF_FIXED | 6;
    v->mtrr_base[0] = GUEST_LOW_RAM_MAX | TYPE_UC;
    v->mtrr_mask[0] = (phys_mask & ~(GIB - 1)) | MASK_VALID;
}
