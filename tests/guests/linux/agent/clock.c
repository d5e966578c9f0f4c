// SPDX-License-Identifier: MIT
// Reads the guest's clocks and reports any that stepped back.
#include <inttypes.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "agent.h"

static uint64_t read_ns(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void check(const char *name, uint64_t now, uint64_t before)
{
    if (now < before)
        agent_error("clock %s went back from %" PRIu64 " to %" PRIu64, name, before, now);
}

// Those nobody here goes by; two of them past the vDSO as well.
void clock_check_others(void)
{
    static const struct {
        clockid_t id;
        const char *name;
    } clocks[] = {
        {CLOCK_BOOTTIME, "boottime"},
        {CLOCK_TAI, "tai"},
        {CLOCK_MONOTONIC_RAW, "monotonic_raw"},
        {CLOCK_MONOTONIC_COARSE, "monotonic_coarse"},
        {CLOCK_REALTIME_COARSE, "realtime_coarse"},
        {CLOCK_MONOTONIC, "monotonic by system call"},
        {CLOCK_REALTIME, "realtime by system call"},
    };
    enum { COUNT = sizeof clocks / sizeof *clocks, BY_SYSTEM_CALL = COUNT - 2 };
    static uint64_t last[COUNT];
    for (unsigned i = 0; i < COUNT; i++) {
        struct timespec now;
        if (i < BY_SYSTEM_CALL)
            clock_gettime(clocks[i].id, &now);
        else
            syscall(SYS_clock_gettime, clocks[i].id, &now);
        uint64_t ns = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
        check(clocks[i].name, ns, last[i]);
        last[i] = ns;
    }
}

struct clock_sample clock_check(void)
{
    static struct clock_sample last;
    struct clock_sample now = {
        .monotonic_ns = read_ns(CLOCK_MONOTONIC),
        .realtime_ns = read_ns(CLOCK_REALTIME),
        .tsc = rdtsc(),
    };
    check("monotonic", now.monotonic_ns, last.monotonic_ns);
    check("realtime", now.realtime_ns, last.realtime_ns);
    check("tsc", now.tsc, last.tsc);
    last = now;
    return now;
}
