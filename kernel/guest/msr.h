// SPDX-License-Identifier: MIT
// The guest's model-specific registers: what is modelled, what the backend holds, and the rest
// (#GP).
#ifndef SKIFF_GUEST_MSR_H
#define SKIFF_GUEST_MSR_H

#include "kernel/guest/guest.h"

#define MTRR_VARIABLE 8 // pairs of base and mask
#define MTRR_FIXED    11

// 0, or E_INVAL: the guest gets #GP(0).
int msr_read(struct vcpu *v, u32 index, u64 *value);
int msr_write(struct vcpu *v, u32 index, u64 value);
void msr_reset(struct vcpu *v); // power-on values of what this file models

// host_msr.c. The host's IA32_MISC_ENABLE; all ones where there is no such register. Whether string
// instructions are fast is for the guest to know, as kernels choose their copy loops by it.
u64 host_misc_enable(void);

// msr_amd.c. E_NOENT: not one of an AMD CPU's, or the guest's CPU is another vendor's.
int msr_amd_read(struct vcpu *v, u32 index, u64 *value);
int msr_amd_write(struct vcpu *v, u32 index, u64 value);

// mtrr.c. E_NOENT: not an MTRR.
int mtrr_read(struct vcpu *v, u32 index, u64 *value);
int mtrr_write(struct vcpu *v, u32 index, u64 value);
void mtrr_reset(struct vcpu *v);
// Whether a set of MTRRs from a stream could have been written by a guest.
bool mtrr_valid(u64 def_type, const u64 *fixed, const u64 *base, const u64 *mask);

#endif
