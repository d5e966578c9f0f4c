// SPDX-License-Identifier: MIT
// What a bare test kernel has to build on: port I/O, the serial port, interrupts, clocks and ways
// to end.
#ifndef BARE_H
#define BARE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// --- The kernel's own entry; `command_line` is what the loader was given.
void bare_main(const char *command_line);

static inline void outb(uint16_t port, uint8_t value)
{
    __asm__ volatile("outb %0, %1" ::"a"(value), "Nd"(port));
}

static inline void outw(uint16_t port, uint16_t value)
{
    __asm__ volatile("outw %0, %1" ::"a"(value), "Nd"(port));
}

static inline void outl(uint16_t port, uint32_t value)
{
    __asm__ volatile("outl %0, %1" ::"a"(value), "Nd"(port));
}

static inline uint8_t inb(uint16_t port)
{
    uint8_t value;
    __asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
    return value;
}

static inline uint32_t inl(uint16_t port)
{
    uint32_t value;
    __asm__ volatile("inl %1, %0" : "=a"(value) : "Nd"(port));
    return value;
}

static inline uint64_t rdmsr(uint32_t msr)
{
    uint64_t value;
    __asm__ volatile("rdmsr" : "=A"(value) : "c"(msr));
    return value;
}

static inline void wrmsr(uint32_t msr, uint64_t value)
{
    __asm__ volatile("wrmsr" ::"c"(msr), "A"(value) : "memory");
}

static inline void cpuid(uint32_t leaf, uint32_t registers[4])
{
    __asm__ volatile("cpuid"
                     : "=a"(registers[0]), "=b"(registers[1]), "=c"(registers[2]),
                       "=d"(registers[3])
                     : "a"(leaf), "c"(0));
}

static inline uint32_t rdtsc_low(void)
{
    uint32_t low;
    __asm__ volatile("rdtsc" : "=a"(low)::"edx");
    return low;
}

static inline uint64_t rdtsc(void)
{
    uint64_t value;
    __asm__ volatile("rdtsc" : "=A"(value));
    return value;
}

// --- lib.c. print() knows %s, %u, %x and %%, all 32 bits wide.
__attribute__((format(printf, 1, 2))) void print(const char *format, ...);
bool option(const char *command_line, const char *name,
            uint32_t *value); // NAME=NUMBER in the command line
bool line_typed(void); // takes what came on the serial port; true at a line feed
// Divides in place and returns the remainder; there is no runtime library to do it.
uint32_t divide(uint64_t *value, uint32_t by);
const char *loader_name(void);
uint32_t loader_module_count(void);
uint32_t pm_timer(void); // 3.579545 MHz, 24 bits
#define PM_TIMER_HZ   3579545u
#define PM_TIMER_MASK 0xffffffu
_Noreturn void power_off(void);
_Noreturn void reset(void);

// --- interrupts.c
struct frame {
    uint32_t edi, esi, ebp, esp, ebx, edx, ecx, eax;
    uint32_t vector, error, eip, cs, eflags;
};
#define IRQ_VECTOR 0x20u // the PICs' first vector
void interrupts_init(void);
void interrupt_set(unsigned vector, void (*handler)(struct frame *frame));
void pic_unmask(unsigned line);
void pic_mask(unsigned line);
void pic_end(unsigned line);

// Runs a function; an exception in it ends it. Returns the exception's vector, or NO_FAULT.
#define NO_FAULT 0xffffffffu
uint32_t fault_of(void (*function)(void));

// --- The local APIC, in xAPIC mode at its usual address.
enum {
    APIC_ID = 0x20,
    APIC_TPR = 0x80,
    APIC_EOI = 0xb0,
    APIC_SPURIOUS = 0xf0,
    APIC_IRR = 0x200,
    APIC_ICR_LOW = 0x300,
    APIC_ICR_HIGH = 0x310,
    APIC_LVT_TIMER = 0x320,
    APIC_TIMER_INITIAL = 0x380,
    APIC_TIMER_CURRENT = 0x390,
    APIC_TIMER_DIVIDE = 0x3e0
};
static inline void apic_write(unsigned reg, uint32_t value)
{
    *(volatile uint32_t *)(0xfee00000u + reg) = value;
}

static inline uint32_t apic_read(unsigned reg)
{
    return *(volatile uint32_t *)(0xfee00000u + reg);
}

void apic_send_self(uint32_t vector); // return when it is on its way
void apic_send_nmi_self(void);

// --- clocks.c: the PIT (100 Hz, by the PIC), the RTC (64 Hz) and the local APIC timer (50 Hz),
// counted. apic_hz is what apic_calibrate returned, ticks a second at divisor 16.
enum { CLOCK_PIT, CLOCK_RTC, CLOCK_APIC, CLOCKS };
#define APIC_TIMER_VECTOR 0x50u
extern const uint32_t clock_rate[CLOCKS];
extern volatile uint32_t clock_count[CLOCKS];
uint32_t apic_calibrate(void);
bool apic_one_shot(uint32_t apic_hz); // one of 10 ms fires once and not again within 30 ms
void clocks_start(uint32_t apic_hz);
void clocks_stop(void);
void rtc_end(void); // what its handler owes the RTC
void wait_pm(uint32_t ticks);

#endif
