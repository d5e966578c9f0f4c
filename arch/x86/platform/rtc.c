// SPDX-License-Identifier: MIT
// The MC146818 real-time clock and its CMOS memory. Time is the host's wall clock when the guest
// was created, carried on by the guest clock; a move takes it along. (MC146818A data sheet; PIIX4
// data sheet for the ports.)
#include "arch/x86/cpu.h"
#include "arch/x86/platform/platform.h"
#include "arch/x86/platform/rtc_time.h"

#include "kernel/lib.h"

enum {
    R_SECOND,
    R_SECOND_ALARM,
    R_MINUTE,
    R_MINUTE_ALARM,
    R_HOUR,
    R_HOUR_ALARM,
    R_WEEKDAY,
    R_DAY,
    R_MONTH,
    R_YEAR,
    R_A,
    R_B,
    R_C,
    R_D,
    R_CENTURY = 0x32,
};
#define CMOS_BYTES 128
#define A_UIP      0x80
#define A_RATE     0x0f
#define B_SET      0x80
#define B_PIE      0x40
#define B_AIE      0x20
#define B_UIE      0x10
#define B_BINARY   0x04
#define B_24H      0x02
#define C_IRQ      0x80
#define C_PERIODIC 0x40
#define C_ALARM    0x20
#define C_UPDATE   0x10
#define D_VALID    0x80
// The update takes 1984 us, and its flag rises 244 us before.
#define UPDATE_NS (2228 * NS_PER_US)

struct vrtc {
    struct device *device;
    struct gtimer timer;
    u8 index;
    u8 cmos[CMOS_BYTES]; // clock registers are current only while the clock is being set
    u64 base_second;     // Unix time at base_tick, where a second began
    u64 base_tick;       // guest ticks
    u64 stopped;         // ticks into the second, while the divider is held in reset
    u64 flags_tick;      // guest ticks up to which register C's flags are worked out
};

static u64 hz(const struct vrtc *r)
{
    return r->device->guest->clock.tsc_hz;
}

static bool divider_runs(const struct vrtc *r)
{
    return (r->cmos[R_A] >> 4 & 7) == 2; // the 32.768 kHz time base
}

static bool clock_runs(const struct vrtc *r)
{
    return divider_runs(r) && !(r->cmos[R_B] & B_SET);
}

// Ticks since base_tick, which may lie before the guest clock's zero (then it has wrapped).
static u64 since_base(const struct vrtc *r, u64 tick)
{
    return (s64)(tick - r->base_tick) > 0 ? tick - r->base_tick : 0;
}

static u64 seconds_at(const struct vrtc *r, u64 tick)
{
    return since_base(r, tick) / hz(r);
}

static u64 unix_now(const struct vrtc *r)
{
    return r->base_second + seconds_at(r, guest_clock_now(r->device->guest));
}

// Registers hold BCD or binary, hours of 24 or 12 with bit 7 for the afternoon.
static u8 encode(const struct vrtc *r, u32 value)
{
    return (u8)(r->cmos[R_B] & B_BINARY ? value : value / 10 % 10 << 4 | value % 10);
}

static u32 decode(const struct vrtc *r, u8 value)
{
    return r->cmos[R_B] & B_BINARY ? value : (value >> 4) * 10u + (value & 15);
}

static u8 encode_hour(const struct vrtc *r, u32 hour)
{
    if (r->cmos[R_B] & B_24H)
        return encode(r, hour);
    return encode(r, hour % 12 ? hour % 12 : 12) | (hour >= 12 ? 0x80 : 0);
}

static u32 decode_hour(const struct vrtc *r, u8 value)
{
    if (r->cmos[R_B] & B_24H)
        return decode(r, value);
    return decode(r, value & 0x7f) % 12 + (value & 0x80 ? 12 : 0);
}

// Brings the clock registers up to date with the time.
static void store_time(struct vrtc *r, u64 unix_second)
{
    struct rtc_fields f = rtc_from_unix(unix_second);
    r->cmos[R_SECOND] = encode(r, f.second);
    r->cmos[R_MINUTE] = encode(r, f.minute);
    r->cmos[R_HOUR] = encode_hour(r, f.hour);
    r->cmos[R_WEEKDAY] = encode(r, f.weekday);
    r->cmos[R_DAY] = encode(r, f.day);
    r->cmos[R_MONTH] = encode(r, f.month);
    r->cmos[R_YEAR] = encode(r, f.year % 100);
    r->cmos[R_CENTURY] = encode(r, f.year / 100);
}

