// SPDX-License-Identifier: MIT
// The checks VM entry makes on guest state, made beforehand (SDM 3C 26.3.1.1 to 26.3.1.6).
#include "arch/x86/vmx/state_check.h"
#include "arch/x86/vmx/vmcs.h"
#include "kernel/lib.h"

// Debug traps that are pending outside a shadow are as good as on their way in, which is the only
// form the other vendor has for them.
static void deliver_debug_traps(struct vcpu_state *s)
{
    u64 pending = s->pending_debug;
    if (!pending || s->sti_shadow || s->mov_ss_shadow || s->exception.valid || s->event.valid)
        return;
    s->pending_debug = 0;
    s->dr6 |= pending & (0xf | PENDING_DEBUG_BS);
    if (pending & (PENDING_DEBUG_BS | PENDING_DEBUG_BREAKPOINT))
        s->exception =
            (struct pending_event){.valid = 1, .type = INTR_HARD_EXCEPTION, .vector = VECTOR_DB};
}

void vmx_tidy_state(struct vcpu_state *s, bool level)
{
    // Pointers that no PAE paging uses.
    if (!(s->cr0 & CR0_PG) || !(s->cr4 & CR4_PAE) || (s->efer & EFER_LMA))
        memset(s->pdpte, 0, sizeof s->pdpte);
    // The instruction of a software interrupt cut short runs again and raises it anew.
    if (s->event.type >= INTR_SOFT_INTERRUPT)
        memset(&s->event, 0, sizeof s->event);
    if (s->exception.type >= INTR_SOFT_INTERRUPT)
        memset(&s->exception, 0, sizeof s->exception);
    if (!level)
        return;
    // AMD has one kind of shadow.
    if (s->mov_ss_shadow && (s->rflags & RFLAGS_IF)) {
        s->mov_ss_shadow = 0;
        s->sti_shadow = 1;
    }
    deliver_debug_traps(s);
}

typedef const char *(*check_fn)(const struct vcpu_state *s, const struct vmx_limits *l);

// SDM 3A 11.12.2: UC, WC, WT, WP, WB, UC-.
bool vmx_pat_ok(u64 pat)
{
    for (int i = 0; i < 8; i++) {
        u8 type = pat >> (8 * i);
        if (type > 7 || type == 2 || type == 3)
            return false;
    }
    return true;
}

static bool long_mode(const struct vcpu_state *s)
{
    return s->efer & EFER_LMA;
}
static bool virtual_8086(const struct vcpu_state *s)
{
    return s->rflags & RFLAGS_VM;
}

static const char *check_modes(const struct vcpu_state *s, const struct vmx_limits *l)
{
    if (s->cr0 >> 32)
        return "CR0 has reserved bits set";
    if ((s->cr0 & CR0_PG) && !(s->cr0 & CR0_PE))
        return "CR0 has paging without protection";
    if ((s->cr0 & CR0_NW) && !(s->cr0 & CR0_CD))
        return "CR0 has NW without CD";
    if (s->cr4 & ~l->cr4_allowed)
        return "CR4 has a bit set that this guest's CPU does not have";
    if (s->efer & ~(EFER_SCE | EFER_LME | EFER_LMA | (l->nx ? EFER_NXE : 0)))
        return "EFER has a bit set that this CPU does not have";
    bool lma = (s->cr0 & CR0_PG) && (s->efer & EFER_LME);
    if (lma != long_mode(s))
        return "EFER.LMA does not follow from EFER.LME and CR0.PG";
    if (lma && !(s->cr4 & CR4_PAE))
        return "long mode without CR4.PAE";
    if ((s->cr4 & CR4_PCIDE) && !lma)
        return "CR4.PCIDE outside long mode";
    if (s->cr3 >> l->phys_bits)
        return "CR3 is beyond this CPU's physical addresses";
    return NULL;
}

static const char *check_pdptes(const struct vcpu_state *s, const struct vmx_limits *l)
{
    u64 reserved = 0x1e6 | ~(BIT(l->phys_bits) - 1);
    if (!(s->cr0 & CR0_PG) || !(s->cr4 & CR4_PAE) || long_mode(s))
        return NULL;
    for (int i = 0; i < 4; i++)
        if ((s->pdpte[i] & 1) && (s->pdpte[i] & reserved))
            return "a PAE page-directory pointer has reserved bits set";
    return NULL;
}

static const char *check_msrs(const struct vcpu_state *s, const struct vmx_limits *l)
{
    const u64 addresses[] = {s->sysenter_esp, s->sysenter_eip, s->lstar, s->cstar,
                             s->kernel_gs_base};
    for (size_t i = 0; i < ARRAY_SIZE(addresses); i++)
        if (!vmx_canonical(addresses[i]))
            return "a system call or GS base MSR is not canonical";
    if (s->sysenter_cs >> 32 || s->sfmask >> 32 || s->tsc_aux >> 32)
        return "SYSENTER_CS, SFMASK or TSC_AUX has its upper half set";
    if (s->tsc_aux && !l->rdtscp)
        return "TSC_AUX is set and this CPU has no RDTSCP";
    if (!vmx_pat_ok(s->pat))
        return "PAT has a memory type that does not exist";
    if (s->spec_ctrl & ~l->spec_ctrl_allowed)
        return "SPEC_CTRL has a bit set that this CPU does not have";
    if (s->debugctl & ~DEBUGCTL_BTF)
        return "DEBUGCTL has a bit set that guests do not get";
    if (s->dr6 >> 32 || s->dr7 >> 32)
        return "DR6 or DR7 has its upper half set";
    return NULL;
}

