// SPDX-License-Identifier: MIT
// Writes and checks memory for ever and sends the Linux agent's heartbeat line every period=MS
// (default 50): a guest that starts at once, for tests of what happens to moves.
// pages=N memory pages are worked on from 16 MiB up (default 2048), rate=N written a second
// (default 500).
#include "bare.h"

#define WORK_BASE  0x1000000u
#define PAGE_WORDS 1024u
#define NS_PER_MS  1000000u
#define NS_PER_S   1000000000u

static struct {
    uint32_t pages, rate, period_ms;
    uint32_t next_write, next_check;
    uint32_t generation; // of the sweep that is being written; the rest of the pages have the one before
    uint32_t written, checked, errors;
} work = {.pages = 2048, .rate = 500, .period_ms = 50};

// Nanoseconds by the PM timer, which must be read more often than it wraps (4.7 s).
static uint64_t monotonic_ns(void)
{
    static uint32_t last;
    static uint64_t ns, rest;
    uint32_t now = pm_timer();
    uint64_t product = (uint64_t)((now - last) & PM_TIMER_MASK) * NS_PER_S + rest;

    last = now;
    rest = divide(&product, PM_TIMER_HZ);
    return ns += product;
}

static uint32_t pattern(uint32_t page, uint32_t generation, uint32_t word)
{
    return (page * 2654435761u ^ generation * 40503u) + word * 2246822519u;
}

static uint32_t *page_at(uint32_t page)
{
    return (uint32_t *)(WORK_BASE + page * 4096u);
}

static void write_page(uint32_t page, uint32_t generation)
{
    for (uint32_t i = 0; i < PAGE_WORDS; i++)
        page_at(page)[i] = pattern(page, generation, i);
}

static void check_page(uint32_t page)
{
    uint32_t generation = page < work.next_write ? work.generation : work.generation - 1;

    for (uint32_t i = 0; i < PAGE_WORDS; i++) {
        if (page_at(page)[i] != pattern(page, generation, i)) {
            work.errors++;
            print("AGENT-ERROR page %u word %u is %x, not %x\n", page, i, page_at(page)[i],
                  pattern(page, generation, i));
            return;
        }
    }
}

static void print64(uint64_t value)
{
    char digits[21];
    unsigned at = sizeof digits - 1;

    digits[at] = '\0';
    do {
        digits[--at] = (char)('0' + divide(&value, 10));
    } while (value);
    print("%s", &digits[at]);
}

static void heartbeat(uint32_t sequence, uint64_t ns)
{
    print("HB %u ", sequence);
    print64(ns);
    print(" ");
    print64(rdtsc());
    print(" %u %u %u\n", work.written, work.checked, work.errors);
}

static void work_until_due(uint64_t elapsed_ns)
{
    uint64_t due = elapsed_ns * work.rate;

    divide(&due, NS_PER_S);
    while (work.written < due) {
        write_page(work.next_write, work.generation);
        work.written++;
        if (++work.next_write == work.pages) {
            work.next_write = 0;
            work.generation++;
        }
    }
    check_page(work.next_check);
    work.checked++;
    work.next_check = (work.next_check + 1) % work.pages;
}

void bare_main(const char *command_line)
{
    option(command_line, "pages", &work.pages);
    option(command_line, "rate", &work.rate);
    option(command_line, "period", &work.period_ms);
    for (uint32_t page = 0; page < work.pages; page++)
        write_page(page, 0);
    work.generation = 1;
    print("AGENT-READY pages %u rate %u loader %s\n", work.pages, work.rate, loader_name());

    uint64_t start = monotonic_ns(), next = start, last = start, last_tsc = rdtsc();
    for (uint32_t sequence = 0;;) {
        uint64_t now = monotonic_ns(), tsc = rdtsc();
        if (now < last || tsc < last_tsc) {
            work.errors++;
            print("AGENT-ERROR a clock went back\n");
        }
        last = now;
        last_tsc = tsc;
        work_until_due(now - start);
        if (now >= next) {
            heartbeat(sequence++, now);
            next += (uint64_t)work.period_ms * NS_PER_MS;
            if (next < now)
                next = now + (uint64_t)work.period_ms * NS_PER_MS;
        }
    }
}
