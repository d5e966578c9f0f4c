// SPDX-License-Identifier: MIT
// The scheduler: one run queue a CPU, ordered by CPU time used, so that a guest and the threads
// that move it share the CPU evenly and a thread that mostly waits runs soon after it is woken.
// Movable threads change queues while they are ready (balance.c), so CPU time used is counted on
// one scale for all queues. Nobody holds two queues' locks.
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
// How far ahead of the others a background thread gets while they don't want its CPU: what they get
// before it once they do.
#define BACKGROUND_DEBT_NS (SLICE_LIMIT_NS << BACKGROUND_SHIFT)

static struct run_queue queues[MAX_CPUS];
static void (*vcpu_put_hook)(struct vcpu *v);
static void (*vcpu_load_hook)(struct vcpu *v);
static void (*vcpu_ask_hook)(struct vcpu *v);
static u64 breaches; // by all threads, ended ones too

#define LEAD_IDLE (-(s64)(1ull << 62))

struct run_queue *sched_queue(u32 cpu)
{
    return &queues[cpu];
}

static struct run_queue *this_queue(void)
{
    return &queues[this_cpu()->index];
}

void thread_set_vcpu_hooks(void (*put)(struct vcpu *v), void (*load)(struct vcpu *v),
                           void (*ask)(struct vcpu *v))
{
    vcpu_put_hook = put;
    vcpu_load_hook = load;
    vcpu_ask_hook = ask;
}

// The queue a thread belongs to, locked: a ready thread may change queues meanwhile.
static struct run_queue *lock_queue_of(struct thread *t, u64 *flags)
{
    for (;;) {
        u32 cpu = __atomic_load_n(&t->cpu, __ATOMIC_ACQUIRE);
        struct run_queue *rq = &queues[cpu];
        *flags = spin_lock_irqsave(&rq->lock);
        if (t->cpu == cpu)
            return rq;
        spin_unlock_irqrestore(&rq->lock, *flags);
    }
}

// Equal ones queue behind each other.
void sched_enqueue(struct run_queue *rq, struct thread *t)
{
    assert_held(&rq->lock);
    struct thread **at = &rq->ready;
    if (!rq->ready)
        rq->waiting_since = time_ns();
    while (*at && (*at)->vruntime <= t->vruntime)
        at = &(*at)->run_next;
    t->run_next = *at;
    *at = t;
    t->state = THREAD_READY;
}

// How far a CPU's threads have got, the one that runs included, background ones not: they get on
// faster, and others would wake far behind all that were awake.
static u64 reached(const struct run_queue *rq, u64 now)
{
    u64 most = __atomic_load_n(&rq->reached_ns, __ATOMIC_RELAXED);
    s64 lead = __atomic_load_n(&rq->lead, __ATOMIC_RELAXED);
    return lead == LEAD_IDLE ? most : (u64)MAX((s64)most, (s64)now + lead);
}

// How far those have got with which a thread shares CPUs: one that slept does not start further
// behind. CPUs that exchange no threads get on at rates of their own, so others say nothing. Nor do
// they for a thread that cannot move, unless it begins where nothing runs, or runs in the
// background: movable ones may follow.
static u64 frontier(const struct thread *t, u64 now)
{
    u64 cpus = BIT(t->cpu), most = 0;
    bool begins = balance_is_idle(t->cpu) || t->background;
    if ((t->flags & THREAD_MOVABLE) || (begins && balance_may_move_to(t->cpu)))
        cpus |= balance_movable_cpus();
    for (u32 i = 0; i < cpu_count; i++)
        if (cpus >> i & 1)
            most = MAX(most, reached(&queues[i], now));
    return most;
}

// A thread that slept is put behind the others, so that it runs soon, and not further.
static void level(struct thread *t, u64 now)
{
    u64 most = frontier(t, now);
    t->vruntime = MAX(t->vruntime, most > WAKE_CREDIT_NS ? most - WAKE_CREDIT_NS : 0);
}

static struct thread *dequeue(struct run_queue *rq, u64 now)
{
    assert_held(&rq->lock);
    struct thread *t = rq->ready;
    if (t) {
        rq->ready = t->run_next;
        t->run_next = NULL;
    } else if (rq->patient) {
        t = rq->patient;
        rq->patient = NULL;
        t->ready_since_ns = now;
        level(t, now);
    } else {
        return rq->idle;
    }
    return t;
}

