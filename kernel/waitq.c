// SPDX-License-Identifier: MIT
// Wait queues. Lock order: the queue's lock, then the run queue's of the thread that is woken.
#include "arch/x86/cpu.h"
#include "kernel/lib.h"
#include "kernel/sched.h"

static void unlink(struct waitq *q, struct thread *t)
{
    assert_held(&q->lock);
    struct thread *prev = NULL;
    struct thread *at = q->head;
    while (at != t) {
        prev = at;
        at = at->wait_next;
    }
    if (prev)
        prev->wait_next = t->wait_next;
    else
        q->head = t->wait_next;
    if (q->tail == t)
        q->tail = prev;
    t->wait_next = NULL;
    t->queued = false;
}

// Queue lock held, or the thread could end its wait and be gone between the two steps.
static bool wake_head(struct waitq *q)
{
    assert_held(&q->lock);
    struct thread *t = q->head;
    if (!t)
        return false;
    unlink(q, t);
    sched_wake(t);
    return true;
}

void waitq_wake_one(struct waitq *q)
{
    u64 flags = spin_lock_irqsave(&q->lock);
    wake_head(q);
    spin_unlock_irqrestore(&q->lock, flags);
}

void waitq_wake_all(struct waitq *q)
{
    u64 flags = spin_lock_irqsave(&q->lock);
    while (wake_head(q))
        ;
    spin_unlock_irqrestore(&q->lock, flags);
}

void waitq_set_and_wake(struct waitq *q, volatile bool *flag)
{
    u64 flags = spin_lock_irqsave(&q->lock);
    *flag = true;
    while (wake_head(q))
        ;
    spin_unlock_irqrestore(&q->lock, flags);
}

void waitq_prepare(struct waitq *q)
{
    struct thread *t = thread_current();
    assert(this_cpu()->irq_depth == 0 && this_cpu()->spin_depth == 0);
    assert(!t->waiting_on); // a condition that blocks on something else
    u64 flags = spin_lock_irqsave(&q->lock);
    t->waiting_on = q;
    t->woken = false;
    t->queued = true;
    t->wait_next = NULL;
    if (q->tail)
        q->tail->wait_next = t;
    else
        q->head = t;
    q->tail = t;
    spin_unlock_irqrestore(&q->lock, flags);
}

static bool leave(struct waitq *q, struct thread *t)
{
    u64 flags = spin_lock_irqsave(&q->lock);
    bool woken = !t->queued;
    if (t->queued)
        unlink(q, t);
    t->waiting_on = NULL;
    t->woken = false;
    spin_unlock_irqrestore(&q->lock, flags);
    return woken;
}

bool waitq_commit(struct waitq *q, u64 deadline_ns)
{
    sched_block(deadline_ns);
    return leave(q, thread_current());
}

bool waitq_commit_patiently(struct waitq *q, u64 deadline_ns)
{
    sched_block_patiently(deadline_ns);
    return leave(q, thread_current());
}

// The condition holds, so the wake is not needed; one that went to this thread goes to the next.
void waitq_cancel(struct waitq *q)
{
    if (leave(q, thread_current()))
        waitq_wake_one(q);
}
