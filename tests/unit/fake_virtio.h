// SPDX-License-Identifier: MIT
// RAM of a guest in one array, with the pages that were marked dirty, and the driver's side of a
// virtio device: what a guest's kernel would do, or get wrong. Included once by a test.
#ifndef SKIFF_TESTS_FAKE_VIRTIO_H
#define SKIFF_TESTS_FAKE_VIRTIO_H

#define FAKE_RAM
#include "tests/unit/fake_platform.h"

#include "kernel/guest/virtio.h"
#include "kernel/guest/virtio_internal.h"
#include "kernel/guest/virtio_devices.h"

#ifndef RAM_BYTES
#define RAM_BYTES (4 * MIB)
#define DRV_RINGS 0x100000u // each queue has a quarter of DRV_STEP for each of its rings
#define DRV_STEP 0x10000u
#endif
#define BAR_AT (0xc0000000ull + drv_slot * 0x10000)
#define NOTIFY_AT (BAR_AT + 0x2000)
#define CONFIG_AT (BAR_AT + 0x800)

static u8 ram[RAM_BYTES];
static bool ram_dirty[RAM_BYTES / PAGE_SIZE];
static u32 guest_logs;

bool guest_is_ram(const struct guest *g, u64 gpa, u64 bytes)
{
    (void)g;
    return gpa < RAM_BYTES && bytes <= RAM_BYTES - gpa;
}

void guest_mark_dirty(struct guest *g, u64 gpa, u64 bytes)
{
    assert_true(guest_is_ram(g, gpa, bytes));
    for (u64 p = gpa / PAGE_SIZE; bytes && p <= (gpa + bytes - 1) / PAGE_SIZE; p++)
        ram_dirty[p] = true;
}

int guest_read(struct guest *g, u64 gpa, void *buf, u64 bytes)
{
    if (!guest_is_ram(g, gpa, bytes))
        return E_INVAL;
    memcpy(buf, ram + gpa, bytes);
    return 0;
}

int guest_write(struct guest *g, u64 gpa, const void *buf, u64 bytes)
{
    if (!guest_is_ram(g, gpa, bytes))
        return E_INVAL;
    memcpy(ram + gpa, buf, bytes);
    guest_mark_dirty(g, gpa, bytes);
    return 0;
}

// Called before each look at a ring: what another CPU of the guest does at that moment.
static void (*ram_meanwhile)(void);

void *guest_borrow(struct guest *g, u64 gpa, u64 bytes)
{
    if (ram_meanwhile)
        ram_meanwhile();
    return bytes && guest_is_ram(g, gpa, bytes) ? ram + gpa : NULL;
}

void guest_release(struct guest *g, u64 gpa, u64 bytes, bool written)
{
    if (written)
        guest_mark_dirty(g, gpa, bytes);
}

void guest_log(enum log_level level, const struct guest *g, const char *fmt, ...)
{
    (void)level, (void)g, (void)fmt;
    guest_logs++;
}

// ---- Registers ---------------------------------------------------------------------------------

static u32 drv_slot;

static inline void pci_address(u32 reg)
{
    out32(0xcf8, 0x80000000 | drv_slot << 11 | (reg & 0xfc));
}
static inline u32 pci_in(u32 reg, u32 size)
{
    pci_address(reg);
    return (u32)bus_io_read(&guest, (u16)(0xcfc + (reg & 3)), size);
}
static inline void pci_out(u32 reg, u32 size, u32 value)
{
    pci_address(reg);
    bus_io_write(&guest, (u16)(0xcfc + (reg & 3)), size, value);
}
static inline u32 reg_in(u32 at, u32 size)
{
    return (u32)bus_mmio_read(&guest, BAR_AT + at, size);
}
static inline void reg_out(u32 at, u32 size, u64 value)
{
    bus_mmio_write(&guest, BAR_AT + at, size, value);
}
static inline void reg_out64(u32 at, u64 value)
{
    reg_out(at, 4, (u32)value);
    reg_out(at + 4, 4, value >> 32);
}
static inline u8 drv_status(void)
{
    return (u8)reg_in(0x14, 1);
}

