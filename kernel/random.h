// SPDX-License-Identifier: MIT
// Unpredictable numbers for identifiers, ports and sequence numbers, and a keyed hash. Not for keys
// that encrypt.
#ifndef SKIFF_KERNEL_RANDOM_H
#define SKIFF_KERNEL_RANDOM_H

#include "kernel/types.h"

// Keyed with the firmware's entropy (boot_info.entropy) at the first call. Any thread.
void random_bytes(void *buf, size_t bytes);
u64 random_u64(void);

// SipHash-2-4: without the key nobody can foresee the value.
u64 siphash(const u64 key[2], const void *data, size_t bytes);

#endif
