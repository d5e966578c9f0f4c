// SPDX-License-Identifier: MIT
// A guest's PC for tests: the real devices, bus and state tables over a clock that the test turns.
#ifndef SKIFF_TESTS_FAKE_PLATFORM_H
#define SKIFF_TESTS_FAKE_PLATFORM_H

#include "tests/unit/unit.h"

#include "arch/x86/platform/dsdt.h"
#include "arch/x86/platform/lapic.h"
#include "net/guest_nic.h"
#include "kernel/guest/bus.h"
#include "kernel/guest/fixed.h"
#include "kernel/guest/guest.h"
#include "kernel/lib.h"
#include "kernel/log.h"
#include "kernel/mem.h"

#define TEST_WALLCLOCK 1700000000ull // 2023-11-14 22:13:20 UTC, a Tuesday

static struct guest guest;
static struct vcpu vcpus[4];
static struct vcpu *current_vcpu;
static u64 now_ticks;
static u64 clock_step; // what passes between two looks at the clock
static u32 kicks;

const u8 dsdt_aml[] = "DSDT as iasl makes it";
const u32 dsdt_aml_bytes = sizeof(dsdt_aml);

void *kzalloc(size_t size)
{
    return calloc(1, size);
}

void mutex_lock(struct mutex *m)
{
    assert_null(m->owner);
    m->owner = (struct thread *)m;
}

void mutex_unlock(struct mutex *m)
{
    assert_non_null(m->owner);
    m->owner = NULL;
}

void log_write(enum log_level level, const char *area, const char *fmt, ...)
{
    (void)level, (void)area, (void)fmt;
}

struct vcpu *thread_get_vcpu(void)
{
    return current_vcpu;
}

void vcpu_kick(struct vcpu *v)
{
    v->kick = true;
    kicks++;
}

void guest_kick(struct guest *g)
{
    for (u32 i = 0; i < g->vcpu_count; i++)
        g->vcpu[i]->kick = true;
}

const struct device_ops kvmclock_device; // guests here go by their TSC
u64 guest_clock_now(struct guest *g)
{
    (void)g;
    return now_ticks += clock_step;
}

u64 guest_ns_to_ticks(const struct guest *g, u64 ns)
{
    return mul_div(ns, g->clock.tsc_hz, NS_PER_SEC);
}

u64 guest_ticks_to_rate(const struct guest *g, u64 ticks, u64 hz)
{
    return mul_div(ticks, hz, g->clock.tsc_hz);
}

u64 guest_rate_to_ticks(const struct guest *g, u64 counts, u64 hz)
{
    return mul_div_up(counts, g->clock.tsc_hz, hz);
}

void arch_read_wallclock(u64 *seconds)
{
    *seconds = TEST_WALLCLOCK;
}

__attribute__((weak)) const struct device_ops guest_nic_device; // a test may have the real one

#ifndef FAKE_RAM // fake_virtio.h has its own
const struct device_ops vrng_device, vblk_device, vballoon_device;
static u8 fake_rom[128 * KIB]; // guest memory from 0xe0000 to 1 MiB

int guest_write(struct guest *g, u64 gpa, const void *buf, u64 bytes)
{
    (void)g;
    assert_in_range(gpa, 0xe0000, 0xfffff);
    assert_in_range(gpa + bytes, 0xe0000, 0x100000);
    memcpy(fake_rom + (gpa - 0xe0000), buf, bytes);
    return 0;
}
#endif

// ---- Building and running it

