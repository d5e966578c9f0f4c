// SPDX-License-Identifier: MIT
// The call of a UEFI runtime service on its own page tables and stack.

    .text
    .globl firmware_reset
    .hidden firmware_reset
    .type firmware_reset, @function
// void firmware_reset(u64 cr3, void *reset_system, u64 type): EFI_RESET_SYSTEM(type, 0, 0, NULL) in
// the Microsoft convention. Interrupts are off. Returns when the firmware does.
firmware_reset:
    push %rbp
    mov %rsp, %rbp
    push %rbx
    push %r12
    mov %cr3, %rbx
    mov %rsp, %r12
    mov %rdi, %cr3
    lea firmware_stack_top(%rip), %rsp
    mov %rsi, %rax
    mov %rdx, %rcx
    xor %edx, %edx
    xor %r8d, %r8d
    xor %r9d, %r9d
    sub $32, %rsp
    call *%rax
    mov %rbx, %cr3
    mov %r12, %rsp
    pop %r12
    pop %rbx
    pop %rbp
    ret
    .size firmware_reset, . - firmware_reset

// In the image, and so in both maps; thread stacks are not in firmware's.
    .section .bss.firmware_stack, "aw", @nobits
    .balign 16
    .skip 16384
firmware_stack_top:

    .section .note.GNU-stack, "", @progbits
