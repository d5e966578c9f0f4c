// SPDX-License-Identifier: MIT
// The levels of the x86-64 psABI as CPUs of their own: what a guest sees instead of its host.
#include "kernel/guest/cpu_level.h"

#include "kernel/guest/cpuid_features.h"
#include "kernel/lib.h"

#define MAX_BASIC    0x16
#define MAX_EXTENDED 0x80000008
#define PHYS_BITS    39 // the least that CPUs with AVX2 have
#define LAST_BRAND   0x80000004
#define FIRST_BRAND  0x80000002

struct identity {
    u32 leaf, sub;
    u32 r[4];
};

// The vendor is Intel's on every host. Kernels choose their defences by vendor, and those for Intel
// CPUs hold on AMD's too (page table isolation, L1TF, MDS), but not the other way round. The model
// is none that exists, so that no kernel knows an erratum, a microcode or an MSR of it.
static const struct identity identities[] = {
    {0, 0, {MAX_BASIC, 0x756e6547, 0x6c65746e, 0x49656e69}}, // "Genu" "ntel" "ineI"
    {1, 0, {0x000f06f0, 8 << 8, 0, 0}},                      // family 6, model ffh; CLFLUSH: 64 B
    {2, 0, {0x00feff01, 0, 0, 0}},                           // caches: see leaf 4
    {4, 0, {1 << 5 | 1 | 1 << 8, 7 << 22 | 63, 63, 0}},      // L1 data, 32 KiB, 8 ways
    {4, 1, {1 << 5 | 2 | 1 << 8, 7 << 22 | 63, 63, 0}},      // L1 instructions
    {4, 2, {2 << 5 | 3 | 1 << 8, 7 << 22 | 63, 511, 0}},     // L2, 256 KiB
    {4, 3, {3 << 5 | 3 | 1 << 8, 15 << 22 | 63, 4095, 0}},   // L3, 4 MiB, 16 ways
    {0x80000000, 0, {MAX_EXTENDED, 0, 0, 0}},
    {0x80000006, 0, {0, 0, 256 << 16 | 6 << 12 | 64, 0}}, // L2 again
    {0x80000008, 0, {PHYS_BITS, 0, 0, 0}},
};

static const struct {
    const char *name;
    u64 xcr0; // 0: no XSAVE
} levels[] = {
    [CPU_HOST] = {"host", 0},
    [CPU_V2] = {"x86-64-v2", 0},
    [CPU_V3] = {"x86-64-v3", 0x7}, // x87, SSE, AVX
    [CPU_V4] = {"x86-64-v4", 0xe7},
};

const char *cpu_level_name(u8 level)
{
    return level < ARRAY_SIZE(levels) ? levels[level].name : "unknown";
}

u64 cpu_level_xcr0(u8 level)
{
    return levels[level].xcr0;
}

static bool in_level(const struct cpuid_feature *f, u8 level)
{
    return f->level && f->level <= level;
}

static void brand(u8 level, u32 leaf, u32 r[4])
{
    char text[48] = "";
    snprintf(text, sizeof(text), "Virtual CPU (%s)", cpu_level_name(level));
    memcpy(r, text + (leaf - FIRST_BRAND) * 16, 16);
}

void cpu_level_cpuid(u8 level, cpuid_source host, u32 leaf, u32 sub, u32 r[4])
{
    if (leaf == 0xd && sub >= 2) {
        host(leaf, sub, r);
        return;
    }
    memset(r, 0, 4 * sizeof(u32));
    if (leaf >= FIRST_BRAND && leaf <= LAST_BRAND)
        brand(level, leaf, r);
    for (u32 i = 0; i < ARRAY_SIZE(identities); i++)
        if (identities[i].leaf == leaf && identities[i].sub == sub)
            memcpy(r, identities[i].r, sizeof(identities[i].r));
    for (u32 i = 0; i < cpuid_feature_count; i++) {
        const struct cpuid_feature *f = &cpuid_features[i];
        if (f->leaf == leaf && f->sub == sub && in_level(f, level))
            r[f->reg] |= 1u << f->bit;
    }
}

// ---- Does a host have it all? -----------------------------------------------------------------

struct missing {
    char text[160];
    u32 count;
};

static void miss(struct missing *m, const char *what)
{
    size_t n = strlen(m->text);
    m->count++;
    snprintf(m->text + n, sizeof(m->text) - n, "%s%s", n ? ", " : "", what);
}

static void find_features(u8 level, cpuid_source host, struct missing *m)
{
    for (u32 i = 0; i < cpuid_feature_count; i++) {
        const struct cpuid_feature *f = &cpuid_features[i];
        u32 r[4];
        if (!in_level(f, level))
            continue;
        host(f->leaf, f->sub, r);
        if (!(r[f->reg] >> f->bit & 1))
            miss(m, f->name);
    }
}

int cpu_level_check(const struct guest_config *c, cpuid_source host, u64 xcr0, char *err,
                    size_t size)
{
    struct missing m = {0};
    u32 r[4];
    if (c->cpu == CPU_HOST)
        return 0;
    find_features(c->cpu, host, &m);
    if (cpu_level_xcr0(c->cpu) & ~xcr0)
        miss(&m, "XSAVE components for it");
    host(0x80000008, 0, r);
    if ((r[0] & 0xff) < PHYS_BITS)
        miss(&m, "39 bits of physical address");
    if (m.count) {
        snprintf(err, size, "guest %s: this CPU lacks %s, which cpu = %s needs; choose a lower one",
                 c->name, m.text, cpu_level_name(c->cpu));
        return E_NOSUP;
    }
    if (c->memory_mib * MIB > BIT(PHYS_BITS) - 4 * GIB) {
        snprintf(err, size, "guest %s: cpu = %s has %u bits of physical address, %u MiB are more",
                 c->name, cpu_level_name(c->cpu), PHYS_BITS, c->memory_mib);
        return E_NOSUP;
    }
    return 0;
}
