// SPDX-License-Identifier: MIT
// Segment selectors and the interrupt frame; shared with assembly.
#ifndef SKIFF_ARCH_DESCRIPTORS_H
#define SKIFF_ARCH_DESCRIPTORS_H

#define SELECTOR_CODE 0x08
#define SELECTOR_DATA 0x10
#define SELECTOR_TSS  0x18

// Interrupt stack table entries (SDM 3A 7.14.5): these must work on a broken stack.
#define IST_NMI           1
#define IST_DOUBLE_FAULT  2
#define IST_MACHINE_CHECK 3

#ifndef __ASSEMBLER__
#include "kernel/types.h"

struct cpu;

// What vectors.S leaves on the stack, lowest address first.
struct trap_frame {
    u64 r15, r14, r13, r12, r11, r10, r9, r8, rdi, rsi, rbp, rbx, rdx, rcx, rax;
    u64 vector, error;
    u64 rip, cs, rflags, rsp, ss;
};
static_assert(sizeof(struct trap_frame) == 22 * 8, "vectors.S pushes this");

// A CPU's GDT, TSS and the stacks in it; on the boot CPU, before the other one starts.
void gdt_prepare(struct cpu *c);
void gdt_load(struct cpu *c); // on that CPU: GDT, TSS, GS base
void idt_prepare(void);       // one table for all, once
void idt_load(void);          // on every CPU
void exception(struct trap_frame *f) __attribute__((noreturn));
void trap_entry(struct trap_frame *f); // from vectors.S

// Panic's parts, for the exception handler: crash_begin claims the serial port, crash_end stops.
void crash_begin(void);
void crash_print(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void crash_end(void) __attribute__((noreturn));
bool crash_in_progress(void);
#endif

#endif
