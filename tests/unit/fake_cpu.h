// SPDX-License-Identifier: MIT
// One CPU for tests: this_cpu() reads GS, which a program of its own may point where it likes.
#ifndef SKIFF_TESTS_FAKE_CPU_H
#define SKIFF_TESTS_FAKE_CPU_H

#include <asm/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "arch/x86/cpu.h"

static struct cpu fake_cpu_block;

static inline void fake_cpu(void)
{
    fake_cpu_block.self = &fake_cpu_block;
    if (syscall(SYS_arch_prctl, ARCH_SET_GS, &fake_cpu_block))
        abort();
}

#endif
