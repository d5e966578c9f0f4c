// SPDX-License-Identifier: MIT
// Linked into every unit test: what the kernel has and the C library lacks. Everything is weak, so
// a test or a real source it names takes its place.
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernel/lib.h"
#include "kernel/mem.h"
#include "kernel/thread.h"

__attribute__((weak)) size_t strlcpy(char *dst, const char *src, size_t size)
{
    size_t n = strlen(src);
    if (size) {
        size_t k = MIN(n, size - 1);
        memcpy(dst, src, k);
        dst[k] = 0;
    }
    return n;
}

__attribute__((weak)) void panic(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fputc('\n', stderr);
    abort();
}

// A test runs on one thread: a lock that is taken twice is a fault, and nothing else is.
__attribute__((weak)) void spin_lock(struct spinlock *l)
{
    assert(!l->locked);
    l->locked = 1;
}

__attribute__((weak)) void spin_unlock(struct spinlock *l)
{
    assert(l->locked);
    l->locked = 0;
}

__attribute__((weak)) u64 spin_lock_irqsave(struct spinlock *l)
{
    spin_lock(l);
    return 0;
}

__attribute__((weak)) void spin_unlock_irqrestore(struct spinlock *l, u64 flags)
{
    (void)flags;
    spin_unlock(l);
}

__attribute__((weak)) bool spin_held(const struct spinlock *l)
{
    return l->locked;
}

// Tests whose mutexes have no owners cannot tell.
__attribute__((weak)) bool mutex_held(const struct mutex *m)
{
    (void)m;
    return true;
}

__attribute__((weak)) void mem_account(enum mem_use use, s64 delta_bytes)
{
    (void)use, (void)delta_bytes;
}

// ---- Memory, and one thread that need not wait -------------------------------------------------

__attribute__((weak)) void *kmalloc(size_t n)
{
    return malloc(n);
}

__attribute__((weak)) void *kzalloc(size_t n)
{
    return calloc(1, n);
}

__attribute__((weak)) void kfree(void *p)
{
    free(p);
}

__attribute__((weak)) void thread_yield_if_needed(void)
{
}

__attribute__((weak)) void thread_set_background(bool background)
{
    (void)background;
}

__attribute__((weak)) void waitq_prepare(struct waitq *q)
{
    (void)q;
}

__attribute__((weak)) void waitq_cancel(struct waitq *q)
{
    (void)q;
}
