// SPDX-License-Identifier: MIT
// Work for every further CPU of the guest: a thread on each writes and checks pages of its own,
// sleeps and is woken by its timer, makes the others flush their TLBs, and compares the CPUs' TSCs.
// A second thread there sleeps until CPU 0 wakes it, which takes an IPI while its CPU is idle.
#include <inttypes.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "agent.h"

#define MAX_CPUS   16
#define PAGES      64
#define PAGE_WORDS (4096 / sizeof(uint64_t))
#define PERIOD_NS  5000000
#define STALL_NS                                                                                   \
    20000000000u // of the guest's clock, without one step: sixteen vCPUs may share a CPU

struct worker {
    unsigned cpu;
    volatile pid_t task;
    volatile unsigned prepared; // pages written before the first turn
    uint64_t created_ns;
    volatile uint64_t start_ns, shootdown_ns; // until the first turn was done; the longest
    uint64_t *pages; // PAGES pages of patterns, and one whose rights change
    uint64_t generation[PAGES];
    volatile uint64_t turns, errors;
    uint64_t seen_steps, seen_ns; // by the main thread
    uint32_t asked, answered;     // wake-ups by the main thread, and those that came; atomic
    uint64_t asked_ns;
};

static struct worker workers[MAX_CPUS];
static unsigned count;
static uint64_t newest_tsc; // seen by any CPU; atomic

static void pin(unsigned cpu)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    sched_setaffinity(0, sizeof set, &set);
}

