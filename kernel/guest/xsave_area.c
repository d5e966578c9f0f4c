// SPDX-License-Identifier: MIT
// The XSAVE area of a vCPU's state, in one form that does not depend on the host it was saved on.
#include "kernel/guest/xsave_area.h"

#include "arch/x86/cpu.h"
#include "kernel/guest/cpuid.h"
#include "kernel/lib.h"

// The legacy region (SDM 1 table 10-2) and the header behind it (SDM 1 13.4).
#define FCW_OFFSET   0
#define FSW_OFFSET   2
#define FOP_OFFSET   6
#define MXCSR_OFFSET 24
#define XMM_OFFSET   160
#define XMM_BYTES    256
#define LEGACY_BYTES 512
#define HEADER_END   576
#define FCW_INITIAL  0x37f
#define MXCSR_VALID  0xffffu // SDM 1 11.6.6: with DAZ, which every CPU with VT-x or SVM has
#define FSW_ES       BIT(7)  // an unmasked exception waits
#define X87          BIT(0)
#define SSE          BIT(1)

static u64 components_of(const struct vcpu_state *s)
{
    u64 value;
    memcpy(&value, s->xsave + LEGACY_BYTES, sizeof(value));
    return value;
}

static bool all_zero(const u8 *p, size_t n)
{
    while (n)
        if (p[--n])
            return false;
    return true;
}

// x87 and SSE are there without XSAVE as well.
static u64 allowed(const struct guest *g)
{
    return cpuid_xcr0(g) | X87 | SSE;
}

static u64 end_of(const struct guest *g, u64 components)
{
    u64 end = HEADER_END;
    for (u32 i = 0; i < g->cpuid_count; i++) {
        const struct cpuid_entry *e = &g->cpuid[i];
        if (e->leaf == 0xd && e->sub >= 2 && (components & BIT(e->sub)))
            end = MAX(end, (u64)e->eax + e->ebx);
    }
    return end;
}

// ---- One form -----------------------------------------------------------------------------------

// A CPU may leave a component's bytes alone when it is in its initial state, or save that; both
// mean the same.
static void write_out_legacy(struct vcpu_state *s, u64 saved)
{
    u16 fcw = FCW_INITIAL;
    if (!(saved & X87)) {
        memset(s->xsave, 0, MXCSR_OFFSET);
        memset(s->xsave + MXCSR_OFFSET + 8, 0, XMM_OFFSET - MXCSR_OFFSET - 8);
        memcpy(s->xsave + FCW_OFFSET, &fcw, sizeof(fcw));
    }
    if (!(saved & SSE))
        memset(s->xsave + XMM_OFFSET, 0, XMM_BYTES);
    memset(s->xsave + MXCSR_OFFSET + 4, 0, 4); // MXCSR_MASK is the CPU's; MXCSR is always saved
    memset(s->xsave + XMM_OFFSET + XMM_BYTES, 0, LEGACY_BYTES - XMM_OFFSET - XMM_BYTES);
}

// AMD CPUs keep the last x87 instruction's addresses only while an exception waits (APM 5, FXSAVE),
// so a guest that sees the same CPU everywhere has them only then.
static void drop_x87_addresses(struct vcpu_state *s)
{
    u16 fsw;
    memcpy(&fsw, s->xsave + FSW_OFFSET, sizeof(fsw));
    if (!(fsw & FSW_ES))
        memset(s->xsave + FOP_OFFSET, 0, MXCSR_OFFSET - FOP_OFFSET);
}

// AVX, AVX-512 and PKRU: all of them begin as zeros. Returns those that are not.
static u64 tidy_extended(const struct guest *g, struct vcpu_state *s, const u8 *from, u64 saved)
{
    u64 in_use = 0;
    for (u32 i = 0; i < g->cpuid_count; i++) {
        const struct cpuid_entry *e = &g->cpuid[i];
        bool there = e->leaf == 0xd && e->sub >= 2 && (saved & BIT(e->sub));
        if (!there || (u64)e->ebx + e->eax > s->xsave_size || all_zero(from + e->ebx, e->eax))
            continue;
        memcpy(s->xsave + e->ebx, from + e->ebx, e->eax);
        in_use |= BIT(e->sub);
    }
    return in_use;
}

void xsave_take(const struct vcpu *v, struct vcpu_state *s)
{
    const struct guest *g = v->guest;
    const u8 *from = v->xsave;
    u64 saved = X87 | SSE; // what FXSAVE saves
    s->xsave_size = (u32)MIN(end_of(g, allowed(g)), (u64)XSAVE_AREA_MAX);
    memset(s->xsave, 0, sizeof(s->xsave));
    memcpy(s->xsave, from, LEGACY_BYTES);
    if (host_features.xsave_size >= HEADER_END)
        memcpy(&saved, from + LEGACY_BYTES, sizeof(saved));
    write_out_legacy(s, saved);
    if (g->config.cpu != CPU_HOST)
        drop_x87_addresses(s);
    u64 in_use = X87 | SSE | tidy_extended(g, s, from, saved & allowed(g));
    memcpy(s->xsave + LEGACY_BYTES, &in_use, sizeof(in_use));
}

// ---- What may come in -----------------------------------------------------------------------

// XRSTOR faults in the host on a malformed area (SDM 1 13.8.1), so nothing of that gets this far.
const char *xsave_check(const struct guest *g, const struct vcpu_state *s)
{
    u32 mxcsr;
    u64 components = components_of(s), end = end_of(g, components);
    if (s->xsave_size < HEADER_END || s->xsave_size > XSAVE_AREA_MAX)
        return "the XSAVE area has an impossible size";
    if ((components & ~allowed(g)) || end > s->xsave_size)
        return "the XSAVE area holds components the guest does not have";
    if (end > MAX(host_features.xsave_size, (u32)HEADER_END) ||
        (components & ~(host_features.xcr0_supported | X87 | SSE)))
        return "the XSAVE area holds components this host lacks";
    if (!all_zero(s->xsave + LEGACY_BYTES + 8, HEADER_END - LEGACY_BYTES - 8))
        return "the XSAVE header has reserved bits set or is compacted";
    memcpy(&mxcsr, s->xsave + MXCSR_OFFSET, sizeof(mxcsr));
    if (mxcsr & ~MXCSR_VALID)
        return "MXCSR has reserved bits set";
    return NULL;
}
