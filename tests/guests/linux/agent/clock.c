// SPDX-License-Identifier: MIT
// Reads the guest's clocks and reports any that stepped back.
#include <inttypes.h>
#include <time.h>

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
