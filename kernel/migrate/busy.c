// SPDX-License-Identifier: MIT
// Reads what a connection has cost out of the scheduler's accounts.
#include "kernel/migrate/busy.h"

#include "kernel/lib.h"
#include "kernel/thread.h"

u64 busy_cpu_ns(void)
{
    struct thread_info t;
    for (u32 i = 0; thread_get_info(i, &t); i++)
        if (strcmp(t.name, "net") == 0)
            return thread_cpu_ns() + t.cpu_ns;
    return thread_cpu_ns();
}

u64 busy_ns(void)
{
    return busy_cpu_ns() + thread_contended_ns();
}
