// SPDX-License-Identifier: MIT
// The host's local APIC, in x2APIC mode where the CPU has it (SDM 3A 11).
#include "arch/x86/apic.h"
#include "arch/x86/cpu.h"
#include "arch/x86/msr.h"
#include "kernel/lib.h"

// Register numbers: an offset of 16 times that in xAPIC mode, an MSR in x2APIC mode (table 11-6).
enum {
    REG_ID = 0x02,
    REG_TPR = 0x08,
    REG_EOI = 0x0b,
    REG_SPURIOUS = 0x0f,
    REG_IRR = 0x20, // eight of them
    REG_ICR = 0x30, // both halves in x2APIC mode
    REG_ICR_HIGH = 0x31,
    REG_LVT_TIMER = 0x32,
    REG_LVT_LINT0 = 0x35,
    REG_LVT_LINT1 = 0x36,
    REG_LVT_ERROR = 0x37,
    REG_TIMER_INITIAL = 0x38,
    REG_TIMER_CURRENT = 0x39,
    REG_TIMER_DIVIDE = 0x3e,
};

#define LVT_MASKED         BIT(16)
#define LVT_NMI            (4 << 8)
#define LVT_TIMER_DEADLINE (2 << 17)
#define SPURIOUS_ENABLE    BIT(8)
#define DIVIDE_BY_1        0xb
#define ICR_BUSY           BIT(12)
#define ICR_ASSERT         BIT(14)
#define ICR_NMI            (4 << 8)
#define ICR_INIT           (5 << 8)
#define ICR_STARTUP        (6 << 8)
#define ICR_ALL_OTHERS     (3 << 18)

static volatile u8 *base; // xAPIC registers; NULL in x2APIC mode

static u32 reg_read(u32 reg)
{
    if (base == NULL)
        return (u32)rdmsr(MSR_X2APIC + reg);
    return *(volatile u32 *)(base + reg * 16);
}

static void reg_write(u32 reg, u32 value)
{
    if (base == NULL)
        wrmsr(MSR_X2APIC + reg, value);
    else
        *(volatile u32 *)(base + reg * 16) = value;
}

void lapic_init(void)
{
    u64 where = rdmsr(MSR_APIC_BASE) | APIC_BASE_ENABLE;
    wrmsr(MSR_APIC_BASE, where);
    if (host_features.x2apic) {
        wrmsr(MSR_APIC_BASE, where | APIC_BASE_X2APIC);
    } else if (base == NULL) { // all CPUs' are at one address
        base = map_mmio(where & 0xffffff000ull, PAGE_SIZE);
        if (base == NULL)
            panic("the local APIC cannot be mapped");
    }
    reg_write(REG_LVT_TIMER, LVT_MASKED);
    reg_write(REG_LVT_LINT0, LVT_MASKED); // the PIC, which is not used
    reg_write(REG_LVT_LINT1, LVT_NMI);
    reg_write(REG_LVT_ERROR, VECTOR_ERROR);
    reg_write(REG_SPURIOUS, SPURIOUS_ENABLE | VECTOR_SPURIOUS);
    reg_write(REG_TPR, 0);
    this_cpu()->apic_id = lapic_id();
}

u32 lapic_id(void)
{
    u32 id = reg_read(REG_ID);
    return base == NULL ? id : id >> 24;
}

void lapic_eoi(void)
{
    reg_write(REG_EOI, 0);
}

static void send(u32 apic_id, u32 command)
{
    if (base == NULL) {
        // A WRMSR to the ICR does not wait for earlier stores (SDM 3A 11.12.3): what the woken CPU
        // is to see must be visible before.
        __asm__ volatile("mfence; lfence" : : : "memory");
        wrmsr(MSR_X2APIC + REG_ICR, (u64)apic_id << 32 | command);
        return;
    }
    u64 flags = irq_save();
    while (reg_read(REG_ICR) & ICR_BUSY)
        cpu_relax();
    reg_write(REG_ICR_HIGH, apic_id << 24);
    reg_write(REG_ICR, command);
    irq_restore(flags);
}

void lapic_send(u32 apic_id, u8 vector)
{
    send(apic_id, ICR_ASSERT | vector);
}

void lapic_send_init(u32 apic_id)
{
    send(apic_id, ICR_ASSERT | ICR_INIT);
}

void lapic_send_startup(u32 apic_id, u8 page)
{
    send(apic_id, ICR_ASSERT | ICR_STARTUP | page);
}

void lapic_nmi_others(void)
{
    send(0, ICR_ASSERT | ICR_NMI | ICR_ALL_OTHERS);
}

void lapic_timer_oneshot(void)
{
    reg_write(REG_TIMER_DIVIDE, DIVIDE_BY_1);
    reg_write(REG_LVT_TIMER, VECTOR_TIMER);
}

void lapic_timer_start(u32 count)
{
    reg_write(REG_TIMER_INITIAL, count);
}

u32 lapic_timer_left(void)
{
    return reg_read(REG_TIMER_CURRENT);
}

bool lapic_timer_pending(void)
{
    return reg_read(REG_IRR + VECTOR_TIMER / 32) & BIT(VECTOR_TIMER % 32);
}

void lapic_timer_deadline_mode(void)
{
    reg_write(REG_LVT_TIMER, LVT_TIMER_DEADLINE | VECTOR_TIMER);
    // The mode must be set before the first deadline is written (SDM 3A 11.5.4.1).
    __asm__ volatile("mfence" : : : "memory");
}
