// SPDX-License-Identifier: MIT
// One entry for each interrupt vector; all meet in interrupt_handle() with the same frame.
    .section .note.GNU-stack, "", @progbits
    .text
    .globl interrupt_entries
    .align 16
interrupt_entries:
vector = 0
    .rept 256
    .if vector == 8 || (vector >= 10 && vector <= 14) || vector == 17 || vector == 21
    .byte 0x90, 0x90 // the CPU has pushed an error code
    .else
    push $0
    .endif
    .byte 0x68
    .long vector
    .byte 0xe9
    .long interrupt_common - (. + 4)
    .align 16
vector = vector + 1
    .endr

interrupt_common:
    pusha
    push %esp
    call interrupt_handle
    add $4, %esp
    popa
    add $8, %esp
    iret
