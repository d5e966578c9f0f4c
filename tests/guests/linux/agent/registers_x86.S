// SPDX-License-Identifier: MIT
// Moves every extended register from and to memory.
#include "registers.h"

    .section .note.GNU-stack, "", @progbits
    .section .rodata
default_mxcsr:
    .long 0x1f80

    .text
    .globl registers_put
    .type registers_put, @function
registers_put:
    fninit
    fldcw REGISTERS_AT_CONTROL(%rdi)
    .irp n, 7, 6, 5, 4, 3, 2, 1, 0
    fildq REGISTERS_AT_X87 + 8 * \n(%rdi)
    .endr
    ldmxcsr REGISTERS_AT_MXCSR(%rdi)
    test $REGISTERS_PKRU, %esi
    jz 1f
    mov REGISTERS_AT_PKRU(%rdi), %eax
    xor %ecx, %ecx
    xor %edx, %edx
    wrpkru
1:  test $REGISTERS_AVX512, %esi
    jnz 3f
    test $REGISTERS_AVX, %esi
    jnz 2f
    .irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
    movups 64 * \n(%rdi), %xmm\n
    .endr
    ret
2:  .irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
    vmovups 64 * \n(%rdi), %ymm\n
    .endr
    ret
3:  .irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
    vmovups 64 * \n(%rdi), %zmm\n
    .endr
    .irp n, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31
    vmovups 64 * \n(%rdi), %zmm\n
    .endr
    .irp n, 0, 1, 2, 3, 4, 5, 6, 7
    kmovq REGISTERS_AT_MASK + 8 * \n(%rdi), %k\n
    .endr
    ret
    .size registers_put, . - registers_put

    .globl registers_get
    .type registers_get, @function
registers_get:
    fnstcw REGISTERS_AT_CONTROL(%rdi)
    .irp n, 0, 1, 2, 3, 4, 5, 6, 7
    fistpq REGISTERS_AT_X87 + 8 * \n(%rdi)
    .endr
    fninit
    stmxcsr REGISTERS_AT_MXCSR(%rdi)
    ldmxcsr default_mxcsr(%rip)
    test $REGISTERS_PKRU, %esi
    jz 1f
    xor %ecx, %ecx
    rdpkru
    mov %eax, REGISTERS_AT_PKRU(%rdi)
1:  test $REGISTERS_AVX512, %esi
    jnz 3f
    test $REGISTERS_AVX, %esi
    jnz 2f
    .irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
    movups %xmm\n, 64 * \n(%rdi)
    .endr
    ret
2:  .irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
    vmovups %ymm\n, 64 * \n(%rdi)
    .endr
    vzeroupper
    ret
3:  .irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
    vmovups %zmm\n, 64 * \n(%rdi)
    .endr
    .irp n, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31
    vmovups %zmm\n, 64 * \n(%rdi)
    .endr
    .irp n, 0, 1, 2, 3, 4, 5, 6, 7
    kmovq %k\n, REGISTERS_AT_MASK + 8 * \n(%rdi)
    .endr
    vzeroupper
    ret
    .size registers_get, . - registers_get