static int pc_create(u32 vcpu_count)
{
    memset(&guest, 0, sizeof(guest));
    memset(vcpus, 0, sizeof(vcpus));
    strlcpy(guest.name, "test", sizeof(guest.name));
    guest.clock.tsc_hz = NS_PER_SEC;
    guest.memory.bytes = 256 * MIB;
    guest.config.vcpus = guest.vcpu_count = vcpu_count;
    guest.cpuid_count = 1;
    guest.cpuid[0] = (struct cpuid_entry){
        .leaf = 1, .ecx = BIT(CPUID1_ECX_X2APIC) | BIT(CPUID1_ECX_TSC_DEADLINE)};
    now_ticks = clock_step = kicks = 0;
    assert_int_equal(bus_create(&guest), 0);
    for (u32 i = 0; i < vcpu_count; i++) {
        vcpus[i] = (struct vcpu){.guest = &guest, .index = i};
        guest.vcpu[i] = &vcpus[i];
        assert_int_equal(platform_vcpu_init(&vcpus[i]), 0);
    }
    assert_int_equal(platform_create(&guest), 0);
    current_vcpu = &vcpus[0];
    return 0;
}

static int pc_destroy(void **state)
{
    (void)state;
    devices_destroy(&guest);
    platform_destroy(&guest);
    for (u32 i = 0; i < guest.vcpu_count; i++)
        platform_vcpu_fini(&vcpus[i]);
    bus_destroy(&guest);
    return 0;
}

static inline int pc_one(void **state)
{
    (void)state;
    return pc_create(1);
}

static inline int pc_four(void **state)
{
    (void)state;
    return pc_create(4);
}

// What the threads of all vCPUs do: the next deadline of any.
static inline u64 timers_run(void)
{
    u64 next = ~0ull;
    for (u32 i = 0; i < ARRAY_SIZE(vcpus); i++)
        next = MIN(next, gtimers_run(&guest, i));
    return next;
}

// Runs the guest's timers at their times until `ticks` more have passed.
static inline void run_for(u64 ticks)
{
    u64 end = now_ticks + ticks;
    for (;;) {
        u64 next = timers_run();
        if (next > end)
            break;
        now_ticks = MAX(next, now_ticks);
    }
    now_ticks = end;
    timers_run();
}

// Time that passes while nobody runs, as in a blackout.
static inline void time_passes(u64 ticks)
{
    now_ticks += ticks;
}

static inline u8 in8(u16 port)
{
    return (u8)bus_io_read(&guest, port, 1);
}

static inline u32 in32(u16 port)
{
    return (u32)bus_io_read(&guest, port, 4);
}

static inline void out8(u16 port, u8 value)
{
    bus_io_write(&guest, port, 1, value);
}

static inline void out16(u16 port, u16 value)
{
    bus_io_write(&guest, port, 2, value);
}

static inline void out32(u16 port, u32 value)
{
    bus_io_write(&guest, port, 4, value);
}

static inline u32 apic_get(u32 offset)
{
    return (u32)bus_mmio_read(&guest, LAPIC_GPA + offset, 4);
}

static inline void apic_set(u32 offset, u32 value)
{
    bus_mmio_write(&guest, LAPIC_GPA + offset, 4, value);
}

static inline void apic_on(u32 vcpu)
{
    struct vcpu *before = current_vcpu;
    current_vcpu = &vcpus[vcpu];
    apic_set(0xf0, 0x1ff);
    current_vcpu = before;
}

// The next vector the vCPU takes, -1: none.
static inline int take(u32 vcpu)
{
    return platform_irq_peek(&vcpus[vcpu]) < 0 ? -1 : platform_irq_ack(&vcpus[vcpu]);
}

// PICs as every PC system sets them: vectors 0x20 and 0x28, everything masked but what is named.
static inline void pics_on(u16 unmasked)
{
    static const u8 words[][2] = {{0x11, 0x11}, {0x20, 0x28}, {4, 2}, {1, 1}};
    for (u32 i = 0; i < 4; i++) {
        out8(i ? 0x21 : 0x20, words[i][0]);
        out8(i ? 0xa1 : 0xa0, words[i][1]);
    }
    out8(0x21, (u8) ~(unmasked | 4));
    out8(0xa1, (u8)(~unmasked >> 8));
}

static inline void ioapic_set(u32 reg, u32 value)
{
    bus_mmio_write(&guest, IOAPIC_GPA, 4, reg);
    bus_mmio_write(&guest, IOAPIC_GPA + 0x10, 4, value);
}

