// SPDX-License-Identifier: MIT
// What the host may need for its guests: what it has accounted is never more.
// sources: kernel/guest/metadata.c kernel/guest/dirty_bitmap.c
#include "fake_guest.h"
#include "tests/unit/unit.h"

#include "kernel/migrate/page_hashes.h"

struct mutex guests_lock;
static struct guest absent, big;

struct guest *guest_first(void)
{
    return &absent;
}

u64 page_hashes_bytes(u64 pages)
{
    return pages * 16;
}

static void test_five_gib(void **state)
{
    (void)state;
    u64 limit[MEM_USES];
    absent.next = &big;
    big.memory = (struct guest_memory){
        .bytes = 5 * GIB,
        .region_count = 2,
        .region = {{.gpa = 0, .bytes = 3 * GIB}, {.gpa = 4 * GIB, .bytes = 2 * GIB}},
    };
    guests_memory_limits(limit);
    assert_int_equal(limit[MEM_GUEST_RAM], 5 * GIB);
    // All of it split: 2560 tables, five directories, one table above them, the root.
    assert_int_equal(limit[MEM_PAGE_TABLES], (2560 + 5 + 2) * PAGE_SIZE);
    assert_int_equal(limit[MEM_PAGE_HASHES], 5 * GIB / 256);
    assert_int_equal(limit[MEM_NETWORK], 0); // is not the guests'

    struct dirty_bitmap b[3];
    for (unsigned i = 0; i < ARRAY_SIZE(b); i++)
        assert_int_equal(dirty_bitmap_init(&b[i], 5 * GIB / PAGE_SIZE), 0);
    assert_in_range(fake_used[MEM_DIRTY_LOG], 1, limit[MEM_DIRTY_LOG]);
    for (unsigned i = 0; i < ARRAY_SIZE(b); i++)
        dirty_bitmap_free(&b[i]);
    assert_int_equal(fake_used[MEM_DIRTY_LOG], 0);
}

static void test_part_of_a_gib(void **state)
{
    (void)state;
    u64 limit[MEM_USES];
    absent.next = &big;
    big.memory = (struct guest_memory){
        .bytes = 64 * MIB, .region_count = 1, .region = {{.gpa = 0, .bytes = 64 * MIB}}};
    guests_memory_limits(limit);
    assert_int_equal(limit[MEM_PAGE_TABLES], (32 + 1 + 2) * PAGE_SIZE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_five_gib),
        cmocka_unit_test(test_part_of_a_gib),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
