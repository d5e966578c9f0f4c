// SPDX-License-Identifier: MIT
// Events on their way into the guest: injected ones, and those an exit cut short, which are
// delivered again (APM 2 15.7.2, 15.20, 15.21).
#include "arch/x86/guest_cpu.h"
#include "arch/x86/svm/svm.h"
#include "kernel/lib.h"

void svm_events_changed(struct svm_vcpu *sv)
{
    sv->queued = sv->event.valid || sv->exception.valid || sv->triple_fault;
}

// A virtual interrupt of the highest priority, whose delivery exits as soon as the guest can take
// one. It is never delivered itself.
static void window_set(struct svm_vcpu *sv, bool on)
{
    sv->window_open = on;
    vmcb_intercept(sv->vmcb, SVM_EXIT_VINTR, on);
}

static bool irq_possible(const struct svm_vcpu *sv)
{
    return (sv->vmcb->rflags & RFLAGS_IF) && !svm_in_shadow(sv);
}

bool svm_can_inject_irq(struct vcpu *v)
{
    struct svm_vcpu *sv = svm_of(v);
    return !sv->queued && irq_possible(sv);
}

bool svm_can_inject_nmi(struct vcpu *v)
{
    struct svm_vcpu *sv = svm_of(v);
    return !sv->queued && !sv->nmi_blocked && !svm_in_shadow(sv);
}

static void event_set(struct svm_vcpu *sv, u8 type, u8 vector)
{
    assert(!sv->event.valid);
    sv->event = (struct pending_event){.valid = 1, .type = type, .vector = vector};
    sv->queued = true;
}

void svm_inject_irq(struct vcpu *v, u8 vector)
{
    event_set(svm_of(v), EVENT_INTR, vector);
}

void svm_inject_nmi(struct vcpu *v)
{
    event_set(svm_of(v), EVENT_NMI, VECTOR_NMI);
}

bool svm_event_repeats(const struct pending_event *e)
{
    // INT n, and INT3 and INTO, which the CPU reports as exceptions: EVENTINJ would push the
    // address of the instruction instead of the next one's, and running it again does the right
    // thing.
    return e->type >= EVENT_SOFT ||
           (e->type == EVENT_EXCEPTION && (e->vector == VECTOR_BP || e->vector == VECTOR_OF));
}

// The exception a second one meets while it is being delivered, if any.
static const struct pending_event *first_exception(const struct svm_vcpu *sv)
{
    if (sv->exception.valid)
        return &sv->exception;
    if (sv->event.valid && sv->event.type == EVENT_EXCEPTION)
        return &sv->event;
    return NULL;
}

static void exception_queue(struct svm_vcpu *sv, struct pending_event e)
{
    const struct pending_event *first = first_exception(sv);
    enum exceptions_meet how = first ? exceptions_meet(first->vector, e.vector) : EXCEPTION_ALONE;
    if (how == EXCEPTION_TRIPLE_FAULT)
        sv->triple_fault = true;
    else if (how == EXCEPTION_DOUBLE_FAULT)
        e = (struct pending_event){
            .valid = 1, .type = EVENT_EXCEPTION, .vector = VECTOR_DF, .has_error = 1};
    // What is not an interrupt comes again by itself when its instruction is run again.
    if (sv->event.type == EVENT_EXCEPTION)
        sv->event.valid = 0;
    sv->exception = e;
    sv->queued = true;
}

void svm_inject_exception(struct vcpu *v, u8 vector, bool has_error, u32 error)
{
    struct svm_vcpu *sv = svm_of(v);
    // Faults push RF set, so that a breakpoint on the instruction isn't taken twice (APM 2 13.1.4).
    if (vector != VECTOR_DB && vector != VECTOR_DF && vector != VECTOR_MC)
        sv->vmcb->rflags |= RFLAGS_RF;
    exception_queue(sv, (struct pending_event){.valid = 1,
                                               .type = EVENT_EXCEPTION,
                                               .vector = vector,
                                               .has_error = has_error,
                                               .error = error});
}

// An exception was intercepted before its delivery: it is given on as it was. DR6 holds what the
// CPU put there.
void svm_exception_reflect(struct svm_vcpu *sv, u8 vector)
{
    bool error = exception_pushes_error(vector);
    exception_queue(sv, (struct pending_event){.valid = 1,
                                               .type = EVENT_EXCEPTION,
                                               .vector = vector,
                                               .has_error = error,
                                               .error = error ? (u32)sv->vmcb->exit_info1 : 0});
}

void svm_want_irq_window(struct vcpu *v, bool on)
{
    struct svm_vcpu *sv = svm_of(v);
    if (on == sv->irq_window)
        return;
    sv->irq_window = on;
    window_set(sv, on);
}

static void entry_write(struct svm_vcpu *sv, const struct pending_event *e)
{
    // In real mode no exception pushes an error code.
    bool error = e->has_error && (sv->vmcb->cr0 & CR0_PE);
    if (sv->step)
        svm_step_cancel(sv);
    if (e->type == EVENT_NMI)
        svm_nmi_block(sv, true);
    if (unlikely(svm_caps.qemu))
        svm_qemu_deliver_once(e);
    sv->vmcb->event_inj = EVENT_VALID | (error ? EVENT_HAS_ERROR : 0) |
                          (u32)e->type << EVENT_TYPE_SHIFT | e->vector | (u64)e->error << 32;
}

// The exception goes first. An interrupt behind it waits until the guest takes interrupts again.
void svm_events_enter(struct svm_vcpu *sv)
{
    struct pending_event *e = sv->exception.valid ? &sv->exception : &sv->event;
    if (e->type == EVENT_INTR && !irq_possible(sv)) {
        window_set(sv, true);
        return;
    }
    entry_write(sv, e);
    if (e == &sv->event)
        window_set(sv, sv->irq_window);
    e->valid = 0;
    svm_events_changed(sv);
}

void svm_events_keep_vectoring(struct svm_vcpu *sv)
{
    u64 info = sv->vmcb->exit_int_info;
    struct pending_event e = {.valid = 1, .type = info >> EVENT_TYPE_SHIFT & 7, .vector = (u8)info};
    e.has_error = info & EVENT_HAS_ERROR ? 1 : 0;
    e.error = e.has_error ? (u32)(info >> 32) : 0;
    if (svm_event_repeats(&e))
        return;
    if (sv->event.valid) // an interrupt still waits behind the exception this was
        sv->exception = e;
    else
        sv->event = e;
    sv->queued = true;
}
