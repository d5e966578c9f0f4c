// SPDX-License-Identifier: MIT
// The 128-bit digest of moves: two 64-bit halves, fast without SIMD registers.
#ifndef SKIFF_MIGRATE_HASH_H
#define SKIFF_MIGRATE_HASH_H

#include "kernel/types.h"

// It finds accidents, not attacks: there is no secret. Two chains of multiplications and rotations,
// one over the even 64-bit words and one over the odd ones, each of which adds to the other.
//
// What it finds. A step maps its two words one to one for a given state, and the state one to one
// for given words (exclusive or, an odd factor, a rotation, a sum: each can be undone). So inputs
// of one length that differ in a single pair of words never have the same digest. Neither have
// those that differ in an odd word and the even one after it: where the latter undoes the
// difference in the even chain, the former is still in the odd one. So every flipped bit and every
// burst of up to 65 is found. Of what changes more (bytes lost or moved, pages mixed) about one in
// 2^64 at most is missed, if the digest behaves as a random one would. A chain that stood alone
// would miss some pairs of bits each time, for a word's top bit changes but one bit of the product,
// and the same bit of the chain's next word can change it back: that is what the sums are for.
//
// Multiplications rather than the CRC32 instruction: an emulated CPU works out the latter bit by
// bit, and both ends of a move must use the same. On a real CPU a step, of 16 bytes, takes the six
// cycles of exclusive or, multiplication, rotation and sum.
struct hash {
    u64 even, odd;
};

void hash_start(struct hash *h);
// Continues h over bytes, which must be a multiple of 16 but for the last call.
void hash_add(struct hash *h, const void *data, size_t bytes);
// The two halves as they travel.
void hash_finish(const struct hash *h, u64 out[2]);
// The three above in one.
void hash_bytes(const void *data, size_t bytes, u64 out[2]);
// Of 4096 bytes, 8-byte aligned. True when they are all zeros.
bool hash_page(const void *page, u64 out[2]);

#endif
