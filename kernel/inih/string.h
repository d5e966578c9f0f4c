// SPDX-License-Identifier: MIT
// For inih alone: its string functions are ours.
#ifndef SKIFF_INIH_STRING_H
#define SKIFF_INIH_STRING_H

#include "kernel/lib.h"

#endif
