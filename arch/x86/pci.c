// SPDX-License-Identifier: MIT
// PCI configuration space by mechanism 1 (PCI Local Bus 3.0, 3.2.2.3.2); capabilities and BARs.
#include "arch/x86/cpu.h"
#include "kernel/log.h"
#include "kernel/thread.h"

#define PCI_ADDRESS 0xcf8
#define PCI_DATA    0xcfc

#define COMMAND        0x04
#define COMMAND_IO     BIT(0)
#define COMMAND_MEMORY BIT(1)
#define COMMAND_MASTER BIT(2)

static struct spinlock lock; // the address port and the data port are one transaction

static void select(u16 bdf, u16 reg)
{
    out32(PCI_ADDRESS, 1u << 31 | (u32)bdf << 8 | (reg & 0xfc));
}

u32 pci_read(u16 bdf, u16 reg, u32 size)
{
    u32 value;
    u64 flags = spin_lock_irqsave(&lock);
    select(bdf, reg);
    if (size == 1)
        value = in8(PCI_DATA + (reg & 3));
    else if (size == 2)
        value = in16(PCI_DATA + (reg & 2));
    else
        value = in32(PCI_DATA);
    spin_unlock_irqrestore(&lock, flags);
    return value;
}

void pci_write(u16 bdf, u16 reg, u32 size, u32 value)
{
    u64 flags = spin_lock_irqsave(&lock);
    select(bdf, reg);
    if (size == 1)
        out8(PCI_DATA + (reg & 3), (u8)value);
    else if (size == 2)
        out16(PCI_DATA + (reg & 2), (u16)value);
    else
        out32(PCI_DATA, value);
    spin_unlock_irqrestore(&lock, flags);
}

int pci_find(bool (*fn)(u16 bdf, u16 vendor, u16 device, void *arg), void *arg)
{
    for (u32 slot = 0; slot < 256 * 32; slot++) {
        bool many = pci_read((u16)(slot << 3), 0x0e, 1) & 0x80; // multi-function
        for (u32 f = 0; f < 8; f++) {
            u16 bdf = (u16)(slot << 3 | f);
            u32 id = pci_read(bdf, 0, 4);
            if ((u16)id != 0xffff && fn(bdf, (u16)id, (u16)(id >> 16), arg))
                return bdf;
            if (f == 0 && ((u16)id == 0xffff || !many))
                break;
        }
    }
    return -1;
}

// PCI Local Bus 3.0, 6.7. A list that does not end is cut off.
u16 pci_capability(u16 bdf, u8 id, u16 after)
{
    if (!(pci_read(bdf, 0x06, 2) & BIT(4))) // status: has a list
        return 0;
    u16 at = (u16)pci_read(bdf, after ? after + 1 : 0x34, 1) & 0xfc;
    for (u32 i = 0; i < 48 && at >= 0x40; i++) {
        if (pci_read(bdf, at, 1) == id)
            return at;
        at = (u16)pci_read(bdf, at + 1, 1) & 0xfc;
    }
    return 0;
}

// PCI Local Bus 3.0, 6.2.5.1.
u64 pci_bar(u16 bdf, u32 index)
{
    u16 reg = (u16)(0x10 + 4 * index);
    u32 low = pci_read(bdf, reg, 4);
    u64 base = low & ~0xfu;
    if (low & 1)
        return 0;
    if ((low >> 1 & 3) == 2) // 64 bits wide
        base |= (u64)pci_read(bdf, reg + 4, 4) << 32;
    return base;
}

void pci_enable(u16 bdf)
{
    u32 command = pci_read(bdf, COMMAND, 2);
    pci_write(bdf, COMMAND, 2, command | COMMAND_IO | COMMAND_MEMORY | COMMAND_MASTER);
}

void *pci_map_bar(u16 bdf, u32 index, u64 offset, u64 bytes)
{
    u64 base = pci_bar(bdf, index);
    void *p = base ? map_mmio(base + offset, bytes) : NULL;
    if (!p)
        log_error("pci", "%02x:%02x.%x: BAR %u is no memory BAR with an address", bdf >> 8,
                  bdf >> 3 & 31, bdf & 7, index);
    return p;
}
