// SPDX-License-Identifier: MIT
// The guest's local APIC: registers, priorities and the vCPU's side of interrupt delivery
// (SDM 3A chapter 10). Messages, timer, MSRs and migrated state have files of their own.
#include "arch/x86/platform/lapic.h"

#include "kernel/lib.h"
#include "kernel/mem.h"

int vector_highest(const u32 *bits)
{
    for (int i = 7; i >= 0; i--)
        if (bits[i])
            return i * 32 + 31 - __builtin_clz(bits[i]);
    return -1;
}

// SDM 3A 10.8.3.1.
u32 lapic_ppr(const struct vlapic *l)
{
    assert_held(&l->lock);
    int isr = vector_highest(l->isr);
    u32 in_service = isr < 0 ? 0 : (u32)isr & 0xf0;
    return (l->tpr & 0xf0) >= in_service ? l->tpr : in_service;
}

static int deliverable(const struct vlapic *l)
{
    if (!lapic_enabled(l))
        return -1;
    int vector = vector_highest(l->irr);
    return vector >= 0 && ((u32)vector & 0xf0) > (lapic_ppr(l) & 0xf0) ? vector : -1;
}

// The PICs' INTR pin reaches a CPU through LINT0 in ExtINT mode or, with the local APIC switched
// off, directly (SDM 3A 10.4.3, 10.5.1); it is wired to the boot CPU alone then.
static bool takes_extint(const struct vlapic *l)
{
    if (!lapic_enabled(l))
        return l->vcpu->index == 0;
    u32 lint0 = l->lvt[LVT_LINT0];
    return !(lint0 & LVT_MASKED) && LVT_MODE(lint0) == APIC_EXTINT;
}

static bool extint_waits(const struct vlapic *l)
{
    return platform_of(l->vcpu->guest)->pic_intr && takes_extint(l);
}

void lapic_kick(struct vlapic *l)
{
    if (thread_get_vcpu() == l->vcpu)
        l->vcpu->kick = true; // it looks before it enters the guest again
    else
        vcpu_kick(l->vcpu);
}

void lapic_lint0_rise(struct guest *g)
{
    for (u32 i = 0; i < g->vcpu_count; i++) {
        struct vlapic *l = g->vcpu[i] ? lapic_of(g->vcpu[i]) : NULL;
        if (!l)
            continue;
        spin_lock(&l->lock);
        u32 lint0 = l->lvt[LVT_LINT0];
        if (takes_extint(l))
            lapic_kick(l);
        else if (lapic_enabled(l) && !(lint0 & LVT_MASKED) && LVT_MODE(lint0) == APIC_FIXED)
            lapic_accept(l, lint0 & 0xff, false);
        spin_unlock(&l->lock);
    }
}

int platform_irq_peek(struct vcpu *v)
{
    struct vlapic *l = lapic_of(v);
    if (extint_waits(l))
        return 0; // the vector comes with the INTA cycle only
    if (!l->requests)
        return -1;
    spin_lock(&l->lock);
    int vector = deliverable(l);
    spin_unlock(&l->lock);
    return vector;
}

int platform_irq_ack(struct vcpu *v)
{
    struct vlapic *l = lapic_of(v);
    struct platform *p = platform_of(v->guest);
    if (extint_waits(l))
        return vpic_ack(p);
    spin_lock(&l->lock);
    int vector = deliverable(l);
    if (vector >= 0) {
        vector_clear(l->irr, (u32)vector);
        vector_set(l->isr, (u32)vector);
        l->requests = vector_highest(l->irr) >= 0;
    }
    spin_unlock(&l->lock);
    // Another vCPU withdrew the PICs' request in between: they answer as the hardware's do.
    return vector >= 0 ? vector : vpic_ack(p);
}

bool platform_take_init(struct vcpu *v)
{
    struct vlapic *l = lapic_of(v);
    if (!l->init_pending)
        return false;
    spin_lock(&l->lock);
    l->init_pending = 0;
    lapic_timer_stop(l);
    lapic_registers_reset(l);
    v->nmi_pending = false;
    v->activity = VCPU_WAIT_SIPI;
    spin_unlock(&l->lock);
    return true;
}

int platform_take_sipi(struct vcpu *v)
{
    struct vlapic *l = lapic_of(v);
    spin_lock(&l->lock);
    int vector = l->sipi_pending ? l->sipi_vector : -1;
    l->sipi_pending = 0;
    spin_unlock(&l->lock);
    return vector;
}

