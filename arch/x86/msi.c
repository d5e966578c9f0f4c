// SPDX-License-Identifier: MIT
// How a PCI function's interrupt reaches a vector: by message (MSI-X, MSI) or by its pin.
#include "arch/x86/cpu.h"

#define COMMAND        0x04
#define COMMAND_NOINTX BIT(10)
#define INTERRUPT_LINE 0x3c

// PCI Local Bus 3.0, 6.8.1
#define CAP_MSI      0x05
#define MSI_ENABLE   BIT(0)
#define MSI_MULTIPLE (7u << 4) // how many messages it may use, as a power of two
#define MSI_64BIT    BIT(7)
// 6.8.2
#define CAP_MSIX        0x11
#define MSIX_ENABLE     BIT(15)
#define MSIX_MASK_ALL   BIT(14)
#define MSIX_LAST       0x7ff // number of the table's last entry
#define MSIX_ENTRY      16
#define MSIX_ENTRY_MASK BIT(0)

static void table_write(void *table, u32 entry, u32 word, u32 value)
{
    *((volatile u32 *)((u8 *)table + entry * MSIX_ENTRY) + word) = value;
}

// Entry 0 carries the message; the others stay masked.
static bool connect_msix(u16 bdf, int vector)
{
    u16 cap = pci_capability(bdf, CAP_MSIX, 0);
    if (!cap)
        return false;
    u32 control = pci_read(bdf, cap + 2, 2), where = pci_read(bdf, cap + 4, 4);
    u32 entries = (control & MSIX_LAST) + 1;
    u64 base = pci_bar(bdf, where & 7);
    void *table = base ? map_mmio(base + (where & ~7u), entries * MSIX_ENTRY) : NULL;
    if (!table)
        return false;
    control |= MSIX_ENABLE | MSIX_MASK_ALL;
    pci_write(bdf, cap + 2, 2, control);
    u64 address = irq_msi_address(0);
    table_write(table, 0, 0, (u32)address);
    table_write(table, 0, 1, (u32)(address >> 32));
    table_write(table, 0, 2, (u32)vector);
    for (u32 i = 0; i < entries; i++)
        table_write(table, i, 3, i == 0 ? 0 : (u32)MSIX_ENTRY_MASK);
    pci_write(bdf, cap + 2, 2, control & ~(u32)MSIX_MASK_ALL);
    return true;
}

static bool connect_msi(u16 bdf, int vector)
{
    u16 cap = pci_capability(bdf, CAP_MSI, 0);
    if (!cap)
        return false;
    u32 control = pci_read(bdf, cap + 2, 2);
    u64 address = irq_msi_address(0);
    pci_write(bdf, cap + 4, 4, (u32)address);
    if (control & MSI_64BIT)
        pci_write(bdf, cap + 8, 4, (u32)(address >> 32));
    pci_write(bdf, control & MSI_64BIT ? cap + 12 : cap + 8, 2, (u32)vector);
    pci_write(bdf, cap + 2, 2, (control & ~MSI_MULTIPLE) | (u32)MSI_ENABLE);
    return true;
}

enum pci_interrupt pci_connect(u16 bdf, int vector)
{
    u32 command = pci_read(bdf, COMMAND, 2);
    if (vector < 0)
        return PCI_POLLED;
    if (connect_msix(bdf, vector))
        return PCI_MSIX;
    if (connect_msi(bdf, vector))
        return PCI_MSI;
    pci_write(bdf, COMMAND, 2, command & ~(u32)COMMAND_NOINTX);
    u32 line = pci_read(bdf, INTERRUPT_LINE, 1);
    if (line != 0 && line != 0xff && irq_route_pin(line, vector, true, true) == 0)
        return PCI_INTX;
    return PCI_POLLED;
}
