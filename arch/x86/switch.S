// SPDX-License-Identifier: MIT
// The switch from one thread's stack to another's.

    .text
    .globl arch_switch
    .type arch_switch, @function
// void arch_switch(void **old_sp, void *new_sp): what the C convention lets a callee change freely
// needs no saving.
arch_switch:
    push %rbp
    push %rbx
    push %r12
    push %r13
    push %r14
    push %r15
    mov %rsp, (%rdi)
    mov %rsi, %rsp
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %rbx
    pop %rbp
    ret
    .size arch_switch, . - arch_switch

    .globl arch_thread_start
    .hidden arch_thread_start
    .type arch_thread_start, @function
// A new thread's first instructions: arch_stack_prepare left fn in R12 and its argument in R13.
arch_thread_start:
    mov %r13, %rdi
    xor %ebp, %ebp
    call *%r12
    ud2 // a thread's body never returns here
    .size arch_thread_start, . - arch_thread_start

    .section .note.GNU-stack, "", @progbits
