// SPDX-License-Identifier: MIT
// System calls of guests on a CPU level. They see an Intel CPU, whose SYSENTER and SYSEXIT work in
// long mode and whose SYSCALL does not work in 32-bit code; here it is the other way round
// (APM 3, SYSENTER, SYSEXIT and SYSCALL). SYSRET differs in what it makes of SS.
#include "arch/x86/svm/svm.h"

#define SELECTOR_RPL  3u
#define KERNEL_CODE   0xa9b // 64-bit, present, accessed (SDM 2B, SYSENTER)
#define KERNEL_CODE32 0xc9b
#define FLAT_DATA     0xc93
#define DPL_USER      (3u << 5)
#define ATTR_PRESENT  BIT(7)
#define RFLAGS_VM     BIT(17)
#define REX_W         BIT(3)

u64 *svm_level_msr(struct svm_vcpu *sv, u32 index)
{
    switch (sv->level ? index : 0) {
    case MSR_SYSENTER_CS:
        return &sv->sys.sysenter_cs;
    case MSR_SYSENTER_ESP:
        return &sv->sys.sysenter_esp;
    case MSR_SYSENTER_EIP:
        return &sv->sys.sysenter_eip;
    case MSR_CSTAR:
        return &sv->sys.cstar;
    }
    return NULL;
}

// This hardware keeps 32 bits of two of them, which is what legacy mode needs. A kernel that knows
// itself on Intel leaves CSTAR zero, and SYSCALL from 32-bit code would run address zero as the
// kernel: such a call goes to LSTAR, where a program may get by a far jump to 64-bit code as well.
void svm_syscall_load(struct svm_vcpu *sv)
{
    struct vmcb *b = sv->vmcb;
    if (!sv->level)
        return;
    b->sysenter_cs = sv->sys.sysenter_cs;
    b->sysenter_esp = sv->sys.sysenter_esp;
    b->sysenter_eip = sv->sys.sysenter_eip;
    b->cstar = sv->sys.cstar ? sv->sys.cstar : b->lstar;
}

static void load_flat(struct svm_vcpu *sv, u16 code_selector, u16 code_attr, u8 cpl)
{
    u16 dpl = cpl ? DPL_USER : 0, rpl = cpl;
    struct segment cs = {0, ~0u, code_selector | rpl, code_attr | dpl};
    struct segment ss = {0, ~0u, (u16)(code_selector + 8) | rpl, FLAT_DATA | dpl};
    svm_segment_write(sv, SEG_CS, &cs);
    svm_segment_write(sv, SEG_SS, &ss);
    sv->vmcb->cpl = cpl;
}

static void sysenter(struct svm_vcpu *sv)
{
    struct vmcb *b = sv->vmcb;
    u16 cs = sv->sys.sysenter_cs & ~SELECTOR_RPL;
    if (!cs) {
        svm_inject_exception(sv->v, VECTOR_GP, true, 0);
        return;
    }
    b->rflags &= ~(RFLAGS_VM | RFLAGS_IF);
    load_flat(sv, cs, KERNEL_CODE, 0);
    b->rip = sv->sys.sysenter_eip;
    b->rsp = sv->sys.sysenter_esp;
}

static void sysexit(struct svm_vcpu *sv, bool to_64bit)
{
    struct vmcb *b = sv->vmcb;
    u16 cs = sv->sys.sysenter_cs & ~SELECTOR_RPL;
    u64 rip = sv->v->gpr[GPR_RDX], rsp = sv->v->gpr[GPR_RCX];
    if (!cs || b->cpl) {
        svm_inject_exception(sv->v, VECTOR_GP, true, 0);
        return;
    }
    load_flat(sv, cs + (to_64bit ? 32 : 16), to_64bit ? KERNEL_CODE : KERNEL_CODE32, 3);
    b->rip = to_64bit ? rip : (u32)rip;
    b->rsp = to_64bit ? rsp : (u32)rsp;
}

bool svm_syscall_emulate(struct svm_vcpu *sv)
{
    u8 rex;
    if (!sv->level || !(sv->vmcb->efer & EFER_LMA))
        return false;
    if (svm_insn_is(sv, 0x0f, 0x34, &rex))
        sysenter(sv);
    else if (svm_insn_is(sv, 0x0f, 0x35, &rex))
        sysexit(sv, rex & REX_W);
    else
        return false;
    sv->vmcb->int_state &= ~INT_SHADOW;
    return true;
}

// SYSRET leaves SS as it is here but for the selector. From an interrupt in 64-bit mode it may be
// empty, and 32-bit code gets #SS when it uses its stack; Intel's SYSRET loads it flat. Kernels
// work around that on CPUs they know to be AMD's.
bool svm_sysret_repair(struct svm_vcpu *sv)
{
    struct vmcb *b = sv->vmcb;
    bool program32 = (b->efer & EFER_LMA) && !(b->cs.attr & CS_LONG) && b->cpl == 3;
    u16 sysret_ss = (u16)((b->star >> 48) + 8) | SELECTOR_RPL;
    if (!sv->level || !program32 || b->ss.selector != sysret_ss || (b->ss.attr & ATTR_PRESENT))
        return false;
    struct segment ss = {0, ~0u, sysret_ss, FLAT_DATA | DPL_USER};
    svm_segment_write(sv, SEG_SS, &ss);
    return true;
}
