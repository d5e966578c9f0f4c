// SPDX-License-Identifier: MIT
// The list of NIC drivers and their common PCI work.
#include "net/nic.h"

#include "arch/x86/cpu.h"
#include "kernel/log.h"

#define PCI_COMMAND        0x04
#define PCI_COMMAND_MEMORY BIT(1)
#define PCI_COMMAND_MASTER BIT(2)
#define PCI_COMMAND_NOINTX BIT(10)
#define PCI_BAR0           0x10
#define PCI_INTERRUPT_LINE 0x3c

static const struct nic_ops *const drivers[] = {&e1000_nic};

struct candidate {
    const struct nic_ops *ops;
};

static bool driver_matches(u16 bdf, u16 vendor, u16 device, void *arg)
{
    struct candidate *c = arg;
    (void)bdf;
    for (u32 i = 0; i < ARRAY_SIZE(drivers); i++) {
        if (drivers[i]->match(vendor, device)) {
            c->ops = drivers[i];
            return true;
        }
    }
    return false;
}

int nic_probe(struct nic *n)
{
    struct candidate c = {NULL};
    int bdf = pci_find(driver_matches, &c);
    if (bdf < 0)
        return E_NOENT;
    n->ops = c.ops;
    return n->ops->start(n, (u16)bdf);
}

void *nic_map_bar(u16 bdf, u32 index, u64 bytes)
{
    u16 reg = (u16)(PCI_BAR0 + 4 * index);
    u32 low = pci_read(bdf, reg, 4);
    u64 base = low & ~0xfu;
    if (low & 1) // an I/O BAR (PCI Local Bus 3.0, 6.2.5.1)
        return NULL;
    if ((low >> 1 & 3) == 2) // 64 bits wide
        base |= (u64)pci_read(bdf, reg + 4, 4) << 32;
    if (!base)
        return NULL;
    u32 command = pci_read(bdf, PCI_COMMAND, 2);
    command |= PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER;
    command &= ~(u32)PCI_COMMAND_NOINTX;
    pci_write(bdf, PCI_COMMAND, 2, command);
    return map_mmio(base, bytes);
}

void nic_connect_irq(struct nic *n, u16 bdf, void (*handler)(void *arg), void *arg)
{
    u32 line = pci_read(bdf, PCI_INTERRUPT_LINE, 1);
    int vector = irq_alloc_vector(handler, arg);
    if (vector >= 0 && line != 0 && line != 0xff && irq_route_pin(line, vector, true, true) == 0)
        return;
    n->polled = true;
    log_warn("net", "%s has no usable interrupt (line %u): polling it every millisecond",
             n->ops->name, line);
}
