// SPDX-License-Identifier: MIT
// One entry into the guest, from the last look at what is asked of the vCPU to the decoded exit.
#include "arch/x86/vmx/vmx.h"
#include "kernel/lib.h"

static void slice_over(struct ktimer *t)
{
    (void)t; // its interrupt has ended the guest's turn
}

// Where there is no preemption timer, the host's own timer bounds the turn.
static void slice_set(struct vmx_vcpu *vx, u64 deadline_tsc)
{
    if (vx->slice_deadline == deadline_tsc)
        return;
    vx->slice_deadline = deadline_tsc;
    if (deadline_tsc == ~0ull)
        ktimer_cancel(&vx->slice);
    else
        ktimer_set(&vx->slice, time_from_tsc(deadline_tsc), slice_over);
}

// Rounded up: an exit before the deadline would only mean another entry (SDM 3C 25.5.1).
static void preemption_timer_set(u64 ticks)
{
    u64 count = (ticks >> vmx_caps.timer_shift) + 1;
    vmwrite(VMCS_PREEMPTION_TIMER, MIN(count, 0xffffffffull));
}

static void take_requests(struct vmx_vcpu *vx)
{
    u32 bits = __atomic_exchange_n(&vx->requests, 0, __ATOMIC_SEQ_CST);
    if (bits & VMX_REQ_TLB)
        vmx_flush_vpid(vx->vpid);
    if (bits & VMX_REQ_PML)
        vmx_pml_sync(vx);
}

enum { ENTER = EXIT_KINDS };

// Interrupts are off and in_guest is set: whoever asks for something after this throws us out, and
// what was asked before is seen here. Returns ENTER, or the exit to report instead of entering.
static unsigned prepare(struct vmx_vcpu *vx, u64 deadline_tsc)
{
    struct vmx_guest *vg = vx->vg;
    if (unlikely(vx->v->kick))
        return EXIT_INTERRUPT;
    if (vmx_caps.preemption_timer) {
        u64 now = rdtsc();
        if (unlikely(now >= deadline_tsc))
            return EXIT_TIMER;
        preemption_timer_set(deadline_tsc - now);
    } else if (rdtsc() >= deadline_tsc) {
        return EXIT_TIMER;
    }
    if (unlikely(vg->cpu_gen[vx->host_cpu] != vg->flush_gen))
        vmx_flush_ept_here(vg);
    if (unlikely(vx->requests))
        take_requests(vx);
    if (unlikely(vx->queued)) {
        if (vx->triple_fault)
            return EXIT_TRIPLE_FAULT;
        vmx_events_enter(vx);
    }
    return ENTER;
}

static void refused(u32 how, struct vm_exit *x)
{
    x->kind = EXIT_FATAL;
    x->fatal.code = how == 2 ? vmread(VMCS_INSTRUCTION_ERROR) : 0;
    x->fatal.info = 0;
    x->fatal.info2 = 0;
    x->fatal.text = how == 2 ? vmx_instruction_error(x->fatal.code) : "VM entry without a VMCS";
}

// What belongs to the host is given to it at once, with interrupts still off. Returns true when
// that was all.
static bool host_event(u32 reason, struct vm_exit *x)
{
    if (reason == REASON_EXTERNAL_INTERRUPT) {
        irq_dispatch(vmread(VMCS_EXIT_INTERRUPTION) & 0xff);
    } else if (reason == REASON_EXCEPTION) {
        u32 info = vmread(VMCS_EXIT_INTERRUPTION);
        if ((info >> 8 & 7) == INTR_NMI)
            __asm__ volatile("int $2" : : : "memory"); // its IRET unblocks NMIs
        else if ((info & 0xff) == VECTOR_MC)
            __asm__ volatile("int $18" : : : "memory");
        else
            return false;
    } else {
        return false;
    }
    x->kind = EXIT_INTERRUPT;
    return true;
}

static void enter_once(struct vmx_vcpu *vx, struct vm_exit *x)
{
    u32 failed = vmx_enter(vx->v->gpr, vx);
    if (unlikely(vx->pml_on))
        vmx_pml_drain(vx);
    vx->exit_seq++;
    vx->v->in_guest = false;
    if (unlikely(failed)) {
        irq_enable();
        refused(failed, x);
        return;
    }
    u32 reason = vmread(VMCS_EXIT_REASON);
    if (reason <= REASON_EXTERNAL_INTERRUPT && host_event(reason, x)) {
        vx->launched = 1;
        if (reason == REASON_EXCEPTION) // a machine check can come in the middle of a delivery
            vmx_events_keep_vectoring(vx);
        irq_enable();
        return;
    }
    irq_enable();
    if (!(reason & EXIT_ENTRY_FAILED))
        vx->launched = 1;
    vmx_exit_decode(vx, reason, x);
}

void vmx_vcpu_run(struct vcpu *v, u64 deadline_tsc, struct vm_exit *x)
{
    struct vmx_vcpu *vx = vmx_of(v);
    x->insn_len = 0;
    if (!vmx_caps.preemption_timer)
        slice_set(vx, deadline_tsc);
    irq_disable();
    // Ordered before the reads of kick, flush_gen and requests; their writers write first and then
    // read in_guest.
    (void)__atomic_exchange_n(&v->in_guest, true, __ATOMIC_SEQ_CST);
    unsigned kind = prepare(vx, deadline_tsc);
    if (kind == ENTER) {
        enter_once(vx, x);
        return;
    }
    v->in_guest = false;
    irq_enable();
    x->kind = kind;
}
