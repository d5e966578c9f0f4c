// SPDX-License-Identifier: MIT
// Numbers of the VMX architecture: VMCS field encodings, control bits, exit reasons.
// SDM 3C chapter 24 and appendices A to C.
#ifndef SKIFF_VMX_VMCS_H
#define SKIFF_VMX_VMCS_H

#include "arch/x86/msr.h"
#include "kernel/types.h"

// Field encodings (SDM 3C appendix B). Segment fields come in enum seg order, 2 apart.
enum vmcs_field {
    VMCS_VPID = 0x0000,
    VMCS_GUEST_SELECTOR = 0x0800, // + 2 * enum seg
    VMCS_PML_INDEX = 0x0812,
    VMCS_HOST_ES = 0x0c00,
    VMCS_HOST_CS = 0x0c02,
    VMCS_HOST_SS = 0x0c04,
    VMCS_HOST_DS = 0x0c06,
    VMCS_HOST_FS = 0x0c08,
    VMCS_HOST_GS = 0x0c0a,
    VMCS_HOST_TR = 0x0c0c,
    VMCS_MSR_BITMAP = 0x2004,
    VMCS_PML_ADDRESS = 0x200e,
    VMCS_TSC_OFFSET = 0x2010,
    VMCS_EPTP = 0x201a,
    VMCS_ENCLS_EXITING = 0x202e,
    VMCS_TSC_MULTIPLIER = 0x2032,
    VMCS_GUEST_PHYSICAL = 0x2400,
    VMCS_LINK_POINTER = 0x2800,
    VMCS_GUEST_DEBUGCTL = 0x2802,
    VMCS_GUEST_PAT = 0x2804,
    VMCS_GUEST_EFER = 0x2806,
    VMCS_GUEST_PDPTE0 = 0x280a, // + 2 * n
    VMCS_HOST_PAT = 0x2c00,
    VMCS_HOST_EFER = 0x2c02,
    VMCS_PIN_CONTROLS = 0x4000,
    VMCS_PROC_CONTROLS = 0x4002,
    VMCS_EXCEPTION_BITMAP = 0x4004,
    VMCS_PF_MASK = 0x4006,
    VMCS_PF_MATCH = 0x4008,
    VMCS_CR3_TARGET_COUNT = 0x400a,
    VMCS_EXIT_CONTROLS = 0x400c,
    VMCS_EXIT_MSR_STORE_COUNT = 0x400e,
    VMCS_EXIT_MSR_LOAD_COUNT = 0x4010,
    VMCS_ENTRY_CONTROLS = 0x4012,
    VMCS_ENTRY_MSR_LOAD_COUNT = 0x4014,
    VMCS_ENTRY_INTERRUPTION = 0x4016,
    VMCS_ENTRY_ERROR_CODE = 0x4018,
    VMCS_ENTRY_INSN_LEN = 0x401a,
    VMCS_PROC2_CONTROLS = 0x401e,
    VMCS_PLE_GAP = 0x4020,
    VMCS_PLE_WINDOW = 0x4022,
    VMCS_INSTRUCTION_ERROR = 0x4400,
    VMCS_EXIT_REASON = 0x4402,
    VMCS_EXIT_INTERRUPTION = 0x4404,
    VMCS_EXIT_ERROR_CODE = 0x4406,
    VMCS_VECTORING_INFO = 0x4408,
    VMCS_VECTORING_ERROR = 0x440a,
    VMCS_EXIT_INSN_LEN = 0x440c,
    VMCS_EXIT_INSN_INFO = 0x440e,
    VMCS_GUEST_LIMIT = 0x4800, // + 2 * enum seg
    VMCS_GUEST_GDTR_LIMIT = 0x4810,
    VMCS_GUEST_IDTR_LIMIT = 0x4812,
    VMCS_GUEST_RIGHTS = 0x4814, // + 2 * enum seg
    VMCS_INTERRUPTIBILITY = 0x4824,
    VMCS_ACTIVITY = 0x4826,
    VMCS_GUEST_SYSENTER_CS = 0x482a,
    VMCS_PREEMPTION_TIMER = 0x482e,
    VMCS_HOST_SYSENTER_CS = 0x4c00,
    VMCS_CR0_MASK = 0x6000,
    VMCS_CR4_MASK = 0x6002,
    VMCS_CR0_SHADOW = 0x6004,
    VMCS_CR4_SHADOW = 0x6006,
    VMCS_QUALIFICATION = 0x6400,
    VMCS_GUEST_LINEAR = 0x640a,
    VMCS_GUEST_CR0 = 0x6800,
    VMCS_GUEST_CR3 = 0x6802,
    VMCS_GUEST_CR4 = 0x6804,
    VMCS_GUEST_BASE = 0x6806, // + 2 * enum seg
    VMCS_GUEST_GDTR_BASE = 0x6816,
    VMCS_GUEST_IDTR_BASE = 0x6818,
    VMCS_GUEST_DR7 = 0x681a,
    VMCS_GUEST_RSP = 0x681c,
    VMCS_GUEST_RIP = 0x681e,
    VMCS_GUEST_RFLAGS = 0x6820,
    VMCS_PENDING_DEBUG = 0x6822,
    VMCS_GUEST_SYSENTER_ESP = 0x6824,
    VMCS_GUEST_SYSENTER_EIP = 0x6826,
    VMCS_HOST_CR0 = 0x6c00,
    VMCS_HOST_CR3 = 0x6c02,
    VMCS_HOST_CR4 = 0x6c04,
    VMCS_HOST_FS_BASE = 0x6c06,
    VMCS_HOST_GS_BASE = 0x6c08,
    VMCS_HOST_TR_BASE = 0x6c0a,
    VMCS_HOST_GDTR_BASE = 0x6c0c,
    VMCS_HOST_IDTR_BASE = 0x6c0e,
    VMCS_HOST_SYSENTER_ESP = 0x6c10,
    VMCS_HOST_SYSENTER_EIP = 0x6c12,
    VMCS_HOST_RSP = 0x6c14,
    VMCS_HOST_RIP = 0x6c16,
};

