// SPDX-License-Identifier: MIT
// Host time: a monotonic clock made of the calibrated TSC, and one-shot timers.
#ifndef SKIFF_KERNEL_TIME_H
#define SKIFF_KERNEL_TIME_H

#include "kernel/types.h"

// Host TSC rate, measured at boot against a known timer (PIT or ACPI PM timer), never from CPUID.
extern u64 host_tsc_hz;

// The clock counts from TSC value tsc_at_boot; before this call time_ns() is 0.
// arch_timer_init calls it when it knows the rate.
void time_init(u64 tsc_hz, u64 tsc_at_boot);

u64 time_ns(void);          // nanoseconds since boot, never goes back
u64 time_from_tsc(u64 tsc); // host TSC value -> time_ns scale
u64 time_to_tsc(u64 ns);    // and back
u64 tsc_to_ns(u64 ticks);   // durations
u64 ns_to_tsc(u64 ns);
void time_delay_us(u64 us); // without giving the CPU away: for devices that want a moment

// One-shot timer in host time. fn runs in interrupt context on the CPU that set it and may only
// wake threads, set flags or kick vCPUs. Setting an armed timer moves it; a struct must be zeroed
// before first use and cancelled before its memory goes away.
struct ktimer {
    u64 deadline_ns;
    void (*fn)(struct ktimer *t);
    struct ktimer *next; // owned by the timer queue of `cpu`
    u32 cpu;
    bool armed;
};
void ktimer_set(struct ktimer *t, u64 deadline_ns, void (*fn)(struct ktimer *t));
void ktimer_cancel(struct ktimer *t);

// The timer interrupt of this CPU: runs what is due and arms the next one. Interrupts off.
void ktimer_interrupt(void);

#endif
