// SPDX-License-Identifier: MIT
// The byte ring between a connection's thread and the network thread.
// sources: net/ring.c
// libs: -lpthread
#include "tests/unit/unit.h"

#include <pthread.h>
#include <sched.h>

#include "kernel/lib.h"
#include "kernel/mem.h"
#include "net/ring.h"

static int chunks; // handed out by the fake page allocator
static int chunk_limit = 1000;

u64 page_alloc(unsigned order)
{
    assert_int_equal(order, RING_CHUNK_ORDER);
    if (__atomic_add_fetch(&chunks, 1, __ATOMIC_SEQ_CST) > chunk_limit) {
        __atomic_sub_fetch(&chunks, 1, __ATOMIC_SEQ_CST);
        return 0;
    }
    return ptr_phys(aligned_alloc(PAGE_SIZE, RING_CHUNK));
}

void page_free(u64 pa, unsigned order)
{
    assert_int_equal(order, RING_CHUNK_ORDER);
    __atomic_sub_fetch(&chunks, 1, __ATOMIC_SEQ_CST);
    free(phys_ptr(pa));
}

void panic(const char *fmt, ...)
{
    fail_msg("panic: %s", fmt);
    abort();
}

static u8 byte_at(u64 position)
{
    return (u8)(position * 7 + position / 256);
}

static void fill(u8 *buf, u64 position, u64 n)
{
    for (u64 i = 0; i < n; i++)
        buf[i] = byte_at(position + i);
}

static void check(const u8 *buf, u64 position, u64 n)
{
    for (u64 i = 0; i < n; i++)
        if (buf[i] != byte_at(position + i))
            fail_msg("byte %llu differs", (unsigned long long)(position + i));
}

static int setup(void **state)
{
    chunk_limit = 1000;
    *state = calloc(1, sizeof(struct ring));
    return 0;
}

static int teardown(void **state)
{
    ring_free(*state);
    free(*state);
    assert_int_equal(chunks, 0);
    return 0;
}

static void test_empty(void **state)
{
    struct ring *r = *state;
    u64 n = 1;
    u8 b;
    assert_int_equal(ring_used(r), 0);
    assert_null(ring_peek(r, &n));
    assert_int_equal(n, 0);
    assert_int_equal(ring_read(r, &b, 1), 0);
    assert_int_equal(ring_write(r, NULL, 0), 0);
    assert_int_equal(chunks, 0);
}

static void test_bytes_come_out_as_they_went_in(void **state)
{
    struct ring *r = *state;
    static u8 in[70000], out[70000];
    u64 written = 0, read = 0;
    srand(1);
    for (int i = 0; i < 20000; i++) {
        u64 n = (u64)rand() % (i % 10 ? 300 : sizeof(in));
        if (n <= RING_MAX_BYTES - ring_used(r)) {
            fill(in, written, n);
            assert_int_equal(ring_write(r, in, n), 0);
            written += n;
        }
        n = ring_read(r, out, (u64)rand() % (i % 9 ? 400 : sizeof(out)));
        check(out, read, n);
        read += n;
        assert_int_equal(ring_used(r), written - read);
    }
}

static void test_holds_its_capacity_at_any_offset(void **state)
{
    struct ring *r = *state;
    static u8 block[RING_MAX_BYTES];
    const u64 offsets[] = {0, 1, RING_CHUNK - 1, 5};
    for (u64 i = 0; i < ARRAY_SIZE(offsets); i++) {
        assert_int_equal(ring_write(r, block, offsets[i]), 0);
        assert_int_equal(ring_read(r, block, offsets[i]), offsets[i]);
        fill(block, i, sizeof(block));
        assert_int_equal(ring_write(r, block, sizeof(block)), 0);
        assert_int_equal(ring_write(r, block, 1), E_NOMEM);
        assert_int_equal(ring_used(r), sizeof(block));
        memset(block, 0, sizeof(block));
        assert_int_equal(ring_read(r, block, sizeof(block)), sizeof(block));
        check(block, i, sizeof(block));
    }
}

static void test_memory_follows_the_bytes(void **state)
{
    struct ring *r = *state;
    static u8 block[RING_MAX_BYTES];
    assert_int_equal(ring_write(r, block, sizeof(block)), 0);
    assert_int_equal(chunks, RING_MAX_BYTES / RING_CHUNK);
    ring_consume(r, sizeof(block) / 2);
    assert_true(chunks <= (int)(RING_MAX_BYTES / RING_CHUNK / 2) + 2);
    ring_consume(r, sizeof(block) / 2);
    assert_true(chunks <= 2);
}

static void test_no_memory_writes_nothing(void **state)
{
    struct ring *r = *state;
    static u8 block[4 * RING_CHUNK];
    chunk_limit = 2;
    fill(block, 0, sizeof(block));
    assert_int_equal(ring_write(r, block, sizeof(block)), E_NOMEM);
    assert_int_equal(ring_used(r), 0);
    assert_int_equal(ring_write(r, block, 2 * RING_CHUNK), 0);
    assert_int_equal(ring_write(r, block, 1), E_NOMEM);
    chunk_limit = 1000;
    assert_int_equal(ring_write(r, block + 2 * RING_CHUNK, 2 * RING_CHUNK), 0);
    memset(block, 0, sizeof(block));
    assert_int_equal(ring_read(r, block, sizeof(block)), sizeof(block));
    check(block, 0, sizeof(block));
}

static void test_peek_is_contiguous(void **state)
{
    struct ring *r = *state;
    static u8 block[RING_CHUNK + 100];
    u64 n;
    fill(block, 0, sizeof(block));
    assert_int_equal(ring_write(r, block, sizeof(block)), 0);
    check(ring_peek(r, &n), 0, RING_CHUNK);
    assert_int_equal(n, RING_CHUNK);
    ring_consume(r, n);
    check(ring_peek(r, &n), RING_CHUNK, 100);
    assert_int_equal(n, 100);
}

#define TRANSFER (64 * MIB)

static void *produce(void *arg)
{
    static u8 block[50000];
    unsigned seed = 3;
    for (u64 done = 0; done < TRANSFER;) {
        u64 n = MIN((u64)rand_r(&seed) % sizeof(block) + 1, TRANSFER - done);
        fill(block, done, n);
        while (ring_write(arg, block, n))
            sched_yield();
        done += n;
    }
    return NULL;
}

static void test_two_threads(void **state)
{
    struct ring *r = *state;
    static u8 block[60000];
    unsigned seed = 4;
    pthread_t producer;
    assert_int_equal(pthread_create(&producer, NULL, produce, r), 0);
    for (u64 done = 0; done < TRANSFER;) {
        u64 n = ring_read(r, block, (u64)rand_r(&seed) % sizeof(block) + 1);
        check(block, done, n);
        done += n;
        if (n == 0)
            sched_yield();
    }
    pthread_join(producer, NULL);
    assert_int_equal(ring_used(r), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_empty, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bytes_come_out_as_they_went_in, setup, teardown),
        cmocka_unit_test_setup_teardown(test_holds_its_capacity_at_any_offset, setup, teardown),
        cmocka_unit_test_setup_teardown(test_memory_follows_the_bytes, setup, teardown),
        cmocka_unit_test_setup_teardown(test_no_memory_writes_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(test_peek_is_contiguous, setup, teardown),
        cmocka_unit_test_setup_teardown(test_two_threads, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
