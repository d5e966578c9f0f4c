// SPDX-License-Identifier: MIT
// The parts of the Linux guest's agent, the program that works on the guest's memory and checks it.
#ifndef AGENT_H
#define AGENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// --- errors.c: what went wrong is counted, and the first cases are printed as AGENT-ERROR lines.
__attribute__((format(printf, 1, 2))) void agent_error(const char *format, ...);
uint64_t agent_errors(void);

// --- clock.c: the guest's clocks, each checked against its own past.
struct clock_sample {
    uint64_t monotonic_ns, realtime_ns, tsc;
};
struct clock_sample clock_check(void);
void clock_check_others(void);

static inline uint64_t rdtsc(void)
{
    uint32_t low, high;
    __asm__ volatile("lfence; rdtsc" : "=a"(low), "=d"(high)::"memory");
    return (uint64_t)high << 32 | low;
}

// --- pages.c: memory full of patterns that tell page, generation and every word of content.
bool pages_create(uint64_t count);
void pages_write_next(void);
void pages_check_next(void);
void pages_check_all(void);
struct pages_stats {
    uint64_t count, written, checked, sweeps;
};
struct pages_stats pages_stats(void);

// --- registers.c: x87, SSE, AVX, AVX-512, PKRU and GS values that stay live in the CPU while the
// agent works.
const char *registers_level(void);
void registers_load(uint64_t seed);
void registers_check(uint64_t seed);

// --- cpus.c: threads on the guest's further CPUs, and what they found.
unsigned cpus_start(void); // how many CPUs work, the caller's included
void cpus_check(uint64_t now_ns);
struct cpus_stats {
    uint64_t timers, wakes;    // that came, on all further CPUs; one that does not is an error
    uint64_t start_max_ns;     // from a thread's creation to the end of its first turn, at worst
    uint64_t shootdown_max_ns; // to have a page's rights changed and changed back, at worst
};
struct cpus_stats cpus_stats(void);

// --- disk.c: a disk full of patterns, as pages.c has them.
bool disk_open(void);
unsigned disk_step(unsigned most); // 1 to 8 writes at once, and as many checks; how many
void disk_verify(void);            // all of it, with a DISK-VERIFIED line

// --- the subcommands; each returns the program's exit status.
struct work_options {
    uint64_t rate, check_rate; // pages a second; 0: as fast as the CPU can
    unsigned permille;         // the part of RAM to work on
    unsigned heartbeat_ms;
    uint64_t disk_rate; // writes to the disk a second, and as many checks; 0: no disk
};
int work_run(const struct work_options *options);
int bench_run(void);
int button_run(void);
int spin_run(unsigned seconds); // cpus.c
int disk_run(uint64_t rate);    // writes a second
int disk_bench(uint64_t seconds);
int stream_receive(void);
int stream_echo(void);
int stream_send(const char *address, uint64_t bytes);

// --- control.c: lines typed on the console while the agent works.
void control_open(void);
bool control_wait(uint64_t timeout_ns, char *line, size_t size);
void control_print_kernel_warnings(void);
void control_start_cpu(void);

static inline uint64_t splitmix64(uint64_t x)
{
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

#endif
