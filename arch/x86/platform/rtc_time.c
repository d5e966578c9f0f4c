// SPDX-License-Identifier: MIT
// The calendar of the RTC: Unix seconds to its registers' fields and back, and its alarm.
#include "arch/x86/platform/rtc_time.h"

#define DAY 86400u

// Days since 1970-01-01 of a date. Years are counted from March, so that leap days come last.
static u64 days_from_date(u32 year, u32 month, u32 day)
{
    u32 y = month <= 2 ? year - 1 : year;
    u32 m = month <= 2 ? month + 9 : month - 3;
    u64 leap = y / 4 - y / 100 + y / 400;
    return (u64)y * 365 + leap + (m * 153 + 2) / 5 + day - 1 - 719468;
}

static u32 days_in_month(u32 year, u32 month)
{
    bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    if (month == 2)
        return leap ? 29 : 28;
    return month == 4 || month == 6 || month == 9 || month == 11 ? 30 : 31;
}

struct rtc_fields rtc_from_unix(u64 seconds)
{
    // The registers hold years 0 to 9999 (two digits and a century).
    const u64 last = days_from_date(9999, 12, 31);
    u64 days = MIN(seconds / DAY, last);
    u32 in_day = (u32)(seconds % DAY), year = 1970 + (u32)(days / 366), month = 1;
    while (days_from_date(year + 1, 1, 1) <= days)
        year++;
    u32 left = (u32)(days - days_from_date(year, 1, 1));
    for (; left >= days_in_month(year, month); month++)
        left -= days_in_month(year, month);
    return (struct rtc_fields){
        .second = in_day % 60,
        .minute = in_day / 60 % 60,
        .hour = in_day / 3600,
        .weekday = (u32)((days + 4) % 7) + 1, // 1970-01-01 was a Thursday
        .day = left + 1,
        .month = month,
        .year = year,
    };
}

u64 rtc_to_unix(const struct rtc_fields *f)
{
    u32 year = MIN(MAX(f->year, 1970u), 9999u);
    u32 month = f->month ? (f->month - 1) % 12 + 1 : 1;
    u32 day = f->day ? (f->day - 1) % 31 + 1 : 1;
    return days_from_date(year, month, day) * DAY + f->hour % 24 * 3600 + f->minute % 60 * 60 +
           f->second % 60;
}

static bool match(u32 alarm, u32 value)
{
    return alarm == ALARM_ANY || alarm == value;
}

static bool possible(const struct rtc_alarm *a)
{
    return (a->second < 60 || a->second == ALARM_ANY) &&
           (a->minute < 60 || a->minute == ALARM_ANY) && (a->hour < 24 || a->hour == ALARM_ANY);
}

// The first matching second at or after `from` within the hour that begins at `start`, or ~0.
static u32 match_in_hour(const struct rtc_alarm *a, u32 start, u32 from)
{
    u32 first = from > start ? from - start : 0;
    for (u32 minute = first / 60; minute < 60; minute++) {
        if (!match(a->minute, minute))
            continue;
        for (u32 second = minute == first / 60 ? first % 60 : 0; second < 60; second++)
            if (match(a->second, second))
                return start + minute * 60 + second;
    }
    return ~0u;
}

u32 rtc_alarm_delay(const struct rtc_alarm *a, u32 now)
{
    if (!possible(a))
        return 0;
    u32 from = now + 1;
    // The last turn looks at this hour again, tomorrow.
    for (u32 hour = from / 3600; hour <= from / 3600 + 24; hour++) {
        if (!match(a->hour, hour % 24))
            continue;
        u32 at = match_in_hour(a, hour * 3600, from);
        if (at != ~0u)
            return at - now;
    }
    return 0;
}
