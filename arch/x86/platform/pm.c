// SPDX-License-Identifier: MIT
// ACPI power management: the fixed event and control registers, the PM timer, and an empty block
// of general-purpose events (ACPI 6.5, 4.8.3). ACPI mode is always on.
#include "arch/x86/platform/platform.h"

#include "kernel/lib.h"

#define REG_STATUS  0x00
#define REG_ENABLE  0x02
#define REG_CONTROL 0x04
#define REG_TIMER   0x08
#define REGION_PM   0
#define REGION_GPE  1

#define EVENT_TIMER    BIT(0)
#define EVENT_GLOBAL   BIT(5)
#define EVENT_POWER    BIT(8)
#define EVENT_SLEEP    BIT(9)
#define EVENT_RTC      BIT(10)
#define EVENTS         (EVENT_TIMER | EVENT_GLOBAL | EVENT_POWER | EVENT_SLEEP | EVENT_RTC)
#define CONTROL_SCI    BIT(0)
#define CONTROL_STORED 0x1c02 // BM_RLD, SLP_TYP
#define CONTROL_SLEEP  BIT(13)
#define SLEEP_TYPE(c)  ((c) >> 10 & 7)
#define SLEEP_TYPE_S5  0 // as \_S5 says

struct vpm {
    struct device *device;
    struct gtimer timer; // the next overflow of the PM timer, while its event is enabled
    u16 status, enable, control;
    u16 gpe_enable;
    u64 overflows; // of the PM timer, that the status bit has accounted for
};

static u64 pm_counts(const struct vpm *p)
{
    struct guest *g = p->device->guest;
    return guest_ticks_to_rate(g, guest_clock_now(g), PM_TIMER_HZ);
}

// TMR_STS is set whenever the most significant bit of the 32 changes.
static void collect_timer(struct vpm *p)
{
    u64 changes = pm_counts(p) >> 31;
    if (changes != p->overflows)
        p->status |= EVENT_TIMER;
    p->overflows = changes;
}

static void update(struct vpm *p)
{
    struct guest *g = p->device->guest;
    if (p->status & p->enable & EVENTS)
        irq_raise(g, IRQ_SCI);
    else
        irq_lower(g, IRQ_SCI);
    if ((p->enable & EVENT_TIMER) && !(p->status & EVENT_TIMER))
        gtimer_set(g, &p->timer, guest_rate_to_ticks(g, (p->overflows + 1) << 31, PM_TIMER_HZ));
    else
        gtimer_cancel(g, &p->timer);
}

static void fire(void *arg)
{
    struct device *d = arg;
    struct vpm *p = d->priv;
    mutex_lock(&d->lock);
    collect_timer(p);
    update(p);
    mutex_unlock(&d->lock);
}

void vpm_power_button(struct device *d)
{
    struct vpm *p = d->priv;
    mutex_lock(&d->lock);
    p->status |= EVENT_POWER;
    update(p);
    mutex_unlock(&d->lock);
}

// One byte of the 16-bit registers at 0 to 5.
static u8 read_byte(struct vpm *p, u64 offset)
{
    u16 value = 0;
    if ((offset & ~1ull) == REG_STATUS)
        value = p->status;
    else if ((offset & ~1ull) == REG_ENABLE)
        value = p->enable;
    else if ((offset & ~1ull) == REG_CONTROL)
        value = p->control | CONTROL_SCI;
    return (u8)(offset & 1 ? value >> 8 : value);
}

static void write_control(struct vpm *p, u16 value, u16 lanes)
{
    p->control = (p->control & ~lanes) | (value & lanes & CONTROL_STORED);
    if ((value & lanes & CONTROL_SLEEP) && SLEEP_TYPE(p->control) == SLEEP_TYPE_S5)
        platform_poweroff_request(p->device->guest);
}

static void write_byte(struct vpm *p, u64 offset, u8 byte)
{
    u16 lanes = offset & 1 ? 0xff00 : 0x00ff;
    u16 value = (u16)(byte << (offset & 1) * 8);
    if ((offset & ~1ull) == REG_STATUS)
        p->status &= (u16)~value; // write one to clear
    else if ((offset & ~1ull) == REG_ENABLE)
        p->enable = (u16)((p->enable & ~lanes) | (value & EVENTS));
    else if ((offset & ~1ull) == REG_CONTROL)
        write_control(p, value, lanes);
}

