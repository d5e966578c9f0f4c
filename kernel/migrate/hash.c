// SPDX-License-Identifier: MIT
// The 128-bit digest of moves, in general registers only.
#include "kernel/migrate/hash.h"

#include "kernel/lib.h"

// Odd, so a step loses nothing.
#define EVEN_MULTIPLIER 0x9fb21c651e98df25ull
#define ODD_MULTIPLIER  0xd6e8feb86659fd93ull

static inline u64 rotate(u64 x, unsigned n)
{
    return x << n | x >> (64 - n);
}

static inline u64 step_even(u64 h, u64 word)
{
    return rotate((h ^ word) * EVEN_MULTIPLIER, 29);
}

static inline u64 step_odd(u64 h, u64 word)
{
    return rotate((h ^ word) * ODD_MULTIPLIER, 31);
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
    u64 even = h->even, odd = h->odd;

    for (; bytes >= 64; bytes -= 64, p += 64) { // unrolled: it runs over all of RAM in blackouts
        even = step_even(even, word_at(p));
        odd = step_odd(odd, word_at(p + 8));
        even = step_even(even, word_at(p + 16));
        odd = step_odd(odd, word_at(p + 24));
        even = step_even(even, word_at(p + 32));
        odd = step_odd(odd, word_at(p + 40));
        even = step_even(even, word_at(p + 48));
        odd = step_odd(odd, word_at(p + 56));
    }
    for (; bytes >= 16; bytes -= 16, p += 16) {
        even = step_even(even, word_at(p));
        odd = step_odd(odd, word_at(p + 8));
    }
    if (bytes) { // the tail counts with its length, so that zeros behind it change the digest
        u64 w[2] = {0, 0};
        for (size_t i = 0; i < bytes; i++)
            w[i / 8] |= (u64)p[i] << (i % 8 * 8);
        even = step_even(step_even(even, w[0]), bytes);
        odd = step_odd(step_odd(odd, w[1]), bytes);
    }
    h->even = even;
    h->odd = odd;
}

void hash_finish(const struct hash *h, u64 out[2])
{
    out[0] = step_even(h->even, h->odd);
    out[1] = step_odd(h->odd, h->even);
}

static void hash_page_words(const void *page, u64 out[2])
{
    struct hash h;
    hash_start(&h);
    hash_add(&h, page, PAGE_SIZE);
    hash_finish(&h, out);
}

bool page_is_zero(const void *page)
{
    const u64 *w = page;
    for (u32 i = 0; i < PAGE_SIZE / 8; i += 8)
        if (w[i] | w[i + 1] | w[i + 2] | w[i + 3] | w[i + 4] | w[i + 5] | w[i + 6] | w[i + 7])
            return false;
    return true;
}

// Most of a guest's memory is often zeros: seeing that costs a quarter of the digest, and what the
// digest would be is known.
void hash_page(const void *page, u64 out[2])
{
    static u64 of_zeros[2];
    if (!page_is_zero(page)) {
        hash_page_words(page, out);
        return;
    }
    if (!of_zeros[0]) // 1 in 2^64: computed each time, nothing worse
        hash_page_words(page, of_zeros);
    out[0] = of_zeros[0];
    out[1] = of_zeros[1];
}
