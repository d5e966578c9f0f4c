// SPDX-License-Identifier: MIT
// Hardware exits made neutral (APM 2 15.7, 15.9 to 15.14, appendix C).
#include "arch/x86/svm/svm.h"
#include "kernel/lib.h"

// Exits that only need their name: kind, and the length of the opcode without prefixes.
static const struct {
    u8 kind, opcode_len;
} plain[0x30] = {
#define PLAIN(code, kind, len) [(code)-SVM_EXIT_INTR] = {kind, len}
    PLAIN(SVM_EXIT_RDPMC, EXIT_GP, 2),          PLAIN(SVM_EXIT_CPUID, EXIT_CPUID, 2),
    PLAIN(SVM_EXIT_RSM, EXIT_UNDEFINED, 2),     PLAIN(SVM_EXIT_INVD, EXIT_INVD, 2),
    PLAIN(SVM_EXIT_PAUSE, EXIT_PAUSE, 1),       PLAIN(SVM_EXIT_HLT, EXIT_HLT, 1),
    PLAIN(SVM_EXIT_INVLPGA, EXIT_UNDEFINED, 3), PLAIN(SVM_EXIT_VMRUN, EXIT_UNDEFINED, 3),
    PLAIN(SVM_EXIT_VMMCALL, EXIT_HYPERCALL, 3), PLAIN(SVM_EXIT_VMLOAD, EXIT_UNDEFINED, 3),
    PLAIN(SVM_EXIT_VMSAVE, EXIT_UNDEFINED, 3),  PLAIN(SVM_EXIT_STGI, EXIT_UNDEFINED, 3),
    PLAIN(SVM_EXIT_CLGI, EXIT_UNDEFINED, 3),    PLAIN(SVM_EXIT_SKINIT, EXIT_UNDEFINED, 3),
    PLAIN(SVM_EXIT_WBINVD, EXIT_INVD, 2),       PLAIN(SVM_EXIT_MONITOR, EXIT_UNDEFINED, 3),
    PLAIN(SVM_EXIT_MWAIT, EXIT_UNDEFINED, 3),   PLAIN(SVM_EXIT_MWAIT_COND, EXIT_UNDEFINED, 3),
    PLAIN(SVM_EXIT_XSETBV, EXIT_XSETBV, 3),     PLAIN(SVM_EXIT_RDPRU, EXIT_UNDEFINED, 3),
#undef PLAIN
};

static bool plain_exit(struct svm_vcpu *sv, u64 code, struct vm_exit *x)
{
    u64 i = code - SVM_EXIT_INTR;
    if (i >= ARRAY_SIZE(plain) || !plain[i].opcode_len)
        return false;
    x->kind = plain[i].kind;
    if (x->kind != EXIT_UNDEFINED && x->kind != EXIT_GP) // these do not get past the instruction
        x->insn_len = svm_insn_len(sv, plain[i].opcode_len);
    return true;
}

static void fatal_exit(struct svm_vcpu *sv, const char *text, struct vm_exit *x)
{
    x->kind = EXIT_FATAL;
    x->fatal.code = sv->vmcb->exit_code;
    x->fatal.info = sv->vmcb->exit_info1;
    x->fatal.info2 = sv->vmcb->exit_info2;
    x->fatal.text = text;
}

static void io_exit(struct svm_vcpu *sv, struct vm_exit *x)
{
    u64 info = sv->vmcb->exit_info1;
    x->kind = EXIT_IO;
    x->insn_len = (u8)(sv->vmcb->exit_info2 - sv->vmcb->rip);
    x->io.port = IOIO_PORT(info);
    x->io.size = IOIO_SIZE(info);
    x->io.in = info & IOIO_IN;
    x->io.string = info & IOIO_STRING;
    x->io.rep = info & IOIO_REP;
}

static void msr_exit(struct svm_vcpu *sv, struct vm_exit *x)
{
    x->kind = sv->vmcb->exit_info1 & 1 ? EXIT_WRMSR : EXIT_RDMSR;
    x->insn_len = svm_insn_len(sv, 2);
    x->msr.index = (u32)sv->v->gpr[GPR_RCX];
}

// Either code may stand for either instruction: QEMU reports RDTSCP as RDTSC.
static void rdtsc_exit(struct svm_vcpu *sv, struct vm_exit *x)
{
    u8 rex;
    bool aux = svm_insn_is(sv, 0x0f, 0x01, &rex) || sv->vmcb->exit_code == SVM_EXIT_RDTSCP;
    x->kind = aux && !svm_caps.rdtscp ? EXIT_UNDEFINED : EXIT_RDTSC;
    x->insn_len = svm_insn_len(sv, aux ? 3 : 2);
    x->rdtsc.aux = aux;
}