static inline u64 drv_offered(void)
{
    reg_out(0, 4, 0);
    u64 low = reg_in(4, 4);
    reg_out(0, 4, 1);
    return low | (u64)reg_in(4, 4) << 32;
}

static inline void drv_choose(u64 features)
{
    reg_out(8, 4, 0);
    reg_out(0xc, 4, (u32)features);
    reg_out(8, 4, 1);
    reg_out(0xc, 4, features >> 32);
}

// ---- A driver ----------------------------------------------------------------------------------

// A queue's rings lie where they can be found; descriptors are handed out in turn.
struct drv_queue {
    u32 size, next, used;
    bool events;
};
static struct drv_queue drv[VIRTIO_QUEUES];

struct drv_desc {
    u64 gpa;
    u32 bytes;
    u16 flags, next;
};
#define D_NEXT 1
#define D_WRITE 2
#define D_INDIRECT 4

static inline u64 drv_desc_at(u32 q)
{
    return DRV_RINGS + q * DRV_STEP;
}
static inline u64 drv_avail_at(u32 q)
{
    return drv_desc_at(q) + DRV_STEP / 4;
}
static inline u64 drv_used_at(u32 q)
{
    return drv_desc_at(q) + DRV_STEP / 2;
}
static inline u16 *ram16(u64 gpa)
{
    return (u16 *)(ram + gpa);
}
static inline struct drv_desc *drv_desc(u32 q, u32 i)
{
    return (struct drv_desc *)(ram + drv_desc_at(q)) + i;
}

// Every vector has its own interrupt, 0x40 + 16 * vector.
static inline void drv_msix_on(u32 vectors)
{
    u32 cap = pci_in(PCI_CAPABILITIES, 1);
    while (pci_in(cap, 1) != PCI_CAP_MSIX)
        cap = pci_in(cap + 1, 1);
    pci_out(cap + 2, 2, 0x8000);
    for (u32 i = 0; i < vectors; i++) {
        reg_out(0x1000 + i * 16, 8, 0xfee00000);
        reg_out(0x1008 + i * 16, 4, 0x40 + 16 * i);
        reg_out(0x100c + i * 16, 4, 0);
    }
    reg_out(0x10, 2, 0);
}

