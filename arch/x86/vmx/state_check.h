// SPDX-License-Identifier: MIT
// Whether VM entry would take a vCPU's state: pure functions, so that a peer's stream is judged
// before anything is touched (SDM 3C 26.3.1).
#ifndef SKIFF_VMX_STATE_CHECK_H
#define SKIFF_VMX_STATE_CHECK_H

#include "kernel/guest/vcpu_state.h"
#include "kernel/types.h"

struct vmx_limits {
    u64 cr4_allowed;
    u64 spec_ctrl_allowed;
    bool nx, rdtscp;
    u8 phys_bits;
};

// NULL when it can be entered, else one sentence with what is wrong.
const char *vmx_check_state(const struct vcpu_state *s, const struct vmx_limits *l);

// What differs between hosts without meaning gets one form. level: the guest is on a CPU level, and
// may go to the other vendor's CPU.
void vmx_tidy_state(struct vcpu_state *s, bool level);

static inline bool vmx_canonical(u64 address) // 48 bits; LA57 is not offered
{
    return (u64)((s64)(address << 16) >> 16) == address;
}
bool vmx_pat_ok(u64 pat);

#endif