// After priorities or masks have changed: what waited may be deliverable now.
static void look_again(struct vlapic *l)
{
    if (l->requests || platform_of(l->vcpu->guest)->pic_intr)
        lapic_kick(l);
}

static void end_of_interrupt(struct vlapic *l)
{
    spin_lock(&l->lock);
    int vector = vector_highest(l->isr);
    bool level = false;
    if (vector >= 0) {
        vector_clear(l->isr, (u32)vector);
        level = vector_test(l->tmr, (u32)vector);
    }
    spin_unlock(&l->lock);
    if (level)
        vioapic_eoi(platform_of(l->vcpu->guest), (u8)vector);
    look_again(l);
}

static void write_svr(struct vlapic *l, u32 value)
{
    l->svr = value & 0x3ff;
    // SDM 3A 10.4.7.2: while disabled by software all LVT entries are masked.
    if (!(value & SVR_ENABLED))
        for (u32 i = 0; i < LVT_COUNT; i++)
            l->lvt[i] |= LVT_MASKED;
}

static void write_lvt(struct vlapic *l, u32 i, u32 value)
{
    value &= lapic_lvt_bits[i];
    if (!(l->svr & SVR_ENABLED))
        value |= LVT_MASKED;
    if (i == LVT_TIMER)
        lapic_timer_set_lvt(l, value);
    else
        l->lvt[i] = value;
}

// Lock held. What has no side effect outside this local APIC.
static bool write_plain(struct vlapic *l, u32 reg, u32 value)
{
    assert_held(&l->lock);
    switch (reg) {
    case REG_TPR:
        l->tpr = value & 0xff;
        return true;
    case REG_LDR:
        l->ldr = value & 0xff000000;
        return true;
    case REG_DFR:
        l->dfr = value | 0x0fffffff;
        return true;
    case REG_SVR:
        write_svr(l, value);
        return true;
    case REG_ESR: // SDM 3A 10.5.3: a write latches what has been collected
        l->esr = l->errors;
        l->errors = 0;
        return true;
    case REG_ICR_HIGH:
        l->icr = (l->icr & 0xffffffff) | (u64)(value & 0xff000000) << 32;
        return true;
    case REG_LVT ... REG_LVT + LVT_COUNT - 1:
        write_lvt(l, reg - REG_LVT, value);
        return true;
    case REG_INITIAL:
        lapic_timer_set_initial(l, value);
        return true;
    case REG_DIVIDE:
        lapic_timer_set_divide(l, value);
        return true;
    }
    // Read-only registers take writes and ignore them; what is none is an error (SDM 3A 10.5.3).
    bool read_only = reg == REG_ID || reg == REG_VERSION || reg == REG_APR || reg == REG_PPR ||
                     (reg >= REG_ISR && reg < REG_ESR) || reg == REG_CURRENT;
    if (!read_only)
        lapic_error(l, ESR_REGISTER_ILLEGAL);
    return read_only;
}

bool lapic_write(struct vlapic *l, u32 reg, u32 value)
{
    if (reg == REG_EOI) {
        end_of_interrupt(l);
        return true;
    }
    spin_lock(&l->lock);
    bool known = true;
    if (reg == REG_ICR)
        l->icr = (l->icr & ~0xffffffffull) | (value & 0xccfff);
    else
        known = write_plain(l, reg, value);
    spin_unlock(&l->lock);
    if (reg == REG_ICR)
        lapic_send_icr(l);
    else
        look_again(l);
    return known;
}

