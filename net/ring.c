// SPDX-License-Identifier: MIT
// The byte ring between a connection's thread and the network thread.
#include "net/ring.h"

#include "kernel/lib.h"
#include "kernel/mem.h"

static u8 **slot(struct ring *r, u64 position)
{
    return &r->chunk[position / RING_CHUNK % RING_MAX_CHUNKS];
}

static u8 *chunk_get(struct ring *r)
{
    u8 *c = __atomic_exchange_n(&r->spare, NULL, __ATOMIC_ACQ_REL);
    if (c)
        return c;
    u64 pa = page_alloc(RING_CHUNK_ORDER);
    if (!pa)
        return NULL;
    mem_account(MEM_NETWORK, RING_CHUNK);
    return phys_ptr(pa);
}

static void chunk_free(u8 *chunk)
{
    if (!chunk)
        return;
    page_free(ptr_phys(chunk), RING_CHUNK_ORDER);
    mem_account(MEM_NETWORK, -(s64)RING_CHUNK);
}

static void chunk_put(struct ring *r, u8 *chunk)
{
    chunk_free(__atomic_exchange_n(&r->spare, chunk, __ATOMIC_ACQ_REL));
}

u64 ring_used(const struct ring *r)
{
    // tail first: head never falls behind a tail that was read before it.
    u64 tail = __atomic_load_n(&r->tail, __ATOMIC_ACQUIRE);
    return __atomic_load_n(&r->head, __ATOMIC_ACQUIRE) - tail;
}

// Every chunk that bytes [head, head + bytes) touch gets memory, so that the copy cannot fail. What
// a failed call leaves behind is used by the next one: the chunks lie ahead of head.
int ring_reserve(struct ring *r, u64 bytes)
{
    if (ring_used(r) + bytes > RING_MAX_BYTES)
        return E_NOMEM;
    for (u64 p = ALIGN_DOWN(r->head, RING_CHUNK); p < r->head + bytes; p += RING_CHUNK) {
        if (*slot(r, p))
            continue;
        u8 *c = chunk_get(r);
        if (!c)
            return E_NOMEM;
        *slot(r, p) = c;
    }
    return 0;
}

int ring_write(struct ring *r, const void *data, u64 bytes)
{
    const u8 *from = data;
    if (ring_reserve(r, bytes))
        return E_NOMEM;
    u64 head = r->head;
    for (u64 left = bytes; left > 0;) {
        u64 offset = head % RING_CHUNK;
        u64 n = MIN(left, RING_CHUNK - offset);
        memcpy(*slot(r, head) + offset, from, n);
        from += n;
        head += n;
        left -= n;
    }
    // Release: the consumer that sees the new head sees the bytes and the chunks.
    __atomic_store_n(&r->head, head, __ATOMIC_RELEASE);
    return 0;
}

const void *ring_peek(struct ring *r, u64 *bytes)
{
    u64 used = ring_used(r);
    u64 offset = r->tail % RING_CHUNK;
    *bytes = MIN(used, RING_CHUNK - offset);
    return *bytes ? *slot(r, r->tail) + offset : NULL;
}

void ring_consume(struct ring *r, u64 bytes)
{
    assert(bytes <= ring_used(r));
    u64 tail = r->tail;
    while (bytes > 0) {
        u64 n = MIN(bytes, RING_CHUNK - tail % RING_CHUNK);
        if ((tail + n) % RING_CHUNK == 0) {
            u8 **s = slot(r, tail);
            chunk_put(r, *s);
            *s = NULL;
        }
        tail += n;
        bytes -= n;
    }
    // Release: the producer that sees the new tail sees the emptied slots.
    __atomic_store_n(&r->tail, tail, __ATOMIC_RELEASE);
}

u64 ring_read(struct ring *r, void *out, u64 bytes)
{
    u8 *to = out;
    u64 done = 0, piece;
    const void *p;
    while (done < bytes && (p = ring_peek(r, &piece)) != NULL) {
        piece = MIN(piece, bytes - done);
        memcpy(to + done, p, piece);
        ring_consume(r, piece);
        done += piece;
    }
    return done;
}

void ring_free(struct ring *r)
{
    for (u32 i = 0; i < RING_MAX_CHUNKS; i++) {
        chunk_free(r->chunk[i]);
        r->chunk[i] = NULL;
    }
    chunk_free(r->spare);
    r->spare = NULL;
}
