// SPDX-License-Identifier: MIT
// Which device answers at a port or a guest-physical address, and the calls into it.
#include "kernel/guest/bus.h"

#include "kernel/guest/device.h"
#include "kernel/guest/guest.h"
#include "kernel/lib.h"
#include "kernel/mem.h"

#define MAX_CLAIMS 128
#define PAGE_PORTS 256 // the port table comes in pages of this many, made when claimed

struct claim {
    struct device *device; // NULL: free
    u64 first, count;
    u32 region;
};

// Ports are claimed while the guest is built and never move, so they need no lock. MMIO ranges may
// move while it runs (BARs).
struct bus {
    u8 *port_page[65536 / PAGE_PORTS]; // per port: index into port[] plus one
    struct claim port[MAX_CLAIMS];
    struct claim mmio[MAX_CLAIMS];
    u32 port_count;
    u32 mmio_count;       // entries ever used
    struct spinlock lock; // mmio, mmio_count
};

int bus_create(struct guest *g)
{
    g->bus = kzalloc(sizeof(struct bus));
    return g->bus ? 0 : E_NOMEM;
}

void bus_destroy(struct guest *g)
{
    struct bus *b = g->bus;
    for (size_t i = 0; b && i < ARRAY_SIZE(b->port_page); i++)
        kfree(b->port_page[i]);
    kfree(b);
    g->bus = NULL;
}

static u8 *port_slot(struct bus *b, u32 port)
{
    u8 *page = b->port_page[port / PAGE_PORTS];
    return page ? &page[port % PAGE_PORTS] : NULL;
}

static int make_port_pages(struct bus *b, u32 first, u32 count)
{
    for (u32 i = first / PAGE_PORTS; i <= (first + count - 1) / PAGE_PORTS; i++) {
        if (!b->port_page[i])
            b->port_page[i] = kzalloc(PAGE_PORTS);
        if (!b->port_page[i])
            return E_NOMEM;
    }
    return 0;
}

int device_claim_ports(struct device *d, u16 first, u16 count, u32 region)
{
    struct bus *b = d->guest->bus;
    assert(count && first + count <= 65536);
    if (b->port_count == MAX_CLAIMS || make_port_pages(b, first, count))
        return E_NOMEM;
    for (u32 p = first; p < (u32)first + count; p++)
        if (*port_slot(b, p))
            return E_EXIST;
    b->port[b->port_count++] =
        (struct claim){.device = d, .first = first, .count = count, .region = region};
    for (u32 p = first; p < (u32)first + count; p++)
        *port_slot(b, p) = (u8)b->port_count;
    return 0;
}

static bool overlaps(const struct claim *c, u64 gpa, u64 bytes)
{
    return c->device && gpa < c->first + c->count && c->first < gpa + bytes;
}

// Lock held. NULL where it overlaps or the table is full, *error says which.
static struct claim *free_mmio_slot(struct bus *b, u64 gpa, u64 bytes, int *error)
{
    assert_held(&b->lock);
    struct claim *found = NULL;
    *error = E_NOMEM;
    for (u32 i = 0; i < b->mmio_count; i++) {
        if (overlaps(&b->mmio[i], gpa, bytes)) {
            *error = E_EXIST;
            return NULL;
        }
        if (!b->mmio[i].device)
            found = &b->mmio[i];
    }
    if (!found && b->mmio_count < MAX_CLAIMS)
        found = &b->mmio[b->mmio_count++];
    return found;
}

int device_claim_mmio(struct device *d, u64 gpa, u64 bytes, u32 region)
{
    struct bus *b = d->guest->bus;
    int error = E_INVAL;
    if (!bytes || gpa + bytes < gpa)
        return error;
    spin_lock(&b->lock);
    struct claim *c = free_mmio_slot(b, gpa, bytes, &error);
    if (c) {
        *c = (struct claim){.device = d, .first = gpa, .count = bytes, .region = region};
        error = 0;
    }
    spin_unlock(&b->lock);
    return error;
}

