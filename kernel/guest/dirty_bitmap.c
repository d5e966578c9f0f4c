// SPDX-License-Identifier: MIT
// A bitmap of pages with a summary bit a word, so that walking it costs what is set in it.
#include "kernel/guest/memory.h"
#include "kernel/lib.h"
#include "kernel/mem.h"

static u64 word_count(u64 bits)
{
    return (bits + 63) / 64;
}

u64 dirty_bitmap_bytes(u64 pages)
{
    u64 words = word_count(pages);
    return (words + word_count(words)) * sizeof(u64);
}

int dirty_bitmap_init(struct dirty_bitmap *b, u64 pages)
{
    *b = (struct dirty_bitmap){.pages = pages};
    b->bits = kzalloc(dirty_bitmap_bytes(pages));
    if (!b->bits)
        return E_NOMEM;
    b->summary = b->bits + word_count(pages);
    mem_account(MEM_DIRTY_LOG, (s64)dirty_bitmap_bytes(pages));
    return 0;
}

void dirty_bitmap_free(struct dirty_bitmap *b)
{
    if (b->bits)
        mem_account(MEM_DIRTY_LOG, -(s64)dirty_bitmap_bytes(b->pages));
    kfree(b->bits);
    *b = (struct dirty_bitmap){0};
}

bool dirty_bitmap_set(struct dirty_bitmap *b, u64 page)
{
    assert(page < b->pages);
    u64 bit = BIT(page % 64);
    if (b->bits[page / 64] & bit)
        return false;
    b->bits[page / 64] |= bit;
    b->summary[page / 64 / 64] |= BIT(page / 64 % 64);
    b->count++;
    return true;
}

bool dirty_bitmap_clear(struct dirty_bitmap *b, u64 page)
{
    if (!dirty_bitmap_test(b, page))
        return false;
    b->bits[page / 64] &= ~BIT(page % 64);
    b->count--;
    return true;
}

bool dirty_bitmap_test(const struct dirty_bitmap *b, u64 page)
{
    return page < b->pages && (b->bits[page / 64] & BIT(page % 64));
}

// The first word at or after `word` that the summary calls non-zero, ~0 when none.
static u64 next_word(const struct dirty_bitmap *b, u64 word)
{
    u64 words = word_count(b->pages);
    if (word >= words)
        return ~0ull;
    u64 s = word / 64;
    u64 left = b->summary[s] & (~0ull << word % 64);
    while (!left) {
        if (++s >= word_count(words))
            return ~0ull;
        left = b->summary[s];
    }
    return s * 64 + (u64)__builtin_ctzll(left);
}

u64 dirty_bitmap_take_next(struct dirty_bitmap *b, u64 from)
{
    u64 keep_from = from;
    for (u64 w = next_word(b, from / 64); w != ~0ull; w = next_word(b, w + 1)) {
        u64 left = b->bits[w];
        if (w == keep_from / 64)
            left &= ~0ull << keep_from % 64;
        if (!left)
            continue;
        u64 bit = left & -left;
        b->bits[w] &= ~bit;
        if (!b->bits[w])
            b->summary[w / 64] &= ~BIT(w % 64);
        b->count--;
        return w * 64 + (u64)__builtin_ctzll(bit);
    }
    return ~0ull;
}

static void fill_words(u64 *words, u64 bits)
{
    memset(words, 0xff, bits / 64 * sizeof(u64));
    if (bits % 64)
        words[bits / 64] = BIT(bits % 64) - 1;
}

void dirty_bitmap_fill(struct dirty_bitmap *b)
{
    fill_words(b->bits, b->pages);
    fill_words(b->summary, word_count(b->pages));
    b->count = b->pages;
}
