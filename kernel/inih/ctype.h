// SPDX-License-Identifier: MIT
// For inih alone: what it takes from <ctype.h>.
#ifndef SKIFF_INIH_CTYPE_H
#define SKIFF_INIH_CTYPE_H

static inline int isspace(int c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

#endif
