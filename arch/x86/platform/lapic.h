// SPDX-License-Identifier: MIT
// The guest's local APIC, between its own files: registers, messages, timer, MSRs, state.
#ifndef SKIFF_PLATFORM_LAPIC_H
#define SKIFF_PLATFORM_LAPIC_H

#include "arch/x86/platform/platform.h"

// Register numbers: MMIO offset / 16, and x2APIC MSR - 0x800 (SDM 3A tables 10-1 and 10-6).
enum lapic_reg {
    REG_ID = 0x02,
    REG_VERSION = 0x03,
    REG_TPR = 0x08,
    REG_APR = 0x09,
    REG_PPR = 0x0a,
    REG_EOI = 0x0b,
    REG_LDR = 0x0d,
    REG_DFR = 0x0e,
    REG_SVR = 0x0f,
    REG_ISR = 0x10,
    REG_TMR = 0x18,
    REG_IRR = 0x20,
    REG_ESR = 0x28,
    REG_ICR = 0x30,
    REG_ICR_HIGH = 0x31,
    REG_LVT = 0x32,
    REG_INITIAL = 0x38,
    REG_CURRENT = 0x39,
    REG_DIVIDE = 0x3e,
    REG_SELF_IPI = 0x3f,
};

enum lvt { LVT_TIMER, LVT_THERMAL, LVT_PERF, LVT_LINT0, LVT_LINT1, LVT_ERROR, LVT_COUNT };

#define LVT_MASKED           BIT(16)
#define LVT_MODE(lvt)        ((lvt) >> 8 & 7)
#define LVT_TIMER_MODE(lvt)  ((lvt) >> 17 & 3)
#define TIMER_ONESHOT        0
#define TIMER_PERIODIC       1
#define TIMER_DEADLINE       2
#define SVR_ENABLED          BIT(8)
#define APIC_BASE_BSP        BIT(8)
#define APIC_BASE_X2APIC     BIT(10)
#define APIC_BASE_ENABLED    BIT(11)
#define LAPIC_VERSION        (0x14 | (LVT_COUNT - 1) << 16)
#define ESR_SEND_ILLEGAL     BIT(5)
#define ESR_RECEIVE_ILLEGAL  BIT(6)
#define ESR_REGISTER_ILLEGAL BIT(7)

struct vlapic {
    struct vcpu *vcpu;
    struct spinlock lock;   // everything below
    volatile bool requests; // irr is not empty; the vCPU's own thread reads it without the lock
    struct gtimer timer;
    // State, see lapic_state.c. Times are guest clock ticks.
    u32 id;
    u64 apic_base;
    u32 tpr, ldr, dfr, svr;
    u32 esr, errors; // as last latched by a write; collected since then
    u64 icr;
    u32 lvt[LVT_COUNT];
    u32 irr[8], isr[8], tmr[8];
    u32 initial_count, divide;
    u8 timer_running; // one-shot or periodic, and not run out
    u64 timer_start;  // when the count was initial_count
    u64 timer_next;   // when the count reaches zero next
    u64 tsc_deadline; // IA32_TSC_DEADLINE, in the TSC this vCPU sees; 0: disarmed
    u8 init_pending, sipi_pending, sipi_vector;
};

static inline struct vlapic *lapic_of(const struct vcpu *v)
{
    return v->lapic;
}
static inline bool lapic_enabled(const struct vlapic *l)
{
    return l->apic_base & APIC_BASE_ENABLED;
}
static inline bool lapic_x2apic(const struct vlapic *l)
{
    return l->apic_base & APIC_BASE_X2APIC;
}

// Bit vectors of 256 interrupt vectors.
static inline bool vector_test(const u32 *bits, u32 vector)
{
    return bits[vector >> 5] >> (vector & 31) & 1;
}
static inline void vector_set(u32 *bits, u32 vector)
{
    bits[vector >> 5] |= 1u << (vector & 31);
}
static inline void vector_clear(u32 *bits, u32 vector)
{
    bits[vector >> 5] &= ~(1u << (vector & 31));
}
int vector_highest(const u32 *bits); // -1: none

// lapic.c
u32 lapic_ppr(const struct vlapic *l);        // lock held
void lapic_registers_reset(struct vlapic *l); // lock held; APIC base and requests to start up stay
// A register by number. False when there is none of this number (then *value is 0).
bool lapic_read(struct vlapic *l, u32 reg, u32 *value);
bool lapic_write(struct vlapic *l, u32 reg, u32 value);
void lapic_kick(struct vlapic *l); // makes the vCPU look for interrupts before it runs on

// lapic_message.c. Lock held for the first two.
void lapic_accept(struct vlapic *l, u8 vector, bool level);
void lapic_error(struct vlapic *l, u32 esr_bit);
void lapic_send_icr(struct vlapic *l); // lock not held

// lapic_timer.c. Lock held.
void lapic_timer_set_initial(struct vlapic *l, u32 value);
void lapic_timer_set_divide(struct vlapic *l, u32 value);
void lapic_timer_set_lvt(struct vlapic *l, u32 value);
void lapic_timer_set_deadline(struct vlapic *l, u64 value);
u32 lapic_timer_current(struct vlapic *l);
void lapic_timer_stop(struct vlapic *l); // disarms and forgets
void lapic_timer_arm(struct vlapic *l);  // from the state
void lapic_timer_fire(void *lapic);      // the guest-time timer; takes the lock

// lapic_state.c
#define LVT_TIMER_BITS 0x700ffu
#define LVT_LOCAL_BITS 0x107ffu // thermal, performance
#define LVT_LINT_BITS  0x1a7ffu
#define LVT_ERROR_BITS 0x100ffu
extern const u32 lapic_lvt_bits[LVT_COUNT];
bool lapic_base_valid(u64 apic_base);
u32 lapic_x2apic_ldr(u32 id);

#endif
