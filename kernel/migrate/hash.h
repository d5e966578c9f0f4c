// SPDX-License-Identifier: MIT
// The 128-bit digest of moves: two independent 64-bit halves, fast without SIMD registers.
#ifndef SKIFF_MIGRATE_HASH_H
#define SKIFF_MIGRATE_HASH_H

#include "kernel/types.h"

// It finds accidents (a flipped bit, a lost write, swapped pages), not attacks: there is no secret.
// Half 0 is a rotate-multiply chain, half 1 two CRC32C of the even and the odd 64-bit words.
struct hash {
    u64 mul;
    u32 crc[2];
};

void hash_start(struct hash *h);
// Continues h over bytes, which must be a multiple of 16 but for the last call.
void hash_add(struct hash *h, const void *data, size_t bytes);
// The two halves as they travel.
void hash_finish(const struct hash *h, u64 out[2]);
void hash_page(const void *page, u64 out[2]); // 4096 bytes, 8-byte aligned

#endif
