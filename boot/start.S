// SPDX-License-Identifier: MIT
// First instructions of the image, and the step from the firmware's stack onto the kernel's.

    .section .text.start, "ax"
    .globl _start
    .type _start, @function
// The firmware calls this with the Microsoft convention (UEFI 2.10, 2.3.4.1): image handle in RCX,
// system table in RDX. RDI and RSI are the caller's there, and ours to use in C.
_start:
    push %rdi
    push %rsi
    mov %rcx, %rdi
    mov %rdx, %rsi
    rdtsc
    shl $32, %rdx
    or %rax, %rdx
    push %rdi
    push %rsi
    push %rdx
    lea image_start(%rip), %rdi
    lea rela_start(%rip), %rsi
    lea rela_end(%rip), %rdx
    call boot_relocate
    pop %rdx
    pop %rsi
    pop %rdi
    sub $8, %rsp
    call efi_main
    add $8, %rsp
    pop %rsi
    pop %rdi
    ret
    .size _start, . - _start

    .text
    .globl boot_enter_kernel
    .type boot_enter_kernel, @function
// void boot_enter_kernel(const struct boot_info *bi, u64 cr3, u64 canary)
boot_enter_kernel:
    cli
    cld
    mov %rsi, %cr3
    lea boot_stack_top(%rip), %rsp
    xor %ebp, %ebp
    mov %rdx, __stack_chk_guard(%rip)
    call kernel_main
    ud2
    .size boot_enter_kernel, . - boot_enter_kernel

// The kernel's first stack, above a page that arch/x86/paging.c unmaps.
    .section .bss.boot_stack, "aw", @nobits
    .balign 4096
    .globl boot_stack_guard, boot_stack_bottom, boot_stack_top
    .hidden boot_stack_guard, boot_stack_bottom, boot_stack_top
boot_stack_guard:
    .skip 4096
boot_stack_bottom:
    .skip 32768
boot_stack_top:

// An empty base relocation block (PE format 5.6): page address 0, 12 bytes, two padding entries.
    .section .reloc, "a"
    .long 0
    .long 12
    .short 0
    .short 0

    .section .note.GNU-stack, "", @progbits
