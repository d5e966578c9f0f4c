// SPDX-License-Identifier: MIT
// Interrupts: vectors, their handlers, and the pins they come from.
#include "arch/x86/acpi.h"
#include "arch/x86/apic.h"
#include "arch/x86/cpu.h"
#include "arch/x86/irq.h"
#include "arch/x86/power.h"
#include "arch/x86/serial.h"
#include "boot/boot_info.h"
#include "kernel/lib.h"
#include "kernel/log.h"
#include "kernel/sched.h"
#include "kernel/thread.h"

#define MAX_PINS 256

struct handler {
    irq_handler_t fn;
    void *arg;
    u8 shared; // the vector of the next handler on the same pin, 0: none
};
static struct handler handlers[256];          // written once, before their interrupt can come
static u8 pin_vector[MAX_PINS];               // which vector a pin raises, 0: none; lock
static u32 next_vector = VECTOR_DEVICE_FIRST; // lock
static struct spinlock lock;
static u64 unexpected;

// Both controllers are moved off the exceptions' vectors and then masked for good (8259A manual):
// even a masked PIC can raise a spurious interrupt.
static void mask_pic(void)
{
    static const u8 pic[][2] = {{0x20, 0x11}, {0xa0, 0x11}, {0x21, 0x20}, {0xa1, 0x28},
                                {0x21, 0x04}, {0xa1, 0x02}, {0x21, 0x01}, {0xa1, 0x01},
                                {0x21, 0xff}, {0xa1, 0xff}};
    for (u32 i = 0; i < ARRAY_SIZE(pic); i++)
        out8(pic[i][0], pic[i][1]);
}

static void set_handler(u32 vector, irq_handler_t fn, void *arg)
{
    handlers[vector].arg = arg;
    // Release: a handler that is seen has its argument.
    __atomic_store_n(&handlers[vector].fn, fn, __ATOMIC_RELEASE);
}

int irq_alloc_vector(irq_handler_t fn, void *arg)
{
    u64 flags = spin_lock_irqsave(&lock);
    int vector = next_vector <= VECTOR_DEVICE_LAST ? (int)next_vector++ : E_NOMEM;
    spin_unlock_irqrestore(&lock, flags);
    if (vector > 0)
        set_handler((u32)vector, fn, arg);
    return vector;
}

// A second device on a pin joins the first one's vector: the pin can raise one only.
static bool share_pin(u32 gsi, int vector)
{
    u8 first = pin_vector[gsi];
    if (first == 0)
        return false;
    handlers[vector].shared = handlers[first].shared;
    handlers[first].shared = (u8)vector;
    return true;
}

int irq_route_pin(u32 gsi, int vector, bool level, bool active_low)
{
    if (gsi >= MAX_PINS || vector < VECTOR_DEVICE_FIRST || vector > VECTOR_DEVICE_LAST)
        return E_INVAL;
    u64 flags = spin_lock_irqsave(&lock);
    int r = 0;
    if (!share_pin(gsi, vector)) {
        r = ioapic_route(gsi, (u8)vector, cpu_get(0)->apic_id, level, active_low);
        if (r == 0)
            pin_vector[gsi] = (u8)vector;
    }
    spin_unlock_irqrestore(&lock, flags);
    return r;
}

u64 irq_msi_address(u32 cpu_index)
{
    return 0xfee00000 | (u64)(cpu_get(cpu_index)->apic_id & 0xff) << 12; // SDM 3A 11.11.1
}

void irq_dispatch(u32 vector)
{
    struct cpu *c = this_cpu();
    if (vector == VECTOR_SPURIOUS)
        return; // not in service: must not be acknowledged (SDM 3A 11.9)
    c->irq_depth++;
    bool any = false;
    for (u32 v = vector; v != 0; v = handlers[v].shared) {
        irq_handler_t fn = __atomic_load_n(&handlers[v].fn, __ATOMIC_ACQUIRE);
        if (fn != NULL) {
            fn(handlers[v].arg);
            any = true;
        }
    }
    unexpected += !any;
    lapic_eoi();
    c->irq_depth--;
}

// The CPU has left its guest or its halt, which may be all it was meant to do.
static void kicked(void *arg)
{
    (void)arg;
    sched_kicked();
}

static void apic_error(void *arg)
{
    (void)arg;
    log_warn("irq", "the local APIC of CPU %u reports an error", this_cpu()->index);
}

void cpu_kick(u32 cpu_index)
{
    lapic_send(cpu_get(cpu_index)->apic_id, VECTOR_KICK);
}

void irq_set_fixed(u32 vector, irq_handler_t fn)
{
    set_handler(vector, fn, NULL);
}

void arch_irq_init(const struct boot_info *bi)
{
    mask_pic();
    acpi_init(bi->rsdp);
    power_find_acpi();
    irq_set_fixed(VECTOR_KICK, kicked);
    irq_set_fixed(VECTOR_ERROR, apic_error);
    lapic_init();
    ioapic_init();
    serial_irq_init();
}
