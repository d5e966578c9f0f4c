// SPDX-License-Identifier: MIT
// KVM's paravirtual clock (Linux Documentation/virt/kvm/x86/msr.rst): the guest names a page for
// each vCPU, and finds there how to make nanoseconds of its TSC. The hypervisor writes it when the
// guest asks and whenever the guest goes on after standing still, here or on another host.
#include "kernel/guest/kvmclock.h"

#include "arch/x86/cpu.h"
#include "kernel/guest/fixed.h"
#include "kernel/lib.h"
#include "kernel/mem.h"

#define ENABLED         BIT(0)
#define FLAG_TSC_STABLE BIT(0) // all vCPUs read one clock
#define MSR_COUNT       GUEST_MAX_VCPUS

// struct pvclock_vcpu_time_info. Readers repeat while version is odd or has changed.
struct time_info {
    u32 version, pad0;
    u64 tsc, ns; // at one instant
    u32 mul;     // ns per shifted TSC tick, 32 fractional bits
    s8 shift;
    u8 flags, pad[2];
};
static_assert(sizeof(struct time_info) == 32, "the clock's ABI");

struct wall_clock { // struct pvclock_wall_clock: when the clock was zero, in Unix time
    u32 version, sec, nsec;
};
static_assert(sizeof(struct wall_clock) == 12, "the clock's ABI");

struct kvmclock {
    u64 system_time[MSR_COUNT]; // the MSRs
    u64 wall_clock;
    u64 ns;    // what the clock showed when the guest was stopped last
    u64 ahead; // see struct guest_clock
    // Made at each continuation.
    u64 base_tsc, base_ns;
    u32 mul;
    s8 shift;
};

static struct kvmclock *clock_of(struct guest *g)
{
    struct device *d = device_find(g, kvmclock_device.name, 0);
    return d ? d->priv : NULL;
}

// mul in the upper half of its range: no rate loses precision.
static void set_rate(struct kvmclock *k, u64 tsc_hz)
{
    u64 ns = NS_PER_SEC, hz = tsc_hz;
    k->shift = 0;
    while (ns >= hz) {
        hz *= 2;
        k->shift++;
    }
    while (ns * 2 < hz) {
        ns *= 2;
        k->shift--;
    }
    k->mul = (u32)mul_div(ns, 1ull << 32, hz);
}

// As a guest computes it.
static u64 ns_at(const struct kvmclock *k, u64 tsc)
{
    u64 ticks = tsc - k->base_tsc;
    ticks = k->shift >= 0 ? ticks << k->shift : ticks >> -k->shift;
    return k->base_ns + (u64)((unsigned __int128)ticks * k->mul >> 32);
}

// Where no two accesses of a reader find the same even version, it reads again.
static int publish(struct vcpu *v, const struct kvmclock *k)
{
    u64 gpa = k->system_time[v->index] & ~ENABLED;
    struct time_info t;
    if (guest_read(v->guest, gpa, &t, sizeof(t)))
        return E_INVAL;
    u32 version = (t.version | 1) + 2;
    t = (struct time_info){.version = version,
                           .tsc = k->base_tsc + v->tsc_adjust,
                           .ns = k->base_ns,
                           .mul = k->mul,
                           .shift = k->shift,
                           .flags = FLAG_TSC_STABLE};
    guest_write(v->guest, gpa, &t.version, sizeof(t.version));
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    guest_write(v->guest, gpa + 4, (u8 *)&t + 4, sizeof(t) - 4);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    version++;
    return guest_write(v->guest, gpa, &version, sizeof(version));
}

static int publish_wall_clock(struct guest *g, const struct kvmclock *k)
{
    u64 seconds = 0;
    struct wall_clock w;
    if (guest_read(g, k->wall_clock, &w, sizeof(w)))
        return E_INVAL;
    arch_read_wallclock(&seconds);
    u64 ns = ns_at(k, guest_clock_sample(g).tsc);
    u64 zero = seconds * NS_PER_SEC > ns ? seconds * NS_PER_SEC - ns : 0;
    w = (struct wall_clock){(w.version & ~1u) + 2, (u32)(zero / NS_PER_SEC),
                            (u32)(zero % NS_PER_SEC)};
    return guest_write(g, k->wall_clock, &w, sizeof(w));
}

