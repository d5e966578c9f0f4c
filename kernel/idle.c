// SPDX-License-Identifier: MIT
// The idle thread: halts its CPU until an interrupt makes a thread ready
// here or another CPU has one to spare.
#include "arch/x86/cpu.h"
#include "kernel/sched.h"

void idle_loop(void *arg)
{
    (void)arg;
    for (;;) {
        irq_disable();
        if (!thread_others_ready() && !balance_pull())
            cpu_idle(); // turns interrupts on and halts in one step: no wake is lost
        irq_enable();
        thread_yield();
    }
}
