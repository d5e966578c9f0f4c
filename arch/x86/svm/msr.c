// SPDX-License-Identifier: MIT
// MSRs that the hardware holds for the guest: in the VMCB, or in the CPU while the vCPU is loaded.
#include "arch/x86/guest_cpu.h"
#include "arch/x86/svm/svm.h"
#include "arch/x86/vmx/state_check.h"
#include "kernel/lib.h"

static u64 lazy_read(u32 msr, bool there)
{
    return there ? rdmsr(msr) : 0;
}

static void lazy_write(u32 msr, bool there, u64 value)
{
    if (there)
        wrmsr(msr, value);
}

// The host has no use for TSC_AUX and sets no breakpoints: these are the guest's while it is
// loaded.
void svm_lazy_load(const struct svm_lazy *l)
{
    lazy_write(MSR_TSC_AUX, svm_caps.rdtscp, l->tsc_aux);
    lazy_write(MSR_SPEC_CTRL, svm_caps.spec_ctrl_bits, l->spec_ctrl);
    __asm__ volatile("mov %0, %%dr0" : : "r"(l->dr[0]));
    __asm__ volatile("mov %0, %%dr1" : : "r"(l->dr[1]));
    __asm__ volatile("mov %0, %%dr2" : : "r"(l->dr[2]));
    __asm__ volatile("mov %0, %%dr3" : : "r"(l->dr[3]));
}

void svm_lazy_save(struct svm_lazy *l)
{
    l->tsc_aux = lazy_read(MSR_TSC_AUX, svm_caps.rdtscp);
    l->spec_ctrl = lazy_read(MSR_SPEC_CTRL, svm_caps.spec_ctrl_bits);
    lazy_write(MSR_SPEC_CTRL, svm_caps.spec_ctrl_bits, 0);
    __asm__ volatile("mov %%dr0, %0" : "=r"(l->dr[0]));
    __asm__ volatile("mov %%dr1, %0" : "=r"(l->dr[1]));
    __asm__ volatile("mov %%dr2, %0" : "=r"(l->dr[2]));
    __asm__ volatile("mov %%dr3, %0" : "=r"(l->dr[3]));
}

static u64 *lazy_msr(struct svm_lazy *l, u32 index)
{
    if (index == MSR_TSC_AUX && svm_caps.rdtscp)
        return &l->tsc_aux;
    if (index == MSR_SPEC_CTRL && svm_caps.spec_ctrl_bits)
        return &l->spec_ctrl;
    return NULL;
}

static u64 *vmcb_msr(struct vmcb *b, u32 index)
{
    switch (index) {
    case MSR_EFER:
        return &b->efer;
    case MSR_PAT:
        return &b->g_pat;
    case MSR_FS_BASE:
        return &b->fs.base;
    case MSR_GS_BASE:
        return &b->gs.base;
    case MSR_KERNEL_GS_BASE:
        return &b->kernel_gs_base;
    case MSR_SYSENTER_CS:
        return &b->sysenter_cs;
    case MSR_SYSENTER_ESP:
        return &b->sysenter_esp;
    case MSR_SYSENTER_EIP:
        return &b->sysenter_eip;
    case MSR_STAR:
        return &b->star;
    case MSR_LSTAR:
        return &b->lstar;
    case MSR_CSTAR:
        return &b->cstar;
    case MSR_SFMASK:
        return &b->sfmask;
    }
    return NULL;
}

int svm_get_msr(struct vcpu *v, u32 index, u64 *value)
{
    struct svm_vcpu *sv = svm_of(v);
    const u64 *lazy = lazy_msr(&sv->lazy, index), *field = vmcb_msr(sv->vmcb, index);
    const u64 *own = svm_level_msr(sv, index);
    if (own)
        *value = *own;
    else if (lazy)
        *value = svm_is_loaded(sv) ? rdmsr(index) : *lazy;
    else if (field)
        *value = index == MSR_EFER ? *field & ~EFER_SVME : *field;
    else
        return E_NOENT;
    return 0;
}

static bool value_ok(u32 index, u64 value)
{
    switch (index) {
    case MSR_LSTAR:
    case MSR_CSTAR:
    case MSR_KERNEL_GS_BASE:
    case MSR_FS_BASE:
    case MSR_GS_BASE:
    case MSR_SYSENTER_ESP:
    case MSR_SYSENTER_EIP:
        return vmx_canonical(value);
    case MSR_SFMASK:
    case MSR_TSC_AUX:
    case MSR_SYSENTER_CS:
        return value >> 32 == 0;
    case MSR_SPEC_CTRL:
        return !(value & ~svm_caps.spec_ctrl_bits);
    case MSR_PAT:
        return vmx_pat_ok(value);
    }
    return true;
}

// The guest never learns of SVME, which VMRUN wants set (APM 2 15.5.1).
static int efer_set(struct svm_vcpu *sv, u64 value)
{
    struct vmcb *b = sv->vmcb;
    u64 writable = EFER_SCE | EFER_LME | (host_features.nx ? EFER_NXE : 0);
    u64 old = b->efer & ~EFER_SVME;
    if (!guest_efer_write_valid(old, value, writable, b->cr0))
        return E_INVAL;
    b->efer = (value & writable) | (old & EFER_LMA) | EFER_SVME;
    svm_invalidate_guest_tlb(sv->v);
    return 0;
}

int svm_set_msr(struct vcpu *v, u32 index, u64 value)
{
    struct svm_vcpu *sv = svm_of(v);
    u64 *lazy = lazy_msr(&sv->lazy, index), *own = svm_level_msr(sv, index);
    u64 *field = own ? own : vmcb_msr(sv->vmcb, index);
    if (!lazy && !field)
        return E_NOENT;
    if (!value_ok(index, value))
        return E_INVAL;
    if (index == MSR_EFER)
        return efer_set(sv, value);
    *(lazy ? lazy : field) = value;
    if (lazy && svm_is_loaded(sv))
        wrmsr(index, value);
    svm_syscall_load(sv);
    return 0;
}
