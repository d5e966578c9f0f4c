// SPDX-License-Identifier: MIT
// Hardware exits made neutral (SDM 3C 27.2, appendix C).
#include "arch/x86/vmx/vmx.h"
#include "kernel/lib.h"

static void insn_exit(struct vm_exit *x, enum exit_kind kind)
{
    x->kind = kind;
    x->insn_len = vmread(VMCS_EXIT_INSN_LEN);
}

static void fatal_exit(struct vm_exit *x, u32 reason, const char *text)
{
    x->kind = EXIT_FATAL;
    x->fatal.code = reason;
    x->fatal.info = vmread(VMCS_QUALIFICATION);
    x->fatal.info2 = vmread(VMCS_GUEST_PHYSICAL);
    x->fatal.text = text;
}

// SDM 3C table 27-5.
static void io_exit(struct vm_exit *x)
{
    u64 q = vmread(VMCS_QUALIFICATION);
    insn_exit(x, EXIT_IO);
    x->io.port = q >> 16;
    x->io.size = (q & 7) + 1;
    x->io.in = q >> 3 & 1;
    x->io.string = q >> 4 & 1;
    x->io.rep = q >> 5 & 1;
}

static void msr_exit(struct vmx_vcpu *vx, struct vm_exit *x, enum exit_kind kind)
{
    insn_exit(x, kind);
    x->msr.index = vx->v->gpr[GPR_RCX];
}

// An IRET that had unblocked NMIs faulted on its way: it will run again (SDM 3C 27.2.3).
static void restore_nmi_blocking(u64 qualification)
{
    if (qualification & QUAL_NMI_UNBLOCK)
        vmwrite(VMCS_INTERRUPTIBILITY, vmread(VMCS_INTERRUPTIBILITY) | BLOCK_NMI);
}

static void ept_violation(struct vmx_vcpu *vx, struct vm_exit *x)
{
    u64 q = vmread(VMCS_QUALIFICATION);
    u64 gpa = vmread(VMCS_GUEST_PHYSICAL);
    bool vectoring = vmx_events_keep_vectoring(vx);
    if (!vectoring)
        restore_nmi_blocking(q);
    if (np_fault(&vx->vg->np, gpa, q & EPT_QUAL_WRITE) == NP_FAULT_RETRY) {
        x->kind = EXIT_RETRY;
        return;
    }
    if (vectoring) {
        // No instruction to emulate: the guest's stack or descriptor tables are not in RAM.
        fatal_exit(x, REASON_EPT_VIOLATION, "event delivery through memory that is not RAM");
        return;
    }
    x->kind = EXIT_MMIO;
    x->mmio.gpa = gpa;
    x->mmio.gva_valid = q & EPT_QUAL_LINEAR_VALID;
    x->mmio.gva = x->mmio.gva_valid ? vmread(VMCS_GUEST_LINEAR) : 0;
    x->mmio.write = q & EPT_QUAL_WRITE;
    x->mmio.fetch = q & EPT_QUAL_FETCH;
}

// The buffer has been drained already. PML-full comes on any access that sets a dirty flag, also
// one made while an event was being delivered (SDM 3C 28.2.6).
static void pml_full(struct vmx_vcpu *vx, struct vm_exit *x)
{
    if (!vmx_events_keep_vectoring(vx))
        restore_nmi_blocking(vmread(VMCS_QUALIFICATION));
    x->kind = EXIT_RETRY;
}

static void exception(struct vmx_vcpu *vx, struct vm_exit *x)
{
    x->kind = EXIT_RETRY;
    if (!vmx_exit_exception(vx))
        fatal_exit(x, REASON_EXCEPTION, "exit for an exception nobody asked for");
}

static const char *fatal_text(u32 reason)
{
    switch (reason) {
    case REASON_BAD_GUEST_STATE:
        return "VM entry refused the guest's state";
    case 34:
        return "VM entry failed to load MSRs";
    case 41:
        return "machine check during VM entry";
    case REASON_TASK_SWITCH:
        return "hardware task switch";
    case REASON_EPT_MISCONFIG:
        return "EPT misconfiguration";
    default:
        return "unknown exit reason";
    }
}

// A failed entry leaves the launch state as it was (SDM 3C 26.8), which only a VMCLEAR makes known.
static void forget_launch(struct vmx_vcpu *vx)
{
    vmx_vmclear(vx->vmcs_pa);
    vmx_vmptrld(vx->vmcs_pa);
    vx->launched = 0;
}

