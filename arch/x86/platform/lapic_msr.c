// SPDX-License-Identifier: MIT
// The local APIC as MSRs: IA32_APIC_BASE, IA32_TSC_DEADLINE and the x2APIC registers
// (SDM 3A 10.4.4, 10.5.4.1, 10.12).
#include "arch/x86/platform/lapic.h"

#include "kernel/lib.h"

#define MSR_APIC_BASE    0x1b
#define MSR_TSC_DEADLINE 0x6e0
#define MSR_X2APIC_FIRST 0x800
#define MSR_X2APIC_LAST  0x8ff

// SDM 3A 10.12.5: through x2APIC only by way of xAPIC, and out of it only by switching off.
static bool transition_valid(u64 from, u64 to)
{
    const u64 both = APIC_BASE_ENABLED | APIC_BASE_X2APIC;
    from &= both;
    to &= both;
    if (from == both)
        return to != APIC_BASE_ENABLED;
    return to != both || from == APIC_BASE_ENABLED;
}

// The local APIC stays at its usual address: no current system moves it.
static int write_apic_base(struct vlapic *l, u64 value)
{
    struct vcpu *v = l->vcpu;
    if (!lapic_base_valid(value) || !transition_valid(l->apic_base, value))
        return E_INVAL;
    if ((value & APIC_BASE_X2APIC) && !platform_cpuid1_ecx(v->guest, CPUID1_ECX_X2APIC))
        return E_INVAL;
    spin_lock(&l->lock);
    bool turned_off = lapic_enabled(l) && !(value & APIC_BASE_ENABLED);
    bool to_x2apic = !lapic_x2apic(l) && (value & APIC_BASE_X2APIC);
    // Which CPU booted the system is not for software to change.
    l->apic_base = (value & ~APIC_BASE_BSP) | (l->apic_base & APIC_BASE_BSP);
    if (turned_off) {
        lapic_timer_stop(l);
        lapic_registers_reset(l);
    }
    if (to_x2apic) {
        l->ldr = lapic_x2apic_ldr(l->id);
        l->icr &= 0xffffffff;
    }
    spin_unlock(&l->lock);
    lapic_kick(l);
    return 0;
}

// Bits a register's value may have; others raise #GP (SDM 3A 10.12.1.2 and table 10-6).
static bool writable(u32 reg, u64 value)
{
    switch (reg) {
    case REG_TPR:
    case REG_SELF_IPI:
        return value <= 0xff;
    case REG_EOI:
    case REG_ESR:
        return value == 0;
    case REG_SVR:
        return !(value & ~0x3ffull);
    case REG_ICR:
        return !(value & 0xfff33000ull & ~BIT(12));
    case REG_LVT ... REG_LVT + LVT_COUNT - 1:
        return !(value & ~(u64)(lapic_lvt_bits[reg - REG_LVT] | BIT(12) | BIT(14)));
    case REG_INITIAL:
        return value <= 0xffffffff;
    case REG_DIVIDE:
        return !(value & ~0xbull);
    }
    return false;
}

static int x2apic_write(struct vlapic *l, u32 reg, u64 value)
{
    if (!lapic_x2apic(l) || !writable(reg, value))
        return E_INVAL;
    if (reg == REG_ICR || reg == REG_SELF_IPI) {
        spin_lock(&l->lock);
        if (reg == REG_SELF_IPI)
            value = (1u << 18) | value; // shorthand self, fixed
        l->icr = value & ~BIT(12);
        spin_unlock(&l->lock);
        lapic_send_icr(l);
        return 0;
    }
    return lapic_write(l, reg, (u32)value) ? 0 : E_INVAL;
}

static int x2apic_read(struct vlapic *l, u32 reg, u64 *value)
{
    bool write_only = reg == REG_EOI || reg == REG_SELF_IPI;
    bool absent = reg == REG_APR || reg == REG_DFR || reg == REG_ICR_HIGH;
    if (!lapic_x2apic(l) || write_only || absent)
        return E_INVAL;
    if (reg == REG_ICR) {
        *value = l->icr;
        return 0;
    }
    u32 low;
    bool known = lapic_read(l, reg, &low);
    *value = low;
    return known ? 0 : E_INVAL;
}

int platform_rdmsr(struct vcpu *v, u32 index, u64 *value)
{
    struct vlapic *l = lapic_of(v);
    if (index == MSR_APIC_BASE) {
        *value = l->apic_base;
        return 0;
    }
    if (index == MSR_TSC_DEADLINE) {
        *value = l->tsc_deadline;
        return platform_cpuid1_ecx(v->guest, CPUID1_ECX_TSC_DEADLINE) ? 0 : E_INVAL;
    }
    if (index >= MSR_X2APIC_FIRST && index <= MSR_X2APIC_LAST)
        return x2apic_read(l, index - MSR_X2APIC_FIRST, value);
    return E_NOENT;
}

int platform_wrmsr(struct vcpu *v, u32 index, u64 value)
{
    struct vlapic *l = lapic_of(v);
    if (index == MSR_APIC_BASE)
        return write_apic_base(l, value);
    if (index == MSR_TSC_DEADLINE) {
        if (!platform_cpuid1_ecx(v->guest, CPUID1_ECX_TSC_DEADLINE))
            return E_INVAL;
        spin_lock(&l->lock);
        lapic_timer_set_deadline(l, value);
        spin_unlock(&l->lock);
        return 0;
    }
    if (index >= MSR_X2APIC_FIRST && index <= MSR_X2APIC_LAST)
        return x2apic_write(l, index - MSR_X2APIC_FIRST, value);
    return E_NOENT;
}
