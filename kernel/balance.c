// SPDX-License-Identifier: MIT
// Which CPU a movable thread runs on. One that is ready changes queues: to an idle CPU at once, and
// to one whose running thread is ahead of it, so that all CPUs' threads get on evenly.
#include "arch/x86/cpu.h"
#include "kernel/lib.h"
#include "kernel/sched.h"

// A ready thread this far behind what runs on another CPU changes to that CPU.
#define PULL_NS (5 * NS_PER_MS)

static u64 idle_mask; // CPUs that run their idle threads; atomic
static u64 kept_off;  // CPUs that movable threads keep off; written before there are any

void thread_keep_off(u64 cpus)
{
    kept_off = cpus;
}

u64 balance_movable_cpus(void)
{
    u64 all = ~0ull >> (64 - cpu_count);
    return all & ~kept_off ? all & ~kept_off : all;
}

bool balance_may_move_to(u32 cpu)
{
    return balance_movable_cpus() >> cpu & 1;
}

void balance_note_idle(bool idle)
{
    u64 bit = BIT(this_cpu()->index);
    if (idle)
        __atomic_fetch_or(&idle_mask, bit, __ATOMIC_SEQ_CST);
    else if (idle_mask & bit)
        __atomic_fetch_and(&idle_mask, ~bit, __ATOMIC_SEQ_CST);
}

bool balance_is_idle(u32 cpu)
{
    return __atomic_load_n(&idle_mask, __ATOMIC_RELAXED) >> cpu & 1;
}

// A movable thread waits behind another: an idle CPU may take it. The fence orders the queue's
// entry, whose lock is still held, before the look at the mask; an idle CPU says so first and then
// looks at the queues.
void balance_offer(void)
{
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    u64 idle = __atomic_load_n(&idle_mask, __ATOMIC_RELAXED) & balance_movable_cpus();
    idle &= ~BIT(this_cpu()->index);
    if (idle)
        cpu_kick((u32)__builtin_ctzll(idle));
}

u32 balance_choose_cpu(const struct thread *t)
{
    u64 idle = __atomic_load_n(&idle_mask, __ATOMIC_RELAXED) & balance_movable_cpus();
    if (!(t->flags & THREAD_MOVABLE) || !idle || (idle >> t->cpu & 1))
        return t->cpu;
    return (u32)__builtin_ctzll(idle);
}

// Takes the movable ready thread that is furthest behind out of a queue, if it is behind `limit`.
static struct thread *steal(struct run_queue *from, u64 limit)
{
    if (!__atomic_load_n(&from->ready, __ATOMIC_RELAXED))
        return NULL;
    u64 flags = spin_lock_irqsave(&from->lock);
    struct thread **at = &from->ready, *t = NULL;
    while (*at && !((*at)->flags & THREAD_MOVABLE))
        at = &(*at)->run_next;
    if (*at && (*at)->vruntime < limit) {
        t = *at;
        *at = t->run_next;
        t->run_next = NULL;
        __atomic_store_n(&t->cpu, this_cpu()->index, __ATOMIC_RELEASE);
    }
    spin_unlock_irqrestore(&from->lock, flags);
    return t;
}

// Brings one thread from another CPU's queue to this one's. Returns whether there was one.
static bool pull(u64 limit)
{
    u32 here = this_cpu()->index;
    if (!balance_may_move_to(here))
        return false;
    for (u32 i = 1; i < cpu_count; i++) {
        struct thread *t = steal(sched_queue((here + i) % cpu_count), limit);
        if (!t)
            continue;
        struct run_queue *rq = sched_queue(this_cpu()->index);
        u64 flags = spin_lock_irqsave(&rq->lock);
        sched_enqueue(rq, t);
        spin_unlock_irqrestore(&rq->lock, flags);
        return true;
    }
    return false;
}

bool balance_pull(void)
{
    return cpu_count > 1 && pull(~0ull);
}

void balance_look(struct thread *running)
{
    struct run_queue *rq = sched_queue(this_cpu()->index);
    u64 now = time_ns();
    if (cpu_count == 1 || now < rq->next_balance_ns)
        return;
    rq->next_balance_ns = now + BALANCE_NS;
    u64 used = vruntime_now(running, now);
    if (used > PULL_NS)
        pull(used - PULL_NS);
}