static bool read_plain(struct vlapic *l, u32 reg, u32 *value)
{
    switch (reg) {
    case REG_ID:
        *value = lapic_x2apic(l) ? l->id : l->id << 24;
        return true;
    case REG_VERSION:
        *value = LAPIC_VERSION;
        return true;
    case REG_TPR:
        *value = l->tpr;
        return true;
    case REG_APR: // only the old bus's arbitration used it
    case REG_EOI:
        *value = 0;
        return true;
    case REG_PPR:
        *value = lapic_ppr(l);
        return true;
    case REG_LDR:
        *value = l->ldr;
        return true;
    case REG_DFR:
        *value = l->dfr;
        return true;
    case REG_SVR:
        *value = l->svr;
        return true;
    case REG_ISR ... REG_ISR + 7:
        *value = l->isr[reg - REG_ISR];
        return true;
    case REG_TMR ... REG_TMR + 7:
        *value = l->tmr[reg - REG_TMR];
        return true;
    case REG_IRR ... REG_IRR + 7:
        *value = l->irr[reg - REG_IRR];
        return true;
    case REG_ESR:
        *value = l->esr;
        return true;
    case REG_ICR:
        *value = (u32)l->icr;
        return true;
    case REG_ICR_HIGH:
        *value = (u32)(l->icr >> 32);
        return true;
    case REG_LVT ... REG_LVT + LVT_COUNT - 1:
        *value = l->lvt[reg - REG_LVT];
        return true;
    case REG_INITIAL:
        *value = l->initial_count;
        return true;
    case REG_CURRENT:
        *value = lapic_timer_current(l);
        return true;
    case REG_DIVIDE:
        *value = l->divide;
        return true;
    }
    *value = 0;
    lapic_error(l, ESR_REGISTER_ILLEGAL);
    return false;
}

bool lapic_read(struct vlapic *l, u32 reg, u32 *value)
{
    spin_lock(&l->lock);
    bool known = read_plain(l, reg, value);
    spin_unlock(&l->lock);
    return known;
}

u64 platform_get_cr8(struct vcpu *v)
{
    return lapic_of(v)->tpr >> 4;
}

void platform_set_cr8(struct vcpu *v, u64 value)
{
    struct vlapic *l = lapic_of(v);
    spin_lock(&l->lock);
    l->tpr = (u32)(value & 15) << 4;
    spin_unlock(&l->lock);
    look_again(l);
}

// SDM 3A 10.4.7.1. The boot CPU starts with LINT0 as PC firmware leaves it, passing the PICs on
// ("virtual wire"): kernels that are loaded without firmware count on it. It holds although the
// APIC is still disabled by software.
void lapic_registers_reset(struct vlapic *l)
{
    assert_held(&l->lock);
    l->tpr = 0;
    l->ldr = lapic_x2apic(l) ? lapic_x2apic_ldr(l->id) : 0;
    l->dfr = ~0u;
    l->svr = 0xff;
    l->esr = l->errors = 0;
    l->icr = 0;
    for (u32 i = 0; i < LVT_COUNT; i++)
        l->lvt[i] = LVT_MASKED;
    if (l->vcpu->index == 0)
        l->lvt[LVT_LINT0] = APIC_EXTINT << 8;
    memset(l->irr, 0, sizeof(l->irr));
    memset(l->isr, 0, sizeof(l->isr));
    memset(l->tmr, 0, sizeof(l->tmr));
    l->initial_count = l->divide = 0;
    l->requests = false;
}

int platform_vcpu_init(struct vcpu *v)
{
    struct vlapic *l = kzalloc(sizeof(*l));
    if (!l)
        return E_NOMEM;
    l->vcpu = v;
    l->id = v->index;
    l->timer.fn = lapic_timer_fire;
    l->timer.arg = l;
    l->timer.vcpu = v->index;
    v->lapic = l;
    platform_vcpu_reset(v);
    return 0;
}

// The vCPU's thread and those that run the guest's timers are gone.
void platform_vcpu_fini(struct vcpu *v)
{
    struct vlapic *l = lapic_of(v);
    if (l)
        gtimer_cancel(v->guest, &l->timer);
    v->lapic = NULL;
    kfree(l);
}

void platform_vcpu_reset(struct vcpu *v)
{
    struct vlapic *l = lapic_of(v);
    spin_lock(&l->lock);
    lapic_timer_stop(l);
    l->apic_base = LAPIC_GPA | APIC_BASE_ENABLED | (v->index == 0 ? APIC_BASE_BSP : 0);
    l->init_pending = l->sipi_pending = 0;
    l->sipi_vector = 0;
    lapic_registers_reset(l);
    spin_unlock(&l->lock);
}

void platform_vcpu_pause(struct vcpu *v)
{
    struct vlapic *l = lapic_of(v);
    gtimer_cancel(v->guest, &l->timer);
}

void platform_vcpu_resume(struct vcpu *v)
{
    struct vlapic *l = lapic_of(v);
    spin_lock(&l->lock);
    l->requests = vector_highest(l->irr) >= 0;
    lapic_timer_arm(l);
    spin_unlock(&l->lock);
    vcpu_kick(v);
}
