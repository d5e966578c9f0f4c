// SPDX-License-Identifier: MIT
// The 128-bit digest of moves, in general registers only.
#include "kernel/migrate/hash.h"

#include "kernel/lib.h"

#define HASH_MULTIPLIER 0x9fb21c651e98df25ull // odd, so a step loses nothing

static inline u64 crc_step(u64 crc, u64 word)
{
    __asm__("crc32q %1, %0" : "+r"(crc) : "r"(word)); // SDM 2A, CRC32
    return crc;
}

static inline u64 mul_step(u64 h, u64 word)
{
    h = (h ^ word) * HASH_MULTIPLIER;
    return h << 29 | h >> 35;
}

void hash_start(struct hash *h)
{
    h->mul = 0x736b696666u;
    h->crc[0] = ~0u;
    h->crc[1] = ~0u;
}

void hash_add(struct hash *h, const void *data, size_t bytes)
{
    const u8 *p = data;
    u64 mul = h->mul, even = h->crc[0], odd = h->crc[1];

    for (; bytes >= 16; bytes -= 16, p += 16) {
        u64 w[2];
        memcpy(w, p, 16);
        mul = mul_step(mul_step(mul, w[0]), w[1]);
        even = crc_step(even, w[0]);
        odd = crc_step(odd, w[1]);
    }
    if (bytes) { // the tail counts with its length, so that zeros behind it change the digest
        u64 w[2] = {0, 0};
        for (size_t i = 0; i < bytes; i++)
            w[i / 8] |= (u64)p[i] << (i % 8 * 8);
        mul = mul_step(mul_step(mul_step(mul, w[0]), w[1]), bytes);
        even = crc_step(even, w[0]);
        odd = crc_step(odd, w[1] ^ (u64)bytes << 56);
    }
    h->mul = mul;
    h->crc[0] = (u32)even;
    h->crc[1] = (u32)odd;
}

void hash_finish(const struct hash *h, u64 out[2])
{
    out[0] = h->mul;
    out[1] = (u64)h->crc[1] << 32 | h->crc[0];
}

void hash_page(const void *page, u64 out[2])
{
    struct hash h;
    hash_start(&h);
    hash_add(&h, page, PAGE_SIZE);
    hash_finish(&h, out);
}
