// SPDX-License-Identifier: MIT
// Second-level page tables and the dirty logging in them, in both vendors' formats.
// sources: arch/x86/nested_paging.c
#include "tests/unit/unit.h"

#include "arch/x86/nested_paging.h"
#include "kernel/guest/guest.h"
#include "kernel/mem.h"

static const struct np_format npt = {
    .present = 1, .write = 2, .dirty = 0x40, .table = 0x27, .leaf = 0x67, .large = 0x80};
static const struct np_format ept = {
    .present = 1, .write = 2, .dirty = 0x200, .table = 7, .leaf = 7 | 6 << 3, .large = 0x80};

#define RAM_HOST 0x40000000ull // never touched
#define CHUNKS   4

static struct nested_paging np;
static unsigned pages_out, flushes, fails, hits;
static unsigned pages_left; // page_alloc gives so many more
static bool flushed_before_free;
static u64 last_hit;
static struct guest guest;

u64 page_alloc(unsigned order)
{
    assert_int_equal(order, 0);
    if (!pages_left)
        return 0;
    pages_left--;
    pages_out++;
    return (u64)aligned_alloc(PAGE_SIZE, PAGE_SIZE);
}

u64 page_alloc_zero(unsigned order)
{
    u64 pa = page_alloc(order);
    if (pa)
        memset(phys_ptr(pa), 0, PAGE_SIZE);
    return pa;
}

void page_free(u64 pa, unsigned order)
{
    assert_int_equal(order, 0);
    flushed_before_free = flushes > 0;
    pages_out--;
    free(phys_ptr(pa));
}

static s64 table_bytes;

void mem_account(enum mem_use use, s64 delta_bytes)
{
    assert_int_equal(use, MEM_PAGE_TABLES);
    table_bytes += delta_bytes;
}

void dirty_log_hit(struct guest *g, u64 gpa)
{
    (void)g;
    hits++;
    last_hit = gpa;
}

void dirty_log_fail(struct guest *g)
{
    (void)g;
    fails++;
}

void spin_lock(struct spinlock *l)
{
    assert_false(l->locked);
    l->locked = 1;
}

void spin_unlock(struct spinlock *l)
{
    l->locked = 0;
}

static void flush(struct guest *g)
{
    (void)g;
    flushes++;
}

// What the hardware would do: the leaf's address for this access, 0 for a fault.
static u64 access_page(u64 gpa, bool write)
{
    u64 *table = phys_ptr(np.root);
    for (int level = 4;; level--) {
        u64 e = table[gpa >> (12 + 9 * (level - 1)) & 511];
        if (!(e & np.format->present) || (write && !(e & np.format->write)))
            return 0;
        if (level == 1)
            return e & NP_ADDRESS;
        if (level == 2 && (e & np.format->large))
            return (e & NP_ADDRESS) + (gpa & (LARGE_PAGE_SIZE - 1) & ~(PAGE_SIZE - 1));
        table = phys_ptr(e & NP_ADDRESS);
    }
}

// A guest's write: faults until it goes through.
static unsigned guest_write_to(u64 gpa)
{
    unsigned faults = 0;
    while (!access_page(gpa, true)) {
        assert_int_equal(np_fault(&np, gpa, true), NP_FAULT_RETRY);
        assert_true(++faults < 8);
    }
    return faults;
}

static int begin(void **state)
{
    const struct np_format *f = *state;
    pages_left = ~0u;
    pages_out = flushes = fails = hits = 0;
    assert_int_equal(np_init(&np, f, &guest, flush), 0);
    for (u64 i = 0; i < CHUNKS; i++)
        assert_int_equal(np_map_large(&np, i * LARGE_PAGE_SIZE, RAM_HOST + i * LARGE_PAGE_SIZE), 0);
    assert_int_equal(np_map_large(&np, 4 * GIB, RAM_HOST + CHUNKS * LARGE_PAGE_SIZE), 0);
    return 0;
}

static int end(void **state)
{
    (void)state;
    np_fini(&np);
    assert_int_equal(pages_out, 0);
    assert_int_equal(table_bytes, pages_out * (s64)PAGE_SIZE);
    return 0;
}

static void test_mapped_memory_is_reachable(void **state)
{
    (void)state;
    assert_int_equal(access_page(0x203000, true), RAM_HOST + 0x203000);
    assert_int_equal(access_page(4 * GIB + 0x1000, true),
                     RAM_HOST + CHUNKS * LARGE_PAGE_SIZE + 0x1000);
    assert_int_equal(np_fault(&np, 0x203000, false), NP_FAULT_RETRY);
    assert_int_equal(np_fault(&np, CHUNKS * LARGE_PAGE_SIZE, false), NP_FAULT_NOT_RAM);
    assert_int_equal(np_fault(&np, 0xfee00000, true), NP_FAULT_NOT_RAM);
    assert_int_equal(np_fault(&np, BIT(48), true), NP_FAULT_NOT_RAM);
    assert_int_equal(np_fault(&np, ~0ull, true), NP_FAULT_NOT_RAM);
}

