// SPDX-License-Identifier: MIT
// The guest clock: guest TSC made of the host's by scale and offset, stopped and continued.
#include "kernel/guest/clock.h"

#include "arch/x86/cpu.h"
#include "kernel/guest/backend.h"
#include "kernel/guest/fixed.h"
#include "kernel/guest/guest.h"
#include "kernel/lib.h"

#define SCALE_ONE            (1ull << 48)
#define SCALE_BELOW_HARDWARE 0xffffull // APM 2 15.30.5: 32 fractional bits

// Two calibrations of the same crystal differ by some parts per million, and so do two crystals.
// Below this difference the guest lives with the host's rate: nothing an NTP client notices.
#define RATE_TOLERANCE_PPM 250

static bool same_rate(u64 a, u64 b)
{
    u64 difference = a > b ? a - b : b - a;
    return difference <= b / 1000000 * RATE_TOLERANCE_PPM + RATE_TOLERANCE_PPM;
}

void guest_clock_init(struct guest *g, u64 tsc_hz)
{
    struct guest_clock *c = &g->clock;
    c->tsc_hz = tsc_hz;
    c->scale = SCALE_ONE;
    c->trapped = c->foreign = false;
    if (!same_rate(tsc_hz, host_tsc_hz)) {
        c->scale = mul_div(tsc_hz, SCALE_ONE, host_tsc_hz);
        c->trapped = c->scale > backend->tsc_scale_max();
        if (!c->trapped) // no finer than either vendor's hardware, so that it agrees with us
            c->scale &= ~SCALE_BELOW_HARDWARE;
    }
    c->ahead = 0;
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
    u64 floor = __atomic_load_n(&c->floor, __ATOMIC_RELAXED);
    while (floor < now && !__atomic_compare_exchange_n(&c->floor, &floor, now, true,
                                                       __ATOMIC_RELAXED, __ATOMIC_RELAXED))
        ;
    return MAX(now, floor);
}

u64 guest_clock_now(struct guest *g)
{
    return now_at(&g->clock, rdtsc());
}

static struct clock_sample sample_at(struct guest_clock *c, u64 host_tsc)
{
    u64 now = now_at(c, host_tsc);
    bool running = c->foreign && !c->frozen;
    return (struct clock_sample){now, running ? host_tsc + c->foreign_offset : now + c->ahead};
}

struct clock_sample guest_clock_sample(struct guest *g)
{
    return sample_at(&g->clock, rdtsc());
}

const char *guest_clock_tsc_mode(const struct guest *g)
{
    const struct guest_clock *c = &g->clock;
    if (c->trapped)
        return c->foreign ? "foreign" : "trapped";
    return c->scale == SCALE_ONE ? "direct" : "scaled";
}

void guest_clock_let_tsc_run(struct guest *g)
{
    struct guest_clock *c = &g->clock;
    if (!c->trapped)
        return;
    u64 host = rdtsc();
    c->foreign_offset = sample_at(c, host).tsc - host;
    c->foreign = true;
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
    struct guest_clock *c = &g->clock;
    struct clock_sample now = guest_clock_sample(g);
    c->ahead = now.tsc - now.ticks;
    c->foreign = false;
    c->frozen_at = now.ticks;
    c->frozen = true;
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
