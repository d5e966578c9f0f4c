// SPDX-License-Identifier: MIT
// The host's TSC rate, measured, and the one timer interrupt of each CPU.
#include "arch/x86/acpi.h"
#include "arch/x86/apic.h"
#include "arch/x86/cpu.h"
#include "arch/x86/early.h"
#include "arch/x86/irq.h"
#include "arch/x86/msr.h"
#include "kernel/lib.h"
#include "kernel/log.h"
#include "kernel/time.h"

#define PIT_HZ       1193182ull
#define PIT_CHANNEL2 0x42
#define PIT_COMMAND  0x43
#define PIT_GATE     0x61  // system control port B: bit 0 gate, bit 1 speaker, bit 5 output
#define PIT_COUNT    59659 // 50 ms
#define PM_TIMER_HZ  3579545ull
#define PM_TICKS     (PM_TIMER_HZ / 20)
#define ROUNDS       3
#define POLL_LIMIT   100000000

static bool deadline_mode;
static u64 lapic_per_tsc; // local APIC timer ticks per TSC tick, 32 fraction bits

// One countdown of PIT channel 2 in mode 0, in TSC ticks; 0 when it never ends. Whatever disturbs
// the measurement makes it longer, so the shortest of several is the best.
static u64 measure_pit(void)
{
    u8 gate = in8(PIT_GATE) & 0xfc;
    out8(PIT_GATE, gate);
    out8(PIT_COMMAND, 0xb0); // channel 2, both bytes, mode 0, binary
    out8(PIT_CHANNEL2, (u8)PIT_COUNT);
    out8(PIT_CHANNEL2, PIT_COUNT >> 8);
    u64 start = rdtsc();
    out8(PIT_GATE, gate | 1);
    for (u32 i = 0; i < POLL_LIMIT; i++) {
        if (in8(PIT_GATE) & 0x20) {
            u64 ticks = rdtsc() - start;
            out8(PIT_GATE, gate);
            return ticks;
        }
    }
    return 0;
}

static u64 calibrate_pit(void)
{
    u64 best = ~0ull;
    for (u32 i = 0; i < ROUNDS; i++) {
        u64 ticks = measure_pit();
        if (ticks == 0)
            return 0;
        best = MIN(best, ticks);
    }
    return best * PIT_HZ / PIT_COUNT;
}

static u64 measure_pm(u16 port, u32 mask, u64 *pm_ticks)
{
    u32 first = in32(port);
    u64 start = rdtsc();
    for (u32 i = 0; i < POLL_LIMIT; i++) {
        u32 passed = (in32(port) - first) & mask;
        if (passed >= PM_TICKS) {
            *pm_ticks = passed;
            return rdtsc() - start;
        }
    }
    return 0;
}

static u64 calibrate_pm(void)
{
    bool wide;
    u16 port = acpi_pm_timer(&wide);
    u64 best = ~0ull;
    for (u32 i = 0; port != 0 && i < ROUNDS; i++) {
        u64 pm_ticks, ticks = measure_pm(port, wide ? ~0u : 0xffffff, &pm_ticks);
        if (ticks == 0)
            return 0;
        best = MIN(best, ticks * PM_TIMER_HZ / pm_ticks);
    }
    return port != 0 ? best : 0;
}

static void timer_interrupt(void *arg)
{
    (void)arg;
    ktimer_interrupt();
}

static void calibrate_lapic(u64 tsc_hz)
{
    lapic_timer_oneshot();
    u64 flags = irq_save();
    u64 start = rdtsc(), span = tsc_hz / 100;
    lapic_timer_start(~0u);
    while (rdtsc() - start < span)
        cpu_relax();
    u32 passed = ~0u - lapic_timer_left();
    span = rdtsc() - start;
    lapic_timer_start(0);
    irq_restore(flags);
    if (passed == 0)
        panic("the local APIC's timer does not count");
    lapic_per_tsc = ((u64)passed << 32) / span;
}

static void wait_until(u64 tsc)
{
    while (rdtsc() < tsc)
        cpu_relax();
}

// Whether deadlines come when they are due. Emulated machines have got this wrong after a reset,
// and a timer that is always early starves every other interrupt.
static bool deadline_works(u64 tsc_hz)
{
    lapic_timer_deadline_mode();
    u64 flags = irq_save();
    u64 start = rdtsc(), ms = tsc_hz / 1000;
    wrmsr(MSR_TSC_DEADLINE, start + 2 * ms);
    wait_until(start + ms);
    bool early = lapic_timer_pending();
    // A machine that is itself scheduled may have held this CPU up: late proves nothing.
    bool unfair = rdtsc() >= start + 2 * ms;
    wait_until(start + 3 * ms);
    bool came = lapic_timer_pending();
    wrmsr(MSR_TSC_DEADLINE, 0);
    irq_restore(flags);
    return came && (!early || unfair);
}

void arch_timer_init(void)
{
    u64 flags = irq_save();
    const char *source = "ACPI PM timer";
    u64 hz = calibrate_pm();
    if (hz == 0) {
        source = "PIT";
        hz = calibrate_pit();
    }
    irq_restore(flags);
    if (hz == 0)
        panic("neither an ACPI PM timer nor the PIT's channel 2 counts: no clock to go by");
    time_init(hz, arch_tsc_at_boot);
    irq_set_fixed(VECTOR_TIMER, timer_interrupt);
    deadline_mode = host_features.tsc_deadline && deadline_works(hz);
    if (!deadline_mode)
        calibrate_lapic(hz);
    log_info("time", "TSC runs at %llu.%03llu MHz by the %s; timer interrupts by %s",
             (unsigned long long)(hz / 1000000), (unsigned long long)(hz / 1000 % 1000), source,
             deadline_mode ? "TSC deadline" : "the local APIC's countdown");
}

void arch_timer_init_cpu(void)
{
    if (deadline_mode)
        lapic_timer_deadline_mode();
    else
        lapic_timer_oneshot();
}

void arch_timer_arm(u64 deadline_tsc)
{
    if (deadline_mode) {
        wrmsr(MSR_TSC_DEADLINE, deadline_tsc == ~0ull ? 0 : deadline_tsc);
        return;
    }
    if (deadline_tsc == ~0ull) {
        lapic_timer_start(0);
        return;
    }
    u64 now = rdtsc();
    u64 left = deadline_tsc > now ? deadline_tsc - now : 0;
    u64 count = (u64)((unsigned __int128)left * lapic_per_tsc >> 32) + 1;
    // A deadline beyond the counter's reach: the early interrupt arms the rest.
    lapic_timer_start((u32)MIN(count, 0xffffffffull));
}
