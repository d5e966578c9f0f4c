// SPDX-License-Identifier: MIT
// KVM's paravirtual clock as a guest reads it: on hosts of any rate, and never back.
// sources: kernel/guest/kvmclock.c kernel/guest/clock.c kernel/guest/device.c kernel/guest/state.c
#include "fake_guest.h"
#include "kernel/guest/fixed.h"
#include "kernel/guest/kvmclock.h"

u64 host_tsc_hz = 1000000000;
static struct guest *const g = &fake_guest;
static struct vcpu *const v = &fake_vcpu;
static u8 ram[4096];
static u32 dirtied, torn;

int guest_read(struct guest *guest, u64 gpa, void *buf, u64 bytes)
{
    (void)guest;
    if (gpa + bytes > sizeof(ram))
        return E_INVAL;
    memcpy(buf, ram + gpa, bytes);
    return 0;
}
int guest_write(struct guest *guest, u64 gpa, const void *buf, u64 bytes)
{
    u32 version;
    (void)guest;
    if (gpa + bytes > sizeof(ram))
        return E_INVAL;
    dirtied++;
    memcpy(&version, ram + (gpa & ~31ull), sizeof(version));
    if (bytes == 28 && !(version & 1))
        torn++; // the body changed while readers thought it whole
    memcpy(ram + gpa, buf, bytes);
    return 0;
}
void arch_read_wallclock(u64 *unix_seconds)
{
    *unix_seconds = 1700000000;
}
void bus_forget(struct device *d)
{
    (void)d;
}

struct page { // as Linux declares it
    u32 version, pad;
    u64 tsc_timestamp, system_time;
    u32 mul;
    s8 shift;
    u8 flags, pad2[2];
};

// pvclock_clocksource_read of a kernel whose RDTSC gives `tsc`.
static u64 read_clock(u64 gpa, u64 tsc)
{
    struct page p;
    memcpy(&p, ram + gpa, sizeof(p));
    assert_int_equal(p.version & 1, 0);
    assert_int_equal(p.flags, 1);
    u64 delta = tsc - p.tsc_timestamp;
    delta = p.shift < 0 ? delta >> -p.shift : delta << p.shift;
    return p.system_time + (u64)((unsigned __int128)delta * p.mul >> 32);
}

static struct device *clock_device;

static void arrive(u64 told_hz)
{
    guest_clock_init(g, told_hz);
}

static int setup(void **state)
{
    (void)state;
    fake_guest_reset();
    fake_scaling = false;
    memset(ram, 0, sizeof(ram));
    dirtied = torn = 0;
    host_tsc_hz = 1000000000;
    g->config.clock = CLOCK_KVM;
    clock_device = device_add(g, &kvmclock_device, 0);
    assert_non_null(clock_device);
    arrive(host_tsc_hz);
    return 0;
}

static void go_on(u64 added)
{
    guest_clock_thaw(g, added);
    devices_resume(g);
}

static void stop(void)
{
    guest_clock_freeze(g);
    devices_pause(g);
}

static u64 tsc(void)
{
    return guest_clock_sample(g).tsc;
}

static void test_reads_as_the_guest_clock(void **state)
{
    (void)state;
    static const u64 rates[] = {100000000, 1000000000, 2450000123, 3999999999};
    for (size_t i = 0; i < ARRAY_SIZE(rates); i++) {
        host_tsc_hz = rates[i];
        devices_destroy(g);
        device_add(g, &kvmclock_device, 0);
        arrive(rates[i]);
        go_on(rates[i] * 3); // three seconds old
        assert_int_equal(kvmclock_wrmsr(v, MSR_KVM_SYSTEM_TIME_NEW, 64 | 1), 0);
        struct clock_sample now = guest_clock_sample(g);
        u64 day = 86400 * rates[i];
        u64 want = guest_ticks_to_ns(g, now.ticks + day), have = read_clock(64, now.tsc + day);
        assert_in_range(have, want - 30000, want + 30000); // 32 bits of rate over a day
        stop();
    }
    assert_int_equal(torn, 0);
}

static void test_every_store_goes_through_the_guests_memory(void **state)
{
    (void)state;
    go_on(0);
    assert_int_equal(dirtied, 0);
    kvmclock_wrmsr(v, MSR_KVM_SYSTEM_TIME_NEW, 64 | 1);
    u32 once = dirtied;
    assert_true(once > 0);
    stop();
    assert_int_equal(dirtied, once); // nothing after the last pages were collected
    go_on(0);
    assert_int_equal(dirtied, 2 * once);
    kvmclock_wrmsr(v, MSR_KVM_SYSTEM_TIME_NEW, 0);
    stop();
    go_on(0);
    assert_int_equal(dirtied, 2 * once); // switched off
}

