// SPDX-License-Identifier: MIT
// What a program on Linux that uses the sources of storage/ may set and reset.
#ifndef SKIFF_STORAGE_TOOL_KERNEL_H
#define SKIFF_STORAGE_TOOL_KERNEL_H

#include "kernel/types.h"

extern void (*kernel_idle)(void); // called whenever somebody waits, where set
void kernel_work(void);           // of the datastores' threads, as far as they get
void kernel_forget_threads(void); // the datastores they worked for are gone

#endif
