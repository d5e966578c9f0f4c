// SPDX-License-Identifier: MIT
// What one part of the start-up leaves to another.
#ifndef SKIFF_ARCH_EARLY_H
#define SKIFF_ARCH_EARLY_H

#include "kernel/types.h"

void arch_timer_init_cpu(void); // on each further CPU: its timer as arch_timer_init has found
extern u64 arch_tsc_at_boot; // at the first instruction of the image: host time counts from there

#endif
