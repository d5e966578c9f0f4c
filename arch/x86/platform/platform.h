// SPDX-License-Identifier: MIT
// What the devices of the guest's PC share: interrupt lines, local APIC messages, port and memory
// addresses.
//
// Locks, taken in this order: device mutex (kernel/guest/device.h), platform.irq_lock, one
// local APIC's lock, the guest clock's. Nobody holds two local APICs' locks.
#ifndef SKIFF_PLATFORM_PLATFORM_H
#define SKIFF_PLATFORM_PLATFORM_H

#include "kernel/guest/guest.h"
#include "kernel/thread.h"
#include "kernel/types.h"

#define IRQ_LINES        24
#define IRQ_PIT          0
#define IRQ_CASCADE      2
#define IRQ_COM1         4
#define IRQ_RTC          8
#define IRQ_SCI          9
#define IRQ_PCI_FIRST    16 // INTx of PCI functions: 16 to 23, see pci_intx_gsi
#define IRQ_PCI_COUNT    8
#define IOAPIC_PIT_PIN   2 // as the MADT's interrupt source override says
#define IOAPIC_GPA       0xfec00000ull
#define LAPIC_GPA        0xfee00000ull
#define LAPIC_HZ         1000000000ull // timer input clock; CPUID leaf 15h must agree (ECX)
#define PIT_HZ           1193182ull
#define PM_TIMER_HZ      3579545ull
#define RTC_HZ           32768ull
#define PM_BASE          0x600
#define PM_GPE0          0x620
#define RESET_PORT       0xcf9
#define RESET_VALUE      6
#define TIMER_PERIOD_MIN (50 * NS_PER_US) // a faster periodic timer would leave no guest time

struct vpic;
struct vioapic;
struct console_ring;

struct platform {
    struct guest *guest;
    struct spinlock irq_lock; // lines, and all of *pic and *ioapic
    u32 lines[IRQ_LINES];     // the sources (bits) that hold each line up
    volatile bool pic_intr;   // the PICs' INTR output; read without the lock
    u32 lowest_priority_turn; // whom an equal lowest-priority interrupt goes to next; hint only
    struct vpic *pic;         // set while the devices are created, constant afterwards
    struct vioapic *ioapic;
    struct device *uart, *pm, *pci;
};

static inline struct platform *platform_of(const struct guest *g)
{
    return g->platform;
}

// Drives an interrupt line from one of 32 sources; the line is up while any source holds it.
// irq_raise and irq_lower are source 0; PCI functions use their own (pci.c).
void irq_line_set(struct guest *g, u32 line, u32 source, bool level);
#define IRQ_SOURCE_ISA 0
#define IRQ_SOURCE_PCI 1

// pic.c, ioapic.c; irq_lock held.
void vpic_line(struct platform *p, u32 line, bool level);
void vioapic_line(struct platform *p, u32 pin, bool level);
// Takes irq_lock. The INTA cycle: the vector, a spurious one when nobody asks any more.
int vpic_ack(struct platform *p);
// Takes irq_lock. A level-triggered interrupt with this vector has been served by its local APIC.
void vioapic_eoi(struct platform *p, u8 vector);

// lapic_message.c. An interrupt message to local APICs (SDM 3A 10.6.2, 10.11).
enum apic_mode {
    APIC_FIXED,
    APIC_LOWEST,
    APIC_SMI,
    APIC_NMI = 4,
    APIC_INIT,
    APIC_SIPI,
    APIC_EXTINT
};
struct apic_message {
    u32 dest;
    bool logical;
    bool level; // level-triggered: EOI goes back to the IOAPIC
    u8 mode;    // enum apic_mode
    u8 vector;
};
// Returns whether at least one local APIC accepted it.
bool apic_send(struct guest *g, const struct apic_message *m);
// The PICs' INTR output rose: who listens on LINT0 gets to know.
void lapic_lint0_rise(struct guest *g);

// The device models, in the order they are created.
extern const struct device_ops vpic_device, vioapic_device, vlapic_device, vpit_device, vrtc_device,
    vuart_device, vpm_device, vpci_device, vkbd_device, vmisc_device;

// pm.c
void vpm_power_button(struct device *d);

// Ends the run: the vCPUs leave the guest and the life cycle does the rest.
void platform_reset_request(struct guest *g, const char *by);
void platform_poweroff_request(struct guest *g);

// A feature bit of the guest's CPUID leaf 1.
bool platform_cpuid1_ecx(const struct guest *g, unsigned bit);
#define CPUID1_ECX_X2APIC       21
#define CPUID1_ECX_TSC_DEADLINE 24

#endif