// Two status and two enable bytes; nothing raises such an event.
static u64 gpe_read(const struct vpm *p, u64 offset)
{
    return (u32)p->gpe_enable << 16 >> offset * 8;
}

static void gpe_write(struct vpm *p, u64 offset, u32 size, u64 value)
{
    for (u32 i = 0; i < size; i++) {
        u64 at = offset + i;
        u32 shift = at == 3 ? 8 : 0;
        if (at == 2 || at == 3)
            p->gpe_enable =
                (u16)((p->gpe_enable & ~(0xff << shift)) | ((value >> i * 8 & 0xff) << shift));
    }
}

static u64 pm_read(struct device *d, u32 region, u64 offset, u32 size)
{
    struct vpm *p = d->priv;
    if (region == REGION_GPE)
        return gpe_read(p, offset);
    if (offset >= REG_TIMER && offset < REG_TIMER + 4)
        return (u32)pm_counts(p) >> (offset - REG_TIMER) * 8;
    collect_timer(p);
    update(p);
    u64 value = 0;
    for (u32 i = 0; i < size; i++)
        value |= (u64)read_byte(p, offset + i) << i * 8;
    return value;
}

static void pm_write(struct device *d, u32 region, u64 offset, u32 size, u64 value)
{
    struct vpm *p = d->priv;
    if (region == REGION_GPE) {
        gpe_write(p, offset, size, value);
        return;
    }
    collect_timer(p);
    for (u32 i = 0; i < size; i++)
        write_byte(p, offset + i, (u8)(value >> i * 8));
    update(p);
}

static void pm_reset(struct device *d)
{
    struct vpm *p = d->priv;
    p->status = p->enable = p->control = p->gpe_enable = 0;
    p->overflows = pm_counts(p) >> 31;
    update(p);
}

static int pm_init(struct device *d)
{
    struct vpm *p = d->priv;
    p->device = d;
    p->timer.fn = fire;
    p->timer.arg = d;
    platform_of(d->guest)->pm = d;
    pm_reset(d);
    int error = device_claim_ports(d, PM_BASE, 12, REGION_PM);
    return error ? error : device_claim_ports(d, PM_GPE0, 4, REGION_GPE);
}

static void pm_pause(struct device *d)
{
    struct vpm *p = d->priv;
    gtimer_cancel(d->guest, &p->timer);
}

static void pm_fini(struct device *d)
{
    pm_pause(d);
    platform_of(d->guest)->pm = NULL;
}

static void pm_resume(struct device *d)
{
    struct vpm *p = d->priv;
    collect_timer(p);
    update(p);
}

static bool check(const void *copy, char *err, size_t size)
{
    const struct vpm *p = copy;
    if (!(p->status & ~EVENTS) && !(p->enable & ~EVENTS) && !(p->control & ~CONTROL_STORED))
        return true;
    snprintf(err, size,
             "power management: reserved bits set (status 0x%x, enable 0x%x, "
             "control 0x%x)",
             p->status, p->enable, p->control);
    return false;
}

static const struct state_field fields[] = {
    FIELD(1, FIELD_COPY, struct vpm, status, 1, 0, 0),
    FIELD(2, FIELD_COPY, struct vpm, enable, 1, 0, 0),
    FIELD(3, FIELD_COPY, struct vpm, control, 1, 0, 0),
    FIELD(4, FIELD_COPY, struct vpm, gpe_enable, 1, 0, 0),
    FIELD(5, FIELD_COPY, struct vpm, overflows, 1, 0, 0xffffffff),
    FIELD_LAST,
};
static const struct state_table state = {
    .name = "pm",
    .version = 1,
    .fields = fields,
    .check = check,
    .struct_size = sizeof(struct vpm),
};

const struct device_ops vpm_device = {
    .name = "pm",
    .state = &state,
    .priv_size = sizeof(struct vpm),
    .init = pm_init,
    .fini = pm_fini,
    .reset = pm_reset,
    .read = pm_read,
    .write = pm_write,
    .pause = pm_pause,
    .resume = pm_resume,
};