// A TSC read after another CPU's may not be smaller: the exchange orders the two.
static bool tsc_goes_on(void)
{
    uint64_t before = __atomic_load_n(&newest_tsc, __ATOMIC_SEQ_CST);
    uint64_t now = rdtsc();
    uint64_t newest = before;
    while (newest < now && !__atomic_compare_exchange_n(&newest_tsc, &newest, now, false,
                                                        __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
        ;
    return now >= before;
}

static uint64_t monotonic_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static uint64_t word(const struct worker *w, unsigned page, unsigned i)
{
    return splitmix64((uint64_t)w->cpu << 48 ^ (uint64_t)page << 40 ^ w->generation[page] << 10 ^
                      i);
}

static void write_page(struct worker *w, unsigned page)
{
    w->generation[page]++;
    for (unsigned i = 0; i < PAGE_WORDS; i++)
        w->pages[page * PAGE_WORDS + i] = word(w, page, i);
}

static bool page_holds(const struct worker *w, unsigned page)
{
    for (unsigned i = 0; i < PAGE_WORDS; i++)
        if (w->pages[page * PAGE_WORDS + i] != word(w, page, i))
            return false;
    return true;
}

// Taking a right away makes the kernel interrupt all other CPUs that run this program.
static bool shoot_down(struct worker *w)
{
    uint64_t *page = w->pages + PAGES * PAGE_WORDS;
    uint64_t before = monotonic_ns();
    page[0] = w->turns;
    bool done = mprotect(page, 4096, PROT_READ) == 0 &&
                mprotect(page, 4096, PROT_READ | PROT_WRITE) == 0 && page[0] == w->turns;
    uint64_t taken = monotonic_ns() - before;
    if (taken > w->shootdown_ns)
        w->shootdown_ns = taken;
    return done;
}

static void *work(void *arg)
{
    struct worker *w = arg;
    struct timespec next;

    w->task = gettid();
    pin(w->cpu);
    for (; w->prepared < PAGES; w->prepared++)
        write_page(w, w->prepared);
    clock_gettime(CLOCK_MONOTONIC, &next);
    for (;;) {
        unsigned turn = (unsigned)w->turns;
        if (!page_holds(w, turn % PAGES) || !tsc_goes_on() || !shoot_down(w))
            w->errors++;
        write_page(w, (turn + PAGES / 2) % PAGES);
        if (w->turns++ == 0)
            w->start_ns = monotonic_ns() - w->created_ns;
        next.tv_nsec += PERIOD_NS;
        if (next.tv_nsec >= 1000000000) {
            next.tv_nsec -= 1000000000;
            next.tv_sec++;
        }
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &next, NULL);
    }
    return NULL;
}

static void *answer(void *arg)
{
    struct worker *w = arg;
    uint32_t done = 0;

    pin(w->cpu);
    for (;;) {
        syscall(SYS_futex, &w->asked, FUTEX_WAIT_PRIVATE, done, NULL, NULL, 0);
        uint32_t asked = __atomic_load_n(&w->asked, __ATOMIC_SEQ_CST);
        if (asked != done)
            __atomic_store_n(&w->answered, done = asked, __ATOMIC_SEQ_CST);
    }
    return NULL;
}

unsigned cpus_start(void)
{
    long online = sysconf(_SC_NPROCESSORS_ONLN);

    pin(0);
    for (unsigned cpu = 1; cpu < (unsigned)online && cpu < MAX_CPUS; cpu++) {
        struct worker *w = &workers[count];
        pthread_t thread, other;
        w->cpu = cpu;
        w->created_ns = monotonic_ns();
        w->pages = mmap(NULL, (PAGES + 1) * 4096, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (w->pages == MAP_FAILED || pthread_create(&thread, NULL, work, w) ||
            pthread_create(&other, NULL, answer, w))
            agent_error("no thread for CPU %u", cpu);
        else
            count++;
    }
    return count + 1;
}

// One wake-up at a time: the next one is sent when the last one has come.
static void wake(struct worker *w, uint64_t now_ns)
{
    if (__atomic_load_n(&w->answered, __ATOMIC_SEQ_CST) == w->asked) {
        w->asked_ns = now_ns;
        __atomic_add_fetch(&w->asked, 1, __ATOMIC_SEQ_CST);
        syscall(SYS_futex, &w->asked, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
    } else if (now_ns - w->asked_ns > STALL_NS) {
        agent_error("CPU %u has not been woken for %" PRIu64 " ms", w->cpu,
                    (now_ns - w->asked_ns) / 1000000);
        w->asked_ns = now_ns;
    }
}

struct cpus_stats cpus_stats(void)
{
    struct cpus_stats sum = {0};

    for (unsigned i = 0; i < count; i++) {
        sum.timers += workers[i].turns;
        sum.wakes += workers[i].answered;
        if (workers[i].start_ns > sum.start_max_ns)
            sum.start_max_ns = workers[i].start_ns;
        if (workers[i].shootdown_ns > sum.shootdown_max_ns)
            sum.shootdown_max_ns = workers[i].shootdown_ns;
    }
    return sum;
}

// What the kernel says of a thread, on one line.
static void read_task(pid_t task, const char *name, char *text, int size)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/self/task/%d/%s", task, name);
    FILE *file = fopen(path, "r");
    if (!file || !fgets(text, size, file))
        *text = 0;
    text[strcspn(text, "\n")] = 0;
    if (file)
        fclose(file);
}

// Whether its thread waits inside the kernel, for its CPU, or runs and gets nowhere.
static void report_stall(const struct worker *w, uint64_t now_ns)
{
    char where[64], times[64];
    uint64_t ran_ns = 0, waited_ns = 0;

    read_task(w->task, "wchan", where, sizeof where);
    read_task(w->task, "schedstat", times, sizeof times);
    sscanf(times, "%" SCNu64 " %" SCNu64, &ran_ns, &waited_ns);
    agent_error("CPU %u did nothing for %" PRIu64 " ms: %u of %u pages prepared, %" PRIu64
                " turns, ran %" PRIu64 " ms, waited %" PRIu64 " ms for its CPU, in %s",
                w->cpu, (now_ns - w->seen_ns) / 1000000, w->prepared, PAGES, w->turns,
                ran_ns / 1000000, waited_ns / 1000000, where);
}

void cpus_check(uint64_t now_ns)
{
    if (!tsc_goes_on())
        agent_error("the TSC of CPU 0 is behind another's");
    for (unsigned i = 0; i < count; i++) {
        struct worker *w = &workers[i];
        // A page before the first turn is a step as well: it takes a lock of the whole program's
        // that all shoot-downs of TLBs hold, and many CPUs that are one queue there.
        uint64_t steps = w->turns + w->prepared;
        wake(w, now_ns);
        if (w->errors) {
            agent_error("CPU %u found %" PRIu64 " errors", w->cpu, w->errors);
            w->errors = 0;
        }
        if (steps != w->seen_steps || !w->seen_ns) {
            w->seen_steps = steps;
            w->seen_ns = now_ns;
        } else if (now_ns - w->seen_ns > STALL_NS) {
            report_stall(w, now_ns);
            w->seen_ns = now_ns;
        }
    }
}

// ---- How much work the CPUs do at once ----------------------------------------------------------

static volatile bool spin_go, spin_stop;
static volatile uint64_t spun[MAX_CPUS];

static void *spin(void *arg)
{
    unsigned cpu = (unsigned)(uintptr_t)arg;
    uint64_t x = cpu, n = 0;

    pin(cpu);
    while (!spin_go)
        ;
    for (; !spin_stop; n++)
        for (unsigned i = 0; i < 1000; i++)
            x = splitmix64(x);
    spun[cpu] = n + (x & 1);
    return NULL;
}

// Rounds of work that `cpus` CPUs do in `seconds` of the guest's clock, together.
static uint64_t spin_on(unsigned cpus, unsigned seconds)
{
    pthread_t threads[MAX_CPUS];
    struct timespec wait = {.tv_sec = seconds};
    uint64_t sum = 0;

    spin_go = spin_stop = false;
    for (unsigned i = 0; i < cpus; i++)
        if (pthread_create(&threads[i], NULL, spin, (void *)(uintptr_t)i))
            return 0;
    spin_go = true;
    nanosleep(&wait, NULL);
    spin_stop = true;
    for (unsigned i = 0; i < cpus; i++) {
        pthread_join(threads[i], NULL);
        sum += spun[i];
    }
    return sum;
}

int spin_run(unsigned seconds)
{
    unsigned online = (unsigned)sysconf(_SC_NPROCESSORS_ONLN);

    for (unsigned cpus = 1; cpus <= online && cpus <= MAX_CPUS; cpus *= 2)
        printf("AGENT-SPIN cpus %u seconds %u work %" PRIu64 "\n", cpus, seconds,
               spin_on(cpus, seconds));
    puts("AGENT-SPIN-END");
    return 0;
}
