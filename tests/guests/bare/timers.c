// SPDX-License-Identifier: MIT
// Runs the PIT, the RTC and the local APIC timer side by side and counts their interrupts against
// the PM timer, once a second for seconds=N (default 3): the guest for tests of clocks over time.
#include "bare.h"

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
    uint32_t hz = apic_calibrate();
    print("TIMERS apic_hz=%u\n", hz);
    __asm__ volatile("sti");
    print("TIMERS one-shot %s\n", apic_one_shot(hz) ? "ok" : "FAILED");
    clocks_start(hz);
    uint32_t from = pm_timer();
    for (uint32_t second = 1; second <= seconds; second++) {
        halt_one_second(&from);
        print("TIMERS second=%u pit=%u rtc=%u apic=%u\n", second, clock_count[CLOCK_PIT],
              clock_count[CLOCK_RTC], clock_count[CLOCK_APIC]);
    }
    print("TIMERS-END pit=%u rtc=%u apic=%u wanted pit=%u rtc=%u apic=%u\n",
          clock_count[CLOCK_PIT], clock_count[CLOCK_RTC], clock_count[CLOCK_APIC],
          seconds * clock_rate[CLOCK_PIT], seconds * clock_rate[CLOCK_RTC],
          seconds * clock_rate[CLOCK_APIC]);
}
