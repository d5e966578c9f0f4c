// SPDX-License-Identifier: MIT
// Bytes typed at the serial port.
#ifndef SKIFF_CONSOLE_KEYS_H
#define SKIFF_CONSOLE_KEYS_H

#include "kernel/types.h"

#define KEY_CTRL_C       0x03
#define KEY_CTRL_BRACKET 0x1d // Ctrl-]

// The next byte, waiting until deadline_ns (host time; 0: for ever). -1 when none came.
int key_wait(u64 deadline_ns);
u64 console_prompt_ns(void); // host time of the first prompt, 0 before

#endif