static inline u32 ioapic_get(u32 reg)
{
    bus_mmio_write(&guest, IOAPIC_GPA, 4, reg);
    return (u32)bus_mmio_read(&guest, IOAPIC_GPA + 0x10, 4);
}

static inline void ioapic_route(u32 pin, u64 entry)
{
    ioapic_set(0x10 + 2 * pin + 1, (u32)(entry >> 32));
    ioapic_set(0x10 + 2 * pin, (u32)entry);
}

// ---- Moving: everything is saved, thrown away, made anew, loaded.

#define MOVE_PARTS 32
struct moved {
    u32 count;
    u8 data[MOVE_PARTS][16384];
    s64 bytes[MOVE_PARTS];
};

static void load_part(const struct state_table *t, void *obj, const void *data, s64 bytes)
{
    char err[200] = "";
    void *scratch = calloc(1, t->struct_size);
    if (state_check(t, obj, data, (u64)bytes, scratch, err, sizeof(err)))
        fail_msg("%s", err);
    state_apply(t, obj, scratch);
    free(scratch);
}

static inline void pause_all(void)
{
    devices_pause(&guest);
    for (u32 i = 0; i < guest.vcpu_count; i++)
        platform_vcpu_pause(&vcpus[i]);
    assert_null(guest.clock.timers);
}

static inline void resume_all(void)
{
    for (u32 i = 0; i < guest.vcpu_count; i++)
        platform_vcpu_resume(&vcpus[i]);
    devices_resume(&guest);
}

static inline void save_all(struct moved *m)
{
    m->count = 0;
    for (u32 i = 0; i < guest.vcpu_count; i++, m->count++)
        m->bytes[m->count] = state_save(&lapic_state, vcpus[i].lapic, m->data[m->count], 16384);
    for (struct device *d = guest.devices; d; d = d->next, m->count++) {
        m->bytes[m->count] = state_save(d->ops->state, d->priv, m->data[m->count], 16384);
        assert_true(m->bytes[m->count] > 0);
    }
}

static inline void load_all(const struct moved *m)
{
    u32 n = 0;
    for (u32 i = 0; i < guest.vcpu_count; i++, n++)
        load_part(&lapic_state, vcpus[i].lapic, m->data[n], m->bytes[n]);
    for (struct device *d = guest.devices; d; d = d->next, n++)
        load_part(d->ops->state, d->priv, m->data[n], m->bytes[n]);
}

// To another host and on, `blackout` ticks later. What arrived must be what was sent.
static inline void move_pc(u64 blackout)
{
    static struct moved sent, arrived;
    u64 now = now_ticks, adjust = vcpus[0].tsc_adjust;
    u32 count = guest.vcpu_count;
    pause_all();
    save_all(&sent);
    pc_destroy(NULL);
    pc_create(count);
    vcpus[0].tsc_adjust = adjust;
    now_ticks = now;
    pause_all();
    load_all(&sent);
    save_all(&arrived);
    assert_int_equal(sent.count, arrived.count);
    for (u32 i = 0; i < sent.count; i++)
        assert_memory_equal(sent.data[i], arrived.data[i], (size_t)sent.bytes[i]);
    time_passes(blackout);
    resume_all();
}

// A change of a device's state must be refused, with a sentence that holds `word`.
static inline void assert_refused(const struct state_table *t, const void *state, const char *word)
{
    static u8 buf[16384];
    char err[200] = "";
    void *scratch = calloc(1, t->struct_size);
    s64 bytes = state_save(t, state, buf, sizeof(buf));
    assert_int_equal(state_check(t, state, buf, (u64)bytes, scratch, err, sizeof(err)), E_INVAL);
    if (!strstr(err, word))
        fail_msg("wanted \"%s\" in \"%s\"", word, err);
    free(scratch);
}

static inline struct device *dev(const char *name)
{
    struct device *d = device_find(&guest, name, 0);
    assert_non_null(d);
    return d;
}

#endif