static void ask_to_yield(const struct thread *running)
{
    if (running->vcpu && vcpu_ask_hook)
        vcpu_ask_hook(running->vcpu);
}

static void slice_over(struct ktimer *t);

// A guest does not poll: where others are ready, here or on another CPU, an interrupt ends its
// slice. Queue lock held.
static void arm_slice(struct run_queue *rq, struct thread *running, u64 now)
{
    assert_held(&rq->lock);
    if (!running->vcpu)
        return;
    if (!rq->ready) {
        if (cpu_count > 1)
            ktimer_set(&rq->slice, now + BALANCE_NS, slice_over);
        return;
    }
    u64 used = vruntime_now(running, now);
    u64 limit = rq->ready->vruntime + GRANULARITY_NS;
    if (limit > used)
        ktimer_set(&rq->slice, now + limit - used, slice_over);
    else
        ask_to_yield(running);
}

// The interrupt itself made the guest exit, unless its thread was on the way in or out. With nobody
// here to give way to it looks at the other CPUs; it may run on, as it may where the one that its
// slice was for has gone to another CPU, and then has a slice again.
static void slice_over(struct ktimer *t)
{
    struct run_queue *rq = container_of(t, struct run_queue, slice);
    struct thread *running = thread_current();
    u64 flags = spin_lock_irqsave(&rq->lock);
    if (!rq->ready)
        ask_to_yield(running);
    arm_slice(rq, running, time_ns());
    spin_unlock_irqrestore(&rq->lock, flags);
}

// From here on the thread may run a guest, and nothing would end a slice that began before.
void thread_set_vcpu(struct vcpu *v)
{
    struct run_queue *rq = this_queue();
    struct thread *t = thread_current();
    u64 flags = spin_lock_irqsave(&rq->lock);
    t->vcpu = v;
    arm_slice(rq, t, time_ns());
    spin_unlock_irqrestore(&rq->lock, flags);
}

// Puts a thread that does not run and is in no queue into that of its CPU. Queue lock held.
static void make_ready(struct run_queue *rq, struct thread *t)
{
    assert_held(&rq->lock);
    struct thread *running = cpu_get(t->cpu)->current;
    u64 now = time_ns();
    if (rq->patient == t)
        rq->patient = NULL;
    level(t, now);
    sched_enqueue(rq, t);
    if (t->cpu != this_cpu()->index)
        cpu_kick(t->cpu);
    else if (running)
        arm_slice(rq, running, now);
    if ((t->flags & THREAD_MOVABLE) && !balance_is_idle(t->cpu))
        balance_offer();
}

// As make_ready, with a choice of the CPU; the lock is given back. Between the two locks the thread
// is ready and in no queue: others who wake it only note that.
static void place(struct run_queue *rq, struct thread *t, u64 flags)
{
    assert_held(&rq->lock);
    t->ready_since_ns = time_ns();
    u32 cpu = balance_choose_cpu(t);
    if (cpu != t->cpu) {
        t->state = THREAD_READY;
        __atomic_store_n(&t->cpu, cpu, __ATOMIC_RELEASE);
        spin_unlock(&rq->lock);
        rq = &queues[cpu];
        spin_lock(&rq->lock);
    }
    make_ready(rq, t);
    spin_unlock_irqrestore(&rq->lock, flags);
}

void sched_add(struct thread *t)
{
    static u32 turn; // a hint: where the last one went
    if ((t->flags & THREAD_MOVABLE) && !balance_is_idle(t->cpu))
        t->cpu = ++turn % cpu_count;
    while ((t->flags & THREAD_MOVABLE) && !balance_may_move_to(t->cpu))
        t->cpu = ++turn % cpu_count;
    u64 flags;
    struct run_queue *rq = lock_queue_of(t, &flags);
    place(rq, t, flags);
}

void sched_wake(struct thread *t)
{
    u64 flags;
    struct run_queue *rq = lock_queue_of(t, &flags);
    t->woken = true;
    if (t->state == THREAD_BLOCKED)
        place(rq, t, flags);
    else
        spin_unlock_irqrestore(&rq->lock, flags);
}

