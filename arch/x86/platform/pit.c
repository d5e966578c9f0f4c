// SPDX-License-Identifier: MIT
// The 8254 interval timer and the port at 0x61 that gates its third channel (Intel 8254 data
// sheet). A count is never stored while it runs: it follows from the guest clock and when it was
// loaded.
#include "arch/x86/platform/platform.h"

#include "kernel/lib.h"

#define CHANNELS      3
#define SPEAKER       2     // the channel behind port 0x61
#define REFRESH_HZ    66287 // of the toggling bit, memory refresh long ago
#define REGION_TIMER  0
#define REGION_PORT61 1
#define ACCESS_LOW    1
#define ACCESS_HIGH   2
#define ACCESS_BOTH   3

struct pit_channel {
    u8 mode; // 0 to 5
    u8 access;
    u8 bcd;
    u8 loaded; // a count was written since the control word
    u8 gate;
    u8 triggered;  // modes 1 and 5: the gate rose since the count was written
    u8 write_high; // the next byte written is the high one
    u8 write_low;  // the low one, kept till then
    u8 read_high;  // the next byte read is the high one
    u8 latched;    // bytes of latch still to be read
    u8 status_latched, status;
    u16 latch;
    u32 reload; // 1 to 65536
    u64 start;  // guest ticks when counting began
    u64 held;   // counts gone when the gate stopped it (modes 0, 4)
};

struct vpit {
    struct device *device;
    struct gtimer timer; // channel 0's next rising output
    struct pit_channel channel[CHANNELS];
    u8 armed;
    u8 irq;       // level of IRQ 0
    u8 port61;    // bits 0 and 1
    u64 deadline; // guest ticks, valid while armed
};

static bool periodic(const struct pit_channel *c)
{
    return c->mode == 2 || c->mode == 3;
}

static bool triggered_by_gate(const struct pit_channel *c)
{
    return c->mode == 1 || c->mode == 5;
}

// Counts gone since the channel began to count.
static u64 counts(struct guest *g, const struct pit_channel *c)
{
    if (!c->loaded || (triggered_by_gate(c) && !c->triggered))
        return 0;
    if (!c->gate && !triggered_by_gate(c))
        return c->held;
    return guest_ticks_to_rate(g, guest_clock_now(g) - c->start, PIT_HZ);
}

static u16 to_bcd(u32 n)
{
    return (u16)(n % 10 | n / 10 % 10 << 4 | n / 100 % 10 << 8 | n / 1000 % 10 << 12);
}

static u32 from_bcd(u16 b)
{
    return (b & 15) + (b >> 4 & 15) * 10u + (b >> 8 & 15) * 100u + (b >> 12) * 1000u;
}

static u16 count_now(struct guest *g, const struct pit_channel *c)
{
    u64 gone = counts(g, c);
    u32 wrap = c->bcd ? 10000 : 65536, left;
    if (c->mode == 3)
        left = c->reload - (u32)(2 * gone % c->reload);
    else if (c->mode == 2)
        left = c->reload - (u32)(gone % c->reload);
    else
        left = (c->reload + wrap - (u32)(gone % wrap)) % wrap;
    left %= wrap;
    return c->bcd ? to_bcd(left) : (u16)left;
}

static bool output(struct guest *g, const struct pit_channel *c)
{
    u64 gone = counts(g, c);
    switch (c->mode) {
    case 0:
        return c->loaded && gone >= c->reload;
    case 1:
        return !c->triggered || gone >= c->reload;
    case 2:
        return !c->gate || !c->loaded || gone % c->reload != c->reload - 1;
    case 3:
        return !c->gate || !c->loaded || gone % c->reload < (c->reload + 1) / 2;
    default: // 4, 5: low for one count
        return !c->loaded || gone != c->reload;
    }
}

static void set_irq(struct vpit *p, bool level)
{
    p->irq = level;
    if (level)
        irq_raise(p->device->guest, IRQ_PIT);
    else
        irq_lower(p->device->guest, IRQ_PIT);
}

// Channel 0 began to count: when does its output rise? (Its gate is always high.)
static void arm(struct vpit *p)
{
    struct guest *g = p->device->guest;
    const struct pit_channel *c = &p->channel[0];
    p->armed = c->loaded && !triggered_by_gate(c);
    p->deadline = 0;
    if (!p->armed) {
        gtimer_cancel(g, &p->timer);
        return;
    }
    p->deadline = c->start + guest_rate_to_ticks(g, c->reload + (c->mode == 4), PIT_HZ);
    gtimer_set(g, &p->timer, p->deadline);
}

// Periods that have passed meanwhile are one interrupt; the phase is kept.
static void next_period(struct vpit *p, u64 now)
{
    struct guest *g = p->device->guest;
    const struct pit_channel *c = &p->channel[0];
    u64 passed = guest_ticks_to_rate(g, now - c->start, PIT_HZ) / c->reload;
    u64 next = c->start + guest_rate_to_ticks(g, (passed + 1) * c->reload, PIT_HZ);
    p->deadline = MAX(next, now + guest_ns_to_ticks(g, TIMER_PERIOD_MIN));
}

