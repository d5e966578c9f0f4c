// SPDX-License-Identifier: MIT
// Interrupt messages between local APICs, and from IOAPIC and MSI to them: who is meant, and what
// it does there (SDM 3A 10.6, 10.11).
#include "arch/x86/platform/lapic.h"

#include "kernel/lib.h"

void lapic_accept(struct vlapic *l, u8 vector, bool level)
{
    assert_held(&l->lock);
    if (vector < 16) {
        lapic_error(l, ESR_RECEIVE_ILLEGAL);
        return;
    }
    if (level)
        vector_set(l->tmr, vector);
    else
        vector_clear(l->tmr, vector);
    if (vector_test(l->irr, vector))
        return;
    vector_set(l->irr, vector);
    l->requests = true;
    lapic_kick(l);
}

// SDM 3A 10.5.3: the error interrupt comes with the first error since the last latching.
void lapic_error(struct vlapic *l, u32 esr_bit)
{
    assert_held(&l->lock);
    u32 lvt = l->lvt[LVT_ERROR];
    bool first = !l->errors;
    l->errors |= esr_bit;
    if (first && !(lvt & LVT_MASKED) && (lvt & 0xff) >= 16)
        lapic_accept(l, lvt & 0xff, false);
}

// SDM 3A 10.6.2.2 (xAPIC: flat and cluster) and 10.12.10.2 (x2APIC). A destination of 8 bits, as
// MSI and the IOAPIC have, reaches x2APIC logical IDs of cluster 0.
static bool logical_match(const struct vlapic *l, u32 dest)
{
    if (lapic_x2apic(l))
        return dest >> 16 == l->ldr >> 16 && (dest & l->ldr & 0xffff);
    u32 mine = l->ldr >> 24;
    if (l->dfr >> 28 == 0xf)
        return mine & dest & 0xff;
    return mine >> 4 == (dest >> 4 & 15) && (mine & dest & 15);
}

static bool meant(const struct vlapic *l, const struct apic_message *m, bool wide)
{
    if (!lapic_enabled(l))
        return false;
    if (m->dest == 0xffffffff || (!wide && m->dest == 0xff))
        return true;
    return m->logical ? logical_match(l, m->dest) : m->dest == l->id;
}

static void start_up(struct vlapic *l, u8 vector)
{
    struct vcpu *v = l->vcpu;
    // SDM 3A 8.4.4: only a CPU that waits for it starts; one that has an INIT to take will wait.
    if (!l->init_pending && v->activity != VCPU_WAIT_SIPI)
        return;
    l->sipi_pending = 1;
    l->sipi_vector = vector;
    lapic_kick(l);
}

// Lock not held. Returns whether the local APIC accepts the message.
static bool deliver(struct vlapic *l, const struct apic_message *m)
{
    struct vcpu *v = l->vcpu;
    bool accepted = true;
    spin_lock(&l->lock);
    switch (m->mode) {
    case APIC_FIXED:
    case APIC_LOWEST:
        accepted = l->svr & SVR_ENABLED;
        if (accepted)
            lapic_accept(l, m->vector, m->level);
        break;
    case APIC_NMI:
        v->nmi_pending = true;
        lapic_kick(l);
        break;
    case APIC_INIT:
        l->init_pending = 1;
        l->sipi_pending = 0;
        lapic_kick(l);
        break;
    case APIC_SIPI:
        start_up(l, m->vector);
        break;
    default: // SMI: there is no SMM; ExtINT: the PICs have their own wire
        accepted = false;
    }
    spin_unlock(&l->lock);
    return accepted;
}

// SDM 3A 10.6.2.4: among those meant, the one that does the least urgent thing.
static struct vlapic *lowest(struct guest *g, const struct apic_message *m, bool wide)
{
    struct platform *p = platform_of(g);
    struct vlapic *best = NULL;
    u32 best_ppr = ~0u;
    for (u32 n = 0; n < g->vcpu_count; n++) {
        u32 i = (p->lowest_priority_turn + n) % g->vcpu_count;
        struct vlapic *l = g->vcpu[i] ? lapic_of(g->vcpu[i]) : NULL;
        if (!l || !meant(l, m, wide) || !(l->svr & SVR_ENABLED))
            continue;
        spin_lock(&l->lock);
        u32 ppr = lapic_ppr(l);
        spin_unlock(&l->lock);
        if (ppr < best_ppr) {
            best_ppr = ppr;
            best = l;
        }
    }
    p->lowest_priority_turn++;
    return best;
}

// wide: a destination of 32 bits, where 0xff is an ordinary ID.
static bool send(struct guest *g, const struct apic_message *m, bool wide,
                 const struct vlapic *except)
{
    if (m->mode == APIC_LOWEST) {
        struct vlapic *l = lowest(g, m, wide);
        return l && deliver(l, m);
    }
    bool accepted = false;
    for (u32 i = 0; i < g->vcpu_count; i++) {
        struct vlapic *l = g->vcpu[i] ? lapic_of(g->vcpu[i]) : NULL;
        if (l && l != except && meant(l, m, wide))
            accepted |= deliver(l, m);
    }
    return accepted;
}

bool apic_send(struct guest *g, const struct apic_message *m)
{
    return send(g, m, false, NULL);
}

// SDM 3A 10.6.1. The message is gone at once: delivery status always reads idle.
void lapic_send_icr(struct vlapic *l)
{
    enum { SHORT_NONE, SHORT_SELF, SHORT_ALL, SHORT_OTHERS };
    u32 low = (u32)l->icr, shorthand = low >> 18 & 3;
    bool wide = lapic_x2apic(l), level = low >> 15 & 1, assert_level = low >> 14 & 1;
    struct apic_message m = {
        .dest = wide ? (u32)(l->icr >> 32) : (u32)(l->icr >> 56),
        .logical = low >> 11 & 1,
        .mode = low >> 8 & 7,
        .vector = low & 0xff,
    };
    if (m.mode == APIC_INIT && level && !assert_level)
        return; // INIT level de-assert: nothing on these CPUs
    if ((m.mode == APIC_FIXED || m.mode == APIC_LOWEST) && m.vector < 16) {
        spin_lock(&l->lock);
        lapic_error(l, ESR_SEND_ILLEGAL);
        spin_unlock(&l->lock);
        return;
    }
    if (shorthand == SHORT_SELF) {
        deliver(l, &m);
        return;
    }
    if (shorthand != SHORT_NONE) {
        m.dest = ~0u;
        m.logical = false;
    }
    send(l->vcpu->guest, &m, wide, shorthand == SHORT_OTHERS ? l : NULL);
}
