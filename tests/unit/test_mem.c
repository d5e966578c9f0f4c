// SPDX-License-Identifier: MIT
// The page allocator and the heap on a made-up memory map with memory above 4 GiB.
// The address sanitizer's own tables lie where this test needs memory, so it does without.

// sources: kernel/mem.c kernel/heap.c
// cflags: -fno-sanitize=address
#include "tests/unit/unit.h"

#include "kernel/lib.h"
#include "kernel/mem.h"
#include "tests/unit/fake_memory.h"

static struct boot_info bi;

static u64 free_now(void)
{
    struct mem_stats s;
    mem_get_stats(&s);
    return s.free_bytes;
}

static int start(void **state)
{
    (void)state;
    fake_map(LOW_BASE, LOW_BYTES);
    fake_map(HIGH_BASE, HIGH_BYTES);
    fake_memory(&bi);
    bi.image_size = 12345;
    bi.file_count = 1;
    bi.files[0].size = 5000;
    mem_init(&bi);
    return 0;
}

static void test_boot_services_come_later(void **state)
{
    (void)state;
    struct mem_stats s;
    mem_get_stats(&s);
    assert_int_equal(s.image_bytes, 12345);
    assert_int_equal(s.boot_file_bytes, 8192);
    assert_int_equal(s.total_bytes, LOW_BYTES - 2 * MIB + HIGH_BYTES);
    mem_reclaim_boot(&bi);
    mem_get_stats(&s);
    assert_int_equal(s.total_bytes, LOW_BYTES - MIB + HIGH_BYTES);
    u64 map = ALIGN_UP((HIGH_BASE + HIGH_BYTES) / PAGE_SIZE, PAGE_SIZE);
    assert_int_equal(s.free_bytes, s.total_bytes - map);
}

static void test_zones(void **state)
{
    (void)state;
    u64 small = page_alloc(0);
    u64 large = page_alloc(MEM_LARGE_ORDER);
    assert_true(small && small < 4 * GIB);
    assert_true(large >= 4 * GIB);
    assert_int_equal(large % LARGE_PAGE_SIZE, 0);
    page_free(small, 0);
    page_free(large, MEM_LARGE_ORDER);
    assert_int_equal(page_alloc(MEM_MAX_ORDER + 1), 0);
}

static void test_what_comes_back(void **state)
{
    (void)state;
    u64 small = page_alloc(0), large = page_alloc(MEM_LARGE_ORDER);
    page_free(small, 0);
    page_free(large, MEM_LARGE_ORDER);
    u64 first = page_alloc(0);
    assert_int_equal(first, small); // at once: it may be in a cache
    page_free(first, 0);
    u64 got[4096], n = 0;
    while ((got[n] = page_alloc(MEM_LARGE_ORDER)) != large) // only when there is little else
        assert_true(got[n++]);
    assert_true(n > 2);
    page_free(large, MEM_LARGE_ORDER);
    while (n)
        page_free(got[--n], MEM_LARGE_ORDER);
}

// Every block of every order until nothing is left, and all of it back.
static void test_exhaust(void **state)
{
    (void)state;
    u64 before = free_now();
    for (unsigned order = 0; order <= MEM_MAX_ORDER; order++) {
        static u64 got[32768];
        size_t n = 0;
        u64 pa;
        while ((pa = page_alloc(order))) {
            assert_int_equal(pa & ((PAGE_SIZE << order) - 1), 0);
            memset(phys_ptr(pa), (int)n, 64);
            got[n++] = pa;
        }
        assert_true(n << order > 100);
        if (!order)
            assert_int_equal(free_now(), 0);
        for (size_t i = 1; i < n; i += 2) // odd ones first, so that buddies meet late
            page_free(got[i], order);
        for (size_t i = 0; i < n; i += 2)
            page_free(got[i], order);
        assert_int_equal(free_now(), before);
    }
}

