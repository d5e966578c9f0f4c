// SPDX-License-Identifier: MIT
// CRC-32C with the CRC32 instruction of SSE4.2, which works on general registers (SDM 2A, CRC32).
#include "kernel/lib.h"

u32 crc32c(u32 crc, const void *data, size_t len)
{
    const u8 *p = data;
    u64 c = ~crc;
    for (; len >= 8; len -= 8, p += 8) {
        u64 v;
        __builtin_memcpy(&v, p, 8);
        __asm__("crc32q %1, %0" : "+r"(c) : "rm"(v));
    }
    u32 r = (u32)c;
    for (; len; len--, p++)
        __asm__("crc32b %1, %0" : "+r"(r) : "rm"(*p));
    return ~r;
}
