// SPDX-License-Identifier: MIT
// What the heap tells the memory statistics; everybody else uses kmalloc from kernel/mem.h.
#ifndef SKIFF_KERNEL_HEAP_H
#define SKIFF_KERNEL_HEAP_H

#include "kernel/types.h"

u64 heap_bytes_in_use(void); // sum of the block sizes handed out by kmalloc

#endif
