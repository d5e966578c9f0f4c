// SPDX-License-Identifier: MIT
// The way into the guest and out of it: general registers only, the VMCS switches the rest.

#define VMCS_HOST_RSP 0x6c14
#define VX_HOST_RSP 0
#define VX_LAUNCHED 8

// gpr[] index * 8; the order is the encoding order of the registers (kernel/guest/vcpu_state.h).
#define RAX 0
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

    .section .text.vmx_enter, "ax"
    .globl vmx_enter, vmx_exit_entry
    .hidden vmx_enter, vmx_exit_entry, vmx_exited, vmx_refused
    .type vmx_enter, @function
    .balign 16
// void vmx_enter(u64 *gpr, struct vmx_vcpu *vx, struct vm_exit *x): goes on in vmx_exited(vx, x) or
// vmx_refused(vx, x, how), which return to the caller. Interrupts are off all the way.
vmx_enter:
    push %rbp
    push %rbx
    push %r12
    push %r13
    push %r14
    push %r15
    push %rsi
    push %rdx
    push %rdi
    cmp VX_HOST_RSP(%rsi), %rsp
    je 1f
    mov %rsp, VX_HOST_RSP(%rsi)
    mov $VMCS_HOST_RSP, %eax
    vmwrite %rsp, %rax
1:  mov %rdi, %rax
    cmpq $0, VX_LAUNCHED(%rsi)      // no instruction up to the branch touches the flags
    mov RCX(%rax), %rcx
    mov RDX(%rax), %rdx
    mov RBX(%rax), %rbx
    mov RBP(%rax), %rbp
    mov RSI(%rax), %rsi
    mov RDI(%rax), %rdi
    mov R8(%rax), %r8
    mov R9(%rax), %r9
    mov R10(%rax), %r10
    mov R11(%rax), %r11
    mov R12(%rax), %r12
    mov R13(%rax), %r13
    mov R14(%rax), %r14
    mov R15(%rax), %r15
    mov RAX(%rax), %rax
    jne 2f
    vmlaunch
    jmp 3f
2:  vmresume
3:  mov $1, %edx                    // not entered: CF invalid, ZF valid (SDM 3C 30.2)
    jc 4f
    mov $2, %edx
4:  pop %rdi
    pop %rsi
    pop %rdi
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %rbx
    pop %rbp
    jmp vmx_refused

    .balign 16
// Host RIP of the VMCS. RSP is what vmx_enter left, flags are clear, the rest is the guest's.
vmx_exit_entry:
    // RFLAGS.IF is 0 here and stays so: the shadow of STI covers the CLI (SDM 2B STI). Bochs 3.0
    // takes interrupts after an exit from a guest with IF set until IF changes, in spite of it.
    sti
    cli
    push %rax
    mov 8(%rsp), %rax
    mov %rcx, RCX(%rax)
    mov %rdx, RDX(%rax)
    mov %rbx, RBX(%rax)
    mov %rbp, RBP(%rax)
    mov %rsi, RSI(%rax)
    mov %rdi, RDI(%rax)
    mov %r8, R8(%rax)
    mov %r9, R9(%rax)
    mov %r10, R10(%rax)
    mov %r11, R11(%rax)
    mov %r12, R12(%rax)
    mov %r13, R13(%rax)
    mov %r14, R14(%rax)
    mov %r15, R15(%rax)
    pop RAX(%rax)
    pop %rdi
    pop %rsi
    pop %rdi
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %rbx
    pop %rbp
    jmp vmx_exited
    .size vmx_enter, . - vmx_enter

    .section .note.GNU-stack, "", @progbits
