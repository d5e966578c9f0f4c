// SPDX-License-Identifier: MIT
// The agent's main loop: writes and checks pages, and the disk if asked, at a given pace, keeps
// registers live meanwhile, and sends heartbeats.
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/reboot.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include "agent.h"

#define NS_PER_MS  1000000u
#define NS_PER_S   1000000000u
#define TURN_NS    (10u * NS_PER_MS)
#define PAGE_BYTES 4096u

struct work {
    const struct work_options *options;
    uint64_t start_ns, write_base, check_base; // what the rates count from
    uint64_t next_heartbeat_ns;
    uint64_t sequence, turn, disk_steps;
    bool quit;
};

static void print_heartbeat(struct work *work, struct clock_sample now)
{
    struct pages_stats stats = pages_stats();

    printf("HB %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 "\n",
           work->sequence++, now.monotonic_ns, now.tsc, stats.written, stats.checked,
           agent_errors());
}

static void print_stats(const struct work *work, struct clock_sample now)
{
    struct pages_stats stats = pages_stats();
    struct cpus_stats cpus = cpus_stats();

    printf("AGENT-STATS {\"heartbeats\": %" PRIu64 ", \"monotonic_ns\": %" PRIu64
           ", \"tsc\": %" PRIu64 ", \"pages\": %" PRIu64 ", \"written\": %" PRIu64
           ", \"checked\": %" PRIu64 ", \"sweeps\": %" PRIu64 ", \"timers\": %" PRIu64
           ", \"wakes\": %" PRIu64 ", \"start_max_ns\": %" PRIu64 ", \"shootdown_max_ns\": %" PRIu64
           ", \"registers\": \"%s\", \"errors\": %" PRIu64 "}\n",
           work->sequence, now.monotonic_ns, now.tsc, stats.count, stats.written, stats.checked,
           stats.sweeps, cpus.timers, cpus.wakes, cpus.start_max_ns, cpus.shootdown_max_ns,
           registers_level(), agent_errors());
}

static void obey(struct work *work, const char *line, struct clock_sample now)
{
    if (!strcmp(line, "quit")) {
        work->quit = true;
    } else if (!strcmp(line, "reboot")) {
        sync();
        reboot(RB_AUTOBOOT);
        agent_error("the kernel does not reboot");
    } else if (!strcmp(line, "dmesg")) {
        control_print_kernel_warnings();
    } else if (!strcmp(line, "start-cpu")) {
        control_start_cpu();
    } else if (!strcmp(line, "stats")) {
        print_stats(work, now);
    } else if (!strcmp(line, "verify")) {
        pages_check_all();
        if (work->options->disk_rate)
            disk_verify();
        print_stats(work, clock_check());
    } else {
        printf("AGENT-UNKNOWN '%s': dmesg, quit, reboot, start-cpu, stats or verify wanted\n", line);
    }
}

// How many pages are due at a rate, given how many have been done; 0 as a rate is one a call, for
// ever.
static uint64_t due(uint64_t rate, uint64_t elapsed_ns, uint64_t done)
{
    if (rate == 0)
        return 1;
    uint64_t target = elapsed_ns / NS_PER_S * rate + elapsed_ns % NS_PER_S * rate / NS_PER_S;
    return target > done ? target - done : 0;
}

static uint64_t elapsed_ns(const struct work *work)
{
    return clock_check().monotonic_ns - work->start_ns;
}

// Does what is due for at most one turn of TURN_NS, so that heartbeats go on when the CPU can't
// follow the rates.
static void do_pages(const struct work *work)
{
    uint64_t begin = elapsed_ns(work), now = begin;

    if (pages_stats().count == 0)
        return;
    do {
        bool write = due(work->options->rate, now, pages_stats().written - work->write_base) > 0;
        bool check =
            due(work->options->check_rate, now, pages_stats().checked - work->check_base) > 0;
        if (write)
            pages_write_next();
        if (check)
            pages_check_next();
        if (!write && !check)
            return;
        now = elapsed_ns(work);
    } while (now < begin + TURN_NS);
}

// The same with the disk.
static void do_disk(struct work *work)
{
    uint64_t rate = work->options->disk_rate, begin = elapsed_ns(work), now = begin;

    for (; rate && due(rate, now, work->disk_steps) && now < begin + TURN_NS;
         now = elapsed_ns(work))
        work->disk_steps += disk_step(1);
}

// How long nothing is due: a turn, or up to the next heartbeat when there is no memory to work on.
static uint64_t sleep_ns(const struct work *work, uint64_t now_ns)
{
    bool unlimited =
        pages_stats().count && (work->options->rate == 0 || work->options->check_rate == 0);
    uint64_t left = work->next_heartbeat_ns > now_ns ? work->next_heartbeat_ns - now_ns : 0;

    if (unlimited)
        return 0;
    return pages_stats().count && left > TURN_NS ? TURN_NS : left;
}

// One turn: registers are loaded first and checked last, and stay live through work and sleep;
// unless an error was printed, which uses them.
static void turn(struct work *work)
{
    char line[64];
    uint64_t seed = splitmix64(++work->turn), errors = agent_errors();

    do_disk(work);
    registers_load(seed);
    do_pages(work);
    clock_check_others();
    bool typed = control_wait(sleep_ns(work, clock_check().monotonic_ns), line, sizeof line);
    if (agent_errors() == errors)
        registers_check(seed);

    struct clock_sample now = clock_check();
    cpus_check(now.monotonic_ns);
    if (now.monotonic_ns >= work->next_heartbeat_ns) {
        print_heartbeat(work, now);
        uint64_t period = work->options->heartbeat_ms * (uint64_t)NS_PER_MS;
        work->next_heartbeat_ns +=
            ((now.monotonic_ns - work->next_heartbeat_ns) / period + 1) * period;
    }
    if (typed)
        obey(work, line, now);
}

int work_run(const struct work_options *options)
{
    struct work work = {.options = options};
    struct sysinfo system;

    control_open();
    sysinfo(&system);
    uint64_t count = system.totalram * system.mem_unit / PAGE_BYTES * options->permille / 1000;
    if (count && !pages_create(count)) {
        agent_error("no memory for %" PRIu64 " pages", count);
        return 1;
    }
    if (options->disk_rate && !disk_open())
        return 1;
    work.start_ns = work.next_heartbeat_ns = clock_check().monotonic_ns;
    work.write_base = pages_stats().written;
    work.check_base = pages_stats().checked;
    // An idle guest's further CPUs are to be idle as well.
    unsigned cpus = count ? cpus_start() : 1;
    printf("AGENT-READY pages %" PRIu64 " rate %" PRIu64 " registers %s cpus %u\n", count,
           options->rate, registers_level(), cpus);
    while (!work.quit)
        turn(&work);
    print_stats(&work, clock_check());
    return 0;
}
