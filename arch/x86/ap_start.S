// SPDX-License-Identifier: MIT
// First instructions of a CPU after its start-up IPI: from real mode to long mode on firmware's
// one-to-one map, then into the image (SDM 3A 8.4.4.1, 9.8.5). Copied to a page below 1 MiB, where
// smp.c fills in the parameters; in the image it is data.
#include "arch/x86/smp.h"

#define REL(label)  ((label) - ap_start_code)
#define PARAM(name) (ap_start_params - ap_start_code + (name))

    .section .rodata
    .balign 16
    .globl ap_start_code, ap_start_params, ap_start_end
    .hidden ap_start_code, ap_start_params, ap_start_end
ap_start_code:
    .code16
    cli
    cld
    xor %ebx, %ebx
    mov %cs, %bx
    mov %bx, %ds
    shl $4, %ebx
    lgdtl PARAM(AP_GDT_POINTER)
    mov $0x11, %eax // PE, ET
    mov %eax, %cr0
    ljmpl *PARAM(AP_FAR32)

    .code32
    .globl ap_start_32
    .hidden ap_start_32
ap_start_32:
    mov $0x10, %ax
    mov %ax, %ds
    mov %ax, %es
    mov %ax, %ss
    mov PARAM(AP_CR4)(%ebx), %eax
    mov %eax, %cr4
    mov PARAM(AP_CR3)(%ebx), %eax
    mov %eax, %cr3
    mov $0xc0000080, %ecx
    rdmsr
    or PARAM(AP_EFER)(%ebx), %eax
    wrmsr
    mov $0x80010011, %eax // PG, WP, ET, PE: long mode is active
    mov %eax, %cr0
    ljmpl *PARAM(AP_FAR64)(%ebx)

    .code64
    .globl ap_start_64
    .hidden ap_start_64
ap_start_64:
    mov PARAM(AP_HOST_CR3)(%rbx), %rax
    mov PARAM(AP_STACK)(%rbx), %rdx
    mov PARAM(AP_CPU)(%rbx), %rdi
    jmp *PARAM(AP_ENTRY)(%rbx)

    .balign 16
ap_start_params:
    .skip 96
ap_start_end:

// In the image: its text is mapped the same on both maps, its stack on the host's alone.
    .text
    .globl ap_enter
    .hidden ap_enter
    .type ap_enter, @function
ap_enter:
    mov %rax, %cr3
    mov %rdx, %rsp
    xor %ebp, %ebp
    call ap_main
    ud2
    .size ap_enter, . - ap_enter

    .section .note.GNU-stack, "", @progbits
