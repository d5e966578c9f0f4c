// SPDX-License-Identifier: MIT
// The guest clock: guest TSC made of the host's by scale and offset, stopped and continued.
#include "kernel/guest/clock.h"

#include "arch/x86/cpu.h"
#include "kernel/guest/backend.h"
#include "kernel/guest/fixed.h"
#include "kernel/guest/guest.h"
#include "kernel/lib.h"

#define SCALE_ONE (1ull << 48)

// Two calibrations of the same crystal differ by some parts per million, and so do two crystals.
// Below this difference the guest lives with the host's rate: nothing an NTP client notices.
#define RATE_TOLERANCE_PPM 250

static bool same_rate(u64 a, u64 b)
{
    u64 difference = a > b ? a - b : b - a;
    return difference <= b / 1000000 * RATE_TOLERANCE_PPM + RATE_TOLERANCE_PPM;
}

bool guest_clock_rate_ok(u64 tsc_hz)
{
    return tsc_hz && (same_rate(tsc_hz, host_tsc_hz) || backend->has_tsc_scaling());
}

void guest_clock_init(struct guest *g, u64 tsc_hz)
{
    struct guest_clock *c = &g->clock;
    c->tsc_hz = tsc_hz;
    c->scale = SCALE_ONE;
    if (!same_rate(tsc_hz, host_tsc_hz) && backend->has_tsc_scaling())
        c->scale = mul_div(tsc_hz, SCALE_ONE, host_tsc_hz);
    c->offset = 0;
    c->frozen = true;
    c->frozen_at = 0;
    c->floor = 0;
}

static u64 scaled(const struct guest_clock *c, u64 host_ticks)
{
    return (u64)((unsigned __int128)host_ticks * c->scale >> 48);
}

static u64 now_at(struct guest_clock *c, u64 host_tsc)
{
    if (c->frozen)
        return c->frozen_at;
    u64 now = scaled(c, host_tsc) + c->offset;
    if (now < c->floor)
        return c->floor;
    c->floor = now;
    return now;
}

u64 guest_clock_now(struct guest *g)
{
    return now_at(&g->clock, rdtsc());
}

u64 guest_ticks_to_ns(const struct guest *g, u64 ticks)
{
    return mul_div(ticks, NS_PER_SEC, g->clock.tsc_hz);
}

u64 guest_ns_to_ticks(const struct guest *g, u64 ns)
{
    return mul_div(ns, g->clock.tsc_hz, NS_PER_SEC);
}

u64 guest_clock_ns(struct guest *g)
{
    return guest_ticks_to_ns(g, guest_clock_now(g));
}

u64 guest_ticks_to_rate(const struct guest *g, u64 ticks, u64 hz)
{
    return mul_div(ticks, hz, g->clock.tsc_hz);
}

u64 guest_rate_to_ticks(const struct guest *g, u64 counts, u64 hz)
{
    return mul_div_up(counts, g->clock.tsc_hz, hz);
}

void guest_clock_freeze(struct guest *g)
{
    u64 now = guest_clock_now(g);
    g->clock.frozen_at = now;
    g->clock.frozen = true;
}

void guest_clock_thaw(struct guest *g, u64 added_ticks)
{
    struct guest_clock *c = &g->clock;
    u64 start = c->frozen_at + added_ticks;
    c->offset = start - scaled(c, rdtsc());
    c->floor = start;
    c->frozen = false;
}

u64 guest_clock_to_host_tsc(struct guest *g, u64 ticks)
{
    struct guest_clock *c = &g->clock;
    if (c->frozen || ticks == ~0ull)
        return ~0ull;
    u64 host = rdtsc();
    u64 now = now_at(c, host);
    if (ticks <= now)
        return host;
    u64 wait = ticks - now;
    if (c->scale != SCALE_ONE)
        wait = mul_div_up(wait, SCALE_ONE, c->scale);
    return wait < ~0ull - host ? host + wait : ~0ull;
}
