// SPDX-License-Identifier: MIT
// The 128-bit digest of moves: two 64-bit halves, fast without SIMD registers.
#ifndef SKIFF_MIGRATE_HASH_H
#define SKIFF_MIGRATE_HASH_H

#include "kernel/types.h"

// It finds accidents (a flipped bit, a lost write, swapped pages), not attacks: there is no secret.
// Two rotate-multiply chains, over the even and the odd 64-bit words, that are mixed at the end.
// Multiplications rather than CRC32: emulated CPUs work out the latter bit by bit.
struct hash {
    u64 even, odd;
};

void hash_start(struct hash *h);
// Continues h over bytes, which must be a multiple of 16 but for the last call.
void hash_add(struct hash *h, const void *data, size_t bytes);
// The two halves as they travel.
void hash_finish(const struct hash *h, u64 out[2]);
bool page_is_zero(const void *page);
void hash_page(const void *page, u64 out[2]); // 4096 bytes, 8-byte aligned

#endif
