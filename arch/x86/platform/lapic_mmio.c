// SPDX-License-Identifier: MIT
// The page at 0xFEE00000: each vCPU finds its own local APIC there while it is in xAPIC mode.
#include "arch/x86/platform/lapic.h"

#include "kernel/lib.h"

struct lapic_page {
    u32 version;
};

static struct vlapic *current_lapic(struct device *d)
{
    struct vcpu *v = thread_get_vcpu();
    struct vlapic *l = v && v->guest == d->guest ? lapic_of(v) : NULL;
    return l && lapic_enabled(l) && !lapic_x2apic(l) ? l : NULL;
}

// Registers are 32 bits wide on 16-byte boundaries; parts of one may be read (SDM 3A 10.4.1).
static u64 page_read(struct device *d, u32 region, u64 offset, u32 size)
{
    (void)region;
    struct vlapic *l = current_lapic(d);
    u32 value, shift = (offset & 3) * 8;
    if (!l || (offset & 15) + size > 4)
        return ~0ull;
    lapic_read(l, (u32)offset >> 4, &value);
    return value >> shift;
}

static void page_write(struct device *d, u32 region, u64 offset, u32 size, u64 value)
{
    (void)region;
    struct vlapic *l = current_lapic(d);
    if (l && !(offset & 15) && size == 4)
        lapic_write(l, (u32)offset >> 4, (u32)value);
}

static int page_init(struct device *d)
{
    struct lapic_page *p = d->priv;
    p->version = LAPIC_VERSION;
    return device_claim_mmio(d, LAPIC_GPA, PAGE_SIZE, 0);
}

static void page_nothing(struct device *d)
{
    (void)d; // the registers belong to the vCPUs: platform_vcpu_*
}

static const struct state_field fields[] = {
    FIELD(1, FIELD_MUST_MATCH, struct lapic_page, version, 1, 0, 0),
    FIELD_LAST,
};
static const struct state_table state = {
    .name = "lapic-page",
    .version = 1,
    .fields = fields,
    .struct_size = sizeof(struct lapic_page),
};

const struct device_ops vlapic_device = {
    .name = "lapic-page",
    .state = &state,
    .priv_size = sizeof(struct lapic_page),
    .init = page_init,
    .fini = page_nothing,
    .reset = page_nothing,
    .read = page_read,
    .write = page_write,
    .pause = page_nothing,
    .resume = page_nothing,
};
