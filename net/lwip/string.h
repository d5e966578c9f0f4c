// SPDX-License-Identifier: MIT
// The <string.h> that third-party sources find: the kernel's own functions.
#ifndef SKIFF_LWIP_STRING_H
#define SKIFF_LWIP_STRING_H

#include "kernel/lib.h"

#endif
