// SPDX-License-Identifier: MIT
// A vCPU is a thread: look for work when something asked for it, enter the guest, handle the exit.
#include "kernel/guest/vcpu.h"

#include "arch/x86/cpu.h"
#include "kernel/guest/cpuid.h"
#include "kernel/lib.h"
#include "kernel/mem.h"
#include "kernel/time.h"

#define YIELD_EXITS 16

static void write_xcr0(u64 value)
{
    __asm__ volatile("xsetbv" : : "c"(0), "a"((u32)value), "d"((u32)(value >> 32)));
}

// Called at thread switches, interrupts off. The host's own XCR0 has every component, so that the
// scheduler's XSAVE and XRSTOR, which run outside of this pair, move them all.
static void hook_put(struct vcpu *v)
{
    if (v->xcr0 != host_features.xcr0_supported)
        write_xcr0(host_features.xcr0_supported);
    backend->vcpu_put(v);
}

static void hook_load(struct vcpu *v)
{
    backend->vcpu_load(v);
    if (v->xcr0 != host_features.xcr0_supported)
        write_xcr0(v->xcr0);
}

// On the vCPU's own CPU, so that it sees it before it enters the guest again.
static void hook_ask(struct vcpu *v)
{
    v->kick = true;
}

static void attach(struct vcpu *v)
{
    u64 flags = irq_save();
    thread_xsave_take();
    thread_set_vcpu(v);
    hook_load(v);
    irq_restore(flags);
}

// From here on nothing of the vCPU is in this CPU: its control structure and its XSAVE area are in
// memory, for others to read and write, and no switch of its thread touches them.
static void detach(struct vcpu *v)
{
    u64 flags = irq_save();
    hook_put(v);
    thread_set_vcpu(NULL);
    thread_xsave_give();
    irq_restore(flags);
}

void vcpu_kick(struct vcpu *v)
{
    // The exchange orders this before the read of in_guest; the entry path writes in_guest first
    // and then reads kick.
    (void)__atomic_exchange_n(&v->kick, true, __ATOMIC_SEQ_CST);
    waitq_wake_all(&v->wait);
    if (v->in_guest && v->cpu != this_cpu()->index)
        cpu_kick(v->cpu);
}

void guest_kick(struct guest *g)
{
    for (u32 i = 0; i < g->vcpu_count; i++)
        vcpu_kick(g->vcpu[i]);
}

void vcpu_apply_tsc(struct vcpu *v)
{
    const struct guest_clock *c = &v->guest->clock;
    if (c->foreign)
        backend->set_tsc(v, 1ull << 48, c->foreign_offset + v->tsc_adjust, false);
    else
        backend->set_tsc(v, c->trapped ? 1ull << 48 : c->scale,
                         c->offset + c->ahead + v->tsc_adjust, c->trapped);
}

static bool must_park(const struct guest *g)
{
    return g->pause_count || g->stopping || g->state == GUEST_CRASHED || g->reset_wanted ||
           g->poweroff_wanted;
}

static void set_parked(struct vcpu *v, bool parked)
{
    (void)__atomic_exchange_n(&v->parked, parked, __ATOMIC_SEQ_CST);
    if (parked)
        waitq_wake_all(&v->guest->pause_wait);
}

// Stands still while it has to. Returns false, detached, when the thread is to end.
static bool gate(struct vcpu *v)
{
    struct guest *g = v->guest;
    if (!must_park(g))
        return true;
    if ((g->reset_wanted || g->poweroff_wanted) && !g->stopping)
        guest_start_worker(g);
    detach(v);
    do {
        set_parked(v, true);
        wait_event(&v->wait, !must_park(g) || g->stopping);
        v->left_gate_ns = time_ns();
        // Whoever stops the guest again says so first and then looks at parked; this is the other
        // way round.
        set_parked(v, false);
    } while (must_park(g) && !g->stopping);
    if (g->stopping)
        return false;
    attach(v);
    vcpu_apply_tsc(v); // the clock was thawed meanwhile
    return true;
}

static void change_state(struct vcpu *v, void (*change)(struct vcpu_state *s, u8 vector), u8 vector)
{
    struct vcpu_state *s = kzalloc(sizeof(*s));
    if (!s) {
        guest_crash(v->guest, "vCPU %u: no host memory to reset it", v->index);
        return;
    }
    backend->get_state(v, s);
    change(s, vector);
    if (backend->set_state(v, s))
        guest_crash(v->guest, "vCPU %u: the backend refused its reset state", v->index);
    memcpy(v->gpr, s->gpr, sizeof(v->gpr));
    v->activity = s->activity;
    kfree(s);
}

static void change_to_init(struct vcpu_state *s, u8 vector)
{
    (void)vector;
    state_after_init(s);
}

