// SPDX-License-Identifier: MIT
// The scheduler: one run queue a CPU, ordered by CPU time used, so that a guest and the threads
// that move it share the CPU evenly and a thread that mostly waits runs soon after it is woken.
#include "kernel/sched.h"

#include "arch/x86/cpu.h"
#include "kernel/lib.h"

// A running thread gives way when another is this far behind in CPU time.
#define GRANULARITY_NS (500 * NS_PER_US)
// How far behind the others a thread that slept is put, so that it runs soon: more than the
// granularity, and no more than a slice, so that sleeping cannot save up CPU time.
#define WAKE_CREDIT_NS (NS_PER_MS)
// Design rule 2: nothing keeps the CPU longer than this without offering it.
#define SLICE_LIMIT_NS (NS_PER_MS)

static struct run_queue queues[MAX_CPUS];
static void (*vcpu_put_hook)(struct vcpu *v);
static void (*vcpu_load_hook)(struct vcpu *v);
static u64 breaches; // by all threads, ended ones too

struct run_queue *sched_queue(u32 cpu)
{
    return &queues[cpu];
}

static struct run_queue *this_queue(void)
{
    return &queues[this_cpu()->index];
}

void thread_set_vcpu_hooks(void (*put)(struct vcpu *v), void (*load)(struct vcpu *v))
{
    vcpu_put_hook = put;
    vcpu_load_hook = load;
}

// Equal ones queue behind each other.
static void enqueue(struct run_queue *rq, struct thread *t)
{
    struct thread **at = &rq->ready;
    while (*at && (*at)->vruntime <= t->vruntime)
        at = &(*at)->run_next;
    t->run_next = *at;
    *at = t;
    t->state = THREAD_READY;
}

static struct thread *dequeue(struct run_queue *rq)
{
    struct thread *t = rq->ready;
    if (!t)
        return rq->idle;
    rq->ready = t->run_next;
    t->run_next = NULL;
    rq->floor = MAX(rq->floor, t->vruntime);
    return t;
}

static u64 vruntime_now(const struct thread *t, u64 now)
{
    return t->vruntime + (now - t->switched_in_ns);
}

static void slice_over(struct ktimer *t)
{
    (void)t; // the interrupt itself made the guest exit, and its vCPU thread asks need_resched
}

// A guest does not poll: where others are ready, an interrupt ends its slice. Queue lock held.
static void arm_slice(struct run_queue *rq, struct thread *running, u64 now)
{
    if (!rq->ready || !running->vcpu)
        return;
    u64 used = vruntime_now(running, now);
    u64 limit = rq->ready->vruntime + GRANULARITY_NS;
    if (limit > used) // else need_resched says so already, before the guest is entered again
        ktimer_set(&rq->slice, now + limit - used, slice_over);
}

static void make_ready(struct run_queue *rq, struct thread *t)
{
    struct thread *running = cpu_get(t->cpu)->current;
    u64 now = time_ns();
    u64 floor = rq->floor;
    if (running && !running->idle)
        floor = MAX(floor, vruntime_now(running, now));
    u64 least = floor > WAKE_CREDIT_NS ? floor - WAKE_CREDIT_NS : 0;
    t->vruntime = MAX(t->vruntime, least);
    enqueue(rq, t);
    if (t->cpu != this_cpu()->index)
        cpu_kick(t->cpu);
    else if (running)
        arm_slice(rq, running, now);
}

void sched_add(struct thread *t)
{
    struct run_queue *rq = &queues[t->cpu];
    u64 flags = spin_lock_irqsave(&rq->lock);
    make_ready(rq, t);
    spin_unlock_irqrestore(&rq->lock, flags);
}

void sched_wake(struct thread *t)
{
    struct run_queue *rq = &queues[t->cpu];
    u64 flags = spin_lock_irqsave(&rq->lock);
    t->woken = true;
    if (t->state == THREAD_BLOCKED)
        make_ready(rq, t);
    spin_unlock_irqrestore(&rq->lock, flags);
}

// Debug builds: how long did this thread keep the CPU without offering it? A guest runs as long as
// nobody else wants to, so a vCPU thread breaks the rule only when somebody waited.
static void count_breach(struct run_queue *rq, struct thread *t, u64 now)
{
    bool waited_for = !t->vcpu || rq->ready;
    if (!t->idle && waited_for && now - t->polled_ns > SLICE_LIMIT_NS) {
        t->breaches++;
        __atomic_add_fetch(&breaches, 1, __ATOMIC_RELAXED);
    }
    t->polled_ns = now;
}

u64 thread_slice_breaches(void)
{
    return __atomic_load_n(&breaches, __ATOMIC_RELAXED);
}

static void account(struct thread *t, u64 now)
{
    u64 used = now - t->switched_in_ns;
    t->cpu_ns += used;
    if (!t->idle)
        t->vruntime += used;
    t->switched_in_ns = now;
}

// Runs in the thread that was switched to, queue lock held and interrupts off.
static void arrive(struct run_queue *rq, struct thread *t)
{
    if (t->flags & THREAD_XSAVE) {
        xsave_restore(t->xsave);
        if (t->vcpu && vcpu_load_hook)
            vcpu_load_hook(t->vcpu);
    }
    arm_slice(rq, t, t->switched_in_ns);
}

