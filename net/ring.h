// SPDX-License-Identifier: MIT
// A byte ring between one producer and one consumer thread, in chunks that come and go with the
// bytes in it: an idle connection holds a chunk or two, a busy one as much as its window.
#ifndef SKIFF_NET_RING_H
#define SKIFF_NET_RING_H

#include "kernel/types.h"

#define RING_CHUNK_ORDER 2
#define RING_CHUNK       (PAGE_SIZE << RING_CHUNK_ORDER)
#define RING_MAX_CHUNKS  65 // 1 MiB of bytes at any offset within their first chunk

struct ring {
    u64 head;                   // bytes ever written; the producer's
    u64 tail;                   // bytes ever read; the consumer's
    u8 *chunk[RING_MAX_CHUNKS]; // chunk of byte position p: (p / RING_CHUNK) % RING_MAX_CHUNKS
    u8 *spare; // one free chunk kept for the next use; whoever takes it swaps in NULL
};

#define RING_MAX_BYTES ((RING_MAX_CHUNKS - 1) * RING_CHUNK)

// Bytes waiting. Either side may ask; for the producer it can only shrink meanwhile, for the
// consumer only grow.
u64 ring_used(const struct ring *r);

// Producer: makes sure that the next `bytes` bytes can be written. Returns 0, or E_NOMEM when they
// do not fit (RING_MAX_BYTES) or there is no memory.
int ring_reserve(struct ring *r, u64 bytes);
// Producer: adds all bytes or, where ring_reserve would fail, none. Returns 0 or E_NOMEM.
int ring_write(struct ring *r, const void *data, u64 bytes);

// Consumer: the longest contiguous piece at the front (NULL, 0 when empty), and its removal.
const void *ring_peek(struct ring *r, u64 *bytes);
void ring_consume(struct ring *r, u64 bytes);
// Consumer: moves up to `bytes` bytes out; returns how many.
u64 ring_read(struct ring *r, void *out, u64 bytes);

// Frees all chunks; nobody may use the ring any more.
void ring_free(struct ring *r);

#endif
