// SPDX-License-Identifier: MIT
// Wall-clock time from the host's CMOS real-time clock (MC146818), taken to run in UTC.
#include "arch/x86/cpu.h"
#include "kernel/lib.h"

#define CMOS_INDEX 0x70
#define CMOS_DATA  0x71

enum { SECONDS = 0, MINUTES = 2, HOURS = 4, DAY = 7, MONTH = 8, YEAR = 9, STATUS_A = 10, STATUS_B };

static u8 cmos_read(u8 reg)
{
    out8(CMOS_INDEX, reg | 0x80); // bit 7 keeps NMI off between the two accesses
    u8 v = in8(CMOS_DATA);
    out8(CMOS_INDEX, STATUS_A);
    return v;
}

struct date {
    u8 field[10];
};

static void read_fields(struct date *d)
{
    static const u8 regs[] = {SECONDS, MINUTES, HOURS, DAY, MONTH, YEAR};
    for (u32 i = 0; i < 1000000 && (cmos_read(STATUS_A) & 0x80); i++)
        cpu_relax(); // an update runs; it lasts 2 ms at most
    for (u32 i = 0; i < ARRAY_SIZE(regs); i++)
        d->field[regs[i]] = cmos_read(regs[i]);
}

static u32 from_bcd(u8 v, bool binary)
{
    return binary ? v : (v >> 4) * 10u + (v & 15);
}

// Days from 1970-01-01 to a date of the Gregorian calendar; years start in March, so that the leap
// day is the last.
static u64 days(u32 y, u32 m, u32 d)
{
    y -= m <= 2;
    u32 day_of_year = (153 * (m + (m > 2 ? -3u : 9u)) + 2) / 5 + d - 1;
    return 365ull * y + y / 4 - y / 100 + y / 400 + day_of_year - 719468;
}

void arch_read_wallclock(u64 *unix_seconds)
{
    struct date a = {0}, b = {0};
    u64 flags = irq_save();
    do { // twice the same: no update came in between
        read_fields(&a);
        read_fields(&b);
    } while (memcmp(&a, &b, sizeof(a)) != 0);
    u8 status = cmos_read(STATUS_B);
    irq_restore(flags);

    bool binary = status & 0x04, pm = a.field[HOURS] & 0x80;
    u32 hour = from_bcd(a.field[HOURS] & 0x7f, binary);
    if (!(status & 0x02))
        hour = hour % 12 + (pm ? 12 : 0);
    u32 year = 2000 + from_bcd(a.field[YEAR], binary);
    u64 day = days(year, from_bcd(a.field[MONTH], binary), from_bcd(a.field[DAY], binary));
    *unix_seconds = day * 86400 + hour * 3600 + from_bcd(a.field[MINUTES], binary) * 60 +
                    from_bcd(a.field[SECONDS], binary);
}
