// SPDX-License-Identifier: MIT
// The entry both loaders jump to, in flat 32-bit protected mode without paging: own GDT, own stack, then C.
    .section .note.GNU-stack, "", @progbits
    .text
    .globl start
start:
    cli
    cld
    lgdt gdt_pointer
    ljmp $0x08, $1f
1:  mov $0x10, %ecx
    mov %ecx, %ds
    mov %ecx, %es
    mov %ecx, %fs
    mov %ecx, %gs
    mov %ecx, %ss
    mov $stack_top, %esp
    push %ebx
    push %eax
    call bare_start
2:  hlt
    jmp 2b

    .data
    .align 8
// 08: 32-bit code, 10: data, 18: 16-bit code, 20: 16-bit data, 28: 64-bit code.
    .globl gdt_pointer
gdt:
    .quad 0
    .quad 0x00cf9b000000ffff
    .quad 0x00cf93000000ffff
    .quad 0x00009b000000ffff
    .quad 0x000093000000ffff
    .quad 0x00af9b000000ffff
gdt_pointer:
    .word . - gdt - 1
    .long gdt

    .bss
    .align 16
    .skip 16384
stack_top:
