// SPDX-License-Identifier: MIT
// Breaks the host on purpose, for tests of what it says then. Only debug builds call it.
#include "arch/x86/crash_test.h"
#include "arch/x86/image.h"
#include "kernel/lib.h"
#include "kernel/mem.h"

static void write_null(void)
{
    volatile u64 address = 8;
    *(volatile u8 *)address = 1;
}

static void write_text(void)
{
    *(volatile u8 *)text_start = 0x90;
}

static void write_rodata(void)
{
    *(volatile u8 *)rodata_start = 0;
}

static void execute_data(void)
{
    u8 *page = phys_ptr(page_alloc(0));
    page[0] = 0xc3; // RET
    ((void (*)(void))page)();
}

static u32 recurse(volatile u32 depth)
{
    volatile u8 frame[256];
    frame[depth % sizeof(frame)] = (u8)depth;
    return depth == ~0u ? 0 : recurse(depth + 1) + frame[0];
}

static void overflow_stack(void)
{
    recurse(0);
}

static void smash_frame(void)
{
    volatile u64 frame[2] = {0};
    volatile u64 *p = frame;
    for (u32 i = 0; i < 8; i++)
        __asm__ volatile("movq $-1, (%0)" : : "r"(p + i) : "memory");
}

static void fail_assertion(void)
{
    volatile u32 two = 2;
    assert(two == 3);
}

static void invalid_opcode(void)
{
    __asm__ volatile("ud2");
}

static const struct {
    const char *name;
    void (*fn)(void);
} kinds[] = {
    {"null", write_null},       {"text", write_text},       {"rodata", write_rodata},
    {"execute", execute_data},  {"stack", overflow_stack},  {"frame", smash_frame},
    {"opcode", invalid_opcode}, {"assert", fail_assertion},
};

const char *arch_crash_test(const char *kind)
{
    for (u32 i = 0; i < ARRAY_SIZE(kinds); i++) {
        if (strcmp(kind, kinds[i].name) == 0)
            kinds[i].fn();
    }
    return "null, text, rodata, execute, stack, frame, opcode or assert";
}
