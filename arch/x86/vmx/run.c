// SPDX-License-Identifier: MIT
// One entry into the guest, from the last look at what is asked of the vCPU to the decoded exit.
// The frequent way is a chain of tail calls, run - enter - exited - decode, so that no function on
// it has registers of its own to keep: what an exit costs is counted in instructions.
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

// Rounded up: an exit before the deadline would only mean another entry (SDM 3C 25.5.1). A guest
// with interrupts off is looked after every millisecond: where it is entered like that, Bochs 3.0
// keeps the host's interrupts from ending its turn until it changes IF.
static inline void preemption_timer_set(u64 ticks)
{
    if (!(vmread(VMCS_GUEST_RFLAGS) & RFLAGS_IF))
        ticks = MIN(ticks, vmx_caps.slice_ticks);
    u64 count = (ticks >> vmx_caps.timer_shift) + 1;
    vmwrite(VMCS_PREEMPTION_TIMER, MIN(count, 0xffffffffull));
}

static void leave(struct vmx_vcpu *vx, struct vm_exit *x, enum exit_kind kind)
{
    vx->v->in_guest = false;
    irq_enable();
    x->kind = kind;
    x->entered = false;
}

static inline void enter(struct vmx_vcpu *vx, struct vm_exit *x)
{
    u64 now = rdtsc();
    if (unlikely(now >= vx->deadline_tsc)) {
        leave(vx, x, EXIT_TIMER);
        return;
    }
    if (vmx_caps.preemption_timer)
        preemption_timer_set(vx->deadline_tsc - now);
    vmx_enter(vx->v->gpr, vx, x);
}

static void take_requests(struct vmx_vcpu *vx)
{
    u32 bits = __atomic_exchange_n(&vx->requests, 0, __ATOMIC_SEQ_CST);
    if (bits & VMX_REQ_TLB)
        vmx_flush_vpid(vx->vpid);
    if (bits & VMX_REQ_PML)
        vmx_pml_sync(vx);
}

// Something is asked of the vCPU before it enters, or instead.
static __attribute__((noinline)) void run_asked(struct vmx_vcpu *vx, struct vm_exit *x)
{
    struct vmx_guest *vg = vx->vg;
    if (vx->v->kick) {
        leave(vx, x, EXIT_INTERRUPT);
        return;
    }
    if (vx->triple_fault) {
        leave(vx, x, EXIT_TRIPLE_FAULT);
        return;
    }
    if (rdtsc() >= vx->deadline_tsc) { // before an event is moved into the VMCS
        leave(vx, x, EXIT_TIMER);
        return;
    }
    if (!vmx_caps.preemption_timer)
        slice_set(vx, vx->deadline_tsc);
    if (vg->cpu_gen[vx->host_cpu] != vg->flush_gen)
        vmx_flush_ept_here(vg);
    if (vx->requests)
        take_requests(vx);
    if (vx->queued)
        vmx_events_enter(vx);
    if (vmx_caps.preemption_timer) {
        u64 now = rdtsc();
        preemption_timer_set(now < vx->deadline_tsc ? vx->deadline_tsc - now : 0);
    }
    vmx_enter(vx->v->gpr, vx, x);
}

void vmx_vcpu_run(struct vcpu *v, u64 deadline_tsc, struct vm_exit *x)
{
    struct vmx_vcpu *vx = vmx_of(v);
    struct vmx_guest *vg = vx->vg;
    x->insn_len = 0;
    x->entered = true;
    vx->deadline_tsc = deadline_tsc;
    irq_disable();
    // Ordered before the reads of kick, flush_gen and requests; their writers write first and then
    // read in_guest. Whoever asks after this throws us out.
    (void)__atomic_exchange_n(&v->in_guest, true, __ATOMIC_SEQ_CST);
    bool asked = v->kick | vx->queued | !vmx_caps.preemption_timer;
    if (unlikely(asked || vx->requests || vg->cpu_gen[vx->host_cpu] != vg->flush_gen))
        run_asked(vx, x);
    else
        enter(vx, x);
}

// Called by vmx_enter when the CPU refused the VMCS as a whole, interrupts off.
void vmx_refused(struct vmx_vcpu *vx, struct vm_exit *x, u32 how)
{
    leave(vx, x, EXIT_FATAL);
    x->fatal.code = how == VMX_FAIL_VALID ? vmread(VMCS_INSTRUCTION_ERROR) : 0;
    x->fatal.info = 0;
    x->fatal.info2 = 0;
    x->fatal.text =
        how == VMX_FAIL_VALID ? vmx_instruction_error(x->fatal.code) : "VM entry without a VMCS";
}

// What belongs to the host is given to it at once, with interrupts still off.
static __attribute__((noinline)) void host_event(struct vmx_vcpu *vx, struct vm_exit *x, u32 reason)
{
    u32 info = vmread(VMCS_EXIT_INTERRUPTION);
    x->kind = EXIT_INTERRUPT;
    if (reason == REASON_EXTERNAL_INTERRUPT) {
        irq_dispatch(info & 0xff);
        irq_enable();
        return;
    }
    bool nmi = (info >> 8 & 7) == INTR_NMI;
    if (!nmi && (info & 0xff) != VECTOR_MC) {
        irq_enable();
        vmx_exit_decode(vx, x, reason);
        return;
    }
    if (nmi)
        __asm__ volatile("int $2" : : : "memory"); // its IRET unblocks NMIs
    else
        __asm__ volatile("int $18" : : : "memory");
    vmx_events_keep_vectoring(vx); // a machine check can come in the middle of a delivery
    irq_enable();
}

static inline void exited(struct vmx_vcpu *vx, struct vm_exit *x)
{
    vx->exit_seq++;
    vx->launched = 1;
    vx->v->in_guest = false;
    u32 reason = vmread(VMCS_EXIT_REASON);
    if (reason <= REASON_EXTERNAL_INTERRUPT) {
        host_event(vx, x, reason);
        return;
    }
    irq_enable();
    vmx_exit_decode(vx, x, reason);
}

static __attribute__((noinline)) void exited_with_pml(struct vmx_vcpu *vx, struct vm_exit *x)
{
    vmx_pml_drain(vx);
    exited(vx, x);
}

// Called by vmx_enter after an exit, interrupts off.
void vmx_exited(struct vmx_vcpu *vx, struct vm_exit *x)
{
    if (unlikely(vx->pml_on))
        exited_with_pml(vx, x);
    else
        exited(vx, x);
}
