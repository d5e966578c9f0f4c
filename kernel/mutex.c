// SPDX-License-Identifier: MIT
// Sleeping mutexes, handed straight to the first waiter so that nobody starves.
#include "arch/x86/cpu.h"
#include "kernel/lib.h"
#include "kernel/sched.h"

// Under the queue's lock, so that it cannot cross with the hand-over in mutex_unlock.
static bool take(struct mutex *m, struct thread *t)
{
    u64 flags = spin_lock_irqsave(&m->waiters.lock);
    if (!m->owner)
        m->owner = t;
    bool mine = m->owner == t;
    spin_unlock_irqrestore(&m->waiters.lock, flags);
    return mine;
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

void mutex_unlock(struct mutex *m)
{
    assert(m->owner == thread_current());
    u64 flags = spin_lock_irqsave(&m->waiters.lock);
    // waitq_wake_one takes the lock again, and would wake whoever came in between: the owner is
    // written first, and only that thread leaves mutex_lock.
    m->owner = m->waiters.head;
    spin_unlock_irqrestore(&m->waiters.lock, flags);
    waitq_wake_one(&m->waiters);
}

bool mutex_held(const struct mutex *m)
{
    return m->owner == thread_current();
}