static void fire(void *arg)
{
    struct device *d = arg;
    struct vpit *p = d->priv;
    mutex_lock(&d->lock);
    u64 now = guest_clock_now(d->guest);
    if (p->armed && now >= p->deadline) {
        set_irq(p, false);
        set_irq(p, true);
        if (periodic(&p->channel[0]))
            next_period(p, now);
        else
            p->armed = 0;
    }
    if (p->armed)
        gtimer_set(d->guest, &p->timer, p->deadline);
    mutex_unlock(&d->lock);
}

static void begin(struct vpit *p, u32 n)
{
    struct pit_channel *c = &p->channel[n];
    c->start = guest_clock_now(p->device->guest);
    c->held = 0;
    if (n == 0) {
        set_irq(p, c->mode != 0);
        arm(p);
    }
}

static void load(struct vpit *p, u32 n, u16 value)
{
    struct pit_channel *c = &p->channel[n];
    u32 limit = c->bcd ? 10000 : 65536;
    u32 count = c->bcd ? from_bcd(value) : value;
    c->reload = count && count <= limit ? count : limit;
    // A count of 1 is illegal in the periodic modes; the chip's answer is not defined.
    if (periodic(c) && c->reload == 1)
        c->reload = 2;
    c->loaded = 1;
    begin(p, n);
}

static void write_count(struct vpit *p, u32 n, u8 value)
{
    struct pit_channel *c = &p->channel[n];
    if (c->access == ACCESS_LOW) {
        load(p, n, value);
    } else if (c->access == ACCESS_HIGH) {
        load(p, n, (u16)(value << 8));
    } else if (!c->write_high) {
        c->write_low = value;
        c->write_high = 1;
        if (n == 0 && c->mode == 0) { // the first byte stops the count and lowers the output
            c->loaded = 0;
            set_irq(p, false);
            arm(p);
        }
    } else {
        c->write_high = 0;
        load(p, n, (u16)(c->write_low | value << 8));
    }
}

static void latch_count(struct vpit *p, u32 n)
{
    struct pit_channel *c = &p->channel[n];
    if (c->latched)
        return;
    c->latch = count_now(p->device->guest, c);
    c->latched = c->access == ACCESS_BOTH ? 2 : 1;
}

static void latch_status(struct vpit *p, u32 n)
{
    struct pit_channel *c = &p->channel[n];
    if (c->status_latched)
        return;
    c->status_latched = 1;
    c->status = (u8)(output(p->device->guest, c) << 7 | !c->loaded << 6 | c->access << 4 |
                     c->mode << 1 | c->bcd);
}

static void read_back(struct vpit *p, u8 command)
{
    for (u32 n = 0; n < CHANNELS; n++) {
        if (!(command >> (n + 1) & 1))
            continue;
        if (!(command & 0x20))
            latch_count(p, n);
        if (!(command & 0x10))
            latch_status(p, n);
    }
}

static void write_control(struct vpit *p, u8 value)
{
    u32 n = value >> 6, access = value >> 4 & 3, mode = value >> 1 & 7;
    if (n == 3) {
        read_back(p, value);
        return;
    }
    if (!access) {
        latch_count(p, n);
        return;
    }
    struct pit_channel *c = &p->channel[n];
    u8 gate = c->gate;
    memset(c, 0, sizeof(*c));
    c->gate = gate;
    c->access = (u8)access;
    c->mode = (u8)(mode >= 6 ? mode - 4 : mode); // 6 and 7 are 2 and 3
    c->bcd = value & 1;
    c->reload = c->bcd ? 10000 : 65536;
    if (n == 0) {
        set_irq(p, mode != 0);
        arm(p);
    }
}

static u8 read_count(struct vpit *p, u32 n)
{
    struct pit_channel *c = &p->channel[n];
    if (c->status_latched) {
        c->status_latched = 0;
        return c->status;
    }
    u16 value = c->latched ? c->latch : count_now(p->device->guest, c);
    bool high = c->access == ACCESS_HIGH;
    if (c->access == ACCESS_BOTH) {
        high = c->read_high;
        c->read_high = !c->read_high;
    }
    if (c->latched)
        c->latched--;
    return (u8)(high ? value >> 8 : value);
}

static void set_gate(struct vpit *p, u32 n, bool gate)
{
    struct guest *g = p->device->guest;
    struct pit_channel *c = &p->channel[n];
    bool rise = gate && !c->gate, fall = !gate && c->gate;
    if (fall && !triggered_by_gate(c))
        c->held = counts(g, c);
    c->gate = gate;
    if (!rise || !c->loaded)
        return;
    u64 gone = triggered_by_gate(c) || periodic(c) ? 0 : c->held;
    c->triggered = triggered_by_gate(c);
    c->start = guest_clock_now(g) - guest_rate_to_ticks(g, gone, PIT_HZ);
}

static u8 read_port61(struct vpit *p)
{
    struct guest *g = p->device->guest;
    bool refresh = guest_ticks_to_rate(g, guest_clock_now(g), REFRESH_HZ) & 1;
    return (u8)(p->port61 | refresh << 4 | output(g, &p->channel[SPEAKER]) << 5);
}

