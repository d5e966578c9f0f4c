// SPDX-License-Identifier: MIT
// Counts up in one page after the other, each for hold=MICROSECONDS (default 2000), and never touches
// it again before all pages=N (default 8192, from 16 MiB up) have had their turn. Nothing in the loop
// makes it exit, and no interrupt is wanted: what a page holds at the end it may have got through a
// translation that the CPU has had for milliseconds.
#include "bare.h"

#define WORK_BASE 0x1000000u
#define US_PER_S  1000000u

static uint32_t tsc_per_us(void)
{
    uint32_t ticks = PM_TIMER_HZ / 100, start = pm_timer();
    uint64_t tsc = rdtsc();

    while (((pm_timer() - start) & PM_TIMER_MASK) < ticks)
        ;
    tsc = rdtsc() - tsc;
    divide(&tsc, US_PER_S / 100);
    return (uint32_t)tsc;
}

void bare_main(const char *command_line)
{
    uint32_t pages = 8192, hold_us = 2000, count = 0;

    option(command_line, "pages", &pages);
    option(command_line, "hold", &hold_us);
    uint32_t hold = hold_us * tsc_per_us();
    interrupts_init();
    __asm__ volatile("sti"); // hosts look after one that keeps interrupts off more often
    print("TRAIL-READY pages %u hold %u us, %u ticks\n", pages, hold_us, hold);
    for (uint32_t page = 0;; page = (page + 1) % pages) {
        volatile uint32_t *word = (uint32_t *)(WORK_BASE + page * 4096u);
        uint64_t start = rdtsc();
        while (rdtsc() - start < hold)
            *word = ++count;
    }
}
