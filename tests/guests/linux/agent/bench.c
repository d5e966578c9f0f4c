// SPDX-License-Identifier: MIT
// What the hypervisor costs its guest, in TSC ticks: medians, each printed as "BENCH key value".
#include <cpuid.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/io.h>

#include "agent.h"

#define SAMPLES          1001u
#define UART_LINE_STATUS 0x3fd
#define TOUCH_BYTES      (32u << 20)
#define TOUCH_RUNS       3u
#define PAGE_BYTES       4096u

static int compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static uint64_t median(uint64_t *samples, size_t count)
{
    qsort(samples, count, sizeof *samples, compare);
    return samples[count / 2];
}

static void do_nothing(void)
{
}

static void do_cpuid(void)
{
    unsigned a, b, c, d;
    __cpuid(0, a, b, c, d);
}

static void do_uart_read(void)
{
    (void)inb(UART_LINE_STATUS);
}

static void measure(const char *key, void (*action)(void))
{
    static uint64_t samples[SAMPLES];

    for (unsigned i = 0; i < SAMPLES; i++) {
        uint64_t start = rdtsc();
        action();
        samples[i] = rdtsc() - start;
    }
    printf("BENCH %s %" PRIu64 "\n", key, median(samples, SAMPLES));
}

// First touch of fresh memory. The buffers are kept, so that no run gets the pages of an earlier
// one.
static void measure_first_touch(void)
{
    uint64_t samples[TOUCH_RUNS];

    for (unsigned run = 0; run < TOUCH_RUNS; run++) {
        volatile char *memory = malloc(TOUCH_BYTES);
        if (!memory) {
            agent_error("no memory to touch");
            return;
        }
        uint64_t start = rdtsc();
        for (size_t at = 0; at < TOUCH_BYTES; at += PAGE_BYTES)
            memory[at] = 1;
        samples[run] = (rdtsc() - start) / (TOUCH_BYTES / PAGE_BYTES);
    }
    printf("BENCH first_touch_page_ticks %" PRIu64 "\n", median(samples, TOUCH_RUNS));
}

int bench_run(void)
{
    if (ioperm(UART_LINE_STATUS, 1, 1)) {
        agent_error("no right to read the UART's ports");
        return 1;
    }
    measure("empty_ticks", do_nothing);
    measure("exit_cpuid_ticks", do_cpuid);
    measure("exit_uart_read_ticks", do_uart_read);
    measure_first_touch();
    puts("BENCH-END");
    return 0;
}
