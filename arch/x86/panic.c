// SPDX-License-Identifier: MIT
// The end of the host: what happened, on which thread and for which guest, on the serial port.
#include "arch/x86/apic.h"
#include "arch/x86/cpu.h"
#include "arch/x86/descriptors.h"
#include "arch/x86/paging.h"
#include "arch/x86/serial.h"
#include "kernel/guest/guest.h"
#include "kernel/lib.h"
#include "kernel/log.h"
#include "kernel/thread.h"

u64 __stack_chk_guard = 0x5f4a9b3c7e21d800ull; // replaced at entry by boot/start.S
void __stack_chk_fail(void) __attribute__((noreturn));

static volatile u32 crash_depth;
static u32 crashed_cpu;

static void stop_cpu(void) __attribute__((noreturn));
static void stop_cpu(void)
{
    for (;;)
        __asm__ volatile("cli; hlt" : : : "memory");
}

bool crash_in_progress(void)
{
    return crash_depth != 0;
}

void crash_print(const char *fmt, ...)
{
    char line[256];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(line, sizeof(line) - 1, fmt, ap);
    va_end(ap);
    strlcpy(line + strlen(line), "\n", 2);
    serial_write(line, strlen(line));
}

void crash_begin(void)
{
    irq_disable();
    u32 depth = __atomic_fetch_add(&crash_depth, 1, __ATOMIC_SEQ_CST);
    u32 index = this_cpu()->index;
    if (depth > 0 && (index != crashed_cpu || depth > 2))
        stop_cpu();
    crashed_cpu = index;
    if (depth == 0 && cpu_count > 1)
        lapic_nmi_others();
    serial_crash_mode();
    log_print_unshown();
    crash_print("\n*** Skiff " SKIFF_VERSION ": %s ***",
                depth == 0 ? "the host has crashed" : "it crashed again while telling");
}

// A damaged thread may point anywhere: look before following.
static void print_context(void)
{
    struct thread *t = thread_current();
    if (t == NULL || !paging_is_mapped((u64)t)) {
        crash_print("cpu %u, no thread", this_cpu()->index);
        return;
    }
    crash_print("cpu %u, thread \"%.15s\"%s", this_cpu()->index, thread_name(t),
                this_cpu()->irq_depth > 0 ? ", in an interrupt handler" : "");
    const struct vcpu *v = thread_get_vcpu();
    if (v != NULL && paging_is_mapped((u64)v) && paging_is_mapped((u64)v->guest))
        crash_print("working for guest \"%.31s\", vCPU %u", v->guest->name, v->index);
}

void crash_end(void)
{
    // Depth 2 is a fault in here: then the rest is not worth another one.
    if (crash_depth == 1)
        print_context();
    crash_print("*** the host is stopped; reset the machine to start again ***");
    serial_crash_mode();
    stop_cpu();
}

void panic(const char *fmt, ...)
{
    char text[200];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    crash_begin();
    crash_print("%s", text);
    backtrace_print((u64)__builtin_frame_address(0), 0);
    crash_end();
}

void __stack_chk_fail(void)
{
    panic("a function wrote past the end of its stack frame (stack protector)");
}