void device_release_mmio(struct device *d, u32 region)
{
    struct bus *b = d->guest->bus;
    spin_lock(&b->lock);
    for (u32 i = 0; i < b->mmio_count; i++)
        if (b->mmio[i].device == d && b->mmio[i].region == region)
            b->mmio[i].device = NULL;
    spin_unlock(&b->lock);
}

void bus_forget(struct device *d)
{
    struct bus *b = d->guest->bus;
    for (u32 i = 0; i < b->port_count; i++) {
        struct claim *c = &b->port[i];
        for (u64 p = c->first; c->device == d && p < c->first + c->count; p++)
            *port_slot(b, (u32)p) = 0;
    }
    spin_lock(&b->lock);
    for (u32 i = 0; i < b->mmio_count; i++)
        if (b->mmio[i].device == d)
            b->mmio[i].device = NULL;
    spin_unlock(&b->lock);
}

static u64 all_ones(u32 size)
{
    return size < 8 ? BIT(size * 8) - 1 : ~0ull;
}

static u64 claim_read(const struct claim *c, u64 offset, u32 size)
{
    struct device *d = c->device;
    mutex_lock(&d->lock);
    u64 value = d->ops->read(d, c->region, offset, size);
    mutex_unlock(&d->lock);
    return value & all_ones(size);
}

static void claim_write(const struct claim *c, u64 offset, u32 size, u64 value)
{
    struct device *d = c->device;
    mutex_lock(&d->lock);
    d->ops->write(d, c->region, offset, size, value & all_ones(size));
    mutex_unlock(&d->lock);
}

static const struct claim *find_port(struct guest *g, u16 port)
{
    struct bus *b = g->bus;
    u8 *slot = port_slot(b, port);
    return slot && *slot ? &b->port[*slot - 1] : NULL;
}

// An access that runs over the end of a claim is made of bytes, each to whom it belongs.
u64 bus_io_read(struct guest *g, u16 port, u32 size)
{
    const struct claim *c = find_port(g, port);
    if (c && port - c->first + size <= c->count)
        return claim_read(c, port - c->first, size);
    if (size == 1)
        return 0xff;
    u64 value = 0;
    for (u32 i = 0; i < size; i++)
        value |= bus_io_read(g, (u16)(port + i), 1) << (i * 8);
    return value;
}

void bus_io_write(struct guest *g, u16 port, u32 size, u64 value)
{
    const struct claim *c = find_port(g, port);
    if (c && port - c->first + size <= c->count) {
        claim_write(c, port - c->first, size, value);
        return;
    }
    for (u32 i = 0; size > 1 && i < size; i++)
        bus_io_write(g, (u16)(port + i), 1, value >> (i * 8));
}

// A copy, because the entry may be released while the device works.
static bool find_mmio(struct guest *g, u64 gpa, struct claim *out)
{
    struct bus *b = g->bus;
    bool found = false;
    spin_lock(&b->lock);
    for (u32 i = 0; i < b->mmio_count && !found; i++) {
        const struct claim *c = &b->mmio[i];
        found = c->device && gpa - c->first < c->count;
        if (found)
            *out = *c;
    }
    spin_unlock(&b->lock);
    return found;
}

u64 bus_mmio_read(struct guest *g, u64 gpa, u32 size)
{
    struct claim c;
    if (find_mmio(g, gpa, &c) && gpa - c.first + size <= c.count)
        return claim_read(&c, gpa - c.first, size);
    if (size == 1)
        return 0xff;
    u64 value = 0;
    for (u32 i = 0; i < size; i++)
        value |= bus_mmio_read(g, gpa + i, 1) << (i * 8);
    return value;
}

void bus_mmio_write(struct guest *g, u64 gpa, u32 size, u64 value)
{
    struct claim c;
    if (find_mmio(g, gpa, &c) && gpa - c.first + size <= c.count) {
        claim_write(&c, gpa - c.first, size, value);
        return;
    }
    for (u32 i = 0; size > 1 && i < size; i++)
        bus_mmio_write(g, gpa + i, 1, value >> (i * 8));
}
