// SPDX-License-Identifier: MIT
// A guest for tests of emulation: 1 MiB of RAM from 0, device memory everywhere else that remembers
// what was done to it, and code at 0x1000. Included once by a test, after fake_guest.h.
#ifndef SKIFF_TESTS_FAKE_MMIO_H
#define SKIFF_TESTS_FAKE_MMIO_H

#include "kernel/guest/emulate.h"
#include "kernel/guest/walk.h"

#define RAM_BYTES   MIB
#define CODE        0x1000ull
#define DEVICE_GPA  0xfee00000ull
#define PAGE_TABLES 0x10000ull

static u8 ram[RAM_BYTES];
static u64 device_value;  // what reads give
static u64 device_gpa;    // last access
static u32 device_size, device_reads, device_writes;
static u64 device_written;
static u16 port_last;
static u32 port_accesses;

void *guest_page(struct guest *g, u64 gpa)
{
    (void)g;
    return gpa < RAM_BYTES ? ram + (gpa & ~0xfffull) : NULL;
}
static bool in_ram(u64 gpa, u64 bytes)
{
    return gpa < RAM_BYTES && bytes <= RAM_BYTES - gpa;
}
int guest_read(struct guest *g, u64 gpa, void *buf, u64 bytes)
{
    (void)g;
    if (!in_ram(gpa, bytes))
        return E_INVAL;
    memcpy(buf, ram + gpa, bytes);
    return 0;
}
int guest_write(struct guest *g, u64 gpa, const void *buf, u64 bytes)
{
    (void)g;
    if (!in_ram(gpa, bytes))
        return E_INVAL;
    memcpy(ram + gpa, buf, bytes);
    return 0;
}
void guest_mark_dirty(struct guest *g, u64 gpa, u64 bytes)
{
    (void)g, (void)gpa, (void)bytes;
}
u64 bus_mmio_read(struct guest *g, u64 gpa, u32 size)
{
    (void)g;
    assert(size == 1 || size == 2 || size == 4 || size == 8);
    device_gpa = gpa;
    device_size = size;
    device_reads++;
    return size == 8 ? device_value : device_value & (BIT(size * 8) - 1);
}
void bus_mmio_write(struct guest *g, u64 gpa, u32 size, u64 value)
{
    (void)g;
    assert(size == 1 || size == 2 || size == 4 || size == 8);
    device_gpa = gpa;
    device_size = size;
    device_writes++;
    device_written = value;
}
u64 bus_io_read(struct guest *g, u16 port, u32 size)
{
    (void)g;
    assert(size == 1 || size == 2 || size == 4);
    port_last = port;
    return 0x30 + port_accesses++;
}
void bus_io_write(struct guest *g, u16 port, u32 size, u64 value)
{
    (void)g, (void)value;
    assert(size == 1 || size == 2 || size == 4);
    port_last = port;
    port_accesses++;
}

static inline void put64(u64 at, u64 value)
{
    memcpy(ram + at, &value, 8);
}
static inline void put32(u64 at, u32 value)
{
    memcpy(ram + at, &value, 4);
}

static inline void flat_segments(u16 code_attr)
{
    for (int i = 0; i < SEG_COUNT; i++)
        fake_regs.seg[i] = (struct segment){.limit = 0xffffffff, .attr = 0xc93};
    fake_regs.seg[SEG_CS].attr = code_attr;
}

// 64-bit mode. 0 to 2 MiB is mapped one to one (4 KiB pages, so that tests can take some away),
// 0x40000000 leads to the device page.
static inline void mode_64(void)
{
    fake_regs.cr0 = BIT(31) | BIT(16) | 1;
    fake_regs.cr4 = BIT(5);
    fake_regs.efer = 0xd00;
    fake_regs.cr3 = PAGE_TABLES;
    flat_segments(0xa9b);
    fake_regs.seg[SEG_FS].base = 0x2000;
    memset(ram + PAGE_TABLES, 0, 6 * PAGE_SIZE);
    put64(PAGE_TABLES, (PAGE_TABLES + 0x1000) | 7);
    put64(PAGE_TABLES + 0x1000, (PAGE_TABLES + 0x2000) | 7);
    put64(PAGE_TABLES + 0x1008, (PAGE_TABLES + 0x4000) | 7);
    put64(PAGE_TABLES + 0x2000, (PAGE_TABLES + 0x3000) | 7);
    for (u64 i = 0; i < 256; i++)
        put64(PAGE_TABLES + 0x3000 + i * 8, i << 12 | 7);
    put64(PAGE_TABLES + 0x4000, (PAGE_TABLES + 0x5000) | 7);
    put64(PAGE_TABLES + 0x5000, DEVICE_GPA | 0x13 | BIT(2));
}

static inline void mode_32(void)
{
    fake_regs.cr0 = 1;
    fake_regs.cr4 = fake_regs.efer = 0;
    flat_segments(0xc9b);
}

static inline void mode_16(void)
{
    fake_regs.cr0 = fake_regs.cr4 = fake_regs.efer = 0;
    for (int i = 0; i < SEG_COUNT; i++)
        fake_regs.seg[i] = (struct segment){.limit = 0xffff, .attr = 0x93};
    fake_regs.seg[SEG_CS].attr = 0x9b;
}

static inline void fake_mmio_reset(void)
{
    fake_guest_reset();
    memset(ram, 0, sizeof(ram));
    device_value = device_gpa = device_written = 0;
    device_size = device_reads = device_writes = port_accesses = 0;
    mode_64();
    fake_regs.rip = CODE;
}

#endif
