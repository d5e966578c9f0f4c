// SPDX-License-Identifier: MIT
// Events on their way into the guest: injected ones, and those an exit cut short, which are
// delivered again (SDM 3C 24.8.3, 26.6, 27.2.4).
#include "arch/x86/vmx/vmx.h"
#include "kernel/lib.h"

void vmx_events_changed(struct vmx_vcpu *vx)
{
    vx->queued = vx->event.valid || vx->exception.valid || vx->triple_fault;
}

static bool irq_possible(void)
{
    return (vmread(VMCS_GUEST_RFLAGS) & RFLAGS_IF) &&
           !(vmread(VMCS_INTERRUPTIBILITY) & BLOCK_SHADOW);
}

bool vmx_can_inject_irq(struct vcpu *v)
{
    struct vmx_vcpu *vx = vmx_of(v);
    if (vx->queued)
        return false;
    struct vmx_vcpu *before = vmx_access_begin(vx);
    bool can = irq_possible();
    vmx_access_end(vx, before);
    return can;
}

bool vmx_can_inject_nmi(struct vcpu *v)
{
    struct vmx_vcpu *vx = vmx_of(v);
    if (vx->queued)
        return false;
    struct vmx_vcpu *before = vmx_access_begin(vx);
    bool can = !(vmread(VMCS_INTERRUPTIBILITY) & (BLOCK_SHADOW | BLOCK_NMI));
    vmx_access_end(vx, before);
    return can;
}

static void event_set(struct vmx_vcpu *vx, u8 type, u8 vector)
{
    assert(!vx->event.valid);
    vx->event = (struct pending_event){.valid = 1, .type = type, .vector = vector};
    vx->queued = true;
}

void vmx_inject_irq(struct vcpu *v, u8 vector)
{
    event_set(vmx_of(v), INTR_EXTERNAL, vector);
}

void vmx_inject_nmi(struct vcpu *v)
{
    event_set(vmx_of(v), INTR_NMI, VECTOR_NMI);
}

enum exception_class { BENIGN, CONTRIBUTORY, PAGE_FAULT, DOUBLE_FAULT };

static enum exception_class class_of(u8 vector)
{
    if (vector == 0 || (vector >= 10 && vector <= 13))
        return CONTRIBUTORY;
    return vector == VECTOR_PF ? PAGE_FAULT : vector == VECTOR_DF ? DOUBLE_FAULT : BENIGN;
}

// The exception a second one meets while it is being delivered, if any.
static const struct pending_event *first_exception(const struct vmx_vcpu *vx)
{
    if (vx->exception.valid)
        return &vx->exception;
    if (vx->event.valid && vx->event.type == INTR_HARD_EXCEPTION)
        return &vx->event;
    return NULL;
}

// SDM 3A table 6-5.
static void exception_queue(struct vmx_vcpu *vx, struct pending_event e)
{
    const struct pending_event *first = first_exception(vx);
    enum exception_class a = first ? class_of(first->vector) : BENIGN, b = class_of(e.vector);
    if (a == DOUBLE_FAULT && b != BENIGN)
        vx->triple_fault = true;
    else if ((a == CONTRIBUTORY && b == CONTRIBUTORY) || (a == PAGE_FAULT && b != BENIGN))
        e = (struct pending_event){
            .valid = 1, .type = INTR_HARD_EXCEPTION, .vector = VECTOR_DF, .has_error = 1};
    // What is not an interrupt comes again by itself when its instruction is run again.
    if (vx->event.type != INTR_EXTERNAL && vx->event.type != INTR_NMI)
        vx->event.valid = 0;
    vx->exception = e;
    vx->queued = true;
}

void vmx_inject_exception(struct vcpu *v, u8 vector, bool has_error, u32 error)
{
    struct vmx_vcpu *vx = vmx_of(v);
    struct vmx_vcpu *before = vmx_access_begin(vx);
    // Faults push RF set, so that a breakpoint on the instruction isn't taken twice (SDM
    // 3B 17.3.1.1).
    if (vector != VECTOR_DB && vector != VECTOR_DF && vector != VECTOR_MC)
        vmwrite(VMCS_GUEST_RFLAGS, vmread(VMCS_GUEST_RFLAGS) | RFLAGS_RF);
    vmx_access_end(vx, before);
    exception_queue(vx, (struct pending_event){.valid = 1,
                                               .type = INTR_HARD_EXCEPTION,
                                               .vector = vector,
                                               .has_error = has_error,
                                               .error = error});
}

void vmx_want_irq_window(struct vcpu *v, bool on)
{
    struct vmx_vcpu *vx = vmx_of(v);
    if (on == vx->irq_window_wanted)
        return;
    vx->irq_window_wanted = on;
    struct vmx_vcpu *before = vmx_access_begin(vx);
    vmx_proc_bit(vx, PROC_IRQ_WINDOW, on);
    vmx_access_end(vx, before);
}