static void test_wall_clock(void **state)
{
    (void)state;
    u32 w[3];
    go_on(host_tsc_hz * 10);
    assert_int_equal(kvmclock_wrmsr(v, MSR_KVM_WALL_CLOCK_NEW, 128), 0);
    memcpy(w, ram + 128, sizeof(w));
    assert_int_equal(w[0] & 1, 0);
    assert_in_range(w[1], 1700000000 - 11, 1700000000 - 9);
}

static void test_wrong_values(void **state)
{
    (void)state;
    u64 value;
    go_on(0);
    assert_int_equal(kvmclock_wrmsr(v, MSR_KVM_SYSTEM_TIME_NEW, 4090 | 1), E_INVAL);
    assert_int_equal(kvmclock_wrmsr(v, MSR_KVM_SYSTEM_TIME_NEW, (1ull << 40) | 1), E_INVAL);
    assert_int_equal(kvmclock_wrmsr(v, MSR_KVM_WALL_CLOCK_NEW, 2), E_INVAL);
    kvmclock_wrmsr(v, MSR_KVM_SYSTEM_TIME_NEW, 64 | 1);
    assert_int_equal(kvmclock_rdmsr(v, MSR_KVM_SYSTEM_TIME_NEW, &value), 0);
    assert_int_equal(value, 65);
    devices_destroy(g); // a guest with clock = tsc
    assert_int_equal(kvmclock_rdmsr(v, MSR_KVM_SYSTEM_TIME_NEW, &value), E_INVAL);
    assert_int_equal(kvmclock_wrmsr(v, MSR_KVM_SYSTEM_TIME_NEW, 65), E_INVAL);
}

// To a host of another rate without scaling, and back: the TSC runs at the host's, the clock goes
// on, and neither steps back, whatever was added.
static void test_moves_between_rates(void **state)
{
    (void)state;
    u64 shown, counted;
    go_on(0);
    kvmclock_wrmsr(v, MSR_KVM_SYSTEM_TIME_NEW, 64 | 1);
    u8 saved[1024];
    for (u32 i = 0; i < 20; i++) {
        stop();
        shown = read_clock(64, tsc()), counted = tsc();
        u64 ticks = guest_clock_now(g);
        s64 n = state_save(kvmclock_device.state, clock_device->priv, saved, sizeof(saved));
        assert_true(n > 0);
        // The other host: its own clock, the device built anew, then loaded.
        host_tsc_hz = i & 1 ? 1000000000 : 37000000;
        devices_destroy(g);
        clock_device = device_add(g, &kvmclock_device, 0);
        arrive(1000000000);
        assert_int_equal(g->clock.trapped, !(i & 1));
        void *scratch = calloc(1, kvmclock_device.state->struct_size);
        char err[100];
        assert_int_equal(state_check(kvmclock_device.state, clock_device->priv, saved, (u64)n,
                                     scratch, err, sizeof(err)),
                         0);
        state_apply(kvmclock_device.state, clock_device->priv, scratch);
        free(scratch);
        g->clock.frozen_at = ticks;
        u64 added = i % 3 * 1000;
        go_on(added);
        assert_int_equal(g->clock.foreign, !(i & 1));
        u64 later = read_clock(64, tsc());
        assert_true(later >= shown + added);
        assert_true(later < shown + added + 1000000000);
        assert_true(tsc() >= counted);
    }
    assert_int_equal(torn, 0);
}

// Until every vCPU reads the clock, the TSC keeps its rate.
static void test_a_kernel_that_does_not_use_it_has_its_tsc_trapped(void **state)
{
    (void)state;
    host_tsc_hz = 300000000;
    arrive(1000000000);
    go_on(0);
    assert_true(g->clock.trapped && !g->clock.foreign);
    kvmclock_wrmsr(v, MSR_KVM_SYSTEM_TIME_NEW, 64 | 1);
    assert_false(g->clock.foreign); // what it has been told holds until it stands still
    struct clock_sample now = guest_clock_sample(g);
    assert_in_range(read_clock(64, now.tsc + 1000000000), now.ticks + 999999000,
                    now.ticks + 1000001000);
    stop();
    go_on(0);
    assert_true(g->clock.foreign);
    stop();
    devices_reset(g); // the guest starts again
    go_on(0);
    assert_false(g->clock.foreign);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup(name, setup)
    const struct CMUnitTest tests[] = {
        T(test_reads_as_the_guest_clock),
        T(test_every_store_goes_through_the_guests_memory),
        T(test_wall_clock),
        T(test_wrong_values),
        T(test_moves_between_rates),
        T(test_a_kernel_that_does_not_use_it_has_its_tsc_trapped),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