void sched_kicked(void)
{
    struct run_queue *rq = this_queue();
    struct thread *running = this_cpu()->current;
    if (!running || running->idle)
        return;
    u64 flags = spin_lock_irqsave(&rq->lock);
    arm_slice(rq, running, time_ns());
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

static void account(struct run_queue *rq, struct thread *t, u64 now)
{
    assert_held(&rq->lock);
    u64 used = now - t->switched_in_ns;
    if (t->vcpu && rq->ready)
        rq->contended_ns += now - MAX(t->switched_in_ns, rq->waiting_since);
    t->cpu_ns += used;
    if (t->background) {
        u64 limit = MAX(t->vruntime, frontier(t, now) + BACKGROUND_DEBT_NS);
        t->vruntime = MIN(vruntime_now(t, now), limit);
    } else if (!t->idle) {
        t->vruntime += used;
        __atomic_store_n(&rq->reached_ns, MAX(rq->reached_ns, t->vruntime), __ATOMIC_RELAXED);
    }
    t->switched_in_ns = now;
}

// Runs in the thread that was switched to, queue lock held and interrupts off.
static void arrive(struct run_queue *rq, struct thread *t)
{
    assert_held(&rq->lock);
    if (t->xsave_taken) {
        xsave_restore(t->xsave);
        if (t->vcpu && vcpu_load_hook)
            vcpu_load_hook(t->vcpu);
    }
    arm_slice(rq, t, t->switched_in_ns);
}

static void depart(struct thread *t)
{
    if (!t->xsave_taken || t->state == THREAD_DEAD)
        return;
    if (t->vcpu && vcpu_put_hook)
        vcpu_put_hook(t->vcpu);
    xsave_save(t->xsave);
}

static void note_waited(struct run_queue *rq, struct thread *t, u64 now)
{
    assert_held(&rq->lock);
    if (t->idle)
        return;
    u64 waited = now - t->ready_since_ns;
    t->waited_ns += waited;
    t->waited_max_ns = MAX(t->waited_max_ns, waited);
}

static void note_running(struct run_queue *rq, const struct thread *t)
{
    s64 lead = t->idle || t->background ? LEAD_IDLE : (s64)(t->vruntime - t->switched_in_ns);
    __atomic_store_n(&rq->lead, lead, __ATOMIC_RELAXED);
    balance_note_idle(t->idle);
}

// Gives the CPU to the best ready thread; the caller has set the current one's new state and holds
// the queue lock, which the thread switched to inherits. On return this thread owns that of the CPU
// it runs on then, which may be another.
static void switch_away(struct run_queue *rq)
{
    struct cpu *cpu = this_cpu();
    struct thread *prev = cpu->current;
    u64 now = time_ns();
    if (SKIFF_DEBUG)
        count_breach(rq, prev, now);
    account(rq, prev, now);
    if (prev->state == THREAD_READY && !prev->idle) {
        prev->ready_since_ns = now;
        sched_enqueue(rq, prev);
    }
    struct thread *next = dequeue(rq, now);
    note_waited(rq, next, now);
    next->state = THREAD_RUNNING;
    next->switched_in_ns = now;
    next->polled_ns = now;
    note_running(rq, next);
    if (next == prev)
        return;
    if (prev->state == THREAD_READY && (prev->flags & THREAD_MOVABLE))
        balance_offer();
    depart(prev);
    cpu->current = next;
    arch_switch(&prev->sp, next->sp);
    arrive(this_queue(), prev); // running again: prev is this thread
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
    u64 flags;
    struct run_queue *rq = lock_queue_of(t, &flags);
    if (t->state == THREAD_BLOCKED)
        place(rq, t, flags);
    else
        spin_unlock_irqrestore(&rq->lock, flags);
}

// Interrupt handlers only wake, and a spinlock's other users would wait for as long as this sleeps.
static void assert_may_switch(void)
{
    assert(this_cpu()->irq_depth == 0);
    assert(this_cpu()->spin_depth == 0);
}

static bool block(u64 deadline_ns, bool patiently)
{
    assert_may_switch();
    struct run_queue *rq = this_queue();
    struct thread *t = thread_current();
    u64 flags = spin_lock_irqsave(&rq->lock);
    if (!t->woken && (!deadline_ns || deadline_ns > time_ns())) {
        t->state = THREAD_BLOCKED;
        if (patiently)
            rq->patient = t;
        if (deadline_ns)
            ktimer_set(&t->timeout, deadline_ns, block_timeout);
        switch_away(rq);
        rq = this_queue();
    }
    bool woken = t->woken;
    t->woken = false;
    spin_unlock_irqrestore(&rq->lock, flags);
    if (deadline_ns)
        ktimer_cancel(&t->timeout);
    return woken;
}

bool sched_block(u64 deadline_ns)
{
    return block(deadline_ns, false);
}

bool sched_block_patiently(u64 deadline_ns)
{
    assert(!(thread_current()->flags & THREAD_MOVABLE) && !this_queue()->patient);
    return block(deadline_ns, true);
}

// Where in the queue one that yields comes to stand. Behind the first one, whatever it has used, or
// a yield would not be one.
static u64 yielded(const struct run_queue *rq, const struct thread *t, bool all)
{
    assert_held(&rq->lock);
    const struct thread *last = rq->ready;
    u64 behind = last->vruntime;
    while (all && last->run_next)
        last = last->run_next;
    if (all)
        behind = MAX(behind, MIN(last->vruntime, t->vruntime + WAKE_CREDIT_NS));
    return MAX(t->vruntime, behind);
}

void sched_yield_to_others(bool all)
{
    assert_may_switch();
    struct run_queue *rq = this_queue();
    struct thread *t = thread_current();
    u64 flags = spin_lock_irqsave(&rq->lock);
    if (rq->ready) {
        account(rq, t, time_ns());
        if (!t->idle)
            t->vruntime = yielded(rq, t, all);
        t->state = THREAD_READY;
        switch_away(rq);
        rq = this_queue();
    } else if (SKIFF_DEBUG) {
        count_breach(rq, t, time_ns());
    }
    spin_unlock_irqrestore(&rq->lock, flags);
}

void thread_set_background(bool background)
{
    struct run_queue *rq = this_queue();
    struct thread *t = thread_current();
    u64 flags = spin_lock_irqsave(&rq->lock);
    account(rq, t, time_ns());
    t->background = background;
    note_running(rq, t);
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
    struct thread *t = NULL;
    for (u32 i = 0; i < cpu_count && !t; i++) {
        struct run_queue *rq = &queues[i];
        u64 flags = spin_lock_irqsave(&rq->lock);
        t = rq->dead;
        if (t)
            rq->dead = t->run_next;
        spin_unlock_irqrestore(&rq->lock, flags);
    }
    return t;
}

bool thread_others_ready(void)
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
    note_running(rq, current);
}

