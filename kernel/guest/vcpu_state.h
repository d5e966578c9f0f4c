// SPDX-License-Identifier: MIT
// The architectural state of one vCPU, the same on both vendors: what a move carries.
#ifndef SKIFF_GUEST_VCPU_STATE_H
#define SKIFF_GUEST_VCPU_STATE_H

#include "kernel/types.h"

enum gpr {
    GPR_RAX,
    GPR_RCX,
    GPR_RDX,
    GPR_RBX,
    GPR_RSP,
    GPR_RBP,
    GPR_RSI,
    GPR_RDI, // encoding order
    GPR_R8,
    GPR_R9,
    GPR_R10,
    GPR_R11,
    GPR_R12,
    GPR_R13,
    GPR_R14,
    GPR_R15,
    GPR_COUNT
};
enum seg { SEG_ES, SEG_CS, SEG_SS, SEG_DS, SEG_FS, SEG_GS, SEG_LDTR, SEG_TR, SEG_COUNT };

struct segment {
    u64 base;
    u32 limit;
    u16 selector;
    u16 attr; // as in a descriptor: type 3:0, S 4, DPL 6:5, P 7, AVL 8, L 9, D/B 10, G 11;
              // bit 12: unusable. (VMX access rights: bits 15:12 of the descriptor word moved.)
};
#define SEG_UNUSABLE BIT(12)

enum vcpu_activity { VCPU_ACTIVE, VCPU_HALTED, VCPU_WAIT_SIPI, VCPU_OFF };

// An event on its way in, cut short by an exit, to be delivered again (SDM 3C 24.9.3).
struct pending_event {
    u8 valid;
    u8 type; // 0 external interrupt, 2 NMI, 3 hardware exception, 4 software interrupt,
             // 5 privileged software exception, 6 software exception (VMX and SVM agree on 0,2,3,4)
    u8 vector;
    u8 has_error;
    u32 error;
    u32 insn_len; // for types 4 to 6
};

#define XSAVE_AREA_MAX 4096

struct vcpu_state {
    u64 gpr[GPR_COUNT];
    u64 rip, rflags;
    u64 cr0, cr2, cr3, cr4, efer;
    u64 xcr0, xss;
    u64 dr[4], dr6, dr7;
    u64 pdpte[4]; // PAE paging only
    struct segment seg[SEG_COUNT];
    u64 gdtr_base, idtr_base;
    u32 gdtr_limit, idtr_limit;
    u64 sysenter_cs, sysenter_esp, sysenter_eip;
    u64 star, lstar, cstar, sfmask, kernel_gs_base, tsc_aux;
    u64 pat, spec_ctrl;
    u64 debugctl;
    u64 tsc_adjust;
    u64 misc_enable;
    // MTRRs are modelled, not used by the hardware.
    u64 mtrr_def_type, mtrr_fixed[11], mtrr_base[8], mtrr_mask[8];
    u8 activity; // enum vcpu_activity
    u8 sti_shadow, mov_ss_shadow;
    u8 nmi_blocked, nmi_pending;
    u8 sipi_vector;
    u64 pending_debug;              // SDM 3C 24.4.2
    struct pending_event event;     // vectoring, to be re-injected
    struct pending_event exception; // queued by the hypervisor, not yet delivered
    u32 xsave_size;
    u8 xsave[XSAVE_AREA_MAX] __attribute__((aligned(64))); // standard format (SDM 1 13.4)
};

#endif
