// SPDX-License-Identifier: MIT
// CPUID of a guest: built from the host's by the policy, and answered from the table.
#include "kernel/guest/cpuid.h"

#include "arch/x86/platform/platform.h"
#include "kernel/guest/cpu_level.h"
#include "kernel/guest/cpuid_features.h"
#include "kernel/guest/fixed.h"
#include "kernel/guest/kvmclock.h"
#include "kernel/lib.h"

#define MAX_BASIC       0x16
#define MAX_EXTENDED    0x80000008
#define HYPERVISOR_LEAF 0x40000000
#define HYPERVISOR_STEP 0x100
#define SUB_MATTERS     1

#define XCR0_X87         BIT(0)
#define XCR0_SSE         BIT(1)
#define XCR0_AVX         BIT(2)
#define XCR0_AVX512      (BIT(5) | BIT(6) | BIT(7))
#define XCR0_PKRU        BIT(9)
#define XCR0_KNOWN       (XCR0_X87 | XCR0_SSE | XCR0_AVX | XCR0_AVX512 | XCR0_PKRU)
#define XSAVE_HEADER_END 576 // legacy area and header (SDM 1 13.4)
#define CR4_OSXSAVE      BIT(18)
#define CR4_PKE          BIT(22)

// The local APIC's clock in kHz, and the largest numerator that leaves kHz * EBX in the 32 bits
// that Linux computes it in.
#define CRYSTAL_KHZ (LAPIC_HZ / 1000)
#define MAX_RATIO   (0xffffffffull / CRYSTAL_KHZ)

struct build {
    struct guest *g;
    cpuid_source host;
    u64 xcr0;
};

// The CPU the guest is to see: the host's, or that of a level.
static void ask(struct build *b, u32 leaf, u32 sub, u32 r[4])
{
    u8 level = b->g->config.cpu;
    if (level == CPU_HOST)
        b->host(leaf, sub, r);
    else
        cpu_level_cpuid(level, b->host, leaf, sub, r);
}

const char *cpuid_bit_name(u32 leaf, u32 sub, unsigned reg, unsigned bit)
{
    for (u32 i = 0; i < cpuid_feature_count; i++) {
        const struct cpuid_feature *f = &cpuid_features[i];
        if (f->leaf == leaf && f->sub == sub && f->reg == reg && f->bit == bit)
            return f->name;
    }
    return NULL;
}

static void filter(const struct build *b, u32 leaf, u32 sub, unsigned reg, u32 *value)
{
    bool steady = b->g->config.clock == CLOCK_TSC;
    u32 keep = 0, set = 0;
    for (u32 i = 0; i < cpuid_feature_count; i++) {
        const struct cpuid_feature *f = &cpuid_features[i];
        if (f->leaf != leaf || f->sub != sub || f->reg != reg)
            continue;
        if (f->show == SHOW_HOST)
            keep |= 1u << f->bit;
        else if (f->show == SHOW_ALWAYS || steady)
            set |= 1u << f->bit;
    }
    *value = (*value & keep) | set;
}

static void add(struct build *b, u32 leaf, u32 sub, u32 flags, const u32 r[4])
{
    struct guest *g = b->g;
    assert(g->cpuid_count < GUEST_MAX_CPUID);
    g->cpuid[g->cpuid_count++] = (struct cpuid_entry){leaf, sub, flags, r[0], r[1], r[2], r[3]};
}

// The nearest fraction num/den to tsc_khz / CRYSTAL_KHZ with both small, by continued fractions.
static void tsc_ratio(u64 tsc_khz, u64 *num, u64 *den)
{
    u64 a = tsc_khz, b = CRYSTAL_KHZ;
    u64 p0 = 0, q0 = 1, p1 = 1, q1 = 0;
    while (b) {
        u64 whole = a / b;
        u64 p2 = whole * p1 + p0, q2 = whole * q1 + q0;
        if (p2 > MAX_RATIO || q2 > 0xffffffff)
            break;
        p0 = p1, q0 = q1, p1 = p2, q1 = q2;
        u64 rest = a % b;
        a = b;
        b = rest;
    }
    *num = p1;
    *den = q1 ? q1 : 1;
}

