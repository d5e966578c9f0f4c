// SPDX-License-Identifier: MIT
// Interrupt lines and message-signalled interrupts: the only ways devices reach the guest's CPUs.
#include "arch/x86/platform/platform.h"

#include "kernel/lib.h"

// ISA lines go to the PICs and to the IOAPIC pin of the same number, but for the PIT, whose pin
// the MADT moves, and the cascade, which no device drives. Lines from 16 on exist in the IOAPIC
// only.
static void drive(struct platform *p, u32 line, bool level)
{
    if (line < 16)
        vpic_line(p, line, level);
    vioapic_line(p, line == IRQ_PIT ? IOAPIC_PIT_PIN : line, level);
}

void irq_line_set(struct guest *g, u32 line, u32 source, bool level)
{
    struct platform *p = platform_of(g);
    assert(line < IRQ_LINES && line != IRQ_CASCADE && source < 32);
    spin_lock(&p->irq_lock);
    u32 before = p->lines[line];
    u32 now = level ? before | 1u << source : before & ~(1u << source);
    p->lines[line] = now;
    if (!before != !now)
        drive(p, line, level);
    spin_unlock(&p->irq_lock);
}

void irq_raise(struct guest *g, u32 line)
{
    irq_line_set(g, line, IRQ_SOURCE_ISA, true);
}

void irq_lower(struct guest *g, u32 line)
{
    irq_line_set(g, line, IRQ_SOURCE_ISA, false);
}

// Address and data as SDM 3A 10.11 lays them out. A guest may program any address into a device;
// what is not a local APIC's goes nowhere. The destination mode counts with the redirection hint
// clear as well: real chipsets do so, and Linux relies on it.
void msi_send(struct guest *g, u64 addr, u32 data)
{
    bool redirect = addr >> 3 & 1, level = data >> 15 & 1, assert_level = data >> 14 & 1;
    if (addr >> 20 != LAPIC_GPA >> 20 || (level && !assert_level))
        return;
    struct apic_message m = {
        .dest = addr >> 12 & 0xff,
        .logical = addr >> 2 & 1,
        .mode = data >> 8 & 7,
        .vector = data & 0xff,
        .level = level,
    };
    if (redirect && m.mode == APIC_FIXED)
        m.mode = APIC_LOWEST;
    apic_send(g, &m);
}