static void exception_exit(struct svm_vcpu *sv, u8 vector, struct vm_exit *x)
{
    x->kind = EXIT_RETRY;
    if (vector == VECTOR_DB && svm_step_ends(sv)) {
        if (sv->nmi_window)
            x->kind = EXIT_NMI_WINDOW;
    } else if (vector == VECTOR_DB || vector == VECTOR_AC) {
        svm_exception_reflect(sv, vector);
    } else if (vector == VECTOR_SS) {
        if (!svm_sysret_repair(sv))
            svm_exception_reflect(sv, vector);
    } else if (vector == VECTOR_UD) {
        if (!svm_syscall_emulate(sv))
            svm_inject_exception(sv->v, VECTOR_UD, false, 0);
    } else if (vector == VECTOR_MC) {
        fatal_exit(sv, "machine check while the guest ran", x);
    } else {
        fatal_exit(sv, "exit for an exception nobody asked for", x);
    }
}

// An interrupt has been served already. It may be one that was sent to get here after an injection.
static void host_event(struct svm_vcpu *sv, struct vm_exit *x)
{
    x->kind = EXIT_INTERRUPT;
    if (unlikely(sv->nmi_window) && svm_can_inject_nmi(sv->v))
        x->kind = EXIT_NMI_WINDOW;
}

static void rare_exit(struct svm_vcpu *sv, u64 code, struct vm_exit *x)
{
    switch (code) {
    case SVM_EXIT_SHUTDOWN:
        x->kind = EXIT_TRIPLE_FAULT;
        break;
    case SVM_EXIT_NMI:
    case SVM_EXIT_INIT:
        x->kind = EXIT_INTERRUPT; // taken by the host when GIF was set again
        break;
    case SVM_EXIT_IRET:
        svm_exit_iret(sv, x);
        break;
    case SVM_EXIT_INVLPGB ... SVM_EXIT_INVLPGB + 1:
    case SVM_EXIT_MCOMMIT ... SVM_EXIT_TLBSYNC:
        x->kind = EXIT_UNDEFINED;
        break;
    case SVM_EXIT_EXCEPTION ... SVM_EXIT_EXCEPTION + 31:
        exception_exit(sv, (u8)(code - SVM_EXIT_EXCEPTION), x);
        break;
    case SVM_EXIT_INVALID:
        svm_tlb_failed(sv);
        fatal_exit(sv, "VMRUN refused the guest's state (APM 2 15.5.1)", x);
        break;
    default:
        fatal_exit(sv, "unknown exit code", x);
    }
}

void svm_exit_decode(struct svm_vcpu *sv, struct vm_exit *x)
{
    u64 code = sv->vmcb->exit_code;
    if (unlikely(code == (u32)SVM_EXIT_INVALID)) // QEMU writes 32 bits of it
        code = SVM_EXIT_INVALID;
    bool vectoring = false;
    if (unlikely(sv->vmcb->exit_int_info & EVENT_VALID) && code != SVM_EXIT_INVALID) {
        svm_events_keep_vectoring(sv);
        vectoring = true;
    }
    switch (code) {
    case SVM_EXIT_INTR:
        host_event(sv, x);
        break;
    case SVM_EXIT_IOIO:
        io_exit(sv, x);
        break;
    case SVM_EXIT_MSR:
        msr_exit(sv, x);
        break;
    case SVM_EXIT_NPF:
        svm_exit_npf(sv, vectoring, x);
        break;
    case SVM_EXIT_RDTSC:
    case SVM_EXIT_RDTSCP:
        rdtsc_exit(sv, x);
        break;
    case SVM_EXIT_VINTR:
        x->kind = EXIT_IRQ_WINDOW;
        break;
    case 4:
        svm_exit_cr4(sv, false, x);
        break;
    case SVM_EXIT_CR_WRITE + 4:
        svm_exit_cr4(sv, true, x);
        break;
    case SVM_EXIT_CR_WRITE + 8:
        svm_exit_cr8(sv, x);
        break;
    default:
        if (!plain_exit(sv, code, x))
            rare_exit(sv, code, x);
    }
}

void svm_skip_insn(struct vcpu *v, u32 len)
{
    struct svm_vcpu *sv = svm_of(v);
    struct vmcb *b = sv->vmcb;
    u64 next = b->rip + len;
    if (unlikely((b->rip ^ next) >> 32) && !((b->efer & EFER_LMA) && (b->cs.attr & CS_LONG)))
        next = (u32)next; // only 64-bit code goes past 4 GiB
    b->rip = next;
    b->int_state &= ~INT_SHADOW;
    bool step = svm_rflags(sv) & RFLAGS_TF;
    if (unlikely(sv->step))
        svm_step_done(sv);
    if (unlikely(step)) {
        // The trap behind this instruction is still owed to the guest (APM 2 13.1.4).
        b->dr6 |= DR6_BS;
        svm_inject_exception(v, VECTOR_DB, false, 0);
    }
}
