// SPDX-License-Identifier: MIT
// Runs the PIT, the RTC and the local APIC timer side by side and counts their interrupts against
// the PM timer, once a second for seconds=N (default 3): the guest for tests of clocks over time
// and across a move.
#include "bare.h"

#define PIT_HZ          1193182u
#define PIT_RATE        100u
#define RTC_RATE        64u
#define RTC_LINE        8u
#define RTC_RATE_64     10u
#define APIC_VECTOR     0x50u
#define SPURIOUS_VECTOR 0xffu
#define APIC_PERIODIC   0x20000u
#define APIC_MASKED     0x10000u
#define APIC_ENABLE     0x100u
#define DIVIDE_BY_16    3u
#define APIC_RATE       50u

static volatile uint32_t pit_count, rtc_count, apic_count;

static void on_pit(struct frame *frame)
{
    (void)frame;
    pit_count++;
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

static void on_rtc(struct frame *frame)
{
    (void)frame;
    rtc_count++;
    cmos_read(0x0c);
    pic_end(RTC_LINE);
}

static void on_apic(struct frame *frame)
{
    (void)frame;
    apic_count++;
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

static void wait_pm(uint32_t ticks)
{
    uint32_t start = pm_timer();
    while (((pm_timer() - start) & PM_TIMER_MASK) < ticks)
        ;
}

// Lets the timer run down from its top for 50 ms, in one-shot mode, and returns its ticks a second.
static uint32_t apic_calibrate(void)
{
    apic_write(APIC_SPURIOUS, APIC_ENABLE | SPURIOUS_VECTOR);
    apic_write(APIC_TIMER_DIVIDE, DIVIDE_BY_16);
    apic_write(APIC_LVT_TIMER, APIC_MASKED | APIC_VECTOR);
    apic_write(APIC_TIMER_INITIAL, 0xffffffffu);
    wait_pm(PM_TIMER_HZ / 20);
    uint32_t left = apic_read(APIC_TIMER_CURRENT);
    apic_write(APIC_TIMER_INITIAL, 0);
    return (0xffffffffu - left) * 20;
}

// One shot of 10 ms fires once and not again within 30 ms.
static bool apic_one_shot(uint32_t hz)
{
    apic_count = 0;
    apic_write(APIC_LVT_TIMER, APIC_VECTOR);
    apic_write(APIC_TIMER_INITIAL, hz / 100);
    wait_pm(PM_TIMER_HZ / 33);
    return apic_count == 1;
}

static void apic_start(uint32_t hz)
{
    apic_count = 0;
    apic_write(APIC_LVT_TIMER, APIC_PERIODIC | APIC_VECTOR);
    apic_write(APIC_TIMER_INITIAL, hz / APIC_RATE);
}

// Halts until a second of PM-timer time has passed; every turn is far shorter than the timer's 4.6
// s period.
static void halt_one_second(uint32_t *from)
{
    while (((pm_timer() - *from) & PM_TIMER_MASK) < PM_TIMER_HZ)
        __asm__ volatile("hlt");
    *from = (*from + PM_TIMER_HZ) & PM_TIMER_MASK;
}

void bare_main(const char *command_line)
{
    uint32_t seconds = 3;

    option(command_line, "seconds", &seconds);
    interrupt_set(APIC_VECTOR, on_apic);
    interrupt_set(SPURIOUS_VECTOR, on_spurious);
    uint32_t hz = apic_calibrate();
    print("TIMERS apic_hz=%u\n", hz);
    __asm__ volatile("sti");
    print("TIMERS one-shot %s\n", apic_one_shot(hz) ? "ok" : "FAILED");
    pit_start();
    rtc_start();
    apic_start(hz);
    pit_count = rtc_count = apic_count = 0;
    uint32_t from = pm_timer();
    for (uint32_t second = 1; second <= seconds; second++) {
        halt_one_second(&from);
        print("TIMERS second=%u pit=%u rtc=%u apic=%u\n", second, pit_count, rtc_count, apic_count);
    }
    print("TIMERS-END pit=%u rtc=%u apic=%u wanted pit=%u rtc=%u apic=%u\n", pit_count, rtc_count,
          apic_count, seconds * PIT_RATE, seconds * RTC_RATE, seconds * APIC_RATE);
}
