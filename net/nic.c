// SPDX-License-Identifier: MIT
// The list of NIC drivers, and what they share beside lwIP: PCI work, receive buffers.
#include "net/nic.h"

#include "kernel/lib.h"
#include "kernel/log.h"

static const struct nic_ops *const drivers[] = {&virtio_nic, &igb_nic, &e1000e_nic, &e1000_nic};

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

void nic_connect_irq(struct nic *n, u16 bdf, void (*handler)(void *arg))
{
    n->interrupt = pci_connect(bdf, irq_alloc_vector(handler, n));
    if (n->interrupt == PCI_POLLED)
        log_warn("net", "%s has no usable interrupt: polling it every millisecond", n->ops->name);
}

void nic_limit_mtu(struct nic *n, u32 most)
{
    if (n->mtu <= most)
        return;
    log_warn("net", "mtu in [net] is %u, but %s carries %u at most: using that", n->mtu,
             n->ops->name, most);
    n->mtu = most;
}

bool nic_mac_valid(const u8 mac[6])
{
    u8 any = 0;
    for (int i = 0; i < 6; i++)
        any |= mac[i];
    return any && !(mac[0] & 1); // a station address is not a group address
}
