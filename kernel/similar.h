// SPDX-License-Identifier: MIT
// "Did you mean": how far apart two words are.
#ifndef SKIFF_KERNEL_SIMILAR_H
#define SKIFF_KERNEL_SIMILAR_H

#include "kernel/types.h"

// Edits (insert, delete, replace, swap of neighbours) that turn a into b; words over 31 characters
// are far from everything.
unsigned word_distance(const char *a, const char *b);
// True when b is likely what was meant by a.
bool word_similar(const char *a, const char *b);

#endif