// Exits that are frequent in no guest.
static __attribute__((noinline)) void rare_exit(struct vmx_vcpu *vx, u32 reason, struct vm_exit *x)
{
    switch (reason) {
    case REASON_EXCEPTION:
        exception(vx, x);
        break;
    case REASON_TRIPLE_FAULT:
        x->kind = EXIT_TRIPLE_FAULT;
        break;
    case REASON_INIT:
    case REASON_SIPI:
        x->kind = EXIT_INTERRUPT; // firmware's or another CPU's: nothing for this guest
        break;
    case REASON_NMI_WINDOW:
        x->kind = EXIT_NMI_WINDOW;
        break;
    case REASON_GETSEC:
    case REASON_VMCLEAR ... REASON_VMXON:
    case REASON_INVEPT:
    case REASON_INVVPID:
    case REASON_MWAIT:
    case REASON_MONITOR:
    case REASON_ENCLS:
        insn_exit(x, EXIT_UNDEFINED);
        break;
    case REASON_RDPMC:
        insn_exit(x, EXIT_GP);
        break;
    case REASON_INVD:
    case REASON_WBINVD:
        insn_exit(x, EXIT_INVD);
        break;
    case REASON_VMCALL:
        insn_exit(x, EXIT_HYPERCALL);
        break;
    case REASON_XSETBV:
        insn_exit(x, EXIT_XSETBV);
        break;
    case REASON_PAUSE:
        insn_exit(x, EXIT_PAUSE);
        break;
    default:
        vmx_events_keep_vectoring(vx);
        if (reason & EXIT_ENTRY_FAILED)
            forget_launch(vx);
        fatal_exit(x, reason, fatal_text(reason & 0xffff));
    }
}

static __attribute__((noinline)) void common_exit(struct vmx_vcpu *vx, struct vm_exit *x,
                                                  u32 reason)
{
    switch (reason) {
    case REASON_RDMSR:
        msr_exit(vx, x, EXIT_RDMSR);
        break;
    case REASON_WRMSR:
        msr_exit(vx, x, EXIT_WRMSR);
        break;
    case REASON_EPT_VIOLATION:
        ept_violation(vx, x);
        break;
    case REASON_RDTSC:
    case REASON_RDTSCP:
        insn_exit(x, EXIT_RDTSC);
        x->rdtsc.aux = reason == REASON_RDTSCP;
        break;
    case REASON_PREEMPTION_TIMER:
        x->kind = rdtsc() >= vx->deadline_tsc ? EXIT_TIMER : EXIT_INTERRUPT;
        break;
    case REASON_HLT:
        insn_exit(x, EXIT_HLT);
        break;
    case REASON_IRQ_WINDOW:
        x->kind = EXIT_IRQ_WINDOW;
        break;
    case REASON_CR_ACCESS:
        vmx_exit_cr_access(vx, x);
        break;
    case REASON_PML_FULL:
        pml_full(vx, x);
        break;
    default:
        rare_exit(vx, reason, x);
    }
}

void vmx_exit_decode(struct vmx_vcpu *vx, struct vm_exit *x, u32 reason)
{
    if (reason == REASON_IO)
        io_exit(x);
    else if (reason == REASON_CPUID)
        insn_exit(x, EXIT_CPUID);
    else
        common_exit(vx, x, reason);
}

static inline void skip(u32 len)
{
    u64 rip = vmread(VMCS_GUEST_RIP);
    u64 next = rip + len;
    if (unlikely((rip ^ next) >> 32) && !(vmread(VMCS_GUEST_RIGHTS + 2 * SEG_CS) & BIT(13)))
        next = (u32)next; // only 64-bit code goes past 4 GiB
    vmwrite(VMCS_GUEST_RIP, next);
    u64 blocked = vmread(VMCS_INTERRUPTIBILITY);
    if (unlikely(blocked & BLOCK_SHADOW))
        vmwrite(VMCS_INTERRUPTIBILITY, blocked & ~BLOCK_SHADOW);
    // A single step over this instruction is still owed its #DB (SDM 3C 24.4.2).
    if (unlikely(vmread(VMCS_GUEST_RFLAGS) & RFLAGS_TF) &&
        !(vmread(VMCS_GUEST_DEBUGCTL) & DEBUGCTL_BTF))
        vmwrite(VMCS_PENDING_DEBUG, vmread(VMCS_PENDING_DEBUG) | PENDING_DEBUG_BS);
}

static __attribute__((noinline)) void skip_unloaded(struct vmx_vcpu *vx, u32 len)
{
    struct vmx_vcpu *before = vmx_access_begin(vx);
    skip(len);
    vmx_access_end(vx, before);
}

void vmx_skip_insn(struct vcpu *v, u32 len)
{
    struct vmx_vcpu *vx = vmx_of(v);
    if (unlikely(!vmx_is_loaded(vx)))
        skip_unloaded(vx, len);
    else
        skip(len);
}