u64 cpuid_guest_tsc_hz(u64 host_hz)
{
    u64 num, den;
    tsc_ratio((host_hz + 500) / 1000, &num, &den);
    return CRYSTAL_KHZ * num / den * 1000;
}

static void add_identity(struct build *b)
{
    u32 r[4];
    ask(b, 0, 0, r);
    r[0] = MAX_BASIC;
    add(b, 0, 0, 0, r);
    ask(b, 1, 0, r);
    u32 cpus = b->g->config.vcpus;
    filter(b, 1, 0, 2, &r[2]);
    filter(b, 1, 0, 3, &r[3]);
    r[1] = (r[1] & 0xffff) | MIN(cpus, 255u) << 16; // the APIC ID comes with the question
    if (cpus > 1)
        r[3] |= 1u << 28; // HTT: EBX[23:16] counts
    add(b, 1, 0, 0, r);
    ask(b, 2, 0, r);
    add(b, 2, 0, 0, r);
}

static u32 shift_for(u32 cpus)
{
    return cpus > 1 ? 32 - (u32)__builtin_clz(cpus - 1) : 0;
}

// Deterministic cache parameters: the host's caches, shared as the guest's topology has it, all
// vCPUs being cores of one package without hyper-threads.
static void add_caches(struct build *b)
{
    u32 r[4], ids = (1u << shift_for(b->g->config.vcpus)) - 1;
    for (u32 sub = 0; sub < 8; sub++) {
        ask(b, 4, sub, r);
        u32 type = r[0] & 0x1f, level = r[0] >> 5 & 7;
        r[0] = (r[0] & 0x3fff) | (level >= 3 ? ids : 0) << 14 | MIN(ids, 63u) << 26;
        if (!type)
            memset(r, 0, sizeof(r));
        add(b, 4, sub, SUB_MATTERS, r);
        if (!type)
            break;
    }
}

static void add_features(struct build *b)
{
    u32 r[4] = {0};
    filter(b, 6, 0, 0, &r[0]);
    add(b, 6, 0, 0, r);
    u32 top[4], seven[4];
    ask(b, 0, 0, top);
    ask(b, 7, 0, seven);
    memcpy(r, seven, sizeof(r));
    if (top[0] < 7)
        memset(r, 0, sizeof(r));
    u32 subs = r[0];
    for (unsigned reg = 1; reg < 4; reg++)
        filter(b, 7, 0, reg, &r[reg]);
    r[0] = subs ? 1 : 0;
    add(b, 7, 0, SUB_MATTERS, r);
    if (!subs)
        return;
    ask(b, 7, 1, r);
    filter(b, 7, 1, 0, &r[0]);
    r[1] = r[2] = r[3] = 0;
    add(b, 7, 1, SUB_MATTERS, r);
}

// x2APIC IDs are vCPU indices: level 0 threads (one a core), level 1 cores (SDM 3A 8.9).
static void add_topology(struct build *b)
{
    u32 cpus = b->g->config.vcpus;
    add(b, 0xb, 0, SUB_MATTERS, (u32[4]){0, 1, 1 << 8, 0});
    add(b, 0xb, 1, SUB_MATTERS, (u32[4]){shift_for(cpus), cpus, 2 << 8 | 1, 0});
    add(b, 0xb, 2, SUB_MATTERS, (u32[4]){0, 0, 2, 0});
}

static void add_xsave(struct build *b)
{
    u32 r[4];
    u32 size = XSAVE_HEADER_END;
    u32 at = b->g->cpuid_count;
    if (!(b->xcr0 & XCR0_X87))
        return;
    add(b, 0xd, 0, SUB_MATTERS, (u32[4]){(u32)b->xcr0, 0, 0, (u32)(b->xcr0 >> 32)});
    ask(b, 0xd, 1, r);
    filter(b, 0xd, 1, 0, &r[0]);
    add(b, 0xd, 1, SUB_MATTERS, (u32[4]){r[0], 0, 0, 0});
    for (u32 i = 2; i < 64; i++) {
        if (!(b->xcr0 & BIT(i)))
            continue;
        ask(b, 0xd, i, r);
        add(b, 0xd, i, SUB_MATTERS, (u32[4]){r[0], r[1], r[2] & 2, 0});
        size = MAX(size, r[0] + r[1]);
    }
    b->g->cpuid[at].ecx = size;
}

