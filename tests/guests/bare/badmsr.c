// SPDX-License-Identifier: MIT
// Touches MSRs that no guest has, and says which exception came of it (13: #GP).
#include "bare.h"

#define UNKNOWN_MSR         0x12345678u
#define FEATURE_CONTROL_MSR 0x3au
#define UNDEFINED_OPCODE    6u

static void read_unknown(void)
{
    rdmsr(UNKNOWN_MSR);
}

static void write_unknown(void)
{
    wrmsr(UNKNOWN_MSR, 1);
}

static void write_feature_control(void)
{
    wrmsr(FEATURE_CONTROL_MSR, 5);
}

static void undefined_opcode(void)
{
    __asm__ volatile("ud2");
}

static void report(const char *what, void (*function)(void))
{
    uint32_t vector = fault_of(function);
    if (vector == NO_FAULT)
        print("BADMSR %s no-fault\n", what);
    else
        print("BADMSR %s fault=%u\n", what, vector);
}

void bare_main(const char *command_line)
{
    (void)command_line;
    report("ud2", undefined_opcode);
    report("read-unknown", read_unknown);
    report("write-unknown", write_unknown);
    report("write-feature-control", write_feature_control);
    print("BADMSR-END\n");
}
