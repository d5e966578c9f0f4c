// SPDX-License-Identifier: MIT
// What a move carries of a local APIC, and which of that a local APIC can have come to.
#include "arch/x86/platform/lapic.h"

#include "kernel/lib.h"

const u32 lapic_lvt_bits[LVT_COUNT] = {
    [LVT_TIMER] = LVT_TIMER_BITS, [LVT_THERMAL] = LVT_LOCAL_BITS, [LVT_PERF] = LVT_LOCAL_BITS,
    [LVT_LINT0] = LVT_LINT_BITS,  [LVT_LINT1] = LVT_LINT_BITS,    [LVT_ERROR] = LVT_ERROR_BITS,
};

bool lapic_base_valid(u64 base)
{
    const u64 flags = APIC_BASE_BSP | APIC_BASE_X2APIC | APIC_BASE_ENABLED;
    if ((base & ~flags) != LAPIC_GPA)
        return false;
    return !(base & APIC_BASE_X2APIC) || (base & APIC_BASE_ENABLED);
}

// SDM 3A 10.12.10.2: the logical ID follows from the APIC ID.
u32 lapic_x2apic_ldr(u32 id)
{
    return (id >> 4) << 16 | 1u << (id & 15);
}

static bool refuse(char *err, size_t size, const char *what, u64 found)
{
    snprintf(err, size, "local APIC: %s (found 0x%llx)", what, (unsigned long long)found);
    return false;
}

static bool check_lvt(const struct vlapic *l, char *err, size_t size)
{
    for (u32 i = 0; i < LVT_COUNT; i++) {
        u32 lvt = l->lvt[i];
        if (lvt & ~lapic_lvt_bits[i])
            return refuse(err, size, "reserved bits set in a local vector", lvt);
        bool start_lint0 = i == LVT_LINT0 && lvt == APIC_EXTINT << 8;
        if (!(l->svr & SVR_ENABLED) && !(lvt & LVT_MASKED) && !start_lint0)
            return refuse(err, size, "a local vector is unmasked in a disabled APIC", lvt);
    }
    return true;
}

static bool check_timer(const struct vlapic *l, char *err, size_t size)
{
    u32 mode = LVT_TIMER_MODE(l->lvt[LVT_TIMER]);
    if (l->divide & ~0xbu)
        return refuse(err, size, "impossible timer divisor", l->divide);
    if (l->timer_running && (!l->initial_count || mode == TIMER_DEADLINE))
        return refuse(err, size, "the timer counts from nothing", l->initial_count);
    if (l->tsc_deadline && mode != TIMER_DEADLINE)
        return refuse(err, size, "a TSC deadline in another timer mode", l->tsc_deadline);
    return true;
}

static bool check(const void *copy, char *err, size_t size)
{
    const struct vlapic *l = copy;
    if (!lapic_base_valid(l->apic_base))
        return refuse(err, size, "impossible IA32_APIC_BASE", l->apic_base);
    if ((l->irr[0] | l->isr[0] | l->tmr[0]) & 0xffff)
        return refuse(err, size, "a vector below 16 is pending", l->irr[0]);
    if (lapic_x2apic(l) && l->ldr != lapic_x2apic_ldr(l->id))
        return refuse(err, size, "the x2APIC logical ID does not follow from the ID", l->ldr);
    if (!lapic_x2apic(l) && (l->ldr & 0xffffff))
        return refuse(err, size, "reserved bits in the logical ID", l->ldr);
    if ((l->dfr & 0x0fffffff) != 0x0fffffff)
        return refuse(err, size, "reserved bits in the destination format", l->dfr);
    return check_lvt(l, err, size) && check_timer(l, err, size);
}

static const struct state_field fields[] = {
    FIELD(1, FIELD_MUST_MATCH, struct vlapic, id, 1, 0, 0),
    FIELD(2, FIELD_COPY, struct vlapic, apic_base, 1, 0, 0),
    FIELD(3, FIELD_COPY, struct vlapic, tpr, 1, 0, 0xff),
    FIELD(4, FIELD_COPY, struct vlapic, ldr, 1, 0, 0),
    FIELD(5, FIELD_COPY, struct vlapic, dfr, 1, 0, 0),
    FIELD(6, FIELD_COPY, struct vlapic, svr, 1, 0, 0x3ff),
    FIELD(7, FIELD_COPY, struct vlapic, esr, 1, 0, 0xff),
    FIELD(8, FIELD_COPY, struct vlapic, errors, 1, 0, 0xff),
    FIELD(9, FIELD_COPY, struct vlapic, icr, 1, 0, 0),
    FIELD_ARRAY(10, FIELD_COPY, struct vlapic, lvt, 1),
    FIELD_ARRAY(11, FIELD_COPY, struct vlapic, irr, 1),
    FIELD_ARRAY(12, FIELD_COPY, struct vlapic, isr, 1),
    FIELD_ARRAY(13, FIELD_COPY, struct vlapic, tmr, 1),
    FIELD(14, FIELD_COPY, struct vlapic, initial_count, 1, 0, 0),
    FIELD(15, FIELD_COPY, struct vlapic, divide, 1, 0, 0),
    FIELD(16, FIELD_COPY, struct vlapic, timer_running, 1, 0, 1),
    FIELD(17, FIELD_COPY, struct vlapic, timer_start, 1, 0, 0),
    FIELD(18, FIELD_COPY, struct vlapic, timer_next, 1, 0, 0),
    FIELD(19, FIELD_COPY, struct vlapic, tsc_deadline, 1, 0, 0),
    FIELD(20, FIELD_COPY, struct vlapic, init_pending, 1, 0, 1),
    FIELD(21, FIELD_COPY, struct vlapic, sipi_pending, 1, 0, 1),
    FIELD(22, FIELD_COPY, struct vlapic, sipi_vector, 1, 0, 0),
    FIELD_LAST,
};

const struct state_table lapic_state = {
    .name = "lapic",
    .version = 1,
    .fields = fields,
    .check = check,
    .struct_size = sizeof(struct vlapic),
};