int kvmclock_rdmsr(struct vcpu *v, u32 index, u64 *value)
{
    const struct kvmclock *k = clock_of(v->guest);
    if (!k)
        return E_INVAL;
    *value = index == MSR_KVM_WALL_CLOCK_NEW ? k->wall_clock : k->system_time[v->index];
    return 0;
}

int kvmclock_wrmsr(struct vcpu *v, u32 index, u64 value)
{
    struct kvmclock *k = clock_of(v->guest);
    if (!k || (value & (index == MSR_KVM_WALL_CLOCK_NEW ? 3 : 2)))
        return E_INVAL;
    if (index == MSR_KVM_WALL_CLOCK_NEW) {
        k->wall_clock = value;
        return publish_wall_clock(v->guest, k);
    }
    k->system_time[v->index] = value;
    return value & ENABLED ? publish(v, k) : 0;
}

// ---- Device -------------------------------------------------------------------------------------

static int init(struct device *d)
{
    (void)d;
    return 0;
}

static void fini(struct device *d)
{
    (void)d;
}

static void reset(struct device *d)
{
    struct kvmclock *k = d->priv;
    memset(k->system_time, 0, sizeof(k->system_time));
    k->wall_clock = 0;
}

static u64 no_read(struct device *d, u32 region, u64 offset, u32 size)
{
    (void)d, (void)region, (void)offset, (void)size;
    return ~0ull;
}

static void no_write(struct device *d, u32 region, u64 offset, u32 size, u64 value)
{
    (void)d, (void)region, (void)offset, (void)size, (void)value;
}

static void pause(struct device *d)
{
    struct kvmclock *k = d->priv;
    k->ns = ns_at(k, guest_clock_sample(d->guest).tsc);
    k->ahead = d->guest->clock.ahead;
}

static bool all_enabled(const struct guest *g, const struct kvmclock *k)
{
    for (u32 i = 0; i < g->vcpu_count; i++)
        if (!(k->system_time[i] & ENABLED))
            return false;
    return true;
}

// A guest that reads this clock on every vCPU does not depend on its TSC's rate: no need to trap
// it. The clock goes on from what it showed last, which rounding can have taken a little past the
// guest clock.
static void resume(struct device *d)
{
    struct kvmclock *k = d->priv;
    struct guest *g = d->guest;
    g->clock.ahead = k->ahead;
    if (all_enabled(g, k))
        guest_clock_let_tsc_run(g);
    struct clock_sample now = guest_clock_sample(g);
    set_rate(k, g->clock.foreign ? host_tsc_hz : g->clock.tsc_hz);
    k->base_tsc = now.tsc;
    k->base_ns = MAX(k->ns, guest_ticks_to_ns(g, now.ticks));
    for (u32 i = 0; i < g->vcpu_count; i++)
        if (k->system_time[i] & ENABLED)
            publish(g->vcpu[i], k);
}

static const struct state_field fields[] = {
    FIELD_ARRAY(1, FIELD_COPY, struct kvmclock, system_time, 1),
    FIELD(2, FIELD_COPY, struct kvmclock, wall_clock, 1, 0, 0),
    FIELD(3, FIELD_COPY, struct kvmclock, ns, 1, 0, 0),
    FIELD(4, FIELD_COPY, struct kvmclock, ahead, 1, 0, 0),
    FIELD_LAST,
};

static bool check(const void *copy, char *err, size_t size)
{
    const struct kvmclock *k = copy;
    for (u32 i = 0; i < MSR_COUNT; i++)
        if (k->system_time[i] & 2) {
            snprintf(err, size, "kvmclock: the MSR of vCPU %u has a reserved bit set", i);
            return false;
        }
    return true;
}

static const struct state_table state = {
    .name = "kvmclock",
    .version = 1,
    .fields = fields,
    .check = check,
    .struct_size = sizeof(struct kvmclock),
};

const struct device_ops kvmclock_device = {
    .name = "kvmclock",
    .state = &state,
    .priv_size = sizeof(struct kvmclock),
    .init = init,
    .fini = fini,
    .reset = reset,
    .read = no_read,
    .write = no_write,
    .pause = pause,
    .resume = resume,
};
