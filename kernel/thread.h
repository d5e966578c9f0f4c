// SPDX-License-Identifier: MIT
// Cooperative kernel threads with guarded stacks, wait queues and locks.
// Interrupt handlers only wake; a switch happens where a thread blocks or yields.
#ifndef SKIFF_KERNEL_THREAD_H
#define SKIFF_KERNEL_THREAD_H

#include "kernel/types.h"

struct thread;
struct vcpu;

enum thread_flags {
    THREAD_XSAVE = 1 << 0, // owns an XSAVE area: may run SIMD code, and is what a vCPU thread has
    THREAD_BIG_STACK = 1 << 1, // 64 KiB of stack instead of 16
    THREAD_MOVABLE = 1 << 2,   // may run on any CPU, and change it where it blocks or yields
};

// Turns the context that calls it into CPU 0's first thread ("main") and makes its idle thread.
// After mem_init and arch_paging_init (stacks), before anything blocks.
void thread_init(void);

// The idle thread of a CPU that is about to start, whose first stack it is. NULL without memory.
struct thread *thread_create_idle(u32 cpu, void **stack_top);
void thread_free_idle(struct thread *t); // its CPU did not start
// Starts a thread. name is copied (15 characters). Returns NULL without memory. Those that are not
// movable run on the boot CPU, so that they never run at the same time as one another.
struct thread *thread_create(const char *name, void (*fn)(void *arg), void *arg, unsigned flags);
// Movable threads keep off these CPUs, a bit each, where there are others. Before there are any.
void thread_keep_off(u64 cpus);
struct thread *thread_current(void);
const char *thread_name(const struct thread *t);
// The current thread does what nobody waits for: while others want its CPU it gets an eighth of
// what one of them gets.
void thread_set_background(bool background);
void thread_exit(void) __attribute__((noreturn));
void thread_yield(void);
// As thread_yield, for one that spins until others have got on: all that are ready go first, as far
// as a slice's worth of CPU time allows.
void thread_yield_to_all(void);
// Yields only when another thread is runnable or the slice is used up; cheap enough for inner
// loops.
void thread_yield_if_needed(void);
bool thread_need_resched(void); // something else wants this CPU (readable with interrupts off)
bool thread_others_ready(void); // something else waits for this CPU, however far behind it is
u64 thread_cpu_ns(void);        // that the current thread has used
// CPU time that guests have used on this CPU while another thread waited for it.
u64 thread_contended_ns(void);
void thread_sleep_ns(u64 ns);
// The guest and vCPU a thread works for, named in crash dumps. NULL clears it.
void thread_set_vcpu(struct vcpu *v);
struct vcpu *thread_get_vcpu(void);
// A THREAD_XSAVE thread with a vCPU set has put(vcpu) called when it is switched away from and
// load(vcpu) when it is switched to, with interrupts off. thread_set_vcpu itself calls neither.
// ask(vcpu) is called on its CPU when it is to call thread_yield_if_needed before it enters its
// guest again, with the run queue's lock held or from an interrupt.
void thread_set_vcpu_hooks(void (*put)(struct vcpu *v), void (*load)(struct vcpu *v),
                           void (*ask)(struct vcpu *v));
// The XSAVE area of a thread; NULL for threads without. It is current, and others' to change, while
// the thread has given it: between give and take the thread runs without, and no switch touches it.
void *thread_xsave_area(struct thread *t);
void thread_xsave_give(void);
void thread_xsave_take(void);

// Spinlock; irqsave form for data shared with interrupt handlers. Never block with one held.
struct spinlock {
    volatile u32 locked;
    u32 owner_cpu; // index + 1; 0: free
};
void spin_lock(struct spinlock *l);
void spin_unlock(struct spinlock *l);
u64 spin_lock_irqsave(struct spinlock *l); // returns the flags to restore
void spin_unlock_irqrestore(struct spinlock *l, u64 flags);
bool spin_held(const struct spinlock *l); // by this CPU

// Wait queue. waitq_wake_* may be called from interrupt handlers.
struct waitq {
    struct spinlock lock;
    struct thread *head, *tail;
};
void waitq_wake_one(struct waitq *q);
void waitq_wake_all(struct waitq *q);
// Both in one step: whoever has waited for *flag may free it and the queue.
void waitq_set_and_wake(struct waitq *q, volatile bool *flag);
// Blocks once until woken or deadline_ns (host time, 0: none). Returns false on the deadline.
// Races with the condition are closed by prepare/commit: between waitq_prepare and waitq_commit a
// wake is remembered. Use the macros.
void waitq_prepare(struct waitq *q);
bool waitq_commit(struct waitq *q, u64 deadline_ns);
// As waitq_commit, and returns as well (false) once nothing else wants this CPU. For one thread a
// CPU, which is not movable.
bool waitq_commit_patiently(struct waitq *q, u64 deadline_ns);
void waitq_cancel(struct waitq *q);

// Waits until cond is true; evaluates to false when deadline_ns passed with cond still false.
#define wait_event_until(q, cond, deadline_ns)                                                     \
    ({                                                                                             \
        bool _ok = true;                                                                           \
        for (;;) {                                                                                 \
            waitq_prepare(q);                                                                      \
            if (cond) {                                                                            \
                waitq_cancel(q);                                                                   \
                break;                                                                             \
            }                                                                                      \
            if (!waitq_commit(q, deadline_ns)) {                                                   \
                _ok = (cond);                                                                      \
                break;                                                                             \
            }                                                                                      \
        }                                                                                          \
        _ok;                                                                                       \
    })
#define wait_event(q, cond) ((void)wait_event_until(q, cond, 0))

// Sleeping mutex with an owner, for threads only.
struct mutex {
    struct waitq waiters;
    struct thread *owner;
};
void mutex_lock(struct mutex *m);
void mutex_unlock(struct mutex *m);
bool mutex_held(const struct mutex *m); // by the current thread

// What needs a lock says so, and debug builds check that the caller has it.
// clang-format off
#define lock_held(lock)                                                                            \
    _Generic((lock), struct spinlock *: spin_held, const struct spinlock *: spin_held,             \
             struct mutex *: mutex_held)(lock)
// clang-format on
#define assert_held(lock) assert(!SKIFF_DEBUG || lock_held(lock))

struct thread_info {
    char name[16];
    const char *state; // "running", "ready", "blocked"
    u64 cpu_ns;
    u64 waited_ns;     // time it was ready to run and another thread had the CPU
    u64 waited_max_ns; // the longest such wait
    u32 cpu;
    u32 stack_used; // bytes, high-water mark
    u32 stack_size;
    u64 breaches; // debug builds: stretches over 1 ms without a yield
};
// Fills the i-th living thread's info; false when there is none.
bool thread_get_info(unsigned i, struct thread_info *out);
// The same of one thread; false when it has ended.
bool thread_find_info(const struct thread *t, struct thread_info *out);

// Debug builds count stretches over 1 ms without a yield, per thread name; 0 in release builds.
u64 thread_slice_breaches(void);

#endif