static void test_first_write_is_logged_once(void **state)
{
    (void)state;
    unsigned before = pages_out;
    np_log_start(&np, NP_LOG_WRITES);
    assert_int_equal(pages_out, before); // starting costs nothing
    assert_int_equal(table_bytes, pages_out * (s64)PAGE_SIZE);
    for (u64 gpa = 0; gpa < CHUNKS * LARGE_PAGE_SIZE; gpa += PAGE_SIZE)
        assert_int_equal(access_page(gpa, true), 0);
    assert_int_equal(access_page(0x203000, false), RAM_HOST + 0x203000);

    guest_write_to(0x203000);
    assert_int_equal(hits, 1);
    assert_int_equal(last_hit & ~(PAGE_SIZE - 1), 0x203000);
    assert_int_equal(pages_out, before + 1); // one split
    assert_int_equal(table_bytes, pages_out * (s64)PAGE_SIZE);
    assert_int_equal(access_page(0x203000, true), RAM_HOST + 0x203000);
    assert_int_equal(guest_write_to(0x203008), 0);
    assert_int_equal(access_page(0x204000, true), 0);
    assert_int_equal(access_page(0x600000, true), 0);

    assert_int_equal(guest_write_to(0x3ff000), 1);
    assert_int_equal(hits, 2);
    assert_int_equal(pages_out, before + 1);
    assert_int_equal(table_bytes, pages_out * (s64)PAGE_SIZE);
    np_log_stop(&np);
}

static void test_rearmed_page_is_logged_again(void **state)
{
    (void)state;
    np_log_start(&np, NP_LOG_WRITES);
    guest_write_to(0x203000);
    np_log_rearm(&np, 0x203000);
    np_log_rearm(&np, 0x600000);   // never written: still part of a large page
    np_log_rearm(&np, 0xfee00000); // not RAM
    assert_int_equal(access_page(0x203000, true), 0);
    assert_int_equal(guest_write_to(0x203000), 1);
    assert_int_equal(hits, 2);
    np_log_stop(&np);
}

static void test_dirty_flags_leave_small_pages_writable(void **state)
{
    (void)state;
    np_log_start(&np, NP_LOG_DIRTY_FLAGS);
    assert_int_equal(access_page(0x203000, true), 0);
    guest_write_to(0x203000);
    assert_int_equal(hits, 0); // the CPU tells
    assert_int_equal(guest_write_to(0x3ff000), 0);
    np_log_rearm(&np, 0x3ff000);
    assert_int_equal(guest_write_to(0x3ff000), 0);
    np_log_stop(&np);
}

static void test_stop_merges(void **state)
{
    (void)state;
    unsigned before = pages_out;
    np_log_start(&np, NP_LOG_WRITES);
    guest_write_to(0x1000);
    guest_write_to(0x203000);
    guest_write_to(4 * GIB);
    assert_int_equal(pages_out, before + 3);
    assert_int_equal(table_bytes, pages_out * (s64)PAGE_SIZE);
    assert_int_equal(guest.memory.split_pages, 3);
    np_log_stop(&np);
    assert_int_equal(pages_out, before);
    assert_int_equal(table_bytes, pages_out * (s64)PAGE_SIZE);
    assert_int_equal(guest.memory.split_pages, 0);
    assert_true(flushed_before_free);
    for (u64 gpa = 0; gpa < CHUNKS * LARGE_PAGE_SIZE; gpa += PAGE_SIZE)
        assert_int_equal(access_page(gpa, true), RAM_HOST + gpa);
    assert_int_equal(hits, 3);
    assert_int_equal(guest_write_to(0x5000), 0);
}

static void test_start_again(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 3; i++) {
        np_log_start(&np, NP_LOG_WRITES);
        guest_write_to(0x203000);
        assert_int_equal(hits, i + 1);
        np_log_stop(&np);
    }
}

static void test_no_memory_for_a_split(void **state)
{
    (void)state;
    np_log_start(&np, NP_LOG_WRITES);
    pages_left = 0;
    guest_write_to(0x203000);
    assert_int_equal(fails, 1);
    assert_int_equal(guest_write_to(0x203000), 0); // the guest goes on
    assert_int_equal(access_page(0x1000, true), 0);
    pages_left = ~0u;
    np_log_stop(&np);
    assert_int_equal(access_page(0x1000, true), RAM_HOST + 0x1000);
}

static void test_no_memory_for_the_tables(void **state)
{
    struct nested_paging other;
    pages_left = 0;
    assert_int_equal(np_init(&other, *state, &guest, flush), E_NOMEM);
    pages_left = 2;
    assert_int_equal(np_init(&other, *state, &guest, flush), 0);
    assert_int_equal(np_map_large(&other, 0, RAM_HOST), E_NOMEM);
    np_fini(&other);
}

int main(void)
{
#define BOTH(test)                                                                                 \
    cmocka_unit_test_prestate_setup_teardown(test, begin, end, (void *)&npt),                      \
        cmocka_unit_test_prestate_setup_teardown(test, begin, end, (void *)&ept)
    const struct CMUnitTest tests[] = {
        BOTH(test_mapped_memory_is_reachable),
        BOTH(test_first_write_is_logged_once),
        BOTH(test_rearmed_page_is_logged_again),
        BOTH(test_dirty_flags_leave_small_pages_writable),
        BOTH(test_stop_merges),
        BOTH(test_start_again),
        BOTH(test_no_memory_for_a_split),
        BOTH(test_no_memory_for_the_tables),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