static inline void drv_find(u32 slot)
{
    drv_slot = slot;
    apic_on(0);
    pci_out(PCI_BAR0, 4, BAR_AT);
    pci_out(PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    reg_out(0x14, 1, 0);
    reg_out(0x14, 1, 1);
    reg_out(0x14, 1, 3);
}

static inline void drv_negotiate(u64 features)
{
    drv_choose(features);
    reg_out(0x14, 1, 11);
    assert_int_equal(drv_status(), 11);
}

static inline void drv_make_queue(u32 q, u32 size, u64 features)
{
    drv[q] = (struct drv_queue){.size = size, .events = features & VIRTIO_F_EVENT_IDX};
    memset(ram + drv_desc_at(q), 0, DRV_STEP);
    reg_out(0x16, 2, q);
    reg_out(0x18, 2, size);
    reg_out(0x1a, 2, 1 + q);
    reg_out64(0x20, drv_desc_at(q));
    reg_out64(0x28, drv_avail_at(q));
    reg_out64(0x30, drv_used_at(q));
    reg_out(0x1c, 2, 1);
    assert_int_equal(reg_in(0x1c, 2), 1);
}

static inline void drv_ready(void)
{
    reg_out(0x14, 1, 15);
}

// Everything a driver does until the device runs, with messages.
static inline void drv_start(u32 slot, u32 queues, u32 size, u64 features)
{
    drv_find(slot);
    drv_msix_on(queues + 1);
    drv_negotiate(features | VIRTIO_F_VERSION_1);
    for (u32 q = 0; q < queues; q++)
        drv_make_queue(q, size, features);
    drv_ready();
}

static inline void drv_make_available(u32 q, u16 head)
{
    u16 *index = ram16(drv_avail_at(q) + 2);
    *ram16(drv_avail_at(q) + 4 + 2 * (*index % drv[q].size)) = head;
    ++*index;
}

// One chain: readable parts, then writable ones. Returns its head.
static inline u16 drv_add(u32 q, const struct drv_desc *parts, u32 count)
{
    u16 head = (u16)(drv[q].next % drv[q].size);
    for (u32 i = 0; i < count; i++, drv[q].next++) {
        struct drv_desc *d = drv_desc(q, drv[q].next % drv[q].size);
        *d = parts[i];
        d->flags |= i + 1 < count ? D_NEXT : 0;
        d->next = (u16)((drv[q].next + 1) % drv[q].size);
    }
    drv_make_available(q, head);
    return head;
}

static inline u16 drv_add_one(u32 q, u64 gpa, u32 bytes, u16 flags)
{
    struct drv_desc d = {gpa, bytes, flags, 0};
    return drv_add(q, &d, 1);
}

// Does the device ask for a kick, when the available index has gone from `old` to what it is (2.7.7.1,
// 2.7.10.1)?
static inline bool drv_asked(u32 q, u16 old)
{
    if (!drv[q].events)
        return !(*ram16(drv_used_at(q)) & 1);
    u16 now = *ram16(drv_avail_at(q) + 2), event = *ram16(drv_used_at(q) + 4 + 8 * drv[q].size);
    return (u16)(now - event - 1) < (u16)(now - old);
}

static inline void drv_kick(u32 q)
{
    bus_mmio_write(&guest, NOTIFY_AT + q * 4, 2, q);
}

// All that the device writes between the two must be marked dirty (migration-tests 3 and 4).
static u8 ram_before[RAM_BYTES];
static inline void ram_watch(void)
{
    memcpy(ram_before, ram, RAM_BYTES);
    memset(ram_dirty, 0, sizeof(ram_dirty));
}
static inline void ram_watched(void)
{
    for (u64 p = 0; p < RAM_BYTES; p += PAGE_SIZE)
        if (!ram_dirty[p / PAGE_SIZE])
            assert_memory_equal(ram + p, ram_before + p, PAGE_SIZE);
}

static inline void drv_kick_watched(u32 q)
{
    ram_watch();
    drv_kick(q);
    ram_watched();
}

static inline u16 drv_used_index(u32 q)
{
    return *ram16(drv_used_at(q) + 2);
}

// The next used chain's head, -1 when there is none.
static inline int drv_take(u32 q, u32 *written)
{
    if (drv_used_index(q) == (u16)drv[q].used)
        return -1;
    const u32 *e = (const u32 *)(ram + drv_used_at(q) + 4) + drv[q].used++ % drv[q].size * 2;
    if (written)
        *written = e[1];
    if (drv[q].events)
        *ram16(drv_avail_at(q) + 4 + 2 * drv[q].size) = (u16)drv[q].used;
    return (int)e[0];
}

static inline int drv_interrupt(void)
{
    int vector = take(0);
    if (vector >= 0)
        apic_set(0xb0, 0);
    return vector;
}

// Takes the device off and gives the same guest another one, which gets its state: a move.
static inline struct device *drv_move(struct device *d, void (*make)(void))
{
    static u8 buf[16384];
    const struct state_table *t = d->ops->state;
    char name[32];
    u32 instance = d->instance;
    strlcpy(name, d->ops->name, sizeof(name));
    pause_all();
    s64 bytes = state_save(t, d->priv, buf, sizeof(buf));
    assert_true(bytes > 0);
    struct device **at = &guest.devices, *rest;
    while (*at != d)
        at = &(*at)->next;
    *at = d->next;
    rest = guest.devices;
    d->next = NULL;
    guest.devices = d;
    devices_destroy(&guest);
    guest.devices = rest;
    make();
    d = device_find(&guest, name, instance);
    assert_non_null(d);
    load_part(t, d->priv, buf, bytes);
    resume_all();
    return d;
}

#endif
