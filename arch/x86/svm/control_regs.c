// SPDX-License-Identifier: MIT
// CR4 and CR8. CR0 and CR3 are the guest's own; CR4 is not, because features its CPUID hides must
// stay off and machine checks must stay on (APM 2 3.1.3, 15.8.1).
#include "arch/x86/guest_cpu.h"
#include "arch/x86/svm/svm.h"
#include "kernel/lib.h"

void svm_cr4_set(struct svm_vcpu *sv, u64 value)
{
    sv->cr4 = value;
    sv->vmcb->cr4 = value | CR4_MCE;
}

static u64 *gpr_of(struct svm_vcpu *sv, u8 gpr)
{
    return gpr == GPR_RSP ? &sv->vmcb->rsp : &sv->v->gpr[gpr];
}

static bool code_is_64bit(const struct svm_vcpu *sv)
{
    return (sv->vmcb->efer & EFER_LMA) && (sv->vmcb->cs.attr & CS_LONG);
}

static bool cr4_write(struct svm_vcpu *sv, u64 value)
{
    if (!guest_cr4_write_valid(sv->cr4, value, sv->cr4_allowed, sv->vmcb->cr3, sv->vmcb->efer))
        return false;
    svm_cr4_set(sv, value);
    svm_invalidate_guest_tlb(sv->v);
    return true;
}

static void unreadable(struct svm_vcpu *sv, struct vm_exit *x)
{
    x->kind = EXIT_FATAL;
    x->fatal.code = sv->vmcb->exit_code;
    x->fatal.info = sv->vmcb->exit_info1;
    x->fatal.info2 = sv->vmcb->rip;
    x->fatal.text = "the instruction that accesses a control register can't be read";
}

void svm_exit_cr4(struct svm_vcpu *sv, bool write, struct vm_exit *x)
{
    u8 gpr, len;
    if (!svm_insn_mov_cr(sv, &gpr, &len)) {
        unreadable(sv, x);
        return;
    }
    u64 *reg = gpr_of(sv, gpr);
    x->kind = EXIT_RETRY;
    if (!write)
        *reg = sv->cr4;
    else if (!cr4_write(sv, code_is_64bit(sv) ? *reg : (u32)*reg)) {
        svm_inject_exception(sv->v, VECTOR_GP, true, 0);
        return;
    }
    svm_skip_insn(sv->v, len);
}

void svm_exit_cr8(struct svm_vcpu *sv, struct vm_exit *x)
{
    u8 gpr, len;
    if (!svm_insn_mov_cr(sv, &gpr, &len)) {
        unreadable(sv, x);
        return;
    }
    x->kind = EXIT_CR8;
    x->insn_len = len;
    x->cr8.gpr = gpr;
    x->cr8.write = true;
}