static void test_any_count(void **state)
{
    (void)state;
    u64 before = free_now();
    u64 pa[111];
    for (u64 n = 1; n <= 110; n++) {
        pa[n] = pages_alloc(n);
        assert_true(pa[n]);
        memset(phys_ptr(pa[n]), 1, n * PAGE_SIZE);
    }
    assert_int_equal(before - free_now(), 110 * 111 / 2 * PAGE_SIZE);
    for (u64 n = 110; n; n--)
        pages_free(pa[n], n);
    assert_int_equal(free_now(), before);
    assert_int_equal(pages_alloc(0), 0);
    assert_int_equal(pages_alloc(5000), 0);
}

static void test_zeroed(void **state)
{
    (void)state;
    u64 pa = page_alloc(2);
    memset(phys_ptr(pa), 0xee, 4 * PAGE_SIZE);
    page_free(pa, 2);
    pa = page_alloc_zero(2);
    const u8 *p = phys_ptr(pa);
    for (u64 i = 0; i < 4 * PAGE_SIZE; i++)
        assert_int_equal(p[i], 0);
    page_free(pa, 2);
}

struct block {
    u8 *p;
    size_t size;
    u8 fill;
};

static void check_block(const struct block *b)
{
    for (size_t i = 0; i < b->size; i++)
        if (b->p[i] != b->fill)
            fail_msg("a block of %zu was overwritten at %zu", b->size, i);
}

static void test_heap_random(void **state)
{
    (void)state;
    static struct block blocks[300];
    u64 before = free_now();
    u64 seed = 12345;
    for (int round = 0; round < 40000; round++) {
        seed = seed * 6364136223846793005ull + 1442695040888963407ull;
        struct block *b = &blocks[(seed >> 33) % ARRAY_SIZE(blocks)];
        if (b->p) {
            check_block(b);
            kfree(b->p);
            b->p = NULL;
            continue;
        }
        unsigned shift = (unsigned)(seed >> 50) % 15;
        b->size = (size_t)(seed >> 20) % (1u << shift) + (round & 1);
        b->fill = (u8)round;
        b->p = kmalloc(b->size);
        assert_non_null(b->p);
        assert_int_equal((uintptr_t)b->p % 16, 0);
        memset(b->p, b->fill, b->size);
    }
    for (size_t i = 0; i < ARRAY_SIZE(blocks); i++)
        kfree(blocks[i].p);
    struct mem_stats s;
    mem_get_stats(&s);
    assert_int_equal(s.heap_bytes, 0);
    assert_int_equal(s.free_bytes, before);
}

static void test_heap_limits(void **state)
{
    (void)state;
    kfree(NULL);
    assert_null(kmalloc((size_t)-1));
    assert_null(kmalloc(4 * MIB));
    u8 *p = kzalloc(4 * MIB - 64);
    assert_non_null(p);
    assert_int_equal(p[4 * MIB - 65], 0);
    kfree(p);
    u64 before = free_now();
    void *held[20000];
    size_t n = 0;
    while (n < ARRAY_SIZE(held) && (held[n] = kmalloc(2016)))
        n++;
    assert_true(n > 10000 || n == ARRAY_SIZE(held)); // until there is none, which is no disaster
    while (n)
        kfree(held[--n]);
    assert_int_equal(free_now(), before);
}

static void test_guest_account(void **state)
{
    (void)state;
    struct mem_stats s;
    mem_account(MEM_GUEST_RAM, 4096);
    mem_account(MEM_GUEST_RAM, 8192);
    mem_account(MEM_GUEST_RAM, -4096);
    mem_get_stats(&s);
    assert_int_equal(s.used_bytes[MEM_GUEST_RAM], 8192);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_boot_services_come_later), cmocka_unit_test(test_zones),
        cmocka_unit_test(test_what_comes_back),
        cmocka_unit_test(test_exhaust),                  cmocka_unit_test(test_any_count),
        cmocka_unit_test(test_zeroed),                   cmocka_unit_test(test_heap_random),
        cmocka_unit_test(test_heap_limits),              cmocka_unit_test(test_guest_account),
    };
    return cmocka_run_group_tests(tests, start, NULL);
}
