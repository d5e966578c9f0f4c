// SPDX-License-Identifier: MIT
// Rules of a guest's CPU that a backend applies in software, the same for both vendors.
#ifndef SKIFF_ARCH_GUEST_CPU_H
#define SKIFF_ARCH_GUEST_CPU_H

#include "kernel/guest/vcpu_state.h"
#include "kernel/types.h"

struct guest;

// CR4 bits this guest may set: those whose feature its CPUID shows.
u64 guest_cr4_allowed(const struct guest *g);
// Whether MOV to CR4 takes value, or raises #GP (SDM 3A 2.5, APM 2 3.1.3).
bool guest_cr4_write_valid(u64 old, u64 value, u64 allowed, u64 cr3, u64 efer);
// Whether WRMSR to EFER takes value; LMA is ignored in it (SDM 3A 2.2.1, APM 2 3.1.7).
bool guest_efer_write_valid(u64 old, u64 value, u64 writable, u64 cr0);

enum exceptions_meet {
    EXCEPTION_ALONE, // the second one is delivered
    EXCEPTION_DOUBLE_FAULT,
    EXCEPTION_TRIPLE_FAULT,
};
// The exception `second` comes up while `first` is being delivered (SDM 3A table 6-5, APM 2 8.2.9).
enum exceptions_meet exceptions_meet(u8 first, u8 second);
bool exception_pushes_error(u8 vector);

#endif
