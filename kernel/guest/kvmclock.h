// SPDX-License-Identifier: MIT
// KVM's paravirtual clock, which stock kernels read: nanoseconds that stay right when the TSC's
// rate does not.
#ifndef SKIFF_GUEST_KVMCLOCK_H
#define SKIFF_GUEST_KVMCLOCK_H

#include "kernel/guest/guest.h"

// CPUID (Linux Documentation/virt/kvm/x86/cpuid.rst) and the bits of its feature leaf.
#define KVM_SIGNATURE            "KVMKVMKVM\0\0"
#define KVM_FEATURE_CLOCKSOURCE2 BIT(3)
#define KVM_FEATURE_CLOCK_STABLE BIT(24)
#define MSR_KVM_WALL_CLOCK_NEW   0x4b564d00
#define MSR_KVM_SYSTEM_TIME_NEW  0x4b564d01

// There for guests with clock = kvm only.
extern const struct device_ops kvmclock_device;
// E_INVAL: the guest has no such clock, or the value makes no sense.
int kvmclock_rdmsr(struct vcpu *v, u32 index, u64 *value);
int kvmclock_wrmsr(struct vcpu *v, u32 index, u64 value);

#endif