static const char *check_flags(const struct vcpu_state *s, const struct vmx_limits *l)
{
    (void)l;
    const u64 reserved = ~0x3f7fd7ull; // 63:22, 15, 5, 3 must be 0; bit 1 must be 1
    if ((s->rflags & reserved) || !(s->rflags & RFLAGS_FIXED1))
        return "RFLAGS has reserved bits wrong";
    if (virtual_8086(s) && (long_mode(s) || !(s->cr0 & CR0_PE)))
        return "RFLAGS.VM outside protected mode";
    bool code64 = long_mode(s) && (s->seg[SEG_CS].attr & BIT(9));
    if (code64 ? !vmx_canonical(s->rip) : s->rip >> 32)
        return "RIP is outside the code segment's mode";
    return NULL;
}

static bool usable(const struct segment *s)
{
    return !(s->attr & SEG_UNUSABLE);
}
static u8 seg_type(const struct segment *s)
{
    return s->attr & 15;
}
static u8 seg_dpl(const struct segment *s)
{
    return s->attr >> 5 & 3;
}
#define ATTR_S    BIT(4)
#define ATTR_P    BIT(7)
#define ATTR_L    BIT(9)
#define ATTR_DB   BIT(10)
#define ATTR_G    BIT(11)
#define ATTR_BITS (SEG_UNUSABLE | 0xfff)

// Granularity: a limit with 4 KiB steps ends in fff, one in bytes is below 1 MiB.
static bool granularity_ok(const struct segment *s)
{
    if (s->attr & ATTR_G)
        return (s->limit & 0xfff) == 0xfff;
    return s->limit >> 20 == 0;
}

static const char *check_8086_segments(const struct vcpu_state *s)
{
    for (int i = SEG_ES; i <= SEG_GS; i++) {
        const struct segment *g = &s->seg[i];
        if (g->base != (u64)g->selector << 4 || g->limit != 0xffff || g->attr != 0xf3)
            return "a segment is not what virtual-8086 mode has";
    }
    return NULL;
}

static const char *check_code(const struct vcpu_state *s)
{
    const struct segment *cs = &s->seg[SEG_CS];
    u8 dpl = seg_dpl(cs), ss_dpl = seg_dpl(&s->seg[SEG_SS]);
    if (!usable(cs) || !(cs->attr & ATTR_S) || !(cs->attr & ATTR_P) || !granularity_ok(cs))
        return "CS is not a present code segment";
    if (cs->base >> 32)
        return "CS has a base above 4 GiB";
    if (long_mode(s) && (cs->attr & ATTR_L) && (cs->attr & ATTR_DB))
        return "CS is 64-bit and 32-bit at once";
    switch (seg_type(cs)) {
    case 3: // read-write data, as real mode leaves it
        return dpl ? "CS is a data segment above privilege level 0" : NULL;
    case 9:
    case 11:
        return dpl != ss_dpl ? "CS and SS differ in privilege level" : NULL;
    case 13:
    case 15:
        return dpl > ss_dpl ? "CS is less privileged than SS" : NULL;
    }
    return "CS has a type that can't be run";
}

static const char *check_stack(const struct vcpu_state *s)
{
    const struct segment *ss = &s->seg[SEG_SS];
    if ((!(s->cr0 & CR0_PE) || seg_type(&s->seg[SEG_CS]) == 3) && seg_dpl(ss))
        return "SS is not at privilege level 0 in real mode";
    if (usable(ss) && seg_type(ss) != 3 && seg_type(ss) != 7)
        return "SS is not a writable data segment";
    return NULL;
}

static const char *check_data(const struct segment *g, bool wide_base)
{
    if (wide_base && !vmx_canonical(g->base))
        return "FS or GS has a base that is not canonical";
    if (!usable(g))
        return NULL;
    if (!wide_base && g->base >> 32)
        return "a data segment has a base above 4 GiB";
    if (!(seg_type(g) & 1) || ((seg_type(g) & 8) && !(seg_type(g) & 2)))
        return "a data segment is not accessed or not readable";
    if (!(g->attr & ATTR_S) || !(g->attr & ATTR_P) || !granularity_ok(g))
        return "a data segment is not present or has a wrong limit";
    return NULL;
}

