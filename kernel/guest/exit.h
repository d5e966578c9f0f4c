// SPDX-License-Identifier: MIT
// The neutral exit: what a backend makes of a hardware exit before anything generic sees it.
#ifndef SKIFF_GUEST_EXIT_H
#define SKIFF_GUEST_EXIT_H

#include "kernel/types.h"

enum exit_kind {
    EXIT_INTERRUPT,  // a host interrupt (already dispatched) or the end of the slice; nothing to do
    EXIT_TIMER,      // the deadline given to run() was reached
    EXIT_IRQ_WINDOW, // the guest can take an interrupt now
    EXIT_NMI_WINDOW,
    EXIT_IO,
    EXIT_MMIO, // access to a guest-physical address without memory behind it
    EXIT_CPUID,
    EXIT_RDMSR,
    EXIT_WRMSR,
    EXIT_RDTSC,
    EXIT_CR8, // MOV to/from CR8: cr8.gpr, cr8.write
    EXIT_XSETBV,
    EXIT_HLT,
    EXIT_PAUSE,
    EXIT_INVD,      // INVD/WBINVD: nothing but advance
    EXIT_HYPERCALL, // VMCALL/VMMCALL
    EXIT_UNDEFINED, // an instruction this guest may not have: inject #UD
    EXIT_GP,        // inject #GP(0)
    EXIT_TRIPLE_FAULT,
    EXIT_RETRY, // the backend handled it; look for work, then enter again
    EXIT_NOMEM, // no memory for an EPT/NPT table
    EXIT_FATAL, // bad VM entry or an exit nobody knows: ends the guest; see fatal
    EXIT_KINDS,
};

struct vm_exit {
    u8 kind;      // enum exit_kind
    u8 insn_len;  // length of the exiting instruction, 0 when the backend does not know it
    bool entered; // the guest ran; else something was asked of the vCPU before it could
    union {
        struct {
            u16 port;
            u8 size; // 1, 2, 4
            bool in, string, rep;
        } io;
        struct {
            u64 gpa, gva;
            bool write, fetch, gva_valid;
        } mmio;
        struct {
            u32 index; // ECX; EDX:EAX in the GPRs
        } msr;
        struct {
            bool aux; // RDTSCP
        } rdtsc;
        struct {
            u8 gpr;
            bool write;
        } cr8;
        struct {
            u64 code, info, info2; // vendor's numbers, only printed
            const char *text;
        } fatal;
    };
};

#endif
