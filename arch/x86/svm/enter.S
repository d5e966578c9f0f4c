// SPDX-License-Identifier: MIT
// The way into the guest and out of it (APM 2 15.5, 15.6).

// gpr[] index * 8; the order is the encoding order of the registers (kernel/guest/vcpu_state.h).
#define RCX 8
#define RDX 16
#define RBX 24
#define RBP 40
#define RSI 48
#define RDI 56
#define R8 64
#define R9 72
#define R10 80
#define R11 88
#define R12 96
#define R13 104
#define R14 112
#define R15 120

    .section .text.svm_enter, "ax"
    .globl svm_enter
    .hidden svm_enter
    .type svm_enter, @function
    .balign 16
// void svm_enter(u64 *gpr, u64 vmcb_pa, u64 host_pa)
// Called and returns with interrupts off. RAX travels in the VMCB. GIF is clear from before the
// guest's FS, GS and TR are in the CPU until the host's are back: host code that an interrupt or an
// NMI starts needs GS.
svm_enter:
    push %rbp
    push %rbx
    push %r12
    push %r13
    push %r14
    push %r15
    push %rdx
    push %rdi
    mov %rsi, %rax
    clgi
    vmload %rax
    mov RCX(%rdi), %rcx
    mov RDX(%rdi), %rdx
    mov RBX(%rdi), %rbx
    mov RBP(%rdi), %rbp
    mov RSI(%rdi), %rsi
    mov R8(%rdi), %r8
    mov R9(%rdi), %r9
    mov R10(%rdi), %r10
    mov R11(%rdi), %r11
    mov R12(%rdi), %r12
    mov R13(%rdi), %r13
    mov R14(%rdi), %r14
    mov R15(%rdi), %r15
    mov RDI(%rdi), %rdi
    // With V_INTR_MASKING the host's IF decides whether physical interrupts end the guest's turn
    // (APM 2 15.21.1). None comes here, GIF is clear; the NOP keeps STI's shadow out of the guest.
    sti
    nop
    vmrun %rax
    cli
    vmsave %rax
    push %rdi
    mov 8(%rsp), %rdi
    mov %rcx, RCX(%rdi)
    mov %rdx, RDX(%rdi)
    mov %rbx, RBX(%rdi)
    mov %rbp, RBP(%rdi)
    mov %rsi, RSI(%rdi)
    mov %r8, R8(%rdi)
    mov %r9, R9(%rdi)
    mov %r10, R10(%rdi)
    mov %r11, R11(%rdi)
    mov %r12, R12(%rdi)
    mov %r13, R13(%rdi)
    mov %r14, R14(%rdi)
    mov %r15, R15(%rdi)
    pop RDI(%rdi)
    pop %rdi
    pop %rax
    vmload %rax
    stgi
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %rbx
    pop %rbp
    ret
    .size svm_enter, . - svm_enter

    .section .note.GNU-stack, "", @progbits
