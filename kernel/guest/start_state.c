// SPDX-License-Identifier: MIT
// The states a vCPU begins in: power-on, INIT, start-up IPI, and what the boot protocols ask for.
#include "kernel/guest/msr.h"
#include "kernel/guest/vcpu.h"
#include "kernel/lib.h"
#include "kernel/mem.h"

#define CR0_PE           BIT(0)
#define CR0_ET           BIT(4)
#define CR0_NE           BIT(5)
#define CR0_NW           BIT(29)
#define CR0_CD           BIT(30)
#define CR0_PG           BIT(31)
#define CR4_PAE          BIT(5)
#define EFER_LME         BIT(8)
#define EFER_LMA         BIT(10)
#define ATTR_DATA16      0x93 // present, read/write, accessed
#define ATTR_CODE16      0x9b
#define ATTR_FLAT_DATA   0xc93 // and 32-bit, 4 KiB granular
#define ATTR_FLAT_CODE   0xc9b
#define ATTR_FLAT_CODE64 0xa9b
#define ATTR_LDT         0x82
#define ATTR_BUSY_TSS    0x8b
#define PAT_RESET        0x0007040600070406ull
#define FCW_RESET        0x37f
#define MXCSR_RESET      0x1f80
#define XSAVE_MIN        576

static struct segment segment(u16 selector, u64 base, u32 limit, u16 attr)
{
    return (struct segment){.selector = selector, .base = base, .limit = limit, .attr = attr};
}

static void real_mode(struct vcpu_state *s)
{
    memset(s->gpr, 0, sizeof(s->gpr));
    s->gpr[GPR_RDX] = 0x600; // family 6 in the processor signature
    s->rip = 0xfff0;
    s->rflags = 2;
    s->cr0 = CR0_ET | CR0_NW | CR0_CD;
    s->cr2 = s->cr3 = s->cr4 = s->efer = 0;
    memset(s->dr, 0, sizeof(s->dr));
    memset(s->pdpte, 0, sizeof(s->pdpte));
    s->dr6 = 0xffff0ff0;
    s->dr7 = 0x400;
    for (int i = 0; i < SEG_COUNT; i++)
        s->seg[i] = segment(0, 0, 0xffff, ATTR_DATA16);
    s->seg[SEG_CS] = segment(0xf000, 0xffff0000, 0xffff, ATTR_CODE16);
    s->seg[SEG_LDTR].attr = ATTR_LDT;
    s->seg[SEG_TR].attr = ATTR_BUSY_TSS;
    s->gdtr_base = s->idtr_base = 0;
    s->gdtr_limit = s->idtr_limit = 0xffff;
    s->sti_shadow = s->mov_ss_shadow = s->nmi_blocked = s->nmi_pending = 0;
    s->pending_debug = 0;
    memset(&s->event, 0, sizeof(s->event));
    memset(&s->exception, 0, sizeof(s->exception));
}

static void initial_xsave(struct vcpu_state *s)
{
    u16 fcw = FCW_RESET;
    u32 mxcsr = MXCSR_RESET;
    memset(s->xsave, 0, sizeof(s->xsave));
    memcpy(s->xsave, &fcw, sizeof(fcw));
    memcpy(s->xsave + 24, &mxcsr, sizeof(mxcsr));
    s->xsave_size = XSAVE_MIN;
}

void state_power_on(struct vcpu_state *s)
{
    memset(s, 0, sizeof(*s));
    real_mode(s);
    initial_xsave(s);
    s->xcr0 = 1;
    s->pat = PAT_RESET;
    s->activity = VCPU_ACTIVE;
}

void state_after_init(struct vcpu_state *s)
{
    real_mode(s);
    s->activity = VCPU_WAIT_SIPI;
}

void state_startup_ipi(struct vcpu_state *s, u8 vector)
{
    s->seg[SEG_CS] = segment((u16)(vector << 8), (u64)vector << 12, 0xffff, ATTR_CODE16);
    s->rip = 0;
    s->activity = VCPU_ACTIVE;
}

static void flat_segments(struct vcpu_state *s, u16 code_attr)
{
    for (int i = SEG_ES; i <= SEG_GS; i++)
        s->seg[i] = segment(0x18, 0, 0xffffffff, ATTR_FLAT_DATA);
    s->seg[SEG_CS] = segment(0x10, 0, 0xffffffff, code_attr);
    s->seg[SEG_LDTR].attr = ATTR_LDT | SEG_UNUSABLE;
    s->seg[SEG_TR] = segment(0x20, 0, 0x67, ATTR_BUSY_TSS);
    s->idtr_limit = 0;
}

void state_flat32(struct vcpu_state *s, u64 entry)
{
    state_power_on(s);
    flat_segments(s, ATTR_FLAT_CODE);
    s->gpr[GPR_RDX] = 0;
    s->cr0 = CR0_PE | CR0_ET | CR0_NE;
    s->rip = entry;
}

void state_long(struct vcpu_state *s, u64 entry, u64 cr3)
{
    state_power_on(s);
    flat_segments(s, ATTR_FLAT_CODE64);
    s->gpr[GPR_RDX] = 0;
    s->cr0 = CR0_PE | CR0_ET | CR0_NE | CR0_PG;
    s->cr3 = cr3;
    s->cr4 = CR4_PAE;
    s->efer = EFER_LME | EFER_LMA;
    s->rip = entry;
}

int vcpu_reset(struct vcpu *v)
{
    struct vcpu_state *s = kzalloc(sizeof(*s));
    if (!s)
        return E_NOMEM;
    platform_vcpu_reset(v);
    msr_reset(v); // before, so that the state carries the reset values
    state_power_on(s);
    s->activity = v->index ? VCPU_WAIT_SIPI : VCPU_ACTIVE;
    s->misc_enable = v->misc_enable;
    s->tsc_adjust = v->tsc_adjust;
    s->mtrr_def_type = v->mtrr_def_type;
    memcpy(s->mtrr_fixed, v->mtrr_fixed, sizeof(s->mtrr_fixed));
    memcpy(s->mtrr_base, v->mtrr_base, sizeof(s->mtrr_base));
    memcpy(s->mtrr_mask, v->mtrr_mask, sizeof(s->mtrr_mask));
    int error = vcpu_load_state(v, s);
    kfree(s);
    return error;
}
