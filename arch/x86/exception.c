// SPDX-License-Identifier: MIT
// Host exceptions: all of them are our own faults, so they are told in full and end the host.
#include "arch/x86/cpu.h"
#include "arch/x86/descriptors.h"
#include "arch/x86/msr.h"
#include "arch/x86/paging.h"
#include "kernel/guest/guest.h"
#include "kernel/lib.h"
#include "kernel/thread.h"

#define VECTOR_NMI          2
#define VECTOR_DOUBLE_FAULT 8
#define VECTOR_PAGE_FAULT   14

static const char *const names[32] = {
    [0] = "divide error",
    [1] = "debug exception",
    [2] = "non-maskable interrupt",
    [3] = "breakpoint",
    [4] = "overflow",
    [5] = "bound range exceeded",
    [6] = "invalid opcode",
    [7] = "device not available",
    [8] = "double fault",
    [10] = "invalid TSS",
    [11] = "segment not present",
    [12] = "stack-segment fault",
    [13] = "general protection fault",
    [14] = "page fault",
    [16] = "x87 floating-point error",
    [17] = "alignment check",
    [18] = "machine check",
    [19] = "SIMD floating-point error",
    [20] = "virtualization exception",
    [21] = "control protection exception",
};

static void print_registers(const struct trap_frame *f)
{
    crash_print("rax %016llx rbx %016llx rcx %016llx rdx %016llx", (unsigned long long)f->rax,
                (unsigned long long)f->rbx, (unsigned long long)f->rcx, (unsigned long long)f->rdx);
    crash_print("rsi %016llx rdi %016llx rbp %016llx rsp %016llx", (unsigned long long)f->rsi,
                (unsigned long long)f->rdi, (unsigned long long)f->rbp, (unsigned long long)f->rsp);
    crash_print("r8  %016llx r9  %016llx r10 %016llx r11 %016llx", (unsigned long long)f->r8,
                (unsigned long long)f->r9, (unsigned long long)f->r10, (unsigned long long)f->r11);
    crash_print("r12 %016llx r13 %016llx r14 %016llx r15 %016llx", (unsigned long long)f->r12,
                (unsigned long long)f->r13, (unsigned long long)f->r14, (unsigned long long)f->r15);
    crash_print("cr0 %08llx cr2 %016llx cr3 %012llx cr4 %08llx rflags %08llx cs %llx ss %llx",
                (unsigned long long)read_cr0(), (unsigned long long)read_cr2(),
                (unsigned long long)read_cr3(), (unsigned long long)read_cr4(),
                (unsigned long long)f->rflags, (unsigned long long)f->cs,
                (unsigned long long)f->ss);
}

static void print_page_fault(const struct trap_frame *f)
{
    u64 at = read_cr2();
    crash_print("%s of address %016llx, which is %s",
                f->error & BIT(4)   ? "execution"
                : f->error & BIT(1) ? "write"
                                    : "read",
                (unsigned long long)at, f->error & BIT(0) ? "protected" : "not mapped");
}

// The first fault on a full stack finds no room for its own frame and becomes a double fault, with
// CR2 as the first one left it.
static void print_overflow(const struct trap_frame *f)
{
    if ((f->vector == VECTOR_PAGE_FAULT || f->vector == VECTOR_DOUBLE_FAULT) &&
        paging_is_stack_guard(read_cr2()))
        crash_print("a stack overflowed: %016llx is in the guard page under it",
                    (unsigned long long)read_cr2());
}

// A call through a wild pointer leaves no frame, but its return address is on top of the stack.
static void print_backtrace(const struct trap_frame *f)
{
    u64 offset;
    bool wild = symbol_lookup(f->rip, &offset)[0] == '?';
    if (wild)
        crash_print("rip %016llx is outside the image's text; called from:",
                    (unsigned long long)f->rip);
    u64 from = f->rip;
    if (wild && f->rsp % 8 == 0 && paging_is_mapped(f->rsp))
        from = *(const u64 *)f->rsp;
    backtrace_print(f->rbp, from);
}

void exception(struct trap_frame *f)
{
    const char *name = f->vector < 32 ? names[f->vector] : NULL;
    crash_begin();
    crash_print("host exception %llu (%s), error code %llx", (unsigned long long)f->vector,
                name != NULL ? name : "reserved", (unsigned long long)f->error);
    if (f->vector == VECTOR_PAGE_FAULT)
        print_page_fault(f);
    print_overflow(f);
    print_registers(f);
    print_backtrace(f);
    crash_end();
}

void trap_entry(struct trap_frame *f)
{
    if (f->vector >= 32) {
        irq_dispatch((u32)f->vector);
        return;
    }
    // A CPU that panics stops the others by NMI.
    if (f->vector == VECTOR_NMI && crash_in_progress()) {
        for (;;)
            __asm__ volatile("cli; hlt");
    }
    exception(f);
}