// Capability MSRs (SDM 3C appendix A).
#define MSR_FEATURE_CONTROL   0x3a
#define MSR_VMX_BASIC         0x480
#define MSR_VMX_PIN           0x481
#define MSR_VMX_PROC          0x482
#define MSR_VMX_EXIT          0x483
#define MSR_VMX_ENTRY         0x484
#define MSR_VMX_MISC          0x485
#define MSR_VMX_CR0_FIXED0    0x486
#define MSR_VMX_CR0_FIXED1    0x487
#define MSR_VMX_CR4_FIXED0    0x488
#define MSR_VMX_CR4_FIXED1    0x489
#define MSR_VMX_PROC2         0x48b
#define MSR_VMX_EPT_VPID      0x48c
#define MSR_VMX_TRUE_PIN      0x48d
#define MSR_VMX_TRUE_PROC     0x48e
#define MSR_VMX_TRUE_EXIT     0x48f
#define MSR_VMX_TRUE_ENTRY    0x490
#define FEATURE_CONTROL_LOCK  BIT(0)
#define FEATURE_CONTROL_VMXON BIT(2) // outside SMX
#define VMX_BASIC_TRUE        BIT(55)
#define EPT_VPID_WALK4        BIT(6)
#define EPT_VPID_WB           BIT(14)
#define EPT_VPID_2M           BIT(16)
#define EPT_VPID_INVEPT       BIT(20)
#define EPT_VPID_AD           BIT(21)
#define EPT_VPID_INVEPT_ONE   BIT(25)
#define EPT_VPID_INVVPID      BIT(32)
#define EPT_VPID_INVVPID_ONE  BIT(41)

// Pin-based, primary and secondary processor-based, exit and entry controls (SDM 3C 24.6 to 24.8).
#define PIN_EXTERNAL_INTERRUPT BIT(0)
#define PIN_NMI                BIT(3)
#define PIN_VIRTUAL_NMI        BIT(5)
#define PIN_PREEMPTION_TIMER   BIT(6)
#define PROC_IRQ_WINDOW        BIT(2)
#define PROC_RDTSC_EXITING     BIT(12)
#define PROC_NMI_WINDOW        BIT(22)
#define PROC2_RDTSCP           BIT(3)
#define PROC2_PAUSE_LOOP       BIT(10)
#define PROC2_INVPCID          BIT(12)
#define PROC2_ENCLS            BIT(15)
#define PROC2_PML              BIT(17)
#define PROC2_TSC_SCALING      BIT(25)
#define ENTRY_IA32E            BIT(9)

// Interruption information: entry, exit and IDT-vectoring fields share it (SDM 3C 24.8.3).
#define INTR_VALID       BIT(31)
#define INTR_ERROR       BIT(11)
#define INTR_NMI_UNBLOCK BIT(12) // exit field only: an IRET had just unblocked NMIs
enum intr_type {
    INTR_EXTERNAL = 0,
    INTR_NMI = 2,
    INTR_HARD_EXCEPTION = 3,
    INTR_SOFT_INTERRUPT = 4,
    INTR_PRIV_SOFT_EXCEPTION = 5,
    INTR_SOFT_EXCEPTION = 6,
};

