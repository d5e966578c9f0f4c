// SPDX-License-Identifier: MIT
// NMI blocking, which this hardware leaves to the hypervisor: from an NMI until the end of the IRET
// that follows (APM 2 15.20, 15.9 "IRET").
#include "arch/x86/svm/svm.h"

void svm_nmi_block(struct svm_vcpu *sv, bool blocked)
{
    sv->nmi_blocked = blocked;
    vmcb_intercept(sv->vmcb, SVM_EXIT_IRET, blocked);
}

// One instruction with TF set; the #DB behind it exits and goes no further.
void svm_step_start(struct svm_vcpu *sv, enum svm_step why)
{
    sv->step = why;
    sv->step_tf = sv->vmcb->rflags & RFLAGS_TF;
    sv->vmcb->rflags |= RFLAGS_TF;
}

// Where the stepped instruction was an IRET, RFLAGS holds what that has loaded.
void svm_step_done(struct svm_vcpu *sv)
{
    if (sv->step == STEP_IRET)
        sv->nmi_blocked = false;
    else if (!sv->step_tf)
        sv->vmcb->rflags &= ~RFLAGS_TF;
    sv->step = STEP_NONE;
}

// Its handler must neither run with our TF nor find it in its frame. The IRET will exit again.
void svm_step_cancel(struct svm_vcpu *sv)
{
    if (!sv->step_tf)
        sv->vmcb->rflags &= ~RFLAGS_TF;
    if (sv->step == STEP_IRET)
        vmcb_intercept(sv->vmcb, SVM_EXIT_IRET, true);
    sv->step = STEP_NONE;
}

bool svm_step_ends(struct svm_vcpu *sv)
{
    const u64 breakpoints = 0xf;
    if (!sv->step)
        return false;
    svm_step_done(sv);
    if (sv->step_tf || (sv->vmcb->dr6 & breakpoints))
        return false; // the guest has a #DB of its own
    sv->vmcb->dr6 &= ~DR6_BS;
    return true;
}

u64 svm_rflags(const struct svm_vcpu *sv)
{
    u64 rflags = sv->vmcb->rflags;
    return sv->step && !sv->step_tf ? rflags & ~RFLAGS_TF : rflags;
}

// The exit comes before the instruction, NMIs are possible after it.
void svm_exit_iret(struct svm_vcpu *sv, struct vm_exit *x)
{
    vmcb_intercept(sv->vmcb, SVM_EXIT_IRET, false);
    if (!sv->step)
        svm_step_start(sv, STEP_IRET);
    x->kind = EXIT_RETRY;
}

void svm_want_nmi_window(struct vcpu *v, bool on)
{
    svm_of(v)->nmi_window = on;
}

// Somebody waits for NMIs to be possible. Where an IRET is what is waited for, its intercept or
// step ends the wait.
void svm_nmi_enter(struct svm_vcpu *sv)
{
    if (sv->nmi_blocked || sv->step)
        return;
    if (sv->vmcb->event_inj & EVENT_VALID)
        cpu_kick(this_cpu()->index); // pending at once: exits when the event has been delivered
    else if (sv->vmcb->int_state & INT_SHADOW)
        svm_step_start(sv, STEP_SHADOW);
}
