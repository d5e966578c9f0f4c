// SPDX-License-Identifier: MIT
// What threads on real stacks need below them: time and timers moved by hand, memory that is counted,
// and a second CPU that the test itself plays.
#ifndef SKIFF_TESTS_FAKE_THREADS_H
#define SKIFF_TESTS_FAKE_THREADS_H

#include "tests/unit/unit.h"

#include "kernel/lib.h"
#include "kernel/mem.h"
#include "kernel/sched.h"
#include "kernel/thread.h"
#include "kernel/time.h"
#include "tests/unit/fake_cpu.h"

static u64 now; // moved by the threads themselves
u32 cpu_count = 1;
static struct cpu second_cpu = {.self = &second_cpu, .index = 1};
static unsigned kicks[2];
static struct ktimer *timers;
static unsigned stacks_out, blocks_out, saves, restores;

u64 time_ns(void)
{
    return now;
}

void spin_lock(struct spinlock *l)
{
    assert_false(l->locked);
    l->locked = 1;
    this_cpu()->spin_depth++;
}

void spin_unlock(struct spinlock *l)
{
    assert_true(l->locked);
    l->locked = 0;
    this_cpu()->spin_depth--;
}

void ktimer_cancel(struct ktimer *t)
{
    for (struct ktimer **at = &timers; *at; at = &(*at)->next)
        if (*at == t) {
            *at = t->next;
            break;
        }
    t->armed = false;
}

void ktimer_set(struct ktimer *t, u64 deadline_ns, void (*fn)(struct ktimer *t))
{
    ktimer_cancel(t);
    t->deadline_ns = deadline_ns;
    t->fn = fn;
    struct ktimer **at = &timers;
    while (*at && (*at)->deadline_ns <= deadline_ns)
        at = &(*at)->next;
    t->next = *at;
    t->armed = true;
    *at = t;
}

// The timer interrupt.
static void tick(void)
{
    fake_cpu_block.irq_depth++;
    while (timers && timers->deadline_ns <= now) {
        struct ktimer *t = timers;
        timers = t->next;
        t->armed = false;
        t->fn(t);
    }
    fake_cpu_block.irq_depth--;
}

// Nothing is ready: time passes until the next timer.
void idle_loop(void *arg)
{
    (void)arg;
    for (;;) {
        assert_non_null(timers); // everybody waits for nothing
        now = MAX(now, timers->deadline_ns);
        tick();
        thread_yield();
    }
}

struct cpu *cpu_get(u32 index)
{
    return index ? &second_cpu : &fake_cpu_block;
}

void cpu_kick(u32 cpu_index)
{
    kicks[cpu_index]++;
}

void *stack_alloc(u32 pages)
{
    stacks_out++;
    return (u8 *)aligned_alloc(4096, pages * 4096ull) + pages * 4096ull;
}

void stack_free(void *top, u32 pages)
{
    stacks_out--;
    free((u8 *)top - pages * 4096ull);
}

void arch_thread_start(void);

void *arch_stack_prepare(void *stack_top, void (*fn)(void *), void *arg)
{
    u64 *sp = (u64 *)stack_top - 2;
    *--sp = (u64)arch_thread_start;
    u64 regs[] = {0, 0, (u64)fn, (u64)arg, 0, 0}; // RBP RBX R12 R13 R14 R15
    for (size_t i = 0; i < ARRAY_SIZE(regs); i++)
        *--sp = regs[i];
    return sp;
}

void *kzalloc(size_t size)
{
    blocks_out++;
    return calloc(1, size);
}

void kfree(void *p)
{
    if (p)
        blocks_out--;
    free(p);
}

void *xsave_area_alloc(void)
{
    return malloc(64);
}

void xsave_area_free(void *area)
{
    free(area);
}

void xsave_save(void *area)
{
    (void)area;
    saves++;
}

void xsave_restore(const void *area)
{
    (void)area;
    restores++;
}

static char trace[256];

static void note(const char *s)
{
    strcat(trace, s);
}

static int start(void **state)
{
    (void)state;
    trace[0] = 0;
    return 0;
}

static int start_all(void **state)
{
    (void)state;
    fake_cpu();
    thread_init();
    return 0;
}

#endif