// Interruptibility state (SDM 3C 24.4.2).
#define BLOCK_STI                BIT(0)
#define BLOCK_MOV_SS             BIT(1)
#define BLOCK_SHADOW             (BLOCK_STI | BLOCK_MOV_SS)
#define BLOCK_NMI                BIT(3)
#define PENDING_DEBUG_BREAKPOINT BIT(12) // one of B0 to B3 was enabled
#define PENDING_DEBUG_BS         BIT(14)

// Exit qualification of an EPT violation (SDM 3C table 27-7).
#define EPT_QUAL_WRITE        BIT(1)
#define EPT_QUAL_FETCH        BIT(2)
#define EPT_QUAL_LINEAR_VALID BIT(7)
#define QUAL_NMI_UNBLOCK      BIT(12)

// Basic exit reasons (SDM 3C appendix C).
enum exit_reason {
    REASON_EXCEPTION = 0,
    REASON_EXTERNAL_INTERRUPT = 1,
    REASON_TRIPLE_FAULT = 2,
    REASON_INIT = 3,
    REASON_SIPI = 4,
    REASON_IRQ_WINDOW = 7,
    REASON_NMI_WINDOW = 8,
    REASON_TASK_SWITCH = 9,
    REASON_CPUID = 10,
    REASON_GETSEC = 11,
    REASON_HLT = 12,
    REASON_INVD = 13,
    REASON_INVLPG = 14,
    REASON_RDPMC = 15,
    REASON_RDTSC = 16,
    REASON_VMCALL = 18,
    REASON_VMCLEAR = 19,
    REASON_VMXON = 27,
    REASON_CR_ACCESS = 28,
    REASON_IO = 30,
    REASON_RDMSR = 31,
    REASON_WRMSR = 32,
    REASON_BAD_GUEST_STATE = 33,
    REASON_MWAIT = 36,
    REASON_MONITOR = 39,
    REASON_PAUSE = 40,
    REASON_EPT_VIOLATION = 48,
    REASON_EPT_MISCONFIG = 49,
    REASON_INVEPT = 50,
    REASON_RDTSCP = 51,
    REASON_PREEMPTION_TIMER = 52,
    REASON_INVVPID = 53,
    REASON_WBINVD = 54,
    REASON_XSETBV = 55,
    REASON_ENCLS = 60,
    REASON_PML_FULL = 62,
};
#define EXIT_ENTRY_FAILED BIT(31)

// Control registers, flags and MSRs the backend looks into (SDM 3A 2.5, 2.3).
#define CR0_PE        BIT(0)
#define CR0_ET        BIT(4)
#define CR0_PG        BIT(31)
#define CR4_PSE       BIT(4)
#define CR4_VMXE      BIT(13)
#define CR4_PCIDE     BIT(17)
#define EFER_SCE      BIT(0)
#define EFER_LME      BIT(8)
#define EFER_LMA      BIT(10)
#define RFLAGS_FIXED1 BIT(1)
#define RFLAGS_TF     BIT(8)
#define RFLAGS_IF     BIT(9)
#define RFLAGS_RF     BIT(16)
#define RFLAGS_VM     BIT(17)
#define DEBUGCTL_BTF  BIT(1)
#define DR7_GD        BIT(13)
#define DR7_FIXED1    BIT(10)
#define DR6_INIT      0xffff0ff0ull
#define DR6_RTM       BIT(16)

#define MSR_TSC            0x10
#define MSR_SPEC_CTRL      0x48
#define MSR_SYSENTER_CS    0x174
#define MSR_SYSENTER_ESP   0x175
#define MSR_SYSENTER_EIP   0x176
#define MSR_DEBUGCTL       0x1d9
#define MSR_STAR           0xc0000081
#define MSR_LSTAR          0xc0000082
#define MSR_CSTAR          0xc0000083
#define MSR_SFMASK         0xc0000084
#define MSR_FS_BASE        0xc0000100
#define MSR_KERNEL_GS_BASE 0xc0000102
#define MSR_TSC_AUX        0xc0000103

enum vector {
    VECTOR_DB = 1,
    VECTOR_NMI = 2,
    VECTOR_DF = 8,
    VECTOR_GP = 13,
    VECTOR_PF = 14,
    VECTOR_AC = 17,
    VECTOR_MC = 18
};

#endif
