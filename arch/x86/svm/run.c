// SPDX-License-Identifier: MIT
// One entry into the guest, from the last look at what is asked of the vCPU to the decoded exit.
#include "arch/x86/svm/svm.h"
#include "kernel/lib.h"

static void slice_over(struct ktimer *t)
{
    // Its interrupt has ended the guest's turn.
    container_of(t, struct svm_vcpu, slice)->slice_deadline = ~0ull;
}

// The host's timer bounds the turn. One that is armed for an earlier moment stays: an exit too many
// costs less than a new timer at each entry. Interrupts are off: a timer that is due meanwhile
// still comes, and ends the guest's turn at once.
static void slice_set(struct svm_vcpu *sv, u64 deadline_tsc)
{
    if (deadline_tsc >= sv->slice_deadline)
        return;
    sv->slice_deadline = deadline_tsc;
    ktimer_set(&sv->slice, time_from_tsc(deadline_tsc) + 1, slice_over);
}

// A guest may spin for as long as nobody else wants its CPU. One who does may be another of its
// vCPUs, for which it waits (APM 2 15.14.4). Who becomes ready later ends the guest's turn, and
// this is seen to again.
static void pause_set(struct svm_vcpu *sv)
{
    vmcb_intercept(sv->vmcb, SVM_EXIT_PAUSE, thread_others_ready());
}

enum { ENTER = EXIT_KINDS };

// Interrupts are off and in_guest is set: whoever asks for something after this throws us out, and
// what was asked before is seen here. Returns ENTER, or the exit to report instead of entering.
static unsigned prepare(struct svm_vcpu *sv, u64 deadline_tsc)
{
    if (unlikely(sv->v->kick))
        return EXIT_INTERRUPT;
    if (unlikely(rdtsc() >= deadline_tsc))
        return EXIT_TIMER;
    if (unlikely(thread_need_resched()))
        return EXIT_INTERRUPT; // woken since the vCPU's thread asked
    if (unlikely(sv->triple_fault))
        return EXIT_TRIPLE_FAULT;
    slice_set(sv, deadline_tsc);
    pause_set(sv);
    sv->vmcb->event_inj = 0;
    if (unlikely(sv->queued))
        svm_events_enter(sv);
    if (unlikely(sv->nmi_window))
        svm_nmi_enter(sv);
    bool shadow = unlikely(svm_caps.qemu) && svm_qemu_shadow_enter(sv);
    if (unlikely(sv->window_open) && !shadow)
        sv->vmcb->int_ctl |= V_IRQ_WINDOW;
    svm_tlb_enter(sv);
    return ENTER;
}

// Written anew each time: an exit may leave V_IRQ behind in either state. CR8 is the VMCB's while
// the guest runs. It is only written without an exit while it is 0, when it holds nothing back:
// lowering it must make the local APIC look for work.
static void int_ctl_load(struct svm_vcpu *sv)
{
    struct vmcb *b = sv->vmcb;
    sv->tpr = (u8)platform_get_cr8(sv->v);
    b->int_ctl = V_INTR_MASKING | sv->tpr;
    b->intercept_cr_write = BIT(4) | (sv->tpr ? BIT(8) : 0);
}

static void tpr_store(struct svm_vcpu *sv)
{
    u8 tpr = sv->vmcb->int_ctl & 0xf;
    if (unlikely(tpr != sv->tpr))
        platform_set_cr8(sv->v, tpr);
}

static void enter_once(struct svm_vcpu *sv, struct vm_exit *x)
{
    struct vcpu *v = sv->v;
    u64 injected = sv->vmcb->event_inj;
    sv->vmcb->rax = v->gpr[GPR_RAX];
    svm_enter(v->gpr, sv->vmcb_pa, svm_this_cpu()->host_pa);
    v->gpr[GPR_RAX] = sv->vmcb->rax;
    svm_trail_add(sv, injected);
    sv->exit_seq++;
    v->in_guest = false;
    if (unlikely(svm_caps.qemu))
        svm_qemu_exit(sv);
    irq_enable(); // what ended the guest's turn, if an interrupt did, is served here
    tpr_store(sv);
    svm_exit_decode(sv, x);
}

void svm_vcpu_run(struct vcpu *v, u64 deadline_tsc, struct vm_exit *x)
{
    struct svm_vcpu *sv = svm_of(v);
    x->insn_len = 0;
    x->entered = true;
    int_ctl_load(sv);
    irq_disable();
    // Ordered before the reads of kick, flush_gen and flush_wanted; their writers write first and
    // then read in_guest.
    (void)__atomic_exchange_n(&v->in_guest, true, __ATOMIC_SEQ_CST);
    unsigned kind = prepare(sv, deadline_tsc);
    if (kind == ENTER) {
        enter_once(sv, x);
        return;
    }
    v->in_guest = false;
    irq_enable();
    x->kind = kind;
    x->entered = false;
}
