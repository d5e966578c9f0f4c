// SPDX-License-Identifier: MIT
// The one clock of a guest: its TSC. Every emulated timer derives from it; it never goes back.
#ifndef SKIFF_GUEST_CLOCK_H
#define SKIFF_GUEST_CLOCK_H

#include "kernel/thread.h"
#include "kernel/time.h"
#include "kernel/types.h"

struct guest;

struct guest_clock {
    u64 tsc_hz;            // what the guest was told; constant for its life, travels with it
    u64 scale;             // guest ticks per host tick, 16.48 fixed point
    u64 offset;            // added after scaling (mod 2^64)
    bool frozen;           // while paused: guest time stands still
    u64 frozen_at;         // guest TSC then
    u64 floor;             // largest value ever given out by the hypervisor
    struct gtimer *timers; // armed, sorted by deadline
    struct spinlock lock;
};

// Rate and scale; frozen at 0 until the first thaw. Armed timers stay armed.
void guest_clock_init(struct guest *g, u64 tsc_hz);
// Whether this host can run a guest that was told this rate: close enough, or scaled by hardware.
bool guest_clock_rate_ok(u64 tsc_hz);
u64 guest_clock_now(struct guest *g); // guest TSC ticks
u64 guest_clock_ns(struct guest *g);  // the same in ns since guest start
u64 guest_ticks_to_ns(const struct guest *g, u64 ticks);
u64 guest_ns_to_ticks(const struct guest *g, u64 ns);
// ticks * mul / div without overflow, for device rates (PIT 1193182 Hz, PM timer 3579545 Hz...).
u64 guest_ticks_to_rate(const struct guest *g, u64 ticks, u64 hz);  // ticks -> device counts
u64 guest_rate_to_ticks(const struct guest *g, u64 counts, u64 hz); // rounds up
void guest_clock_freeze(struct guest *g);
// Continues from frozen_at + added ticks, as of now.
void guest_clock_thaw(struct guest *g, u64 added_ticks);
// Host TSC value at which guest TSC reaches `ticks`.
u64 guest_clock_to_host_tsc(struct guest *g, u64 ticks);

// A timer in guest time. fn runs in a vCPU thread of the guest (thread context, no lock held) once
// guest time has reached deadline; it may set the timer again. Zero the struct before first use.
struct gtimer {
    u64 deadline; // guest ticks
    void (*fn)(void *arg);
    void *arg;
    struct gtimer *next;
    bool armed;
};
void gtimer_set(struct guest *g, struct gtimer *t, u64 deadline);
void gtimer_cancel(struct guest *g, struct gtimer *t);
// For the vCPU loop: runs what is due, returns the next deadline (guest ticks), ~0 when none.
u64 gtimers_run(struct guest *g);

#endif
