// SPDX-License-Identifier: MIT
// A driver's virtqueue against a device that plays by the rules, and one that does not.

// sources: kernel/virtqueue.c
#include "tests/unit/unit.h"

#include "kernel/lib.h"
#include "kernel/mem.h"
#include "kernel/virtqueue.h"

#define SIZE 16u

static struct virtq q;
static volatile u16 doorbell;
static u16 device_seen;

u64 page_alloc(unsigned order)
{
    return ptr_phys(aligned_alloc(PAGE_SIZE, PAGE_SIZE << order));
}

static int start(void **state)
{
    (void)state;
    memset(&q, 0, sizeof(q));
    device_seen = 0;
    assert_int_equal(virtq_init(&q, SIZE), 0);
    q.number = 7;
    q.doorbell = &doorbell;
    return 0;
}

static int end(void **state)
{
    (void)state;
    free(q.desc);
    return 0;
}

// The device: the next chain it was given, and the end of one.
static u16 device_take(void)
{
    assert_int_not_equal(q.avail->index, device_seen);
    return q.avail->ring[device_seen++ % SIZE];
}

static void device_return(u32 id, u32 bytes)
{
    q.used->ring[q.used->index % SIZE].id = id;
    q.used->ring[q.used->index % SIZE].bytes = bytes;
    q.used->index++;
}

static int add(u32 count, bool write, void *owner)
{
    struct virtq_part part[SIZE];
    for (u32 i = 0; i < SIZE; i++)
        part[i] = (struct virtq_part){0x1000 * (i + 1), 10 + i};
    return write ? virtq_add(&q, part, 0, count, owner) : virtq_add(&q, part, count, 0, owner);
}

static void test_read_parts_come_before_written_ones(void **state)
{
    (void)state;
    struct virtq_part part[3] = {{0x1000, 16}, {0x2000, 512}, {0x3000, 1}};
    int me;
    u16 at = (u16)virtq_add(&q, part, 1, 2, &me);
    assert_int_equal(q.desc[at].flags, VIRTQ_NEXT);
    at = q.desc[at].next;
    assert_int_equal(q.desc[at].flags, VIRTQ_NEXT | VIRTQ_WRITE);
    at = q.desc[at].next;
    assert_int_equal(q.desc[at].flags, VIRTQ_WRITE);
    assert_int_equal(q.desc[at].address, 0x3000);
}

static void test_a_reset_makes_it_empty(void **state)
{
    (void)state;
    int me;
    u32 bytes;
    struct virtq_desc *desc = q.desc;
    add(3, true, &me);
    q.used->index = 1;
    assert_int_equal(virtq_init(&q, SIZE), 0);
    assert_ptr_equal(q.desc, desc); // the same memory
    assert_int_equal(q.free_count, SIZE);
    assert_null(virtq_take(&q, &bytes));
}

static void test_a_chain_goes_there_and_back(void **state)
{
    (void)state;
    int me;
    u32 bytes;
    assert_in_range(add(3, false, &me), 0, SIZE - 1);
    assert_int_equal(q.avail->index, 0); // not yet
    doorbell = 0;
    virtq_publish(&q);
    assert_int_equal(doorbell, 7);
    u16 id = device_take();
    u16 at = id;
    for (u32 i = 0; i < 3; i++, at = q.desc[at].next) {
        assert_int_equal(q.desc[at].address, 0x1000 * (i + 1));
        assert_int_equal(q.desc[at].bytes, 10 + i);
        assert_int_equal(q.desc[at].flags, i < 2 ? VIRTQ_NEXT : 0);
    }
    assert_int_equal(q.free_count, SIZE - 3);
    assert_null(virtq_take(&q, &bytes));
    device_return(id, 42);
    assert_true(virtq_waiting(&q));
    assert_ptr_equal(virtq_take(&q, &bytes), &me);
    assert_int_equal(bytes, 42);
    assert_int_equal(q.free_count, SIZE);
}

static void test_a_full_queue_refuses_and_goes_on(void **state)
{
    (void)state;
    int owner[SIZE];
    u32 bytes;
    for (u32 i = 0; i < SIZE; i++)
        assert_true(add(1, true, &owner[i]) >= 0);
    assert_int_equal(add(1, true, owner), E_BUSY);
    virtq_publish(&q);
    u16 id[SIZE];
    for (u32 i = 0; i < SIZE; i++)
        id[i] = device_take();
    for (u32 i = SIZE; i-- > 0;) // in the opposite order
        device_return(id[i], i);
    for (u32 i = SIZE; i-- > 0;)
        assert_ptr_equal(virtq_take(&q, &bytes), &owner[i]);
    for (u32 round = 0; round < 100000; round++) { // past the wrap of the indices
        assert_true(add(2, false, owner) >= 0);
        virtq_publish(&q);
        device_return(device_take(), 0);
        assert_ptr_equal(virtq_take(&q, &bytes), owner);
    }
    assert_int_equal(q.free_count, SIZE);
}

static void test_ids_that_lie_are_ignored(void **state)
{
    (void)state;
    int me;
    u32 bytes;
    add(2, true, &me);
    virtq_publish(&q);
    u16 id = device_take();
    device_return(SIZE, 1);
    device_return(~0u, 1);
    device_return(q.desc[id].next, 1); // the middle of a chain
    device_return(id + 5, 1);          // one that it was never given
    assert_null(virtq_take(&q, &bytes));
    device_return(id, ~0u);
    assert_ptr_equal(virtq_take(&q, &bytes), &me);
    device_return(id, 1); // the same again
    assert_null(virtq_take(&q, &bytes));
    assert_int_equal(q.free_count, SIZE);
}

static void test_no_notification_where_none_is_wanted(void **state)
{
    (void)state;
    int me;
    doorbell = 0;
    q.used->flags = VIRTQ_NO_NOTIFY;
    add(1, true, &me);
    virtq_publish(&q);
    assert_int_equal(q.avail->index, 1);
    assert_int_equal(doorbell, 0);
    virtq_interrupts(&q, false);
    assert_int_equal(q.avail->flags, VIRTQ_NO_INTERRUPT);
    virtq_interrupts(&q, true);
    assert_int_equal(q.avail->flags, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_read_parts_come_before_written_ones, start, end),
        cmocka_unit_test_setup_teardown(test_a_reset_makes_it_empty, start, end),
        cmocka_unit_test_setup_teardown(test_a_chain_goes_there_and_back, start, end),
        cmocka_unit_test_setup_teardown(test_a_full_queue_refuses_and_goes_on, start, end),
        cmocka_unit_test_setup_teardown(test_ids_that_lie_are_ignored, start, end),
        cmocka_unit_test_setup_teardown(test_no_notification_where_none_is_wanted, start, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
