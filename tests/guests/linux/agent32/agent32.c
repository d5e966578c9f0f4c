// SPDX-License-Identifier: MIT
// A 32-bit program in the Linux guest: makes system calls through the kernel's own entry (SYSENTER
// on Intel CPUs), by INT 80h and by SYSENTER from 64-bit code, and keeps x87 values live across
// them. Without a C library.
#include <stdint.h>

#define SYS_WRITE           4
#define SYS_GETPID          20
#define SYS_GETTIMEOFDAY    78
#define SYS_NANOSLEEP       162
#define SYS_CLOCK_GETTIME64 403
#define CLOCK_MONOTONIC     1
#define AT_NULL             0
#define AT_SYSINFO          32 // __kernel_vsyscall of the vDSO
#define PAUSE_NS            5000000
#define ERRORS_TOLD         10

struct timespec64 {
    int64_t sec, nsec;
};
struct time32 { // timeval and timespec
    int32_t sec, fraction;
};

static const uint8_t *entry;
static uint32_t errors;

static int32_t by_entry(int32_t number, uintptr_t a, uintptr_t b, uintptr_t c)
{
    int32_t result;
    __asm__ volatile("call *%1"
                     : "=a"(result)
                     : "m"(entry), "0"(number), "b"(a), "c"(b), "d"(c)
                     : "memory");
    return result;
}

static int32_t by_int80(int32_t number, uintptr_t a, uintptr_t b, uintptr_t c)
{
    int32_t result;
    __asm__ volatile("int $0x80"
                     : "=a"(result)
                     : "0"(number), "b"(a), "c"(b), "d"(c)
                     : "memory");
    return result;
}

// SYSENTER from 64-bit code, where AMD CPUs (and those that imitate them) do not have it at all. The
// kernel takes it for the entry's own and returns to that one's end.
int32_t by_sysenter64(void);
__asm__("by_sysenter64: push %ebx\n"
        "xor %ebx, %ebx\n"
        "mov $20, %eax\n" // SYS_GETPID
        "call 1f\n"
        "pop %ebx\n"
        "ret\n"
        "1: push %ecx\n"
        "push %edx\n"
        "push %ebp\n"
        "mov %esp, %ebp\n"
        "ljmp $0x33, $2f\n" // Linux's 64-bit user code segment
        ".code64\n"
        "2: sysenter\n"
        ".code32\n");

static uint32_t append(char *line, uint32_t at, const char *text)
{
    while (*text)
        line[at++] = *text++;
    return at;
}

// One write, so that no other program's line gets in between.
static void say(const char *what, const char *text, uint32_t number)
{
    char line[96], digits[11] = "";
    uint32_t at = append(line, 0, what), n = 10;
    do
        digits[--n] = (char)('0' + number % 10);
    while ((number /= 10) != 0);
    at = append(line, at, text);
    at = append(line, at, " ");
    at = append(line, at, digits + n);
    line[at++] = '\n';
    by_int80(SYS_WRITE, 1, (uintptr_t)line, at);
}

static void check(int good, const char *what)
{
    if (!good && errors++ < ERRORS_TOLD)
        say("AGENT-ERROR 32-bit program: ", what, errors);
}

// What the kernel has put there: it chooses by the CPU's vendor.
static const char *entry_kind(void)
{
    for (uint32_t i = 0; i < 16; i++) {
        if (entry[i] == 0x0f && entry[i + 1] == 0x34)
            return "sysenter";
        if (entry[i] == 0x0f && entry[i + 1] == 0x05)
            return "syscall";
    }
    return "int80";
}

static void check_clocks(void)
{
    static struct timespec64 last;
    static struct time32 last_day;
    static uint64_t last_tsc;
    struct timespec64 now;
    struct time32 day;
    uint64_t tsc;
    check(!by_entry(SYS_CLOCK_GETTIME64, CLOCK_MONOTONIC, (uintptr_t)&now, 0), "clock_gettime");
    check(!by_int80(SYS_GETTIMEOFDAY, (uintptr_t)&day, 0, 0), "gettimeofday");
    __asm__ volatile("lfence; rdtsc" : "=A"(tsc)::"memory");
    check(now.sec > last.sec || (now.sec == last.sec && now.nsec >= last.nsec), "monotonic back");
    check(day.sec > last_day.sec || (day.sec == last_day.sec && day.fraction >= last_day.fraction),
          "time of day back");
    check(tsc > last_tsc, "tsc back");
    last = now;
    last_day = day;
    last_tsc = tsc;
}

// Sleeps with eight values on the x87 stack.
static void sleep_with_x87(void)
{
    static const struct time32 pause = {0, PAUSE_NS};
    static uint32_t seed;
    int32_t in[8], out[8];
    for (uint32_t i = 0; i < 8; i++)
        in[i] = (int32_t)(seed = seed * 1664525 + 1013904223);
    __asm__ volatile("fninit\n"
                     "fildl 28(%0)\nfildl 24(%0)\nfildl 20(%0)\nfildl 16(%0)\n"
                     "fildl 12(%0)\nfildl 8(%0)\nfildl 4(%0)\nfildl (%0)\n" ::"r"(in)
                     : "memory");
    int32_t result = by_entry(SYS_NANOSLEEP, (uintptr_t)&pause, 0, 0);
    __asm__ volatile("fistpl (%0)\nfistpl 4(%0)\nfistpl 8(%0)\nfistpl 12(%0)\n"
                     "fistpl 16(%0)\nfistpl 20(%0)\nfistpl 24(%0)\nfistpl 28(%0)\n" ::"r"(out)
                     : "memory");
    check(!result, "nanosleep");
    for (uint32_t i = 0; i < 8; i++)
        check(in[i] == out[i], "x87 register");
}

__attribute__((used)) void start(const uintptr_t *stack)
{
    const uintptr_t *at = stack + 1 + stack[0] + 1; // argc, argv, NULL
    uint32_t rounds = 0;
    while (*at++)
        ; // environment
    for (; at[0] != AT_NULL; at += 2)
        if (at[0] == AT_SYSINFO)
            entry = (const uint8_t *)at[1];
    if (!entry) {
        say("AGENT-ERROR 32-bit program: ", "the kernel gives no entry", 0);
        return;
    }
    say("AGENT32-READY ", entry_kind(), 0);
    for (;;) {
        int32_t pid = by_int80(SYS_GETPID, 0, 0, 0);
        check(pid > 0 && pid == by_entry(SYS_GETPID, 0, 0, 0), "getpid");
        check(pid == by_sysenter64(), "getpid by SYSENTER from 64-bit code");
        check_clocks();
        sleep_with_x87();
        if (++rounds % 100 == 0)
            say("AGENT32 ", "rounds", rounds);
    }
}

__asm__(".globl _start\n"
        "_start: mov %esp, %eax\n"
        "push %eax\n"
        "call start\n"
        "hlt\n");
