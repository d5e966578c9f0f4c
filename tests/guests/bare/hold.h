// SPDX-License-Identifier: MIT
// hold.c's registers, which stay as they are through all its states (hold_registers.c).
#ifndef HOLD_H
#define HOLD_H

#include "bare.h"

// Counts what is not as it should be, and says so the first times.
void hold_check(const char *what, bool good);

// Gives MSRs, segments, task and debug registers values of their own; with task_switch, TR's base
// is tried by an exception in ring 3.
void registers_hold(bool task_switch);
void registers_check(void); // they have them still, hidden parts included

#endif
