// SPDX-License-Identifier: MIT
// What arch_early_init keeps for later.
#ifndef SKIFF_ARCH_EARLY_H
#define SKIFF_ARCH_EARLY_H

#include "kernel/types.h"

extern u64 arch_tsc_at_boot; // at the first instruction of the image: host time counts from there

#endif
