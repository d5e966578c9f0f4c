// SPDX-License-Identifier: MIT
// PCI configuration space by mechanism 1 (PCI Local Bus 3.0, 3.2.2.3.2).
#include "arch/x86/cpu.h"
#include "kernel/thread.h"

#define PCI_ADDRESS 0xcf8
#define PCI_DATA    0xcfc

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
