// SPDX-License-Identifier: MIT
// The 128-bit digest of moves, in general registers only.
#include "kernel/migrate/hash.h"

#include "kernel/lib.h"

// Odd, so that a step loses nothing.
#define EVEN_MULTIPLIER 0x9fb21c651e98df25ull
#define ODD_MULTIPLIER  0xd6e8feb86659fd93ull

static inline u64 rotate(u64 x, unsigned n)
{
    return x << n | x >> (64 - n);
}

static inline void step(struct hash *h, u64 even, u64 odd)
{
    h->even = rotate((h->even ^ even) * EVEN_MULTIPLIER, 29) + h->odd;
    h->odd = rotate((h->odd ^ odd) * ODD_MULTIPLIER + h->even, 31);
}

static inline u64 word_at(const u8 *p)
{
    u64 w;
    memcpy(&w, p, sizeof(w));
    return w;
}

void hash_start(struct hash *h)
{
    h->even = 0x736b696666u;
    h->odd = 0x6d6f7665u;
}

void hash_add(struct hash *h, const void *data, size_t bytes)
{
    const u8 *p = data;
    struct hash now = *h;

    for (; bytes >= 64; bytes -= 64, p += 64) { // unrolled: it runs over all that a move carries
        step(&now, word_at(p), word_at(p + 8));
        step(&now, word_at(p + 16), word_at(p + 24));
        step(&now, word_at(p + 32), word_at(p + 40));
        step(&now, word_at(p + 48), word_at(p + 56));
    }
    for (; bytes >= 16; bytes -= 16, p += 16)
        step(&now, word_at(p), word_at(p + 8));
    if (bytes) { // the tail counts with its length, so that zeros behind it change the digest
        u64 w[2] = {0, 0};
        for (size_t i = 0; i < bytes; i++)
            w[i / 8] |= (u64)p[i] << (i % 8 * 8);
        step(&now, w[0], w[1]);
        step(&now, bytes, bytes);
    }
    *h = now;
}

// One more step brings a difference that the last words left in one chain to both.
void hash_finish(const struct hash *h, u64 out[2])
{
    struct hash last = *h;
    step(&last, 0, 0);
    out[0] = last.even;
    out[1] = last.odd;
}

void hash_bytes(const void *data, size_t bytes, u64 out[2])
{
    struct hash h;
    hash_start(&h);
    hash_add(&h, data, bytes);
    hash_finish(&h, out);
}

static bool page_is_zero(const void *page)
{
    const u64 *w = page;
    for (u32 i = 0; i < PAGE_SIZE / 8; i += 8)
        if (w[i] | w[i + 1] | w[i + 2] | w[i + 3] | w[i + 4] | w[i + 5] | w[i + 6] | w[i + 7])
            return false;
    return true;
}

// Most of a guest's memory is often zeros: seeing that costs a quarter of the digest, and what the
// digest would be is known.
bool hash_page(const void *page, u64 out[2])
{
    static u64 of_zeros[2];
    if (!page_is_zero(page)) {
        hash_bytes(page, PAGE_SIZE, out);
        return false;
    }
    if (!of_zeros[0]) // 1 in 2^64: computed each time, nothing worse
        hash_bytes(page, PAGE_SIZE, of_zeros);
    out[0] = of_zeros[0];
    out[1] = of_zeros[1];
    return true;
}
