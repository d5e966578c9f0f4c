// SPDX-License-Identifier: MIT
// What a guest sees of CPUID: made once from the host's CPUID and the policy, then only looked up.
#ifndef SKIFF_GUEST_CPUID_H
#define SKIFF_GUEST_CPUID_H

#include "kernel/guest/guest.h"

// Reads the host's CPUID (eax, ebx, ecx, edx); a parameter so that tests can be another CPU.
typedef void (*cpuid_source)(u32 leaf, u32 sub, u32 r[4]);
// This CPU as CPUID shows it; zeros beyond its last leaf (host_cpu.c; tests have another).
void host_cpuid(u32 leaf, u32 sub, u32 r[4]);

// Fills g->cpuid for g->config.vcpus CPUs at g->clock.tsc_hz. xcr0: components the host saves.
void cpuid_build(struct guest *g, cpuid_source host, u64 xcr0);
// After g->cpuid was filled (here or from a stream): makes the table of first entries.
void cpuid_index(struct guest *g);
// The CPUID instruction: r[0] and r[2] are EAX and ECX going in, all four come out.
void cpuid_query(struct vcpu *v, u32 r[4]);
// XCR0 bits the guest may set.
u64 cpuid_xcr0(const struct guest *g);
// Whether XSETBV of this value is allowed (SDM 1 13.3).
bool cpuid_xcr0_valid(const struct guest *g, u64 xcr0);
// A feature the guest was shown: register 0..3 = eax..edx.
bool cpuid_has(const struct guest *g, u32 leaf, unsigned reg, unsigned bit);
// "avx2" for leaf 7, ebx, bit 5; NULL for a bit without a name here (and never shown).
const char *cpuid_bit_name(u32 leaf, u32 sub, unsigned reg, unsigned bit);
// The rate to tell a guest on a host of this rate: what Linux will make of leaf 15h, so that its
// TSC and our timers agree exactly.
u64 cpuid_guest_tsc_hz(u64 host_hz);

#endif