static const char *check_segments(const struct vcpu_state *s, const struct vmx_limits *l)
{
    (void)l;
    for (int i = 0; i < SEG_COUNT; i++)
        if (s->seg[i].attr & ~ATTR_BITS)
            return "a segment has reserved attributes set";
    if (virtual_8086(s))
        return check_8086_segments(s);
    const char *wrong = check_code(s);
    if (!wrong)
        wrong = check_stack(s);
    for (int i = SEG_ES; i <= SEG_GS && !wrong; i++)
        if (i != SEG_CS)
            wrong = check_data(&s->seg[i], i == SEG_FS || i == SEG_GS);
    return wrong;
}

static const char *check_tables(const struct vcpu_state *s, const struct vmx_limits *l)
{
    (void)l;
    const struct segment *tr = &s->seg[SEG_TR], *ldtr = &s->seg[SEG_LDTR];
    bool busy = seg_type(tr) == 11 || (seg_type(tr) == 3 && !long_mode(s));
    if (!usable(tr) || !busy || (tr->attr & ATTR_S) || !(tr->attr & ATTR_P) ||
        !granularity_ok(tr) || (tr->selector & 4) || !vmx_canonical(tr->base))
        return "TR is not a busy TSS";
    if (usable(ldtr) &&
        (seg_type(ldtr) != 2 || (ldtr->attr & ATTR_S) || !(ldtr->attr & ATTR_P) ||
         !granularity_ok(ldtr) || (ldtr->selector & 4) || !vmx_canonical(ldtr->base)))
        return "LDTR is not an LDT";
    if (!vmx_canonical(s->gdtr_base) || !vmx_canonical(s->idtr_base))
        return "GDTR or IDTR has a base that is not canonical";
    if (s->gdtr_limit > 0xffff || s->idtr_limit > 0xffff)
        return "GDTR or IDTR has a limit above 64 KiB";
    return NULL;
}

static const char *check_shadows(const struct vcpu_state *s, const struct vmx_limits *l)
{
    (void)l;
    bool shadow = s->sti_shadow || s->mov_ss_shadow;
    if (s->sti_shadow && s->mov_ss_shadow)
        return "shadows of STI and MOV SS at once";
    if (s->sti_shadow && !(s->rflags & RFLAGS_IF))
        return "shadow of STI with interrupts off";
    if (s->pending_debug & ~0x500full) // B0 to B3, enabled breakpoint, BS; guests have no RTM
        return "pending debug exceptions have reserved bits set";
    bool step = (s->rflags & RFLAGS_TF) && !(s->debugctl & DEBUGCTL_BTF);
    if (shadow && step != !!(s->pending_debug & PENDING_DEBUG_BS))
        return "single step and pending debug exceptions disagree";
    return NULL;
}

static bool pushes_error(u8 vector)
{
    return vector == 8 || (vector >= 10 && vector <= 14) || vector == 17;
}

static const char *check_event(const struct pending_event *e, const struct vcpu_state *s)
{
    bool protected = s->cr0 & CR0_PE;
    if (!e->valid)
        return NULL;
    if (e->type > INTR_SOFT_EXCEPTION || e->type == 1)
        return "a pending event has a type that does not exist";
    if (e->type == INTR_NMI && e->vector != VECTOR_NMI)
        return "a pending NMI has a vector of its own";
    if (e->type == INTR_HARD_EXCEPTION && e->vector > 31)
        return "a pending exception has a vector above 31";
    if (e->has_error && (e->type != INTR_HARD_EXCEPTION || !pushes_error(e->vector)))
        return "a pending event has an error code that it can't have";
    if (e->type == INTR_HARD_EXCEPTION && protected && pushes_error(e->vector) && !e->has_error)
        return "a pending exception lacks its error code";
    if (e->has_error && e->error >> 15)
        return "a pending exception has reserved bits in its error code";
    if (e->type >= INTR_SOFT_INTERRUPT && (e->insn_len < 1 || e->insn_len > 15))
        return "a pending software interrupt has an impossible length";
    return NULL;
}

static const char *check_events(const struct vcpu_state *s, const struct vmx_limits *l)
{
    (void)l;
    const char *wrong = check_event(&s->event, s);
    if (!wrong)
        wrong = check_event(&s->exception, s);
    if (!wrong && s->exception.valid &&
        (s->exception.type == INTR_EXTERNAL || s->exception.type == INTR_SOFT_INTERRUPT))
        wrong = "the pending exception is an interrupt";
    bool shadow = s->sti_shadow || s->mov_ss_shadow;
    if (!wrong && s->event.valid && s->event.type == INTR_NMI && shadow)
        wrong = "a pending NMI in an interrupt shadow";
    return wrong;
}

const char *vmx_check_state(const struct vcpu_state *s, const struct vmx_limits *l)
{
    static const check_fn checks[] = {check_modes,    check_pdptes, check_msrs,    check_flags,
                                      check_segments, check_tables, check_shadows, check_events};
    const char *wrong = NULL;
    for (size_t i = 0; i < ARRAY_SIZE(checks) && !wrong; i++)
        wrong = checks[i](s, l);
    return wrong;
}
