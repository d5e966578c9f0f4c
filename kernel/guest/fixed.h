// SPDX-License-Identifier: MIT
// a * b / c through 128 bits, without the division routine of libgcc, which the image does not
// link.
#ifndef SKIFF_GUEST_FIXED_H
#define SKIFF_GUEST_FIXED_H

#include "kernel/types.h"

// Saturates at ~0 where the quotient does not fit (the hardware would raise #DE). c is not 0.
static inline u64 mul_div(u64 a, u64 b, u64 c)
{
    unsigned __int128 product = (unsigned __int128)a * b;
    u64 high = (u64)(product >> 64), quotient, remainder;
    if (high >= c)
        return ~0ull;
    __asm__("divq %4"
            : "=a"(quotient), "=d"(remainder)
            : "a"((u64)product), "d"(high), "r"(c)
            : "cc");
    return quotient;
}

// The same, rounded up.
static inline u64 mul_div_up(u64 a, u64 b, u64 c)
{
    unsigned __int128 product = (unsigned __int128)a * b + (c - 1);
    u64 high = (u64)(product >> 64), quotient, remainder;
    if (high >= c)
        return ~0ull;
    __asm__("divq %4"
            : "=a"(quotient), "=d"(remainder)
            : "a"((u64)product), "d"(high), "r"(c)
            : "cc");
    return quotient;
}

#endif