static void depart(struct thread *t)
{
    if (!(t->flags & THREAD_XSAVE) || t->state == THREAD_DEAD)
        return;
    if (t->vcpu && vcpu_put_hook)
        vcpu_put_hook(t->vcpu);
    xsave_save(t->xsave);
}

// Gives the CPU to the best ready thread; the caller has set the current one's new state and holds
// the queue lock, which the thread switched to inherits and this one owns again on return.
static void switch_away(struct run_queue *rq)
{
    struct cpu *cpu = this_cpu();
    struct thread *prev = cpu->current;
    u64 now = time_ns();
    if (SKIFF_DEBUG)
        count_breach(rq, prev, now);
    account(prev, now);
    if (prev->state == THREAD_READY && !prev->idle)
        enqueue(rq, prev);
    struct thread *next = dequeue(rq);
    next->state = THREAD_RUNNING;
    next->switched_in_ns = now;
    next->polled_ns = now;
    if (next == prev)
        return;
    depart(prev);
    cpu->current = next;
    arch_switch(&prev->sp, next->sp);
    arrive(rq, prev); // running again: prev is this thread
}

void sched_finish_switch(void)
{
    struct run_queue *rq = this_queue();
    arrive(rq, thread_current());
    spin_unlock_irqrestore(&rq->lock, 0x200); // RFLAGS.IF: a thread starts with interrupts on
}

static void block_timeout(struct ktimer *timer)
{
    struct thread *t = container_of(timer, struct thread, timeout);
    struct run_queue *rq = &queues[t->cpu];
    u64 flags = spin_lock_irqsave(&rq->lock);
    if (t->state == THREAD_BLOCKED)
        make_ready(rq, t);
    spin_unlock_irqrestore(&rq->lock, flags);
}

// Interrupt handlers only wake, and a spinlock's other users would wait for as long as this sleeps.
static void assert_may_switch(void)
{
    assert(this_cpu()->irq_depth == 0);
    assert(this_cpu()->spin_depth == 0);
}

bool sched_block(u64 deadline_ns)
{
    assert_may_switch();
    struct run_queue *rq = this_queue();
    struct thread *t = thread_current();
    u64 flags = spin_lock_irqsave(&rq->lock);
    if (!t->woken && (!deadline_ns || deadline_ns > time_ns())) {
        t->state = THREAD_BLOCKED;
        if (deadline_ns)
            ktimer_set(&t->timeout, deadline_ns, block_timeout);
        switch_away(rq);
    }
    bool woken = t->woken;
    t->woken = false;
    spin_unlock_irqrestore(&rq->lock, flags);
    if (deadline_ns)
        ktimer_cancel(&t->timeout);
    return woken;
}

void sched_yield_to_others(void)
{
    assert_may_switch();
    struct run_queue *rq = this_queue();
    struct thread *t = thread_current();
    u64 flags = spin_lock_irqsave(&rq->lock);
    if (rq->ready) {
        // Behind the first one, whatever it has used, or a yield would not be one.
        account(t, time_ns());
        if (!t->idle)
            t->vruntime = MAX(t->vruntime, rq->ready->vruntime);
        t->state = THREAD_READY;
        switch_away(rq);
    } else if (SKIFF_DEBUG) {
        count_breach(rq, t, time_ns());
    }
    spin_unlock_irqrestore(&rq->lock, flags);
}

void sched_die(void)
{
    struct run_queue *rq = this_queue();
    struct thread *t = thread_current();
    spin_lock_irqsave(&rq->lock);
    t->state = THREAD_DEAD;
    t->run_next = rq->dead;
    rq->dead = t;
    switch_away(rq);
    panic("thread %s ran after its end", t->name);
}

struct thread *sched_reap(void)
{
    struct run_queue *rq = this_queue();
    u64 flags = spin_lock_irqsave(&rq->lock);
    struct thread *t = rq->dead;
    if (t)
        rq->dead = t->run_next;
    spin_unlock_irqrestore(&rq->lock, flags);
    return t;
}

bool sched_has_ready(void)
{
    return __atomic_load_n(&this_queue()->ready, __ATOMIC_RELAXED) != NULL;
}

void sched_init_cpu(struct thread *current, struct thread *idle)
{
    struct run_queue *rq = this_queue();
    rq->idle = idle;
    idle->idle = true;
    idle->state = THREAD_READY;
    current->state = THREAD_RUNNING;
    current->switched_in_ns = current->polled_ns = time_ns();
    this_cpu()->sched = rq;
    this_cpu()->current = current;
}

bool thread_need_resched(void)
{
    struct run_queue *rq = this_queue();
    struct thread *t = this_cpu()->current;
    if (!t || !rq->ready)
        return false;
    u64 flags = spin_lock_irqsave(&rq->lock);
    bool need = false;
    if (rq->ready)
        need = t->idle || vruntime_now(t, time_ns()) >= rq->ready->vruntime + GRANULARITY_NS;
    spin_unlock_irqrestore(&rq->lock, flags);
    return need;
}

void thread_yield(void)
{
    sched_yield_to_others();
}

void thread_yield_if_needed(void)
{
    if (thread_need_resched()) {
        sched_yield_to_others();
        return;
    }
    if (SKIFF_DEBUG) {
        struct thread *t = thread_current();
        count_breach(this_queue(), t, time_ns());
    }
}
