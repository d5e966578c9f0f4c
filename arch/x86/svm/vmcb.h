// SPDX-License-Identifier: MIT
// The virtual machine control block, its bits and exit codes (APM 2 appendix B and C).
#ifndef SKIFF_SVM_VMCB_H
#define SKIFF_SVM_VMCB_H

#include "kernel/types.h"

struct vmcb_segment {
    u16 selector;
    u16 attr; // descriptor bits 47:40 and 55:52 next to each other (APM 2 15.5.1)
    u32 limit;
    u64 base;
};

struct vmcb {
    // Control area.
    u16 intercept_cr_read, intercept_cr_write;
    u16 intercept_dr_read, intercept_dr_write;
    u32 intercept_exceptions;
    u32 intercept[3]; // exit codes from 60h, a bit each
    u8 reserved1[0x03c - 0x018];
    u16 pause_threshold, pause_count;
    u64 iopm_pa, msrpm_pa;
    u64 tsc_offset;
    u32 asid;
    u8 tlb_control;
    u8 reserved2[3];
    u64 int_ctl;
    u64 int_state;
    u64 exit_code;
    u64 exit_info1, exit_info2;
    u64 exit_int_info;
    u64 np_enable;
    u8 reserved3[0x0a8 - 0x098];
    u64 event_inj;
    u64 n_cr3;
    u64 lbr_control;
    u64 clean;
    u64 next_rip;
    u8 insn_bytes_count;
    u8 insn_bytes[15];
    u8 reserved4[0x400 - 0x0e0];
    // State save area.
    struct vmcb_segment es, cs, ss, ds, fs, gs, gdtr, ldtr, idtr, tr;
    u8 reserved5[0x4cb - 0x4a0];
    u8 cpl;
    u32 reserved6;
    u64 efer;
    u8 reserved7[0x548 - 0x4d8];
    u64 cr4, cr3, cr0, dr7, dr6, rflags, rip;
    u8 reserved8[0x5d8 - 0x580];
    u64 rsp;
    u8 reserved9[0x5f8 - 0x5e0];
    u64 rax;
    u64 star, lstar, cstar, sfmask, kernel_gs_base;
    u64 sysenter_cs, sysenter_esp, sysenter_eip;
    u64 cr2;
    u8 reserved10[0x668 - 0x648];
    u64 g_pat;
    u64 dbgctl;
    u8 reserved11[0x1000 - 0x678];
};
static_assert(sizeof(struct vmcb_segment) == 16, "APM 2 table B-2");
static_assert(sizeof(struct vmcb) == 0x1000, "APM 2 appendix B");
static_assert(offsetof(struct vmcb, intercept) == 0x00c, "APM 2 table B-1");
static_assert(offsetof(struct vmcb, pause_threshold) == 0x03c, "APM 2 table B-1");
static_assert(offsetof(struct vmcb, iopm_pa) == 0x040, "APM 2 table B-1");
static_assert(offsetof(struct vmcb, asid) == 0x058, "APM 2 table B-1");
static_assert(offsetof(struct vmcb, int_ctl) == 0x060, "APM 2 table B-1");
static_assert(offsetof(struct vmcb, exit_code) == 0x070, "APM 2 table B-1");
static_assert(offsetof(struct vmcb, np_enable) == 0x090, "APM 2 table B-1");
static_assert(offsetof(struct vmcb, event_inj) == 0x0a8, "APM 2 table B-1");
static_assert(offsetof(struct vmcb, next_rip) == 0x0c8, "APM 2 table B-1");
static_assert(offsetof(struct vmcb, insn_bytes_count) == 0x0d0, "APM 2 table B-1");
static_assert(offsetof(struct vmcb, es) == 0x400, "APM 2 table B-2");
static_assert(offsetof(struct vmcb, tr) == 0x490, "APM 2 table B-2");
static_assert(offsetof(struct vmcb, cpl) == 0x4cb, "APM 2 table B-2");
static_assert(offsetof(struct vmcb, efer) == 0x4d0, "APM 2 table B-2");
static_assert(offsetof(struct vmcb, cr4) == 0x548, "APM 2 table B-2");
static_assert(offsetof(struct vmcb, rip) == 0x578, "APM 2 table B-2");
static_assert(offsetof(struct vmcb, rsp) == 0x5d8, "APM 2 table B-2");
static_assert(offsetof(struct vmcb, rax) == 0x5f8, "APM 2 table B-2");
static_assert(offsetof(struct vmcb, cr2) == 0x640, "APM 2 table B-2");
static_assert(offsetof(struct vmcb, g_pat) == 0x668, "APM 2 table B-2");

