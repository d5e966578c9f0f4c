// SPDX-License-Identifier: MIT
// Inside the scheduler: struct thread and the run queue, shared by sched.c, balance.c, thread.c and
// waitq.c.
#ifndef SKIFF_KERNEL_SCHED_H
#define SKIFF_KERNEL_SCHED_H

#include "kernel/thread.h"
#include "kernel/time.h"

enum thread_state {
    THREAD_RUNNING, // current on its CPU
    THREAD_READY,   // in the run queue
    THREAD_BLOCKED, // waits for a wake or its timer
    THREAD_DEAD,    // to be freed once its stack is left
};

// Owned by the thread itself unless a lock is named. "rq": the lock of its CPU's run queue.
struct thread {
    char name[16];
    enum thread_state state; // rq
    u32 cpu;                 // whose queue it is in or runs from; rq, written with atomics
    unsigned flags;
    bool idle;
    bool background; // rq
    void *sp;        // while not running; rq
    void *stack_top; // NULL: not ours (CPU 0's first thread)
    u32 stack_pages;
    void (*fn)(void *arg);
    void *arg;
    void *xsave;      // with THREAD_XSAVE
    bool xsave_taken; // its state is in the CPU while the thread runs
    struct vcpu *vcpu;

    struct thread *run_next; // rq
    u64 vruntime;            // ns of CPU used, levelled when it wakes, background ones' more; rq
    u64 cpu_ns;              // total; rq
    u64 switched_in_ns;      // rq
    u64 ready_since_ns;      // while it is ready; rq
    u64 waited_ns;           // total time it was ready and another ran; rq
    u64 waited_max_ns;       // longest such wait; rq
    u64 polled_ns;           // last time it offered the CPU (debug builds)
    u64 breaches;

    struct waitq *waiting_on; // between prepare and commit or cancel
    struct thread *wait_next; // in waiting_on; its lock
    bool queued;              // still linked in waiting_on; its lock
    bool woken;               // rq
    struct ktimer timeout;

    struct thread *all_next; // list of living threads; list lock
};

struct run_queue {
    struct spinlock lock;
    struct thread *ready; // by vruntime; lock
    struct thread *idle;
    struct thread *patient; // blocked, and to run before the CPU idles; lock
    s64 lead;               // of the running thread: its vruntime is this plus the time now; atomic
    u64 reached_ns; // the highest vruntime run from here but in the background, only grows; lock,
                    // read by others
    u64 next_balance_ns; // this CPU
    struct ktimer slice; // throws a guest out when its slice is used up; this CPU
    struct thread *dead; // linked by run_next; lock
    u64 contended_ns;    // that vCPU threads ran while another waited; lock
    u64 waiting_since;   // another waits for the CPU since then; lock
};

// That CPU's.
struct run_queue *sched_queue(u32 cpu);
// A ready thread, in its place; the queue's lock is held.
void sched_enqueue(struct run_queue *rq, struct thread *t);
// A background thread gets this power of two's part of what each other thread gets.
#define BACKGROUND_SHIFT 3
static inline u64 vruntime_now(const struct thread *t, u64 now)
{
    return t->vruntime + ((now - t->switched_in_ns) << (t->background ? BACKGROUND_SHIFT : 0));
}

void sched_init_cpu(struct thread *current, struct thread *idle);
void sched_add(struct thread *t); // a new thread becomes ready
void sched_kicked(void);          // interrupt context: another CPU has put something into our queue
void sched_wake(struct thread *t);           // remembered when it has not blocked yet
bool sched_block(u64 deadline_ns);           // until sched_wake (true) or the deadline (false)
bool sched_block_patiently(u64 deadline_ns); // or until the CPU would be idle (false)
void sched_yield_to_others(bool all);        // behind the first of those that are ready, or all
void sched_die(void) __attribute__((noreturn));
struct thread *sched_reap(void); // one dead thread whose stack may be freed, or NULL
void sched_get_times(struct thread *t, struct thread_info *out); // a living thread's
void sched_finish_switch(void); // first thing a new thread does: completes the switch to it
void idle_loop(void *arg) __attribute__((noreturn));

// balance.c
#define BALANCE_NS (10 * NS_PER_MS) // how often a busy CPU looks at the others' queues
u64 balance_movable_cpus(void);     // CPUs for movable threads
bool balance_may_move_to(u32 cpu);
void balance_note_idle(bool idle); // whether this CPU is
bool balance_is_idle(u32 cpu);
void balance_offer(void); // a movable thread waits behind another here
// Where a thread that wakes is to run: where it was, unless only another CPU is idle.
u32 balance_choose_cpu(const struct thread *t);
bool balance_pull(void); // takes a ready thread from another CPU's queue, if there is one
// Now and then: others' threads that wait although they are behind the one that runs here.
void balance_look(struct thread *running);

#endif
