// SPDX-License-Identifier: MIT
// Interrupt and exception entry: 256 stubs of 16 bytes that end in one common path.
#include "arch/x86/descriptors.h"

    .text
    .balign 16
    .globl vector_stubs
    .hidden vector_stubs
    .type vector_stubs, @function
vector_stubs:
    .set vector, 0
    .rept 256
    .balign 16
    // Exceptions that push an error code themselves (SDM 3A table 6-1).
    .if vector == 8 || (vector >= 10 && vector <= 14) || vector == 17 || vector == 21 || \
        vector == 29 || vector == 30
    .else
    push $0
    .endif
    push $vector
    jmp trap_common
    .set vector, vector + 1
    .endr
    .size vector_stubs, . - vector_stubs

    .type trap_common, @function
trap_common:
    push %rax
    push %rcx
    push %rdx
    push %rbx
    push %rbp
    push %rsi
    push %rdi
    push %r8
    push %r9
    push %r10
    push %r11
    push %r12
    push %r13
    push %r14
    push %r15
    cld
    mov %rsp, %rdi
    call trap_entry
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %r11
    pop %r10
    pop %r9
    pop %r8
    pop %rdi
    pop %rsi
    pop %rbp
    pop %rbx
    pop %rdx
    pop %rcx
    pop %rax
    add $16, %rsp
    iretq
    .size trap_common, . - trap_common

    .section .note.GNU-stack, "", @progbits