static void take_startup(struct vcpu *v)
{
    int vector = platform_take_sipi(v);
    if (vector >= 0)
        change_state(v, state_startup_ipi, (u8)vector);
}

static void want_irq_window(struct vcpu *v, bool on)
{
    if (v->irq_window != on)
        backend->want_irq_window(v, on);
    v->irq_window = on;
}

static void want_nmi_window(struct vcpu *v, bool on)
{
    if (v->nmi_window != on)
        backend->want_nmi_window(v, on);
    v->nmi_window = on;
}

static void inject_nmi(struct vcpu *v)
{
    if (v->nmi_pending && backend->can_inject_nmi(v)) {
        v->nmi_pending = false;
        backend->inject_nmi(v);
    }
    want_nmi_window(v, v->nmi_pending);
}

static void inject_irq(struct vcpu *v)
{
    bool waiting = platform_irq_peek(v) >= 0;
    if (waiting && backend->can_inject_irq(v)) {
        backend->inject_irq(v, (u8)platform_irq_ack(v));
        waiting = platform_irq_peek(v) >= 0;
    }
    want_irq_window(v, waiting);
}

// What may have changed since the last look. Returns false when the thread is to end.
static bool work(struct vcpu *v)
{
    // Cleared before the looks, so that what is asked for during them is seen next time.
    (void)__atomic_exchange_n(&v->kick, false, __ATOMIC_SEQ_CST);
    thread_yield_if_needed(); // the scheduler may have asked
    if (!gate(v))
        return false;
    v->deadline_tsc = guest_clock_to_host_tsc(v->guest, gtimers_run(v->guest, v->index));
    if (platform_take_init(v))
        change_state(v, change_to_init, 0);
    if (v->activity == VCPU_WAIT_SIPI)
        take_startup(v);
    if (v->activity == VCPU_ACTIVE) {
        if (v->nmi_pending || v->nmi_window)
            inject_nmi(v);
        inject_irq(v);
    }
    return true;
}

static bool wakes_from_halt(struct vcpu *v)
{
    if (v->nmi_pending)
        return true;
    return platform_irq_peek(v) >= 0 && backend->can_inject_irq(v);
}

// Nothing to run: sleeps until kicked or the guest's next timer.
static void idle(struct vcpu *v)
{
    if (v->activity == VCPU_HALTED && wakes_from_halt(v)) {
        v->activity = VCPU_ACTIVE;
    } else {
        u64 until = v->deadline_tsc == ~0ull ? 0 : time_from_tsc(v->deadline_tsc) + 1;
        wait_event_until(&v->wait, v->kick, until);
    }
    v->kick = true; // look again
}

static void vcpu_thread(void *arg)
{
    struct vcpu *v = arg;
    struct vm_exit x;
    thread_xsave_give(); // as detach leaves it
    attach(v);
    v->kick = true;
    for (;;) {
        if (v->kick && !work(v))
            break;
        if (__builtin_expect(v->activity != VCPU_ACTIVE, 0)) {
            idle(v);
            continue;
        }
        backend->vcpu_run(v, v->deadline_tsc, &x);
        v->exits[x.kind] += x.entered;
        v->exit_total += x.entered;
        if (!vcpu_handle_exit(v, &x))
            v->kick = true; // to the gate
        // An interrupt is what makes others ready, and a thread that gets far behind kicks the
        // vCPU. The others are looked at now and then.
        if (x.kind == EXIT_INTERRUPT || !(v->exit_total % YIELD_EXITS))
            thread_yield_if_needed();
    }
    waitq_set_and_wake(&v->guest->pause_wait, &v->exited);
}

static void thread_title(const struct vcpu *v, char *buf, size_t size)
{
    snprintf(buf, size, "%.11s/%u", v->guest->name, v->index);
}

int vcpu_create(struct guest *g, u32 index)
{
    char title[24];
    struct vcpu *v = kzalloc(sizeof(*v));
    if (!v)
        return E_NOMEM;
    v->guest = g;
    v->index = index;
    v->xcr0 = 1;
    v->exited = true; // until there is a thread
    g->vcpu[index] = v;
    if (index >= g->vcpu_count)
        g->vcpu_count = index + 1;
    if (backend->vcpu_create(v) || platform_vcpu_init(v))
        return E_NOMEM;
    thread_title(v, title, sizeof(title));
    thread_set_vcpu_hooks(hook_put, hook_load, hook_ask);
    v->exited = false;
    v->thread = thread_create(title, vcpu_thread, v, THREAD_XSAVE | THREAD_MOVABLE);
    if (!v->thread) {
        v->exited = true;
        return E_NOMEM;
    }
    v->xsave = thread_xsave_area(v->thread);
    return 0;
}

void vcpu_destroy(struct vcpu *v)
{
    platform_vcpu_fini(v);
    backend->vcpu_destroy(v);
    kfree(v);
}