void vmx_want_nmi_window(struct vcpu *v, bool on)
{
    struct vmx_vcpu *vx = vmx_of(v);
    struct vmx_vcpu *before = vmx_access_begin(vx);
    vmx_proc_bit(vx, PROC_NMI_WINDOW, on);
    vmx_access_end(vx, before);
}

static void entry_write(const struct pending_event *e)
{
    // In real mode no exception pushes an error code (SDM 3C 26.2.1.3).
    bool error = e->has_error && (vmread(VMCS_GUEST_CR0) & CR0_PE);
    if (error)
        vmwrite(VMCS_ENTRY_ERROR_CODE, e->error);
    if (e->type >= INTR_SOFT_INTERRUPT)
        vmwrite(VMCS_ENTRY_INSN_LEN, e->insn_len);
    if (e->type == INTR_NMI) // an NMI that was cut short has blocked itself already
        vmwrite(VMCS_INTERRUPTIBILITY, vmread(VMCS_INTERRUPTIBILITY) & ~BLOCK_NMI);
    vmwrite(VMCS_ENTRY_INTERRUPTION,
            INTR_VALID | (error ? INTR_ERROR : 0) | (u32)e->type << 8 | e->vector);
}

// The exception goes first. An interrupt behind it waits until the guest takes interrupts again.
void vmx_events_enter(struct vmx_vcpu *vx)
{
    if (vx->exception.valid) {
        entry_write(&vx->exception);
        vx->exception.valid = 0;
        vmx_events_changed(vx);
        return;
    }
    if (vx->event.type == INTR_EXTERNAL && !irq_possible()) {
        vmx_proc_bit(vx, PROC_IRQ_WINDOW, true);
        return;
    }
    entry_write(&vx->event);
    vx->event.valid = 0;
    vmx_events_changed(vx);
    vmx_proc_bit(vx, PROC_IRQ_WINDOW, vx->irq_window_wanted);
}

bool vmx_events_keep_vectoring(struct vmx_vcpu *vx)
{
    u32 info = vmread(VMCS_VECTORING_INFO);
    if (!(info & INTR_VALID))
        return false;
    struct pending_event e = {.valid = 1, .type = info >> 8 & 7, .vector = info};
    e.has_error = info & INTR_ERROR ? 1 : 0;
    if (e.has_error)
        e.error = vmread(VMCS_VECTORING_ERROR);
    if (e.type >= INTR_SOFT_INTERRUPT)
        e.insn_len = vmread(VMCS_EXIT_INSN_LEN);
    if (vx->event.valid) // an interrupt still waits behind the exception this was
        vx->exception = e;
    else
        vx->event = e;
    vx->queued = true;
    return true;
}

// A #DB exit leaves DR6, DR7 and DEBUGCTL to us (SDM 3C 27.1 and table 27-1).
static void debug_exception(void)
{
    u64 q = vmread(VMCS_QUALIFICATION), dr6;
    __asm__ volatile("mov %%dr6, %0" : "=r"(dr6));
    dr6 = (dr6 & ~0xfull) | DR6_RTM; // RTM is active low
    dr6 |= q & (0xf | BIT(13) | BIT(14));
    if (q & DR6_RTM)
        dr6 &= ~DR6_RTM;
    __asm__ volatile("mov %0, %%dr6" : : "r"(dr6));
    vmwrite(VMCS_GUEST_DR7, vmread(VMCS_GUEST_DR7) & ~DR7_GD);
    // With a shadow and TF the entry checks want the single step still pending (SDM 3C 26.3.1.5).
    if ((vmread(VMCS_INTERRUPTIBILITY) & BLOCK_SHADOW) && (vmread(VMCS_GUEST_RFLAGS) & RFLAGS_TF) &&
        !(vmread(VMCS_GUEST_DEBUGCTL) & DEBUGCTL_BTF))
        vmwrite(VMCS_PENDING_DEBUG, vmread(VMCS_PENDING_DEBUG) | PENDING_DEBUG_BS);
}

bool vmx_exit_exception(struct vmx_vcpu *vx)
{
    u32 info = vmread(VMCS_EXIT_INTERRUPTION);
    struct pending_event e = {.valid = 1, .type = info >> 8 & 7, .vector = info};
    if (e.vector != VECTOR_DB && e.vector != VECTOR_AC)
        return false;
    if (!vmx_events_keep_vectoring(vx) && (info & INTR_NMI_UNBLOCK))
        vmwrite(VMCS_INTERRUPTIBILITY, vmread(VMCS_INTERRUPTIBILITY) | BLOCK_NMI);
    if (info & INTR_ERROR) {
        e.has_error = 1;
        e.error = vmread(VMCS_EXIT_ERROR_CODE);
    }
    if (e.type >= INTR_SOFT_INTERRUPT) // INT1
        e.insn_len = vmread(VMCS_EXIT_INSN_LEN);
    else if (e.vector == VECTOR_DB)
        debug_exception();
    exception_queue(vx, e);
    return true;
}
