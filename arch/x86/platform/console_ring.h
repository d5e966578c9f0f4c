// SPDX-License-Identifier: MIT
// The last of what a guest wrote to its serial console.
#ifndef SKIFF_PLATFORM_CONSOLE_RING_H
#define SKIFF_PLATFORM_CONSOLE_RING_H

#include "kernel/types.h"

#define CONSOLE_RING_BYTES (16 * KIB)

struct console_ring {
    u64 written; // bytes ever written
    char data[CONSOLE_RING_BYTES];
};

static inline void console_ring_put(struct console_ring *r, char c)
{
    r->data[r->written++ % CONSOLE_RING_BYTES] = c;
}

// Copies the last bytes, at most size and at most what is kept; returns how many.
static inline size_t console_ring_tail(const struct console_ring *r, char *buf, size_t size)
{
    size_t n = MIN(MIN(r->written, CONSOLE_RING_BYTES), size);
    for (size_t i = 0; i < n; i++)
        buf[i] = r->data[(r->written - n + i) % CONSOLE_RING_BYTES];
    return n;
}

#endif
