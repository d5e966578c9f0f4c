// SPDX-License-Identifier: MIT
// The agent's command line.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent.h"

static const char usage[] =
    "usage: agent work [--rate PAGES/S] [--check-rate PAGES/S] [--fraction 0.5]\n"
    "                  [--heartbeat-ms MS] [--disk-rate WRITES/S]\n"
    "       agent idle | bench | cpu | power-button | spin SECONDS\n"
    "       agent disk WRITES/S\n"
    "       agent disk-bench SECONDS\n"
    "       agent stream-echo | stream-receive | stream-send IPV4-ADDRESS MIB\n"
    "A rate of pages of 0 is no limit, one of the disk is no disk.\n";

// "0.5", ".25" or "1": thousandths, without floating point, which the agent keeps for its patterns.
static unsigned parse_permille(const char *text)
{
    unsigned value = (unsigned)strtoul(text, NULL, 10) * 1000;
    const char *point = strchr(text, '.');
    unsigned place = 100;
    for (const char *digit = point ? point + 1 : ""; *digit >= '0' && *digit <= '9';
         digit++, place /= 10)
        value += place * (unsigned)(*digit - '0');
    return value;
}

static int run_work(int argc, char **argv)
{
    struct work_options options = {
        .rate = 200, .check_rate = 2000, .permille = 500, .heartbeat_ms = 100};
    for (int i = 0; i + 1 < argc; i += 2) {
        if (!strcmp(argv[i], "--rate"))
            options.rate = strtoull(argv[i + 1], NULL, 10);
        else if (!strcmp(argv[i], "--check-rate"))
            options.check_rate = strtoull(argv[i + 1], NULL, 10);
        else if (!strcmp(argv[i], "--disk-rate"))
            options.disk_rate = strtoull(argv[i + 1], NULL, 10);
        else if (!strcmp(argv[i], "--fraction"))
            options.permille = parse_permille(argv[i + 1]);
        else if (!strcmp(argv[i], "--heartbeat-ms"))
            options.heartbeat_ms = (unsigned)strtoul(argv[i + 1], NULL, 10);
        else
            argc = -1;
    }
    if (argc < 0 || argc % 2 != 0 || options.permille == 0 || options.permille > 900 ||
        options.heartbeat_ms == 0) {
        fputs(usage, stderr);
        return 2;
    }
    return work_run(&options);
}

int main(int argc, char **argv)
{
    const char *command = argc > 1 ? argv[1] : "";

    setvbuf(stdout, NULL, _IOLBF, 0);
    if (!strcmp(command, "work"))
        return run_work(argc - 2, argv + 2);
    if (!strcmp(command, "idle"))
        return work_run(&(struct work_options){.heartbeat_ms = 1000});
    if (!strcmp(command, "bench"))
        return bench_run();
    if (!strcmp(command, "power-button"))
        return button_run();
    if (!strcmp(command, "spin") && argc == 3)
        return spin_run((unsigned)strtoul(argv[2], NULL, 10));
    if (!strcmp(command, "stream-echo"))
        return stream_echo();
    if (!strcmp(command, "disk") && argc == 3)
        return disk_run(strtoull(argv[2], NULL, 10));
    if (!strcmp(command, "disk-bench") && argc == 3)
        return disk_bench(strtoull(argv[2], NULL, 10));
    if (!strcmp(command, "stream-receive"))
        return stream_receive();
    if (!strcmp(command, "stream-send") && argc == 4)
        return stream_send(argv[2], strtoull(argv[3], NULL, 10) << 20);
    if (!strcmp(command, "cpu"))
        return printf("AGENT-CPU %s\n", registers_level()) < 0;
    fputs(usage, stderr);
    return 2;
}
