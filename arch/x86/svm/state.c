// SPDX-License-Identifier: MIT
// A vCPU's architectural state out of and into its VMCB.
#include "arch/x86/guest_cpu.h"
#include "arch/x86/svm/svm.h"
#include "arch/x86/vmx/state_check.h"
#include "kernel/guest/memory.h"
#include "kernel/lib.h"
#include "kernel/log.h"

// Fields copied as they are, both ways.
static const struct {
    u16 from, to;
    u8 size;
} plain[] = {
#define PLAIN(field, member)                                                                       \
    {                                                                                              \
        offsetof(struct vmcb, field), offsetof(struct vcpu_state, member),                         \
            sizeof(((struct vcpu_state *)0)->member)                                               \
    }
    PLAIN(rip, rip),
    PLAIN(rsp, gpr[GPR_RSP]),
    PLAIN(rax, gpr[GPR_RAX]),
    PLAIN(rflags, rflags),
    PLAIN(cr0, cr0),
    PLAIN(cr2, cr2),
    PLAIN(cr3, cr3),
    PLAIN(efer, efer),
    PLAIN(dr6, dr6),
    PLAIN(dr7, dr7),
    PLAIN(gdtr.base, gdtr_base),
    PLAIN(gdtr.limit, gdtr_limit),
    PLAIN(idtr.base, idtr_base),
    PLAIN(idtr.limit, idtr_limit),
    PLAIN(sysenter_cs, sysenter_cs),
    PLAIN(sysenter_esp, sysenter_esp),
    PLAIN(sysenter_eip, sysenter_eip),
    PLAIN(star, star),
    PLAIN(lstar, lstar),
    PLAIN(cstar, cstar),
    PLAIN(sfmask, sfmask),
    PLAIN(kernel_gs_base, kernel_gs_base),
    PLAIN(g_pat, pat),
#undef PLAIN
};

static void syscall_read(const struct svm_vcpu *sv, struct vcpu_state *s)
{
    if (!sv->level)
        return;
    s->sysenter_cs = sv->sys.sysenter_cs;
    s->sysenter_esp = sv->sys.sysenter_esp;
    s->sysenter_eip = sv->sys.sysenter_eip;
    s->cstar = sv->sys.cstar;
}

// The other vendor keeps the four PAE pointers in registers; this one reads them at each walk.
static void pdptes_read(struct vcpu *v, struct vcpu_state *s)
{
    memset(s->pdpte, 0, sizeof s->pdpte);
    if ((s->cr0 & CR0_PG) && (s->cr4 & CR4_PAE) && !(s->efer & EFER_LMA))
        guest_read(v->guest, s->cr3 & 0xffffffe0, s->pdpte, sizeof s->pdpte);
}

// One shadow bit stands for STI's and for that of MOV SS; only the first implies interrupts on.
static void shadows_read(const struct svm_vcpu *sv, struct vcpu_state *s)
{
    bool shadow = svm_in_shadow(sv);
    s->sti_shadow = shadow && (s->rflags & RFLAGS_IF);
    s->mov_ss_shadow = shadow && !(s->rflags & RFLAGS_IF);
    s->nmi_blocked = sv->nmi_blocked;
    // VT-x wants a single step that a shadow holds back to be pending (SDM 3C 26.3.1.5).
    s->pending_debug = shadow && (s->rflags & RFLAGS_TF) ? DR6_BS : 0;
}

