// SPDX-License-Identifier: MIT
// The calendar of the RTC: Unix seconds to its registers' fields and back, and its alarm.
#ifndef SKIFF_PLATFORM_RTC_TIME_H
#define SKIFF_PLATFORM_RTC_TIME_H

#include "kernel/types.h"

struct rtc_fields { // binary, 24 hours
    u32 second, minute, hour;
    u32 weekday;          // 1 is Sunday
    u32 day, month, year; // year in full
};

struct rtc_fields rtc_from_unix(u64 seconds);
// Fields out of range are taken modulo what they can be, years cut to 1970 to 9999.
u64 rtc_to_unix(const struct rtc_fields *f);

#define ALARM_ANY 0xff
struct rtc_alarm { // values, or ALARM_ANY
    u32 second, minute, hour;
};
// Seconds from the time of day `now` (0 to 86399) to the next match, 1 to 86400; 0: never.
u32 rtc_alarm_delay(const struct rtc_alarm *a, u32 now);

#endif
