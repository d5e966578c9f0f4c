// SPDX-License-Identifier: MIT
// Two ends of a stream over a wire that keeps what is written for whoever reads it. Included once
// by a test.
#include "kernel/lib.h"
#include "kernel/mem.h"
#include "kernel/migrate/stream.h"
#include "kernel/time.h"

u64 time_ns(void)
{
    return 1;
}

u64 pages_alloc(u64 count)
{
    return (u64)(uintptr_t)aligned_alloc(PAGE_SIZE, count * PAGE_SIZE);
}

void pages_free(u64 pa, u64 count)
{
    (void)count;
    free((void *)(uintptr_t)pa);
}

// A wire that keeps what is written for whoever reads it.
static struct wire {
    struct conn base;
    u8 data[4 * STREAM_MAX_PAYLOAD];
    u64 head, tail;
} wire;

static s64 wire_read(struct conn *c, void *buf, u64 size)
{
    (void)c;
    u64 n = MIN(size, wire.tail - wire.head);
    memcpy(buf, wire.data + wire.head, n);
    wire.head += n;
    return (s64)n;
}

static s64 wire_write(struct conn *c, const void *buf, u64 size)
{
    (void)c;
    assert_true(wire.tail + size <= sizeof(wire.data));
    memcpy(wire.data + wire.tail, buf, size);
    wire.tail += size;
    return (s64)size;
}

static int wire_flush(struct conn *c)
{
    (void)c;
    return 0;
}

static void wire_end(struct conn *c)
{
    (void)c;
}

static void wire_deadline(struct conn *c, u64 ns)
{
    (void)c, (void)ns;
}

static const struct conn_ops wire_ops = {wire_read, wire_write, wire_flush,
                                         wire_end,  wire_end,   wire_deadline};

int conn_read_full(struct conn *c, void *buf, u64 size)
{
    return conn_read(c, buf, size) == (s64)size ? 0 : E_IO;
}

static struct stream out, in;

static int wire_setup(void **state)
{
    (void)state;
    wire.head = wire.tail = 0;
    wire.base.ops = &wire_ops;
    assert_int_equal(stream_open(&out, &wire.base), 0);
    assert_int_equal(stream_open(&in, &wire.base), 0);
    stream_header_fill(&out.self, "alpha", 11, 7070);
    stream_header_fill(&in.self, "bravo", 22, 7070);
    return 0;
}

static int wire_teardown(void **state)
{
    (void)state;
    stream_close(&out, false);
    stream_close(&in, false);
    return 0;
}
