// SPDX-License-Identifier: MIT
// The operator's console on COM1.
#ifndef SKIFF_CONSOLE_CONSOLE_H
#define SKIFF_CONSOLE_CONSOLE_H

// Starts the console's threads: from here on the log is shown by them, above the prompt. After
// thread_init; the services need not run yet.
void console_start(void);

#endif