static u64 time_from_registers(const struct vrtc *r)
{
    struct rtc_fields f = {
        .second = decode(r, r->cmos[R_SECOND]),
        .minute = decode(r, r->cmos[R_MINUTE]),
        .hour = decode_hour(r, r->cmos[R_HOUR]),
        .day = decode(r, r->cmos[R_DAY]),
        .month = decode(r, r->cmos[R_MONTH]),
        .year = decode(r, r->cmos[R_CENTURY]) * 100 + decode(r, r->cmos[R_YEAR]),
    };
    return rtc_to_unix(&f);
}

static u32 decode_alarm(const struct vrtc *r, u32 reg)
{
    u8 value = r->cmos[reg];
    if (value >= 0xc0)
        return ALARM_ANY;
    return reg == R_HOUR_ALARM ? decode_hour(r, value) : decode(r, value);
}

// Ticks of the next alarm after `tick`, ~0 when there is none.
static u64 next_alarm(const struct vrtc *r, u64 tick)
{
    struct rtc_alarm a = {decode_alarm(r, R_SECOND_ALARM), decode_alarm(r, R_MINUTE_ALARM),
                          decode_alarm(r, R_HOUR_ALARM)};
    u64 second = seconds_at(r, tick);
    u32 delay = rtc_alarm_delay(&a, (u32)((r->base_second + second) % 86400));
    return delay ? r->base_tick + (second + delay) * hz(r) : ~0ull;
}

static u64 next_update(const struct vrtc *r, u64 tick)
{
    return r->base_tick + (seconds_at(r, tick) + 1) * hz(r);
}

// Counts of the 32.768 kHz base in one period, 0: off (data sheet, table 5).
static u32 period_counts(const struct vrtc *r)
{
    u32 rate = r->cmos[R_A] & A_RATE;
    if (!rate || !divider_runs(r))
        return 0;
    return 1u << (rate <= 2 ? rate + 6 : rate - 1);
}

static u64 next_periodic(const struct vrtc *r, u64 tick)
{
    struct guest *g = r->device->guest;
    u32 period = period_counts(r);
    if (!period)
        return ~0ull;
    u64 passed = guest_ticks_to_rate(g, since_base(r, tick), RTC_HZ) / period;
    u64 next = r->base_tick + guest_rate_to_ticks(g, (passed + 1) * period, RTC_HZ);
    return next > tick ? next : tick + 1;
}

static void update_irq(struct vrtc *r)
{
    u8 *c = &r->cmos[R_C];
    bool wanted = *c & r->cmos[R_B] & (B_PIE | B_AIE | B_UIE);
    *c = wanted ? *c | C_IRQ : *c & (u8)~C_IRQ;
    if (wanted)
        irq_raise(r->device->guest, IRQ_RTC);
    else
        irq_lower(r->device->guest, IRQ_RTC);
}

// Works out which flags have come up since the last look. Any number of missed periods is one flag.
static void collect_flags(struct vrtc *r, u64 now)
{
    u64 from = r->flags_tick;
    if (now <= from)
        return;
    if (next_periodic(r, from) <= now)
        r->cmos[R_C] |= C_PERIODIC;
    if (clock_runs(r)) {
        if (next_update(r, from) <= now)
            r->cmos[R_C] |= C_UPDATE;
        if (next_alarm(r, from) <= now)
            r->cmos[R_C] |= C_ALARM;
    }
    r->flags_tick = now;
}

// The timer is armed only for interrupts that are enabled and not yet flagged.
static void arm(struct vrtc *r)
{
    u8 b = r->cmos[R_B], c = r->cmos[R_C];
    u64 tick = r->flags_tick, next = ~0ull;
    if ((b & B_PIE) && !(c & C_PERIODIC))
        next = MIN(next, next_periodic(r, tick));
    if (clock_runs(r) && (b & B_UIE) && !(c & C_UPDATE))
        next = MIN(next, next_update(r, tick));
    if (clock_runs(r) && (b & B_AIE) && !(c & C_ALARM))
        next = MIN(next, next_alarm(r, tick));
    if (next == ~0ull)
        gtimer_cancel(r->device->guest, &r->timer);
    else
        gtimer_set(r->device->guest, &r->timer, next);
}

