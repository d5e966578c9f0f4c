// SPDX-License-Identifier: MIT
// The one clock of a guest, in ticks of its TSC's rate. Every emulated timer derives from it; it
// never goes back.
#ifndef SKIFF_GUEST_CLOCK_H
#define SKIFF_GUEST_CLOCK_H

#include "kernel/thread.h"
#include "kernel/time.h"
#include "kernel/types.h"

struct guest;

// Rates and offsets change only while all vCPUs are parked; the list of timers is under the lock.
struct guest_clock {
    u64 tsc_hz; // what the guest was told; constant for its life, travels with it
    u64 scale;  // guest ticks per host tick, 16.48 fixed point
    u64 offset; // added after scaling (mod 2^64)
    // How the vCPUs read their TSC on this host. As it was told: by the CPU itself, scaled where
    // the rates differ; without scaling, RDTSC exits. A guest that goes by a paravirtual clock
    // needs no constant rate, so its TSC may run at this host's instead.
    bool trapped;
    bool foreign;          // only where trapped would be needed; RDTSC does not exit then
    u64 foreign_offset;    // host TSC + this = guest TSC while foreign
    u64 ahead;             // guest TSC less guest clock, while not foreign; travels with the guest
    bool frozen;           // while paused: guest time stands still
    u64 frozen_at;         // guest TSC then
    u64 floor;             // largest value ever given out by the hypervisor; atomic
    struct gtimer *timers; // armed, sorted by deadline; lock
    struct spinlock lock;
};

// Rate and scale; frozen at 0 until the first thaw. Armed timers stay armed.
void guest_clock_init(struct guest *g, u64 tsc_hz);
// Lets the TSC of a guest whose RDTSC would have to exit run at the host's rate from here on, and
// says where it stands. Only while its vCPUs are parked.
void guest_clock_let_tsc_run(struct guest *g);
const char *guest_clock_tsc_mode(const struct guest *g); // "direct", "scaled", "trapped", "foreign"
// What the vCPUs read as their TSC before IA32_TSC_ADJUST, and the guest clock, of one instant.
struct clock_sample {
    u64 ticks, tsc;
};
struct clock_sample guest_clock_sample(struct guest *g);
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

// A timer in guest time. fn runs in the thread of its vCPU (no lock held) once guest time has
// reached deadline; it may set the timer again. Zero the struct before first use.
struct gtimer {
    u64 deadline; // guest ticks
    void (*fn)(void *arg);
    void *arg;
    struct gtimer *next;
    u32 vcpu; // whose thread runs fn, and nobody else is disturbed; devices use the first one's
    bool armed;
};
void gtimer_set(struct guest *g, struct gtimer *t, u64 deadline);
void gtimer_cancel(struct guest *g, struct gtimer *t);
// For the vCPU loop: runs what of this vCPU's is due, returns its next deadline (guest ticks), ~0
// when there is none.
u64 gtimers_run(struct guest *g, u32 vcpu);

#endif
