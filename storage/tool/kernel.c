// SPDX-License-Identifier: MIT
// What the sources of storage/ ask of the kernel, given by a program on Linux with one thread:
// whoever waits does the datastores' work meanwhile.
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "kernel/lib.h"
#include "kernel/log.h"
#include "kernel/mem.h"
#include "kernel/random.h"
#include "kernel/thread.h"
#include "storage/store.h"
#include "storage/tool/kernel.h"

static struct datastore *workers[64];
static u32 worker_count;
static bool working;
void (*kernel_idle)(void);

size_t strlcpy(char *dst, const char *src, size_t size)
{
    size_t n = strlen(src);
    if (size) {
        memcpy(dst, src, MIN(n, size - 1));
        dst[MIN(n, size - 1)] = 0;
    }
    return n;
}

void panic(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fputc('\n', stderr);
    abort();
}

__attribute__((weak)) void log_write(enum log_level level, const char *area, const char *fmt, ...)
{
    va_list ap;
    (void)area;
    if (level > LOG_WARN)
        return;
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fputc('\n', stderr);
}

void random_bytes(void *buf, size_t bytes)
{
    if (getrandom(buf, bytes, 0) != (ssize_t)bytes)
        panic("no random numbers");
}

// ---- Memory -------------------------------------------------------------------------------------

void *kmalloc(size_t size)
{
    return aligned_alloc(4096, ALIGN_UP(size, 4096)); // as O_DIRECT would have it
}

void *kzalloc(size_t size)
{
    void *p = kmalloc(size);
    return p ? memset(p, 0, size) : NULL;
}

void kfree(void *p)
{
    free(p);
}

u64 page_alloc_zero(unsigned order)
{
    return ptr_phys(kzalloc(PAGE_SIZE << order));
}

void page_free(u64 pa, unsigned order)
{
    (void)order;
    free(phys_ptr(pa));
}

void mem_account(enum mem_use use, s64 delta_bytes)
{
    (void)use, (void)delta_bytes;
}

// ---- One thread ---------------------------------------------------------------------------------

struct thread *thread_create(const char *name, void (*fn)(void *arg), void *arg, unsigned flags)
{
    (void)name, (void)flags;
    if (fn != store_worker) {
        fn(arg);
    } else {
        assert(worker_count < ARRAY_SIZE(workers));
        workers[worker_count++] = arg;
    }
    return (struct thread *)workers;
}

void kernel_forget_threads(void)
{
    worker_count = 0;
}

void thread_yield_if_needed(void)
{
}

void waitq_prepare(struct waitq *q)
{
    (void)q;
}

void waitq_cancel(struct waitq *q)
{
    (void)q;
}

void kernel_work(void)
{
    if (working)
        return;
    working = true;
    for (u32 i = 0; i < worker_count; i++)
        store_work(workers[i]);
    working = false;
}

bool waitq_commit(struct waitq *q, u64 deadline_ns)
{
    (void)q, (void)deadline_ns;
    if (kernel_idle)
        kernel_idle();
    kernel_work();
    return true;
}

void waitq_wake_all(struct waitq *q)
{
    (void)q;
}

void waitq_set_and_wake(struct waitq *q, volatile bool *flag)
{
    (void)q;
    *flag = true;
}

void mutex_lock(struct mutex *m)
{
    assert(!m->owner);
    m->owner = (struct thread *)workers;
}

bool mutex_held(const struct mutex *m)
{
    return m->owner;
}

void mutex_unlock(struct mutex *m)
{
    assert(m->owner);
    m->owner = NULL;
}

void spin_lock(struct spinlock *l)
{
    assert(!l->locked);
    l->locked = 1;
}

bool spin_held(const struct spinlock *l)
{
    return l->locked;
}

void spin_unlock(struct spinlock *l)
{
    assert(l->locked);
    l->locked = 0;
}

u64 spin_lock_irqsave(struct spinlock *l)
{
    spin_lock(l);
    return 0;
}

void spin_unlock_irqrestore(struct spinlock *l, u64 flags)
{
    (void)flags;
    spin_unlock(l);
}
