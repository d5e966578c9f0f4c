// SPDX-License-Identifier: MIT
// Threads: creation, end, and what can be told about them.
#include "kernel/thread.h"

#include "arch/x86/cpu.h"
#include "kernel/lib.h"
#include "kernel/mem.h"
#include "kernel/sched.h"

#define STACK_PAGES     4
#define BIG_STACK_PAGES 16
#define STACK_FILL      0x5afe57ac5afe57acull // shows how deep a stack was used

static struct spinlock list_lock;
static struct thread *all_threads; // living ones; list_lock
static struct thread main_thread;

static void list_insert(struct thread *t)
{
    u64 flags = spin_lock_irqsave(&list_lock);
    struct thread **at = &all_threads;
    while (*at)
        at = &(*at)->all_next;
    *at = t;
    spin_unlock_irqrestore(&list_lock, flags);
}

static void list_remove(struct thread *t)
{
    u64 flags = spin_lock_irqsave(&list_lock);
    struct thread **at = &all_threads;
    while (*at != t)
        at = &(*at)->all_next;
    *at = t->all_next;
    spin_unlock_irqrestore(&list_lock, flags);
}

static void release(struct thread *t)
{
    if (t->xsave)
        xsave_area_free(t->xsave);
    if (t->stack_top)
        stack_free(t->stack_top, t->stack_pages);
    kfree(t);
}

// A thread cannot free the stack it stands on, so the next one to come or go does.
static void reap_dead(void)
{
    for (struct thread *t = sched_reap(); t; t = sched_reap())
        if (t != &main_thread)
            release(t);
}

static void start(void *arg)
{
    struct thread *t = arg;
    sched_finish_switch();
    t->fn(t->arg);
    thread_exit();
}

static void fill_stack(void *top, u32 pages)
{
    u64 *p = (u64 *)((u8 *)top - pages * PAGE_SIZE);
    for (u64 i = 0; i < pages * PAGE_SIZE / sizeof(*p); i++)
        p[i] = STACK_FILL;
}

static struct thread *make(const char *name, void (*fn)(void *), void *arg, unsigned flags)
{
    struct thread *t = kzalloc(sizeof(*t));
    if (!t)
        return NULL;
    strlcpy(t->name, name, sizeof(t->name));
    t->fn = fn;
    t->arg = arg;
    t->flags = flags;
    t->stack_pages = flags & THREAD_BIG_STACK ? BIG_STACK_PAGES : STACK_PAGES;
    t->stack_top = stack_alloc(t->stack_pages);
    if (flags & THREAD_XSAVE)
        t->xsave = xsave_area_alloc();
    t->xsave_taken = t->xsave != NULL;
    if (!t->stack_top || ((flags & THREAD_XSAVE) && !t->xsave)) {
        release(t);
        return NULL;
    }
    fill_stack(t->stack_top, t->stack_pages);
    t->sp = arch_stack_prepare(t->stack_top, start, t);
    return t;
}

struct thread *thread_create(const char *name, void (*fn)(void *arg), void *arg, unsigned flags)
{
    reap_dead();
    struct thread *t = make(name, fn, arg, flags);
    if (!t)
        return NULL;
    list_insert(t);
    sched_add(t);
    return t;
}

void thread_init(void)
{
    struct thread *t = &main_thread;
    strlcpy(t->name, "main", sizeof(t->name));
    struct thread *idle = make("idle", idle_loop, NULL, 0);
    if (!idle)
        panic("no memory for the idle thread");
    list_insert(t);
    list_insert(idle);
    sched_init_cpu(t, idle);
}

struct thread *thread_create_idle(u32 cpu, void **stack_top)
{
    struct thread *t = make("idle", NULL, NULL, 0);
    if (!t)
        return NULL;
    t->cpu = cpu;
    *stack_top = t->stack_top;
    list_insert(t);
    return t;
}

void thread_free_idle(struct thread *t)
{
    list_remove(t);
    release(t);
}

void thread_exit(void)
{
    reap_dead();
    list_remove(thread_current());
    sched_die();
}

struct thread *thread_current(void)
{
    return this_cpu()->current;
}

const char *thread_name(const struct thread *t)
{
    return t->name;
}

void thread_sleep_ns(u64 ns)
{
    u64 deadline = time_ns() + ns;
    while (time_ns() < deadline)
        sched_block(deadline);
}

struct vcpu *thread_get_vcpu(void)
{
    struct thread *t = thread_current();
    return t ? t->vcpu : NULL;
}

// Interrupts do not switch threads, so nothing can come between the two steps.
void thread_xsave_give(void)
{
    struct thread *t = thread_current();
    xsave_save(t->xsave);
    t->xsave_taken = false;
}

void thread_xsave_take(void)
{
    struct thread *t = thread_current();
    xsave_restore(t->xsave);
    t->xsave_taken = true;
}

void *thread_xsave_area(struct thread *t)
{
    return t->xsave;
}

static u32 stack_used(const struct thread *t)
{
    if (!t->stack_top)
        return 0;
    const u64 *low = (const u64 *)((u8 *)t->stack_top - t->stack_pages * PAGE_SIZE);
    const u64 *p = low;
    while (p < (const u64 *)t->stack_top && *p == STACK_FILL)
        p++;
    return (u32)((u8 *)t->stack_top - (const u8 *)p);
}

static const char *state_name(const struct thread *t)
{
    static const char *const names[] = {"running", "ready", "blocked", "dead"};
    return names[t->state];
}

static void fill_info(struct thread *t, struct thread_info *out)
{
    *out = (struct thread_info){.state = state_name(t),
                                .cpu = t->cpu,
                                .stack_used = stack_used(t),
                                .stack_size = (u32)(t->stack_pages * PAGE_SIZE),
                                .breaches = t->breaches};
    strlcpy(out->name, t->name, sizeof(out->name));
    sched_get_times(t, out);
}

bool thread_get_info(unsigned i, struct thread_info *out)
{
    u64 flags = spin_lock_irqsave(&list_lock);
    struct thread *t = all_threads;
    while (t && i--)
        t = t->all_next;
    if (t)
        fill_info(t, out);
    spin_unlock_irqrestore(&list_lock, flags);
    return t != NULL;
}

bool thread_find_info(const struct thread *wanted, struct thread_info *out)
{
    u64 flags = spin_lock_irqsave(&list_lock);
    struct thread *t = all_threads;
    while (t && t != wanted)
        t = t->all_next;
    if (t)
        fill_info(t, out);
    spin_unlock_irqrestore(&list_lock, flags);
    return t != NULL;
}
