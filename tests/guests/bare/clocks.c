// SPDX-License-Identifier: MIT
// The PC's three periodic interrupts, at rates of their own, counted.
#include "bare.h"

#define PIT_HZ          1193182u
#define PIT_RATE        100u
#define RTC_RATE        64u
#define RTC_LINE        8u
#define RTC_RATE_64     10u
#define SPURIOUS_VECTOR 0xffu
#define APIC_PERIODIC   0x20000u
#define APIC_MASKED     0x10000u
#define APIC_ENABLE     0x100u
#define DIVIDE_BY_16    3u
#define APIC_RATE       50u

const uint32_t clock_rate[CLOCKS] = {PIT_RATE, RTC_RATE, APIC_RATE};
volatile uint32_t clock_count[CLOCKS];

static void on_pit(struct frame *frame)
{
    (void)frame;
    clock_count[CLOCK_PIT]++;
    pic_end(0);
}

static uint8_t cmos_read(uint8_t reg)
{
    outb(0x70, reg);
    return inb(0x71);
}

static void cmos_write(uint8_t reg, uint8_t value)
{
    outb(0x70, reg);
    outb(0x71, value);
}

void rtc_end(void)
{
    cmos_read(0x0c);
}

static void on_rtc(struct frame *frame)
{
    (void)frame;
    clock_count[CLOCK_RTC]++;
    rtc_end();
    pic_end(RTC_LINE);
}

static void on_apic(struct frame *frame)
{
    (void)frame;
    clock_count[CLOCK_APIC]++;
    apic_write(APIC_EOI, 0);
}

static void on_spurious(struct frame *frame)
{
    (void)frame;
}

static void pit_start(void)
{
    uint32_t divisor = PIT_HZ / PIT_RATE;

    interrupt_set(IRQ_VECTOR, on_pit);
    outb(0x43, 0x34);
    outb(0x40, (uint8_t)divisor);
    outb(0x40, (uint8_t)(divisor >> 8));
    pic_unmask(0);
}

static void rtc_start(void)
{
    interrupt_set(IRQ_VECTOR + RTC_LINE, on_rtc);
    cmos_write(0x0a, (uint8_t)((cmos_read(0x0a) & 0xf0) | RTC_RATE_64));
    cmos_write(0x0b, cmos_read(0x0b) | 0x40);
    cmos_read(0x0c);
    pic_unmask(RTC_LINE);
}

void wait_pm(uint32_t ticks)
{
    uint32_t start = pm_timer();
    while (((pm_timer() - start) & PM_TIMER_MASK) < ticks)
        ;
}

// Lets the timer run down from its top for 50 ms, in one-shot mode, and returns its ticks a second.
uint32_t apic_calibrate(void)
{
    interrupt_set(SPURIOUS_VECTOR, on_spurious);
    apic_write(APIC_SPURIOUS, APIC_ENABLE | SPURIOUS_VECTOR);
    apic_write(APIC_TIMER_DIVIDE, DIVIDE_BY_16);
    apic_write(APIC_LVT_TIMER, APIC_MASKED | APIC_TIMER_VECTOR);
    apic_write(APIC_TIMER_INITIAL, 0xffffffffu);
    wait_pm(PM_TIMER_HZ / 20);
    uint32_t left = apic_read(APIC_TIMER_CURRENT);
    apic_write(APIC_TIMER_INITIAL, 0);
    return (0xffffffffu - left) * 20;
}

bool apic_one_shot(uint32_t hz)
{
    interrupt_set(APIC_TIMER_VECTOR, on_apic);
    clock_count[CLOCK_APIC] = 0;
    apic_write(APIC_LVT_TIMER, APIC_TIMER_VECTOR);
    apic_write(APIC_TIMER_INITIAL, hz / 100);
    wait_pm(PM_TIMER_HZ / 33);
    return clock_count[CLOCK_APIC] == 1;
}

static void apic_start(uint32_t hz)
{
    interrupt_set(APIC_TIMER_VECTOR, on_apic);
    apic_write(APIC_LVT_TIMER, APIC_PERIODIC | APIC_TIMER_VECTOR);
    apic_write(APIC_TIMER_INITIAL, hz / APIC_RATE);
}

void clocks_start(uint32_t apic_hz)
{
    pit_start();
    rtc_start();
    apic_start(apic_hz);
    for (unsigned i = 0; i < CLOCKS; i++)
        clock_count[i] = 0;
}

void clocks_stop(void)
{
    pic_mask(0);
    pic_mask(RTC_LINE);
    apic_write(APIC_TIMER_INITIAL, 0);
}