static void refresh(struct vrtc *r)
{
    collect_flags(r, guest_clock_now(r->device->guest));
    update_irq(r);
    arm(r);
}

static void fire(void *arg)
{
    struct device *d = arg;
    mutex_lock(&d->lock);
    refresh(d->priv);
    mutex_unlock(&d->lock);
}

// Seconds begin to count from the registers; the phase within the second stays.
static void restart_clock(struct vrtc *r)
{
    u64 now = guest_clock_now(r->device->guest);
    u64 phase = divider_runs(r) ? since_base(r, now) % hz(r) : r->stopped;
    r->base_second = time_from_registers(r);
    r->base_tick = now - phase;
}

static void write_a(struct vrtc *r, u8 value)
{
    u64 now = guest_clock_now(r->device->guest);
    bool ran = divider_runs(r);
    if (ran && clock_runs(r))
        store_time(r, unix_now(r));
    r->cmos[R_A] = value & 0x7f;
    // Out of reset the first update comes half a second later (data sheet, "divider control").
    if (!ran && divider_runs(r)) {
        r->base_second = time_from_registers(r);
        r->base_tick = now - hz(r) / 2;
        r->stopped = 0;
    } else if (ran && !divider_runs(r)) {
        r->stopped = hz(r) / 2;
    }
    r->flags_tick = now;
}

static void write_b(struct vrtc *r, u8 value)
{
    bool set_before = r->cmos[R_B] & B_SET, set_after = value & B_SET;
    if (clock_runs(r))
        store_time(r, unix_now(r));
    if (set_after)
        value &= (u8)~B_UIE; // data sheet: SET clears it
    if ((value ^ r->cmos[R_B]) & (B_BINARY | B_24H) && !set_before && divider_runs(r)) {
        r->cmos[R_B] = value;
        store_time(r, unix_now(r));
    }
    r->cmos[R_B] = value;
    if (set_before && !set_after && divider_runs(r))
        restart_clock(r);
}

static bool is_time(u32 reg)
{
    return reg == R_CENTURY ||
           (reg <= R_YEAR && reg != R_SECOND_ALARM && reg != R_MINUTE_ALARM && reg != R_HOUR_ALARM);
}

static void write_register(struct vrtc *r, u32 reg, u8 value)
{
    collect_flags(r, guest_clock_now(r->device->guest));
    if (reg == R_A) {
        write_a(r, value);
    } else if (reg == R_B) {
        write_b(r, value);
    } else if (reg == R_C || reg == R_D) {
        return; // read-only
    } else if (is_time(reg) && clock_runs(r)) {
        store_time(r, unix_now(r));
        r->cmos[reg] = value;
        restart_clock(r);
    } else {
        r->cmos[reg] = value;
    }
    refresh(r);
}

static bool updating(const struct vrtc *r)
{
    struct guest *g = r->device->guest;
    u64 phase = since_base(r, guest_clock_now(g)) % hz(r);
    return clock_runs(r) && phase >= hz(r) - guest_ns_to_ticks(g, UPDATE_NS);
}

static u8 read_register(struct vrtc *r, u32 reg)
{
    if (is_time(reg) && clock_runs(r))
        store_time(r, unix_now(r));
    if (reg == R_A)
        return r->cmos[R_A] | (updating(r) ? A_UIP : 0);
    if (reg == R_C) {
        refresh(r);
        u8 flags = r->cmos[R_C];
        r->cmos[R_C] = 0;
        // The line falls before the clock is looked at again: a period that ended meanwhile has an
        // edge of its own, or there would never be another one.
        update_irq(r);
        arm(r);
        return flags;
    }
    return r->cmos[reg];
}

static u64 rtc_read(struct device *d, u32 region, u64 offset, u32 size)
{
    (void)region;
    struct vrtc *r = d->priv;
    return offset == 1 && size == 1 ? read_register(r, r->index) : 0xff;
}

static void rtc_write(struct device *d, u32 region, u64 offset, u32 size, u64 value)
{
    (void)region;
    struct vrtc *r = d->priv;
    if (size > 2)
        return;
    if (offset == 0)
        r->index = value & (CMOS_BYTES - 1); // bit 7 would mask NMI, which nothing here raises
    if (offset == 1 || size == 2)
        write_register(r, r->index, (u8)(value >> (offset ? 0 : 8)));
}

