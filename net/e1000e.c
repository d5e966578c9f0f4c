// SPDX-License-Identifier: MIT
// Intel 82574L: the 82540EM's descriptors behind PCI Express and MSI-X.
// Sections are those of the 82574 GbE Controller Family Datasheet, revision 3.4.
#include "net/intel.h"

#include "kernel/lib.h"
#include "kernel/time.h"

#define CTRL_GIO_MASTER_DISABLE BIT(2)  // 10.2.2.1
#define STATUS_GIO_MASTER       BIT(19) // 10.2.2.2
#define CTRL_EXT_PBA_CLR        BIT(31) // 10.2.2.5
#define CTRL_EXT_DRV_LOAD       BIT(28)
#define EIAC                    0x00dc // 10.2.4.6: causes that their message clears and masks
#define IVAR                    0x00e4 // 10.2.4.9
#define IVAR_RXQ0_VECTOR0       BIT(3)
#define EITR0                   0x00e8  // 10.2.4.10
#define INT_RXQ0                BIT(20) // 10.2.4.1
#define TXDCTL                  0x3828  // 10.2.6.8
#define TXDCTL_GRAN             BIT(24) // thresholds count descriptors
#define TXDCTL_COUNT_DESC       BIT(22) // must be set
#define ITR_VALUE               (NS_PER_SEC / INTERRUPTS_MOST / 256)
#define MTU_MOST                9000u // 1.3, jumbo frames of up to 9018 bytes

static struct intel the_e1000e; // one host NIC

static bool e1000e_match(u16 vendor, u16 device)
{
    return vendor == 0x8086 && (device == 0x10d3 || device == 0x10f6); // 82574L, 82574LA
}

// 4.6.1: no request of ours may be under way when the device is reset.
static void disable_master(struct intel *e)
{
    intel_write(e, INTEL_CTRL, intel_read(e, INTEL_CTRL) | CTRL_GIO_MASTER_DISABLE);
    for (int tries = 0; tries < 800 && intel_read(e, INTEL_STATUS) & STATUS_GIO_MASTER; tries++)
        time_delay_us(100);
}

// 7.4: one message for the receive queue; it clears and masks its cause. Other causes stay masked,
// since the link is looked at by the clock.
static void start_interrupts(struct nic *n, struct intel *e)
{
    intel_write(e, INTEL_CTRL_EXT,
                intel_read(e, INTEL_CTRL_EXT) | CTRL_EXT_DRV_LOAD | CTRL_EXT_PBA_CLR);
    intel_write(e, INTEL_ITR, ITR_VALUE);
    if (n->interrupt == PCI_MSIX) {
        e->causes = (u32)INT_RXQ0;
        intel_write(e, IVAR, IVAR_RXQ0_VECTOR0);
        intel_write(e, EIAC, INT_RXQ0);
        intel_write(e, EITR0, ITR_VALUE);
    }
    if (n->interrupt != PCI_POLLED)
        intel_write(e, INTEL_IMS, e->causes);
}

static int e1000e_start(struct nic *n, u16 bdf)
{
    struct intel *e = &the_e1000e;
    int r = intel_open(n, e, bdf, &e1000_format);
    if (r)
        return r;
    nic_limit_mtu(n, MTU_MOST);
    disable_master(e);
    intel_reset(e);
    if ((r = intel_read_mac(n, e)) || (r = intel_make_rings(n, e)))
        return r;
    intel_write(e, TXDCTL, intel_read(e, TXDCTL) | TXDCTL_GRAN | TXDCTL_COUNT_DESC);
    intel_start_rings(n, e);
    intel_post_all(e);
    nic_connect_irq(n, bdf, intel_interrupt);
    start_interrupts(n, e);
    return 0;
}

const struct nic_ops e1000e_nic = {
    .name = "e1000e",
    .match = e1000e_match,
    .start = e1000e_start,
    .link_up = intel_link_up,
    .set_filter = intel_set_filter,
    .has_room = intel_has_room,
    .transmit = intel_transmit,
    .flush = intel_flush,
    .poll = intel_poll,
    .irq_rearm = intel_irq_rearm,
    .stop = intel_stop,
};
