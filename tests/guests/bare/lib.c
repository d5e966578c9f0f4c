// SPDX-License-Identifier: MIT
// The serial port, what the loader left, the PM timer, and the ways to end.
#include "bare.h"

#include <stdarg.h>

#define COM1             0x3f8
#define COM1_LINE_STATUS 0x3fd
#define TRANSMIT_EMPTY   0x20
#define DATA_READY       1
#define PM1A_CONTROL     0x604
#define PM1_SLEEP_ENABLE 0x2000 // with sleep type 0, the tables' \_S5
#define PM_TIMER_PORT    0x608
#define RESET_CONTROL    0xcf9
#define RESET_FULL       6

#define MULTIBOOT_MAGIC            0x2badb002u
#define MULTIBOOT_HAS_COMMAND_LINE 4u
#define MULTIBOOT_HAS_MODULES      8u
#define PVH_MAGIC                  0x336ec578u

// Multiboot 1.0 section 3.3, the fields used here.
struct multiboot_info {
    uint32_t flags, mem_lower, mem_upper, boot_device, command_line, module_count;
};

// The PVH start-of-day structure, version 0 and later.
struct pvh_info {
    uint32_t magic, version, flags, module_count;
    uint64_t modules, command_line;
};

static struct {
    const char *name, *command_line;
    uint32_t module_count;
} loader = {.name = "unknown", .command_line = ""};

static void put(char c)
{
    if (c == '\n')
        put('\r');
    while (!(inb(COM1_LINE_STATUS) & TRANSMIT_EMPTY))
        ;
    outb(COM1, (uint8_t)c);
}

static void put_number(uint32_t value, uint32_t base)
{
    char digits[10];
    unsigned count = 0;

    do {
        digits[count++] = "0123456789abcdef"[value % base];
    } while (value /= base);
    while (count > 0)
        put(digits[--count]);
}

void print(const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    for (; *format; format++) {
        if (*format != '%') {
            put(*format);
            continue;
        }
        switch (*++format) {
        case 's':
            for (const char *s = va_arg(arguments, const char *); *s; s++)
                put(*s);
            break;
        case 'u':
            put_number(va_arg(arguments, uint32_t), 10);
            break;
        case 'x':
            put_number(va_arg(arguments, uint32_t), 16);
            break;
        default:
            put(*format);
        }
    }
    va_end(arguments);
}

uint32_t divide(uint64_t *value, uint32_t by)
{
    uint32_t high = (uint32_t)(*value >> 32), low = (uint32_t)*value;
    uint32_t quotient_high = high / by, remainder = high % by;

    __asm__("divl %2" : "+a"(low), "+d"(remainder) : "r"(by));
    *value = (uint64_t)quotient_high << 32 | low;
    return remainder;
}

bool option(const char *command_line, const char *name, uint32_t *value)
{
    for (const char *at = command_line; *at; at++) {
        size_t n = 0;
        while (name[n] && at[n] == name[n])
            n++;
        if (name[n] || at[n] != '=' || (at != command_line && at[-1] != ' '))
            continue;
        *value = 0;
        for (at += n + 1; *at >= '0' && *at <= '9'; at++)
            *value = *value * 10 + (uint32_t)(*at - '0');
        return true;
    }
    return false;
}

const char *loader_name(void)
{
    return loader.name;
}

uint32_t loader_module_count(void)
{
    return loader.module_count;
}

uint32_t pm_timer(void)
{
    return inl(PM_TIMER_PORT) & PM_TIMER_MASK;
}

bool line_typed(void)
{
    return (inb(COM1_LINE_STATUS) & DATA_READY) && inb(COM1) == 0x0a;
}

_Noreturn static void stop(void)
{
    for (;;)
        __asm__ volatile("cli; hlt");
}

_Noreturn void power_off(void)
{
    outw(PM1A_CONTROL, PM1_SLEEP_ENABLE);
    stop();
}

_Noreturn void reset(void)
{
    outb(RESET_CONTROL, RESET_FULL);
    stop();
}

static void read_loader(uint32_t eax, uint32_t ebx)
{
    if (eax == MULTIBOOT_MAGIC) {
        const struct multiboot_info *info = (const void *)ebx;
        loader.name = "multiboot";
        if (info->flags & MULTIBOOT_HAS_COMMAND_LINE)
            loader.command_line = (const char *)info->command_line;
        if (info->flags & MULTIBOOT_HAS_MODULES)
            loader.module_count = info->module_count;
    } else if (ebx && ((const struct pvh_info *)ebx)->magic == PVH_MAGIC) {
        const struct pvh_info *info = (const void *)ebx;
        loader.name = "pvh";
        if (info->command_line)
            loader.command_line = (const char *)(uintptr_t)info->command_line;
        loader.module_count = info->module_count;
    }
}

void bare_start(uint32_t eax, uint32_t ebx)
{
    read_loader(eax, ebx);
    interrupts_init();
    bare_main(loader.command_line);
    power_off();
}
