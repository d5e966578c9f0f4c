// SPDX-License-Identifier: MIT
// The host's monotonic clock: the TSC scaled by fixed-point factors fixed once at boot.
#include "kernel/time.h"

#include "arch/x86/cpu.h"
#include "kernel/lib.h"

// 48 fraction bits: the factors fit 64 bits for any rate from 1 MHz to 16 GHz, with an error under
// one part in 10^12.
#define FRACTION 48

u64 host_tsc_hz;

static u64 ns_per_tick; // fixed point
static u64 ticks_per_ns;
static u64 tsc_base;

// (num << FRACTION) / den without the 128-bit division of libgcc, which the image does not link.
static u64 ratio(u64 num, u64 den)
{
    u64 quotient, remainder;
    __asm__("divq %4"
            : "=a"(quotient), "=d"(remainder)
            : "a"(num << FRACTION), "d"(num >> (64 - FRACTION)), "r"(den)
            : "cc");
    return quotient;
}

static u64 scale(u64 v, u64 factor)
{
    return (u64)((unsigned __int128)v * factor >> FRACTION);
}

void time_init(u64 tsc_hz, u64 tsc_at_boot)
{
    assert(tsc_hz >= 1000000 && tsc_hz < 16 * NS_PER_SEC);
    tsc_base = tsc_at_boot;
    ns_per_tick = ratio(NS_PER_SEC, tsc_hz);
    ticks_per_ns = ratio(tsc_hz, NS_PER_SEC);
    host_tsc_hz = tsc_hz;
}

u64 tsc_to_ns(u64 ticks)
{
    return scale(ticks, ns_per_tick);
}

u64 ns_to_tsc(u64 ns)
{
    return scale(ns, ticks_per_ns);
}

u64 time_from_tsc(u64 tsc)
{
    return tsc > tsc_base ? tsc_to_ns(tsc - tsc_base) : 0;
}

u64 time_to_tsc(u64 ns)
{
    return tsc_base + ns_to_tsc(ns);
}

u64 time_ns(void)
{
    return host_tsc_hz ? time_from_tsc(rdtsc()) : 0;
}

void time_delay_us(u64 us)
{
    for (u64 end = time_ns() + us * NS_PER_US; time_ns() < end;)
        cpu_relax();
}
