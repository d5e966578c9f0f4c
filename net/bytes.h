// SPDX-License-Identifier: MIT
// Numbers in packets: most significant byte first.
#ifndef SKIFF_NET_BYTES_H
#define SKIFF_NET_BYTES_H

#include "kernel/types.h"

static inline u32 get16(const u8 *p)
{
    return (u32)p[0] << 8 | p[1];
}

static inline void put16(u8 *p, u32 v)
{
    p[0] = (u8)(v >> 8);
    p[1] = (u8)v;
}

static inline u32 get32(const u8 *p)
{
    return get16(p) << 16 | get16(p + 2);
}

static inline void put32(u8 *p, u32 v)
{
    put16(p, v >> 16);
    put16(p + 2, v);
}

#endif