// int_ctl (offset 060h).
#define V_TPR_MASK     0xffull
#define V_IRQ          BIT(8)
#define V_PRIO_HIGHEST (15ull << 16)
#define V_IGN_TPR      BIT(20)
#define V_INTR_MASKING BIT(24)
#define V_IRQ_WINDOW   (V_IRQ | V_PRIO_HIGHEST | V_IGN_TPR)

#define INT_SHADOW BIT(0) // int_state

// tlb_control (APM 2 15.16.1).
#define TLB_FLUSH_NONE 0
#define TLB_FLUSH_ALL  1
#define TLB_FLUSH_ASID 3

// EVENTINJ and EXITINTINFO (APM 2 15.20, 15.7.2).
#define EVENT_VALID      BIT(31)
#define EVENT_HAS_ERROR  BIT(11)
#define EVENT_TYPE_SHIFT 8
#define EVENT_INTR       0
#define EVENT_NMI        2
#define EVENT_EXCEPTION  3
#define EVENT_SOFT       4

// Exit codes (APM 2 appendix C).
#define SVM_EXIT_CR_WRITE   0x10
#define SVM_EXIT_EXCEPTION  0x40
#define SVM_EXIT_INTR       0x60
#define SVM_EXIT_NMI        0x61
#define SVM_EXIT_SMI        0x62
#define SVM_EXIT_INIT       0x63
#define SVM_EXIT_VINTR      0x64
#define SVM_EXIT_RDTSC      0x6e
#define SVM_EXIT_RDPMC      0x6f
#define SVM_EXIT_CPUID      0x72
#define SVM_EXIT_RSM        0x73
#define SVM_EXIT_IRET       0x74
#define SVM_EXIT_INVD       0x76
#define SVM_EXIT_PAUSE      0x77
#define SVM_EXIT_HLT        0x78
#define SVM_EXIT_INVLPGA    0x7a
#define SVM_EXIT_IOIO       0x7b
#define SVM_EXIT_MSR        0x7c
#define SVM_EXIT_SHUTDOWN   0x7f
#define SVM_EXIT_VMRUN      0x80
#define SVM_EXIT_VMMCALL    0x81
#define SVM_EXIT_VMLOAD     0x82
#define SVM_EXIT_VMSAVE     0x83
#define SVM_EXIT_STGI       0x84
#define SVM_EXIT_CLGI       0x85
#define SVM_EXIT_SKINIT     0x86
#define SVM_EXIT_RDTSCP     0x87
#define SVM_EXIT_WBINVD     0x89
#define SVM_EXIT_MONITOR    0x8a
#define SVM_EXIT_MWAIT      0x8b
#define SVM_EXIT_MWAIT_COND 0x8c
#define SVM_EXIT_XSETBV     0x8d
#define SVM_EXIT_RDPRU      0x8e
#define SVM_EXIT_INVLPGB    0xa0
#define SVM_EXIT_MCOMMIT    0xa3
#define SVM_EXIT_TLBSYNC    0xa4
#define SVM_EXIT_NPF        0x400
#define SVM_EXIT_INVALID    (~0ull)

static inline void vmcb_intercept(struct vmcb *b, u32 code, bool on)
{
    u32 *word = &b->intercept[(code - 0x60) / 32];
    u32 bit = 1u << (code - 0x60) % 32;
    *word = on ? *word | bit : *word & ~bit;
}

// EXITINFO1 of an IOIO exit (APM 2 15.10.2).
#define IOIO_IN      BIT(0)
#define IOIO_STRING  BIT(2)
#define IOIO_REP     BIT(3)
#define IOIO_SIZE(i) ((i) >> 4 & 7) // 1, 2 or 4 bytes
#define IOIO_PORT(i) ((u16)((i) >> 16))

// EXITINFO1 of a nested page fault (APM 2 15.25.6).
#define NPF_WRITE    BIT(1)
#define NPF_RESERVED BIT(3)
#define NPF_FETCH    BIT(4)

// Decode assist of MOV CRn (APM 2 15.33.1).
#define CR_ASSIST_MOV BIT(63)
#define CR_ASSIST_GPR 0xf

#endif
