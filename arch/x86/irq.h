// SPDX-License-Identifier: MIT
// Interrupt vectors with a fixed number (arch/x86/apic.h); everybody else uses irq_alloc_vector.
#ifndef SKIFF_ARCH_IRQ_H
#define SKIFF_ARCH_IRQ_H

#include "arch/x86/cpu.h"

void irq_set_fixed(u32 vector, irq_handler_t fn);

#endif
