// SPDX-License-Identifier: MIT
// The other CPUs: started once, stopped before a reset. Shared with arch/x86/ap_start.S.
#ifndef SKIFF_ARCH_SMP_H
#define SKIFF_ARCH_SMP_H

// Offsets in struct ap_params, which ends the start-up code (ap_start.S).
#define AP_GDT_POINTER 0
#define AP_FAR32       6
#define AP_FAR64       12
#define AP_CR4         20
#define AP_CR3         24
#define AP_EFER        28
#define AP_GDT         32
#define AP_HOST_CR3    64
#define AP_STACK       72
#define AP_CPU         80
#define AP_ENTRY       88

#ifndef __ASSEMBLER__
#include "kernel/types.h"

struct boot_info;

// Starts every CPU the firmware named, each with its own run queue and the chosen backend switched
// on. One that does not start, or whose TSC cannot be made to agree, is left out with a line in the
// log. Thread context, once, after backend_init.
void smp_start(const struct boot_info *bi);
// All other CPUs leave their guests, switch virtualization off and halt for good.
void smp_stop_others(void);
#endif

#endif