static void store_kib(struct vrtc *r, u32 reg, u64 units, u64 limit)
{
    units = MIN(units, limit);
    r->cmos[reg] = (u8)units;
    r->cmos[reg + 1] = (u8)(units >> 8);
}

// Where PC firmware, SeaBIOS and OVMF among it, looks for the memory's size.
static void store_memory_size(struct vrtc *r)
{
    u64 bytes = r->device->guest->memory.bytes;
    u64 low = MIN(bytes, GUEST_LOW_RAM_MAX), high = bytes - low;
    store_kib(r, 0x15, 640, 0xffff);
    store_kib(r, 0x17, low > MIB ? (low - MIB) / KIB : 0, 0xffff);
    store_kib(r, 0x30, low > MIB ? (low - MIB) / KIB : 0, 0xffff);
    store_kib(r, 0x34, low > 16 * MIB ? (low - 16 * MIB) / (64 * KIB) : 0, 0xffff);
    store_kib(r, 0x5b, high / (64 * KIB), 0xffff);
    r->cmos[0x5d] = (u8)(high / (64 * KIB) >> 16);
    r->cmos[0x5f] = (u8)(r->device->guest->config.vcpus - 1);
}

// RESET clears interrupt enables and flags; time and memory have a battery.
static void rtc_reset(struct device *d)
{
    struct vrtc *r = d->priv;
    r->cmos[R_B] &= (u8) ~(B_PIE | B_AIE | B_UIE);
    r->cmos[R_C] = 0;
    r->index = 0;
    update_irq(r);
    arm(r);
}

static int rtc_init(struct device *d)
{
    struct vrtc *r = d->priv;
    r->device = d;
    r->timer.fn = fire;
    r->timer.arg = d;
    r->cmos[R_A] = 0x26;
    r->cmos[R_B] = B_24H;
    r->cmos[R_D] = D_VALID;
    store_memory_size(r);
    arch_read_wallclock(&r->base_second);
    r->base_tick = r->flags_tick = guest_clock_now(d->guest);
    store_time(r, r->base_second);
    return device_claim_ports(d, 0x70, 2, 0);
}

static void rtc_pause(struct device *d)
{
    struct vrtc *r = d->priv;
    gtimer_cancel(d->guest, &r->timer);
}

static void rtc_resume(struct device *d)
{
    struct vrtc *r = d->priv;
    update_irq(r);
    arm(r);
}

static bool check(const void *copy, char *err, size_t size)
{
    const struct vrtc *r = copy;
    const char *wrong = NULL;
    if (r->cmos[R_A] & A_UIP)
        wrong = "register A holds the update flag";
    else if (r->cmos[R_C] & 0x0f)
        wrong = "register C has reserved bits set";
    else if (r->cmos[R_D] != D_VALID)
        wrong = "register D does not say that the time is valid";
    if (wrong)
        snprintf(err, size, "RTC: %s (A 0x%x, B 0x%x, C 0x%x, D 0x%x)", wrong, r->cmos[R_A],
                 r->cmos[R_B], r->cmos[R_C], r->cmos[R_D]);
    return !wrong;
}

#define LAST_SECOND 253402300799ull // the year 9999
static const struct state_field fields[] = {
    FIELD(1, FIELD_COPY, struct vrtc, index, 1, 0, CMOS_BYTES - 1),
    FIELD_ARRAY(2, FIELD_BYTES, struct vrtc, cmos, 1),
    FIELD(3, FIELD_COPY, struct vrtc, base_second, 1, 0, LAST_SECOND),
    FIELD(4, FIELD_COPY, struct vrtc, base_tick, 1, 0, 0),
    FIELD(5, FIELD_COPY, struct vrtc, stopped, 1, 0, 0),
    FIELD(6, FIELD_COPY, struct vrtc, flags_tick, 1, 0, 0),
    FIELD_LAST,
};
static const struct state_table state = {
    .name = "rtc",
    .version = 1,
    .fields = fields,
    .check = check,
    .struct_size = sizeof(struct vrtc),
};

const struct device_ops vrtc_device = {
    .name = "rtc",
    .state = &state,
    .priv_size = sizeof(struct vrtc),
    .init = rtc_init,
    .fini = rtc_pause,
    .reset = rtc_reset,
    .read = rtc_read,
    .write = rtc_write,
    .pause = rtc_pause,
    .resume = rtc_resume,
};
