// SPDX-License-Identifier: MIT
// A vCPU's architectural state out of and into its VMCS.
#include "arch/x86/vmx/state_check.h"
#include "arch/x86/vmx/vmx.h"
#include "kernel/lib.h"
#include "kernel/log.h"

// Fields copied as they are, both ways.
static const struct {
    u32 field;
    u16 offset;
    u8 size;
} plain[] = {
#define PLAIN(field, member)                                                                       \
    {                                                                                              \
        field, offsetof(struct vcpu_state, member), sizeof(((struct vcpu_state *)0)->member)       \
    }
    PLAIN(VMCS_GUEST_RIP, rip),
    PLAIN(VMCS_GUEST_RFLAGS, rflags),
    PLAIN(VMCS_GUEST_RSP, gpr[GPR_RSP]),
    PLAIN(VMCS_GUEST_CR3, cr3),
    PLAIN(VMCS_GUEST_EFER, efer),
    PLAIN(VMCS_GUEST_DR7, dr7),
    PLAIN(VMCS_GUEST_PDPTE0, pdpte[0]),
    PLAIN(VMCS_GUEST_PDPTE0 + 2, pdpte[1]),
    PLAIN(VMCS_GUEST_PDPTE0 + 4, pdpte[2]),
    PLAIN(VMCS_GUEST_PDPTE0 + 6, pdpte[3]),
    PLAIN(VMCS_GUEST_GDTR_BASE, gdtr_base),
    PLAIN(VMCS_GUEST_GDTR_LIMIT, gdtr_limit),
    PLAIN(VMCS_GUEST_IDTR_BASE, idtr_base),
    PLAIN(VMCS_GUEST_IDTR_LIMIT, idtr_limit),
    PLAIN(VMCS_GUEST_SYSENTER_CS, sysenter_cs),
    PLAIN(VMCS_GUEST_SYSENTER_ESP, sysenter_esp),
    PLAIN(VMCS_GUEST_SYSENTER_EIP, sysenter_eip),
    PLAIN(VMCS_GUEST_PAT, pat),
    PLAIN(VMCS_GUEST_DEBUGCTL, debugctl),
    PLAIN(VMCS_PENDING_DEBUG, pending_debug),
#undef PLAIN
};

static void plain_read(struct vcpu_state *s)
{
    for (size_t i = 0; i < ARRAY_SIZE(plain); i++) {
        u64 value = vmread(plain[i].field);
        memcpy((u8 *)s + plain[i].offset, &value, plain[i].size); // little-endian
    }
}

static void plain_write(const struct vcpu_state *s)
{
    for (size_t i = 0; i < ARRAY_SIZE(plain); i++) {
        u64 value = 0;
        memcpy(&value, (const u8 *)s + plain[i].offset, plain[i].size);
        vmwrite(plain[i].field, value);
    }
}

static void lazy_to_state(const struct vmx_lazy *l, struct vcpu_state *s)
{
    s->star = l->star;
    s->lstar = l->lstar;
    s->cstar = l->cstar;
    s->sfmask = l->sfmask;
    s->kernel_gs_base = l->kernel_gs_base;
    s->tsc_aux = l->tsc_aux;
    s->spec_ctrl = l->spec_ctrl;
    s->cr2 = l->cr2;
    memcpy(s->dr, l->dr, sizeof s->dr);
    s->dr6 = l->dr6;
}

static void lazy_from_state(struct vmx_lazy *l, const struct vcpu_state *s)
{
    l->star = s->star;
    l->lstar = s->lstar;
    l->cstar = s->cstar;
    l->sfmask = s->sfmask;
    l->kernel_gs_base = s->kernel_gs_base;
    l->tsc_aux = s->tsc_aux;
    l->spec_ctrl = s->spec_ctrl;
    l->cr2 = s->cr2;
    memcpy(l->dr, s->dr, sizeof l->dr);
    l->dr6 = s->dr6;
}

void vmx_get_state(struct vcpu *v, struct vcpu_state *s)
{
    struct vmx_vcpu *vx = vmx_of(v);
    assert(!v->in_guest);
    if (vmx_is_loaded(vx)) {
        vmx_lazy_save(&vx->lazy);
        vmx_lazy_load(&vx->lazy);
    }
    memcpy(s->gpr, v->gpr, sizeof s->gpr);
    lazy_to_state(&vx->lazy, s);
    s->event = vx->event;
    s->exception = vx->exception;
    struct vmx_vcpu *before = vmx_access_begin(vx);
    plain_read(s);
    s->cr0 = vmx_cr0_get();
    s->cr4 = vmx_cr4_get();
    for (int i = 0; i < SEG_COUNT; i++)
        vmx_segment_read(i, &s->seg[i]);
    u64 blocked = vmread(VMCS_INTERRUPTIBILITY);
    vmx_access_end(vx, before);
    s->sti_shadow = !!(blocked & BLOCK_STI);
    s->mov_ss_shadow = !!(blocked & BLOCK_MOV_SS);
    s->nmi_blocked = !!(blocked & BLOCK_NMI);
    vmx_tidy_state(s, v->guest->config.cpu != CPU_HOST);
}

const char *vmx_check_state_op(struct vcpu *v, const struct vcpu_state *s)
{
    struct vmx_limits l = {
        .cr4_allowed = vmx_cr4_allowed(v->guest),
        .spec_ctrl_allowed = vmx_caps.spec_ctrl_bits,
        .nx = host_features.nx,
        .rdtscp = vmx_caps.rdtscp,
        .phys_bits = host_features.phys_bits,
    };
    return vmx_check_state(s, &l);
}

static void fields_write(struct vmx_vcpu *vx, const struct vcpu_state *s)
{
    plain_write(s);
    vmwrite(VMCS_GUEST_DR7, s->dr7 | DR7_FIXED1);
    vmx_cr0_write(s->cr0);
    vmx_cr4_write(vx, s->cr4);
    for (int i = 0; i < SEG_COUNT; i++)
        vmx_segment_write(i, &s->seg[i]);
    u64 entry = vmx_caps.entry | (s->efer & EFER_LMA ? ENTRY_IA32E : 0);
    vmwrite(VMCS_ENTRY_CONTROLS, entry);
    vmwrite(VMCS_ENTRY_INTERRUPTION, 0);
    vmwrite(VMCS_INTERRUPTIBILITY, (s->sti_shadow ? BLOCK_STI : 0) |
                                       (s->mov_ss_shadow ? BLOCK_MOV_SS : 0) |
                                       (s->nmi_blocked ? BLOCK_NMI : 0));
}

int vmx_set_state(struct vcpu *v, const struct vcpu_state *s)
{
    struct vmx_vcpu *vx = vmx_of(v);
    const char *wrong = vmx_check_state_op(v, s);
    if (wrong) {
        log_warn("vmx", "guest %s: state of vCPU %u refused: %s", v->guest->name, v->index, wrong);
        return E_INVAL;
    }
    assert(!v->in_guest);
    memcpy(v->gpr, s->gpr, sizeof v->gpr);
    lazy_from_state(&vx->lazy, s);
    vx->cr4_allowed = vmx_cr4_allowed(v->guest);
    struct vmx_vcpu *before = vmx_access_begin(vx);
    fields_write(vx, s);
    vmx_access_end(vx, before);
    if (vmx_is_loaded(vx))
        vmx_lazy_load(&vx->lazy);
    vx->event = s->event;
    vx->exception = s->exception;
    vx->triple_fault = false;
    vmx_events_changed(vx);
    vmx_request(vx, VMX_REQ_TLB);
    return 0;
}