static u64 pit_read(struct device *d, u32 region, u64 offset, u32 size)
{
    struct vpit *p = d->priv;
    if (size != 1)
        return ~0ull;
    if (region == REGION_PORT61)
        return read_port61(p);
    return offset < CHANNELS ? read_count(p, (u32)offset) : 0xff;
}

static void pit_write(struct device *d, u32 region, u64 offset, u32 size, u64 value)
{
    struct vpit *p = d->priv;
    if (size != 1)
        return;
    if (region == REGION_PORT61) {
        p->port61 = value & 3;
        set_gate(p, SPEAKER, value & 1);
    } else if (offset < CHANNELS) {
        write_count(p, (u32)offset, (u8)value);
    } else {
        write_control(p, (u8)value);
    }
}

static void pit_reset(struct device *d)
{
    struct vpit *p = d->priv;
    memset(p->channel, 0, sizeof(p->channel));
    for (u32 n = 0; n < CHANNELS; n++) {
        p->channel[n].access = ACCESS_BOTH;
        p->channel[n].mode = n == 0 ? 0 : 3;
        p->channel[n].reload = 65536;
        p->channel[n].gate = n != SPEAKER;
    }
    p->port61 = 0;
    set_irq(p, false);
    arm(p);
}

static int pit_init(struct device *d)
{
    struct vpit *p = d->priv;
    p->device = d;
    p->timer.fn = fire;
    p->timer.arg = d;
    int error = device_claim_ports(d, 0x40, 4, REGION_TIMER);
    if (!error)
        error = device_claim_ports(d, 0x61, 1, REGION_PORT61);
    if (!error)
        pit_reset(d);
    return error;
}

static void pit_pause(struct device *d)
{
    struct vpit *p = d->priv;
    gtimer_cancel(d->guest, &p->timer);
}

static void pit_resume(struct device *d)
{
    struct vpit *p = d->priv;
    set_irq(p, p->irq);
    if (p->armed)
        gtimer_set(d->guest, &p->timer, p->deadline);
    else
        gtimer_cancel(d->guest, &p->timer);
}

static bool check(const void *copy, char *err, size_t size)
{
    const struct vpit *p = copy;
    for (u32 n = 0; n < CHANNELS; n++) {
        const struct pit_channel *c = &p->channel[n];
        if ((c->bcd && c->reload > 10000) || (periodic(c) && c->reload < 2)) {
            snprintf(err, size, "PIT: channel %u has an impossible count %u in mode %u", n,
                     c->reload, c->mode);
            return false;
        }
    }
    const struct pit_channel *c = &p->channel[0];
    if ((p->armed && (!c->loaded || triggered_by_gate(c))) || !c->gate || !p->channel[1].gate) {
        snprintf(err, size, "PIT: channel 0 runs in mode %u without a count or a gate", c->mode);
        return false;
    }
    return true;
}

#define CH(id, n, member, min, max)                                                                \
    FIELD(id, FIELD_COPY, struct vpit, channel[n].member, 1, min, max)
#define CHANNEL_FIELDS(id, n)                                                                      \
    CH(id, n, mode, 0, 5), CH(id + 1, n, access, 1, 3), CH(id + 2, n, bcd, 0, 1),                  \
        CH(id + 3, n, loaded, 0, 1), CH(id + 4, n, gate, 0, 1), CH(id + 5, n, triggered, 0, 1),    \
        CH(id + 6, n, write_high, 0, 1), CH(id + 7, n, write_low, 0, 0),                           \
        CH(id + 8, n, read_high, 0, 1), CH(id + 9, n, latched, 0, 2),                              \
        CH(id + 10, n, status_latched, 0, 1), CH(id + 11, n, status, 0, 0),                        \
        CH(id + 12, n, latch, 0, 0), CH(id + 13, n, reload, 1, 65536),                             \
        CH(id + 14, n, start, 0, 0), CH(id + 15, n, held, 0, 0)

static const struct state_field fields[] = {
    CHANNEL_FIELDS(1, 0),
    CHANNEL_FIELDS(33, 1),
    CHANNEL_FIELDS(65, 2),
    FIELD(97, FIELD_COPY, struct vpit, armed, 1, 0, 1),
    FIELD(98, FIELD_COPY, struct vpit, irq, 1, 0, 1),
    FIELD(99, FIELD_COPY, struct vpit, port61, 1, 0, 3),
    FIELD(100, FIELD_COPY, struct vpit, deadline, 1, 0, 0),
    FIELD_LAST,
};
static const struct state_table state = {
    .name = "pit",
    .version = 1,
    .fields = fields,
    .check = check,
    .struct_size = sizeof(struct vpit),
};

const struct device_ops vpit_device = {
    .name = "pit",
    .state = &state,
    .priv_size = sizeof(struct vpit),
    .init = pit_init,
    .fini = pit_pause,
    .reset = pit_reset,
    .read = pit_read,
    .write = pit_write,
    .pause = pit_pause,
    .resume = pit_resume,
};
