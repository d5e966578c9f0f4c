// SPDX-License-Identifier: MIT
// The mode switches of modes.c that C can't express.
    .section .note.GNU-stack, "", @progbits
    .set TRAMPOLINE, 0x8000
    .set MSR_EFER, 0xc0000080
    .set EFER_LME, 0x100
    .set CR4_PAE, 0x20
    .set CR0_PG, 0x80000000

    .text
    .globl real_start, real_end, modes_long

// Copied to TRAMPOLINE and called in protected mode; returns 0x1000 plus the number of INT 60h that arrived.
real_start:
    push %ebx
    push %esi
    push %edi
    push %ebp
    mov %esp, (TRAMPOLINE + saved_esp - real_start)
    sidt (TRAMPOLINE + saved_idt - real_start)
    lidt (TRAMPOLINE + real_idt - real_start)
    ljmp $0x18, $(TRAMPOLINE + half_way - real_start)
    .code16
half_way:
    mov $0x20, %ax
    mov %ax, %ds
    mov %ax, %es
    mov %ax, %ss
    mov %cr0, %eax
    and $~1, %al
    mov %eax, %cr0
    ljmp $0, $(TRAMPOLINE + real - real_start)
real:
    xor %ax, %ax
    mov %ax, %ds
    mov %ax, %ss
    mov $TRAMPOLINE - 16, %sp
    movw $(TRAMPOLINE + real_interrupt - real_start), (0x60 * 4)
    movw %ax, (0x60 * 4 + 2)
    mov $0x1000, %ax
    int $0x60
    int $0x60
    mov %ax, %bp
    mov %cr0, %eax
    or $1, %al
    mov %eax, %cr0
    ljmpl $0x08, $(TRAMPOLINE + back - real_start)
real_interrupt:
    inc %ax
    iret
    .code32
back:
    mov $0x10, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
    mov (TRAMPOLINE + saved_esp - real_start), %esp
    lidt (TRAMPOLINE + saved_idt - real_start)
    movzwl %bp, %eax
    pop %ebp
    pop %edi
    pop %esi
    pop %ebx
    ret
real_idt:
    .word 0x3ff
    .long 0
saved_idt:
    .word 0
    .long 0
saved_esp:
    .long 0
real_end:

// uint32_t modes_long(pml4, address, value): stores value at address from 64-bit code, which uses registers and
// immediates only that mode has, and returns 0x5afe5afe.
modes_long:
    push %ebx
    push %esi
    push %edi
    mov %cr4, %eax
    push %eax
    or $CR4_PAE, %eax
    mov %eax, %cr4
    mov 20(%esp), %eax
    mov %eax, %cr3
    mov 24(%esp), %esi
    mov 28(%esp), %edi
    mov $MSR_EFER, %ecx
    rdmsr
    or $EFER_LME, %eax
    wrmsr
    mov %cr0, %eax
    or $CR0_PG, %eax
    mov %eax, %cr0
    ljmp $0x28, $in_long
    .code64
in_long:
    movabs $0x5afe5afe00000000, %r8
    mov %edi, (%rsi)
    mov %r8, %r15
    shr $32, %r15
    mov %r15d, %ebx
    ljmp *leave_long(%rip)
    .code32
out_of_long:
    mov %cr0, %eax
    and $~CR0_PG, %eax
    mov %eax, %cr0
    mov $MSR_EFER, %ecx
    rdmsr
    and $~EFER_LME, %eax
    wrmsr
    pop %eax
    mov %eax, %cr4
    mov %ebx, %eax
    pop %edi
    pop %esi
    pop %ebx
    ret

    .data
leave_long:
    .long out_of_long
    .word 0x08