static void add_rates(struct build *b)
{
    u64 num, den, hz = b->g->clock.tsc_hz;
    u32 mhz = (u32)(hz / 1000000);
    tsc_ratio(hz / 1000, &num, &den);
    add(b, 0x15, 0, 0, (u32[4]){(u32)den, (u32)num, (u32)LAPIC_HZ, 0});
    add(b, 0x16, 0, 0, (u32[4]){mhz, mhz, 100, 0});
}

static void add_signature(struct build *b, u32 leaf, u32 last, const char signature[12])
{
    u32 name[3];
    memcpy(name, signature, sizeof(name));
    add(b, leaf, 0, 0, (u32[4]){last, name[0], name[1], name[2]});
}

// Kernels look for KVM at the first leaf, some nowhere else; ours moves on then.
static void add_hypervisor(struct build *b)
{
    u32 leaf = HYPERVISOR_LEAF;
    if (b->g->config.clock == CLOCK_KVM) {
        add_signature(b, leaf, leaf + 1, KVM_SIGNATURE);
        add(b, leaf + 1, 0, 0,
            (u32[4]){KVM_FEATURE_CLOCKSOURCE2 | KVM_FEATURE_CLOCK_STABLE, 0, 0, 0});
        leaf += HYPERVISOR_STEP;
    }
    add_signature(b, leaf, leaf, "SkiffSkiff  ");
}

static void add_extended(struct build *b)
{
    u32 r[4];
    ask(b, 0x80000000, 0, r);
    r[0] = MAX_EXTENDED;
    add(b, 0x80000000, 0, 0, r);
    ask(b, 0x80000001, 0, r);
    filter(b, 0x80000001, 0, 2, &r[2]);
    filter(b, 0x80000001, 0, 3, &r[3]);
    add(b, 0x80000001, 0, 0, r);
    for (u32 leaf = 0x80000002; leaf <= 0x80000006; leaf++) {
        ask(b, leaf, 0, r); // brand string and caches
        add(b, leaf, 0, 0, r);
    }
    memset(r, 0, sizeof(r));
    filter(b, 0x80000007, 0, 3, &r[3]);
    add(b, 0x80000007, 0, 0, r);
    ask(b, 0x80000008, 0, r);
    // Physical address bits are the host's; linear ones 48: no five-level paging for guests.
    add(b, 0x80000008, 0, 0, (u32[4]){(r[0] & 0xff) | 48 << 8, 0, 0, 0});
}

static u64 usable_xcr0(u64 host)
{
    u64 xcr0 = host & XCR0_KNOWN;
    if ((xcr0 & XCR0_AVX512) != XCR0_AVX512 || !(xcr0 & XCR0_AVX))
        xcr0 &= ~XCR0_AVX512;
    return xcr0;
}

void cpuid_build(struct guest *g, cpuid_source host, u64 xcr0)
{
    if (g->config.cpu != CPU_HOST)
        xcr0 &= cpu_level_xcr0(g->config.cpu);
    struct build b = {.g = g, .host = host, .xcr0 = usable_xcr0(xcr0)};
    g->cpuid_count = 0;
    add_identity(&b);
    add_caches(&b);
    add_features(&b);
    add_topology(&b);
    add_xsave(&b);
    add_rates(&b);
    add_hypervisor(&b);
    add_extended(&b);
    cpuid_index(g);
}

void cpuid_index(struct guest *g)
{
    memset(g->cpuid_first, 0, sizeof(g->cpuid_first));
    for (u32 i = g->cpuid_count; i-- > 0;) {
        u32 leaf = g->cpuid[i].leaf;
        if ((leaf & 0x7fffffff) < ARRAY_SIZE(g->cpuid_first[0]))
            g->cpuid_first[leaf >> 31][leaf & 0x7fffffff] = (u8)(i + 1);
    }
}