void svm_get_state(struct vcpu *v, struct vcpu_state *s)
{
    struct svm_vcpu *sv = svm_of(v);
    assert(!v->in_guest);
    if (svm_is_loaded(sv)) {
        svm_lazy_save(&sv->lazy);
        svm_lazy_load(&sv->lazy);
    }
    memcpy(s->gpr, v->gpr, sizeof s->gpr);
    sv->vmcb->rax = v->gpr[GPR_RAX];
    for (size_t i = 0; i < ARRAY_SIZE(plain); i++)
        memcpy((u8 *)s + plain[i].to, (u8 *)sv->vmcb + plain[i].from, plain[i].size);
    syscall_read(sv, s);
    s->rflags = svm_rflags(sv);
    s->cr4 = sv->cr4;
    s->efer &= ~EFER_SVME;
    s->tsc_aux = sv->lazy.tsc_aux;
    s->spec_ctrl = sv->lazy.spec_ctrl;
    s->debugctl = 0;
    memcpy(s->dr, sv->lazy.dr, sizeof s->dr);
    for (int i = 0; i < SEG_COUNT; i++)
        svm_segment_read(sv, i, &s->seg[i]);
    pdptes_read(v, s);
    shadows_read(sv, s);
    s->event = sv->event;
    s->exception = sv->exception;
}

// What VMRUN checks (APM 2 15.5.1) is a part of what VT-x checks; one rule for both keeps every
// guest's state fit for a move to either.
const char *svm_check_state(struct vcpu *v, const struct vcpu_state *s)
{
    struct vmx_limits l = {
        .cr4_allowed = guest_cr4_allowed(v->guest),
        .spec_ctrl_allowed = svm_caps.spec_ctrl_bits,
        .nx = host_features.nx,
        .rdtscp = svm_caps.rdtscp,
        .phys_bits = host_features.phys_bits,
    };
    if (s->debugctl)
        return "DEBUGCTL is set, which guests do not get on this CPU";
    return vmx_check_state(s, &l);
}

static void keep_event(struct pending_event *to, const struct pending_event *from)
{
    *to = *from;
    if (svm_event_repeats(from))
        to->valid = 0;
}

static void fields_write(struct svm_vcpu *sv, const struct vcpu_state *s)
{
    struct vmcb *b = sv->vmcb;
    for (size_t i = 0; i < ARRAY_SIZE(plain); i++)
        memcpy((u8 *)b + plain[i].from, (const u8 *)s + plain[i].to, plain[i].size);
    sv->sys = (struct svm_syscall){s->sysenter_cs, s->sysenter_esp, s->sysenter_eip, s->cstar};
    svm_syscall_load(sv);
    b->efer |= EFER_SVME;
    b->dr7 |= DR7_FIXED1;
    svm_cr4_set(sv, s->cr4);
    for (int i = 0; i < SEG_COUNT; i++)
        svm_segment_write(sv, i, &s->seg[i]);
    b->cpl = s->cr0 & CR0_PE ? s->seg[SEG_SS].attr >> 5 & 3 : 0;
    b->int_state = s->sti_shadow || s->mov_ss_shadow ? INT_SHADOW : 0;
    b->event_inj = 0;
    b->exit_int_info = 0;
}

int svm_set_state(struct vcpu *v, const struct vcpu_state *s)
{
    struct svm_vcpu *sv = svm_of(v);
    const char *wrong = svm_check_state(v, s);
    if (wrong) {
        log_warn("svm", "guest %s: state of vCPU %u refused: %s", v->guest->name, v->index, wrong);
        return E_INVAL;
    }
    assert(!v->in_guest);
    memcpy(v->gpr, s->gpr, sizeof v->gpr);
    sv->lazy.tsc_aux = s->tsc_aux;
    sv->lazy.spec_ctrl = s->spec_ctrl;
    memcpy(sv->lazy.dr, s->dr, sizeof sv->lazy.dr);
    sv->cr4_allowed = guest_cr4_allowed(v->guest);
    sv->step = STEP_NONE;
    fields_write(sv, s);
    svm_nmi_block(sv, s->nmi_blocked);
    if (svm_is_loaded(sv))
        svm_lazy_load(&sv->lazy);
    keep_event(&sv->event, &s->event);
    keep_event(&sv->exception, &s->exception);
    sv->triple_fault = false;
    svm_events_changed(sv);
    svm_invalidate_guest_tlb(v);
    return 0;
}
