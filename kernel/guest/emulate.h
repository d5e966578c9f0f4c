// SPDX-License-Identifier: MIT
// Emulation of the few instructions whose exits do not say enough: accesses to device memory and
// string I/O.
#ifndef SKIFF_GUEST_EMULATE_H
#define SKIFF_GUEST_EMULATE_H

#include "kernel/guest/guest.h"

// Carry out the instruction at the vCPU's RIP, or raise the exception it raises. Return 0, or
// E_NOSUP with a sentence in why for one that is not emulated. A repeated string instruction is
// carried out in bounded pieces; RIP stays at it until the last.
int emulate_mmio(struct vcpu *v, const struct vm_exit *x, char *why, size_t size);
int emulate_string_io(struct vcpu *v, const struct vm_exit *x, char *why, size_t size);
// Length of the instruction at RIP, 0 when it cannot be read or decoded.
u32 emulate_insn_length(struct vcpu *v);

#endif