static bool answers(const struct cpuid_entry *e, u32 leaf, u32 sub)
{
    return e->leaf == leaf && (!(e->flags & SUB_MATTERS) || e->sub == sub);
}

static const struct cpuid_entry *search(const struct guest *g, u32 first, u32 leaf, u32 sub)
{
    for (u32 i = first; i < g->cpuid_count; i++)
        if (answers(&g->cpuid[i], leaf, sub))
            return &g->cpuid[i];
    return NULL;
}

// Guests' CPUID exits count every instruction: the common leaves are found without a search.
static const struct cpuid_entry *find(const struct guest *g, u32 leaf, u32 sub)
{
    u32 low = leaf & 0x7fffffff;
    if (low >= ARRAY_SIZE(g->cpuid_first[0]))
        return search(g, 0, leaf, sub);
    u32 first = g->cpuid_first[leaf >> 31][low];
    if (!first)
        return NULL;
    const struct cpuid_entry *e = &g->cpuid[first - 1];
    return answers(e, leaf, sub) ? e : search(g, first, leaf, sub);
}

// Bytes of an XSAVE area with these components, in standard or compacted form (SDM 1 13.4).
static u32 xsave_size(const struct guest *g, u64 components, bool compacted)
{
    u32 size = XSAVE_HEADER_END;
    for (u32 i = 2; i < 64; i++) {
        const struct cpuid_entry *e = components & BIT(i) ? find(g, 0xd, i) : NULL;
        if (!e)
            continue;
        if (!compacted)
            size = MAX(size, e->ebx + e->eax);
        else
            size = (e->ecx & 2 ? ALIGN_UP(size, 64u) : size) + e->eax;
    }
    return size;
}

static u64 guest_cr4(struct vcpu *v)
{
    u64 cr4;
    backend->get_paging(v, NULL, NULL, &cr4, NULL, NULL);
    return cr4;
}

// The parts that belong to a vCPU or to its present state.
static void adjust(struct vcpu *v, u32 leaf, u32 sub, u32 r[4])
{
    if (leaf == 1) {
        r[1] |= v->index << 24;
        if ((r[2] & BIT(26)) && (guest_cr4(v) & CR4_OSXSAVE))
            r[2] |= 1u << 27;
    } else if (leaf == 7 && sub == 0) {
        if ((r[2] & BIT(3)) && (guest_cr4(v) & CR4_PKE))
            r[2] |= 1u << 4;
    } else if (leaf == 0xb) {
        r[3] = v->index;
    } else if (leaf == 0xd && sub < 2) {
        r[1] = xsave_size(v->guest, v->xcr0, sub == 1);
    }
}

void cpuid_query(struct vcpu *v, u32 r[4])
{
    u32 leaf = r[0], sub = r[2];
    const struct cpuid_entry *e = find(v->guest, leaf, sub);
    if (!e) {
        r[0] = r[1] = r[2] = r[3] = 0;
        return;
    }
    r[0] = e->eax, r[1] = e->ebx, r[2] = e->ecx, r[3] = e->edx;
    if (leaf - 1 < 0xd)
        adjust(v, leaf, sub, r);
}

u64 cpuid_xcr0(const struct guest *g)
{
    const struct cpuid_entry *e = find(g, 0xd, 0);
    return e ? (u64)e->edx << 32 | e->eax : XCR0_X87;
}

bool cpuid_xcr0_valid(const struct guest *g, u64 xcr0)
{
    if ((xcr0 & ~cpuid_xcr0(g)) || !(xcr0 & XCR0_X87))
        return false;
    if ((xcr0 & XCR0_AVX) && !(xcr0 & XCR0_SSE))
        return false;
    u64 avx512 = xcr0 & XCR0_AVX512;
    return !avx512 || (avx512 == XCR0_AVX512 && (xcr0 & XCR0_AVX));
}

bool cpuid_has(const struct guest *g, u32 leaf, unsigned reg, unsigned bit)
{
    const struct cpuid_entry *e = find(g, leaf, 0);
    if (!e)
        return false;
    const u32 r[4] = {e->eax, e->ebx, e->ecx, e->edx};
    return r[reg] >> bit & 1;
}
