// SPDX-License-Identifier: MIT
// One-shot timers in host time: a sorted list per CPU, served by that CPU's timer interrupt.
#include "arch/x86/cpu.h"
#include "kernel/lib.h"
#include "kernel/thread.h"
#include "kernel/time.h"

struct timer_queue {
    struct spinlock lock;
    struct ktimer *head;    // by deadline; lock
    struct ktimer *running; // whose fn runs now; lock
    u64 armed_tsc;          // what the hardware waits for; this CPU only, interrupts off
};

static struct timer_queue queues[MAX_CPUS];

// A deadline that has passed already must still raise an interrupt, whatever the hardware does with
// a count of zero.
#define SOON_TICKS 64

// Called with the lock of this CPU's queue held. When `force` is false and the head is unchanged
// the hardware is left alone.
static void arm_head(struct timer_queue *q, bool force)
{
    assert_held(&q->lock);
    u64 want = ~0ull;
    if (q->head)
        want = MAX(time_to_tsc(q->head->deadline_ns) + 1, rdtsc() + SOON_TICKS);
    if (!force && want == q->armed_tsc)
        return;
    q->armed_tsc = want;
    arch_timer_arm(want);
}

static void insert(struct timer_queue *q, struct ktimer *t)
{
    assert_held(&q->lock);
    struct ktimer **at = &q->head;
    while (*at && (*at)->deadline_ns <= t->deadline_ns)
        at = &(*at)->next;
    t->next = *at;
    *at = t;
    t->armed = true;
}

static void unqueue(struct timer_queue *q, struct ktimer *t)
{
    assert_held(&q->lock);
    struct ktimer **at = &q->head;
    while (*at && *at != t)
        at = &(*at)->next;
    assert(*at == t);
    *at = t->next;
    t->next = NULL;
    t->armed = false;
}

// Takes t off whichever queue it is on. With `wait`, also until another CPU has left its fn.
static void detach(struct ktimer *t, bool wait)
{
    for (;;) {
        u32 cpu = __atomic_load_n(&t->cpu, __ATOMIC_ACQUIRE);
        struct timer_queue *q = &queues[cpu];
        u64 flags = spin_lock_irqsave(&q->lock);
        bool same = t->cpu == cpu;
        bool here = cpu == this_cpu()->index;
        if (same && t->armed) {
            bool was_head = q->head == t;
            unqueue(q, t);
            // Another CPU's hardware may fire early and find nothing due: harmless.
            if (was_head && here)
                arm_head(q, false);
        }
        bool busy = wait && same && !here && q->running == t;
        spin_unlock_irqrestore(&q->lock, flags);
        if (same && !busy)
            return;
        cpu_relax();
    }
}

void ktimer_set(struct ktimer *t, u64 deadline_ns, void (*fn)(struct ktimer *t))
{
    detach(t, true);
    // The queue must be this CPU's until the timer is on it: a thread stays on its CPU, and
    // interrupts only nest on it.
    u32 cpu = this_cpu()->index;
    struct timer_queue *q = &queues[cpu];
    u64 flags = spin_lock_irqsave(&q->lock);
    t->deadline_ns = deadline_ns;
    t->fn = fn;
    __atomic_store_n(&t->cpu, cpu, __ATOMIC_RELEASE);
    insert(q, t);
    if (q->head == t)
        arm_head(q, false);
    spin_unlock_irqrestore(&q->lock, flags);
}

void ktimer_cancel(struct ktimer *t)
{
    detach(t, true);
}

void ktimer_interrupt(void)
{
    struct timer_queue *q = &queues[this_cpu()->index];
    u64 flags = spin_lock_irqsave(&q->lock);
    u64 now = time_ns();
    while (q->head && q->head->deadline_ns <= now) {
        struct ktimer *t = q->head;
        unqueue(q, t);
        q->running = t;
        void (*fn)(struct ktimer *) = t->fn;
        spin_unlock_irqrestore(&q->lock, flags);
        fn(t);
        flags = spin_lock_irqsave(&q->lock);
        q->running = NULL;
    }
    arm_head(q, true);
    spin_unlock_irqrestore(&q->lock, flags);
}
