// SPDX-License-Identifier: MIT
// Sleeping mutexes, handed straight to the first waiter so that nobody starves.
#include "arch/x86/cpu.h"
#include "kernel/lib.h"
#include "kernel/sched.h"

// A free mutex has no owner; whoever writes itself there first has it.
static bool take(struct mutex *m, struct thread *t)
{
    struct thread *owner = NULL;
    if (__atomic_compare_exchange_n(&m->owner, &owner, t, false, __ATOMIC_SEQ_CST,
                                    __ATOMIC_RELAXED))
        return true;
    return owner == t; // handed over
}

void mutex_lock(struct mutex *m)
{
    struct thread *t = thread_current();
    assert(this_cpu()->irq_depth == 0 && this_cpu()->spin_depth == 0);
    assert(!t->waiting_on); // inside a wait's condition
    assert(m->owner != t);
    if (take(m, t))
        return;
    while (m->owner != t) {
        waitq_prepare(&m->waiters);
        if (take(m, t))
            waitq_cancel(&m->waiters);
        else
            waitq_commit(&m->waiters, 0);
    }
}

static void hand_over(struct mutex *m)
{
    u64 flags = spin_lock_irqsave(&m->waiters.lock);
    // waitq_wake_one takes the lock again, and would wake whoever came in between: the owner is
    // written first, and only that thread leaves mutex_lock.
    __atomic_store_n(&m->owner, m->waiters.head, __ATOMIC_SEQ_CST);
    spin_unlock_irqrestore(&m->waiters.lock, flags);
    waitq_wake_one(&m->waiters);
}

void mutex_unlock(struct mutex *m)
{
    assert(m->owner == thread_current());
    if (__atomic_load_n(&m->waiters.head, __ATOMIC_RELAXED)) {
        hand_over(m);
        return;
    }
    // A waiter queues first and then tries to take it, this writes first and then looks at the
    // queue: one of the two sees the other.
    __atomic_store_n(&m->owner, NULL, __ATOMIC_SEQ_CST);
    if (__builtin_expect(__atomic_load_n(&m->waiters.head, __ATOMIC_SEQ_CST) != NULL, 0))
        waitq_wake_one(&m->waiters);
}

bool mutex_held(const struct mutex *m)
{
    return m->owner == thread_current();
}