u64 thread_cpu_ns(void)
{
    struct run_queue *rq = this_queue();
    u64 flags = spin_lock_irqsave(&rq->lock);
    const struct thread *t = thread_current();
    u64 used = t->cpu_ns + time_ns() - t->switched_in_ns;
    spin_unlock_irqrestore(&rq->lock, flags);
    return used;
}

void sched_get_times(struct thread *t, struct thread_info *out)
{
    u64 flags;
    struct run_queue *rq = lock_queue_of(t, &flags);
    u64 now = time_ns();
    u64 waits = t->state == THREAD_READY && !t->idle ? now - t->ready_since_ns : 0;
    out->cpu_ns = t->cpu_ns + (t->state == THREAD_RUNNING ? now - t->switched_in_ns : 0);
    out->waited_ns = t->waited_ns + waits;
    out->waited_max_ns = MAX(t->waited_max_ns, waits);
    spin_unlock_irqrestore(&rq->lock, flags);
}

u64 thread_contended_ns(void)
{
    return __atomic_load_n(&this_queue()->contended_ns, __ATOMIC_RELAXED);
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
    sched_yield_to_others(false);
}

void thread_yield_to_all(void)
{
    sched_yield_to_others(true);
}

void thread_yield_if_needed(void)
{
    balance_look(thread_current());
    if (thread_need_resched()) {
        sched_yield_to_others(false);
        return;
    }
    if (SKIFF_DEBUG) {
        struct thread *t = thread_current();
        count_breach(this_queue(), t, time_ns());
    }
}
