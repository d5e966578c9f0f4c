// SPDX-License-Identifier: MIT
// The <stdio.h> that lwIP finds: formatted printing from the kernel.
#ifndef SKIFF_LWIP_STDIO_H
#define SKIFF_LWIP_STDIO_H

#include "kernel/lib.h"

#endif
