// SPDX-License-Identifier: MIT
// Ports without a device of their own: the DMA page registers, whose first one is written for a
// delay, and port 0x92 with A20 and the fast reset.
#include "arch/x86/platform/platform.h"

#include "kernel/lib.h"

enum { REGION_PAGES, REGION_PORT92 };
#define PAGES        16
#define PORT92_RESET 0x01
#define PORT92_A20   0x02 // kept and read back; A20 is always on

struct vmisc {
    u8 page[PAGES]; // there is no DMA controller: they only remember
    u8 port92;
};

static u64 misc_read(struct device *d, u32 region, u64 offset, u32 size)
{
    const struct vmisc *m = d->priv;
    if (size != 1)
        return ~0ull;
    return region == REGION_PORT92 ? m->port92 : m->page[offset];
}

static void misc_write(struct device *d, u32 region, u64 offset, u32 size, u64 value)
{
    struct vmisc *m = d->priv;
    if (size != 1)
        return;
    if (region == REGION_PAGES) {
        m->page[offset] = (u8)value;
        return;
    }
    m->port92 = value & PORT92_A20;
    if (value & PORT92_RESET)
        platform_reset_request(d->guest, "port 0x92");
}

static void misc_reset(struct device *d)
{
    struct vmisc *m = d->priv;
    memset(m, 0, sizeof(*m));
    m->port92 = PORT92_A20;
}

static int misc_init(struct device *d)
{
    misc_reset(d);
    int error = device_claim_ports(d, 0x80, PAGES, REGION_PAGES);
    return error ? error : device_claim_ports(d, 0x92, 1, REGION_PORT92);
}

static void misc_nothing(struct device *d)
{
    (void)d; // no timers, no interrupts
}

static const struct state_field fields[] = {
    FIELD_ARRAY(1, FIELD_BYTES, struct vmisc, page, 1),
    FIELD(2, FIELD_COPY, struct vmisc, port92, 1, 0, PORT92_A20),
    FIELD_LAST,
};
static const struct state_table state = {
    .name = "misc",
    .version = 1,
    .fields = fields,
    .struct_size = sizeof(struct vmisc),
};

const struct device_ops vmisc_device = {
    .name = "misc",
    .state = &state,
    .priv_size = sizeof(struct vmisc),
    .init = misc_init,
    .fini = misc_nothing,
    .reset = misc_reset,
    .read = misc_read,
    .write = misc_write,
    .pause = misc_nothing,
    .resume = misc_nothing,
};
