// SPDX-License-Identifier: MIT
// Spinlocks. The CPU's spin_depth counts them, so that blocking with one held is caught.
#include "arch/x86/cpu.h"
#include "kernel/lib.h"
#include "kernel/thread.h"

void spin_lock(struct spinlock *l)
{
    struct cpu *c = this_cpu();
    assert(l->owner_cpu != c->index + 1); // this CPU would wait for itself
    c->spin_depth++;
    // Acquire: what the last owner wrote is seen from here on.
    while (__atomic_exchange_n(&l->locked, 1, __ATOMIC_ACQUIRE))
        while (l->locked)
            cpu_relax();
    l->owner_cpu = c->index + 1;
}

void spin_unlock(struct spinlock *l)
{
    struct cpu *c = this_cpu();
    assert(l->owner_cpu == c->index + 1);
    l->owner_cpu = 0;
    // Release: what this owner wrote is seen before the lock looks free.
    __atomic_store_n(&l->locked, 0, __ATOMIC_RELEASE);
    c->spin_depth--;
}

bool spin_held(const struct spinlock *l)
{
    return l->owner_cpu == this_cpu()->index + 1;
}

u64 spin_lock_irqsave(struct spinlock *l)
{
    u64 flags = irq_save();
    spin_lock(l);
    return flags;
}

void spin_unlock_irqrestore(struct spinlock *l, u64 flags)
{
    spin_unlock(l);
    irq_restore(flags);
}
