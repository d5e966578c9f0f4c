// SPDX-License-Identifier: MIT
// The local APIC's timer: one-shot, periodic and TSC-deadline (SDM 3A 10.5.4), in guest time.
#include "arch/x86/platform/lapic.h"

#include "kernel/lib.h"

static struct guest *guest_of(const struct vlapic *l)
{
    return l->vcpu->guest;
}

static u32 mode(const struct vlapic *l)
{
    return LVT_TIMER_MODE(l->lvt[LVT_TIMER]);
}

// Input clocks a count (SDM 3A figure 10-10).
static u32 divisor(const struct vlapic *l)
{
    u32 code = (l->divide & 3) | (l->divide >> 1 & 4);
    return code == 7 ? 1 : 2u << code;
}

static u64 period_clocks(const struct vlapic *l)
{
    return (u64)l->initial_count * divisor(l);
}

static u64 clocks_since_start(const struct vlapic *l, u64 now)
{
    return guest_ticks_to_rate(guest_of(l), now - l->timer_start, LAPIC_HZ);
}

static u64 clocks_to_ticks(const struct vlapic *l, u64 clocks)
{
    return guest_rate_to_ticks(guest_of(l), clocks, LAPIC_HZ);
}

// The deadline in guest clock ticks; the vCPU may see its TSC shifted by IA32_TSC_ADJUST.
static u64 deadline_ticks(const struct vlapic *l)
{
    u64 adjust = l->vcpu->tsc_adjust;
    // A deadline before the clock's zero has passed long ago.
    return (s64)adjust > 0 && l->tsc_deadline < adjust ? 0 : l->tsc_deadline - adjust;
}

void lapic_timer_arm(struct vlapic *l)
{
    assert_held(&l->lock);
    if (mode(l) == TIMER_DEADLINE && l->tsc_deadline)
        gtimer_set(guest_of(l), &l->timer, deadline_ticks(l));
    else if (l->timer_running)
        gtimer_set(guest_of(l), &l->timer, l->timer_next);
    else
        gtimer_cancel(guest_of(l), &l->timer);
}

void lapic_timer_stop(struct vlapic *l)
{
    assert_held(&l->lock);
    l->timer_running = 0;
    l->timer_start = l->timer_next = 0;
    l->tsc_deadline = 0;
    gtimer_cancel(guest_of(l), &l->timer);
}

void lapic_timer_set_initial(struct vlapic *l, u32 value)
{
    assert_held(&l->lock);
    if (mode(l) == TIMER_DEADLINE)
        return; // SDM 3A 10.5.4.1: ignored in this mode
    l->initial_count = value;
    l->timer_running = value != 0;
    l->timer_start = l->timer_next = 0;
    if (value) {
        l->timer_start = guest_clock_now(guest_of(l));
        l->timer_next = l->timer_start + clocks_to_ticks(l, period_clocks(l));
    }
    lapic_timer_arm(l);
}

// The count goes on from where it is, at the new pace.
void lapic_timer_set_divide(struct vlapic *l, u32 value)
{
    assert_held(&l->lock);
    u32 left = lapic_timer_current(l);
    l->divide = value & 0xb;
    if (l->timer_running) {
        u64 now = guest_clock_now(guest_of(l));
        u64 gone = (u64)(l->initial_count - left) * divisor(l);
        l->timer_start = now - clocks_to_ticks(l, gone);
        l->timer_next = now + clocks_to_ticks(l, (u64)left * divisor(l));
        lapic_timer_arm(l);
    }
}

// SDM 3A 10.5.4.1: a change between TSC-deadline mode and the others disarms the timer.
void lapic_timer_set_lvt(struct vlapic *l, u32 value)
{
    assert_held(&l->lock);
    u32 before = mode(l);
    if (LVT_TIMER_MODE(value) == TIMER_DEADLINE &&
        !platform_cpuid1_ecx(guest_of(l), CPUID1_ECX_TSC_DEADLINE))
        value &= ~(TIMER_DEADLINE << 17);
    l->lvt[LVT_TIMER] = value;
    if ((before == TIMER_DEADLINE) != (mode(l) == TIMER_DEADLINE)) {
        lapic_timer_stop(l);
        l->initial_count = 0;
    } else if (l->timer_running) { // one-shot and periodic count on; past periods don't matter
        l->timer_start = l->timer_next - clocks_to_ticks(l, period_clocks(l));
    }
}

void lapic_timer_set_deadline(struct vlapic *l, u64 value)
{
    assert_held(&l->lock);
    if (mode(l) != TIMER_DEADLINE)
        return;
    l->tsc_deadline = value;
    lapic_timer_arm(l);
}

u32 lapic_timer_current(struct vlapic *l)
{
    assert_held(&l->lock);
    if (!l->timer_running || mode(l) == TIMER_DEADLINE)
        return 0;
    u64 counts = clocks_since_start(l, guest_clock_now(guest_of(l))) / divisor(l);
    if (mode(l) == TIMER_PERIODIC)
        return l->initial_count - (u32)(counts % l->initial_count);
    return counts < l->initial_count ? l->initial_count - (u32)counts : 0;
}

static void interrupt(struct vlapic *l)
{
    u32 lvt = l->lvt[LVT_TIMER];
    if (!(lvt & LVT_MASKED))
        lapic_accept(l, lvt & 0xff, false);
}

// Periods that have passed meanwhile are one interrupt; the phase is kept.
static void next_period(struct vlapic *l, u64 now)
{
    u64 period = period_clocks(l);
    u64 passed = clocks_since_start(l, now) / period;
    u64 next = l->timer_start + clocks_to_ticks(l, (passed + 1) * period);
    u64 soonest = now + guest_ns_to_ticks(guest_of(l), TIMER_PERIOD_MIN);
    l->timer_next = MAX(next, soonest);
}

void lapic_timer_fire(void *lapic)
{
    struct vlapic *l = lapic;
    spin_lock(&l->lock);
    u64 now = guest_clock_now(guest_of(l));
    if (mode(l) == TIMER_DEADLINE) {
        if (l->tsc_deadline && now >= deadline_ticks(l)) {
            l->tsc_deadline = 0;
            interrupt(l);
        }
    } else if (l->timer_running && now >= l->timer_next) {
        if (mode(l) == TIMER_PERIODIC)
            next_period(l, now);
        else
            l->timer_running = 0;
        interrupt(l);
    }
    lapic_timer_arm(l);
    spin_unlock(&l->lock);
}
