// SPDX-License-Identifier: MIT
// CRC-32C by the CRC32 instruction of SSE4.2, which works on general registers (SDM 2A, CRC32), or
// by tables: an emulated CPU may take the instruction bit by bit.
#include "arch/x86/cpu.h"
#include "kernel/lib.h"

#define POLYNOMIAL 0x82f63b78u // reflected
#define TRIES      3

typedef u32 (*words_fn)(u32 crc, const u8 *p, size_t words);

static u32 table[8][256]; // [n][b]: the CRC of byte b with n zero bytes behind it

static u32 by_instruction(u32 crc, const u8 *p, size_t words)
{
    u64 c = crc;
    for (; words; words--, p += 8) {
        u64 v;
        __builtin_memcpy(&v, p, 8);
        __asm__("crc32q %1, %0" : "+r"(c) : "rm"(v));
    }
    return (u32)c;
}

static u32 by_tables(u32 crc, const u8 *p, size_t words)
{
    for (; words; words--, p += 8) {
        u64 v;
        __builtin_memcpy(&v, p, 8);
        v ^= crc;
        crc = 0;
#pragma GCC unroll 8
        for (u32 i = 0; i < 8; i++)
            crc ^= table[7 - i][v >> (8 * i) & 0xff];
    }
    return crc;
}

static void make_tables(void)
{
    for (u32 b = 0; b < 256; b++) {
        u32 c = b;
        for (u32 bit = 0; bit < 8; bit++)
            c = c >> 1 ^ (c & 1 ? POLYNOMIAL : 0);
        table[0][b] = c;
    }
    for (u32 n = 1; n < 8; n++)
        for (u32 b = 0; b < 256; b++)
            table[n][b] = table[n - 1][b] >> 8 ^ table[0][table[n - 1][b] & 0xff];
}

// The best of a few, because the first one may find its code and data in no cache.
static u64 cost(words_fn fn)
{
    u64 best = ~0ull;
    for (u32 i = 0; i < TRIES; i++) {
        u64 start = rdtsc();
        volatile u32 crc = fn(0, (const u8 *)table, sizeof(table) / 8);
        (void)crc;
        best = MIN(best, rdtsc() - start);
    }
    return best;
}

// Measured at the first use. CPUs that do so at the same time write the same tables.
static words_fn faster(void)
{
    static words_fn chosen;
    words_fn fn = __atomic_load_n(&chosen, __ATOMIC_ACQUIRE);
    if (fn)
        return fn;
    make_tables();
    fn = cost(by_tables) < cost(by_instruction) ? by_tables : by_instruction;
    __atomic_store_n(&chosen, fn, __ATOMIC_RELEASE);
    return fn;
}

u32 crc32c(u32 crc, const void *data, size_t len)
{
    const u8 *p = data;
    u32 c = faster()(~crc, p, len / 8);
    for (p += len & ~7ull, len &= 7; len; len--, p++)
        __asm__("crc32b %1, %0" : "+r"(c) : "rm"(*p));
    return ~c;
}
