// SPDX-License-Identifier: MIT
// Guest RAM and the dirty log over it: bitmaps, collecting, and writes that race with it.
// sources: kernel/guest/memory.c kernel/guest/dirty.c kernel/guest/dirty_bitmap.c
#include "fake_guest.h"

static u64 rearmed[4096];
static u32 rearm_count, flushes, drains, starts, stops;
static int start_error;
static void (*during_flush)(void);
static void (*during_drain)(void);

static int dirty_start(struct guest *g, bool pml)
{
    (void)g, (void)pml;
    starts++;
    return start_error;
}
static void dirty_rearm(struct guest *g, u64 gpa)
{
    (void)g;
    rearmed[rearm_count++] = gpa;
}
static void dirty_flush(struct guest *g)
{
    (void)g;
    flushes++;
    if (during_flush)
        during_flush();
}
static void dirty_drain(struct guest *g)
{
    (void)g;
    drains++;
    if (during_drain && drains == 1)
        during_drain();
}
static void dirty_stop(struct guest *g)
{
    (void)g;
    stops++;
}

static int setup(void **state)
{
    (void)state;
    fake_guest_reset();
    fake_ops.dirty_start = dirty_start;
    fake_ops.dirty_rearm = dirty_rearm;
    fake_ops.dirty_flush = dirty_flush;
    fake_ops.dirty_drain = dirty_drain;
    fake_ops.dirty_stop = dirty_stop;
    rearm_count = flushes = drains = starts = stops = 0;
    start_error = 0;
    during_flush = during_drain = NULL;
    fake_pml = true;
    return guest_memory_create(&fake_guest, 8 * MIB);
}

static int teardown(void **state)
{
    (void)state;
    guest_memory_destroy(&fake_guest);
    assert_int_equal(fake_used[MEM_GUEST_RAM], 0);
    assert_int_equal(fake_used[MEM_DIRTY_LOG], 0);
    return 0;
}

static void test_ram_is_zero_and_bounded(void **state)
{
    (void)state;
    u8 buf[16], ones[16];
    memset(ones, 1, sizeof(ones));
    assert_int_equal(fake_used[MEM_GUEST_RAM], 8 * MIB);
    assert_int_equal(fake_used[MEM_DIRTY_LOG], (32 + 1) * 8); // 2048 bits, and their summary
    for (u64 gpa = 0; gpa < 8 * MIB; gpa += PAGE_SIZE) {
        const u64 *p = guest_page(&fake_guest, gpa);
        for (unsigned i = 0; i < PAGE_SIZE / 8; i++)
            assert_int_equal(p[i], 0);
    }
    assert_null(guest_page(&fake_guest, 8 * MIB));
    assert_int_equal(guest_write(&fake_guest, 8 * MIB - 8, ones, 16), E_INVAL);
    assert_int_equal(guest_read(&fake_guest, 8 * MIB - 8, buf, 8), 0);
    for (int i = 0; i < 8; i++)
        assert_int_equal(buf[i], 0); // nothing of the refused write
    assert_int_equal(guest_read(&fake_guest, ~0ull - 4, buf, 16), E_INVAL);
    assert_int_equal(guest_read(&fake_guest, 4096, buf, ~0ull), E_INVAL);
    assert_int_equal(guest_zero(&fake_guest, 8 * MIB, 1), E_INVAL);
}

static void test_copies_cross_chunks(void **state)
{
    (void)state;
    u8 in[5000], out[5000];
    for (unsigned i = 0; i < sizeof(in); i++)
        in[i] = (u8)(i * 7 + 1);
    u64 at = 2 * MIB - 2000;
    assert_int_equal(guest_write(&fake_guest, at, in, sizeof(in)), 0);
    assert_int_equal(guest_read(&fake_guest, at, out, sizeof(out)), 0);
    assert_memory_equal(in, out, sizeof(in));
    assert_int_equal(guest_zero(&fake_guest, at, sizeof(in)), 0);
    assert_int_equal(guest_read(&fake_guest, at, out, sizeof(out)), 0);
    for (unsigned i = 0; i < sizeof(out); i++)
        assert_int_equal(out[i], 0);
}

static void test_no_memory_leaves_nothing(void **state)
{
    (void)state;
    guest_memory_destroy(&fake_guest);
    fake_pages_left = 2;
    assert_int_equal(guest_memory_create(&fake_guest, 8 * MIB), E_NOMEM);
    assert_int_equal(fake_guest.memory.bytes, 0);
    assert_int_equal(fake_used[MEM_GUEST_RAM], 0);
    assert_int_equal(fake_used[MEM_DIRTY_LOG], 0);
    assert_null(fake_guest.dirty);
}

static void test_page_indices_over_the_hole(void **state)
{
    (void)state;
    struct guest *g = &fake_guest;
    guest_memory_destroy(g);
    struct guest_memory real = {.region_count = 2, .bytes = 4 * GIB};
    real.region[0] = (struct guest_region){.gpa = 0, .bytes = 3 * GIB};
    real.region[1] = (struct guest_region){.gpa = 4 * GIB, .bytes = GIB};
    g->memory = real;
    assert_int_equal(guest_page_count(g), 4 * GIB / PAGE_SIZE);
    assert_int_equal(guest_page_index(g, 3 * GIB - 1), 3 * GIB / PAGE_SIZE - 1);
    assert_int_equal(guest_page_index(g, 3 * GIB), ~0ull);
    assert_int_equal(guest_page_index(g, 4 * GIB), 3 * GIB / PAGE_SIZE);
    assert_int_equal(guest_page_index(g, 5 * GIB), ~0ull);
    for (u64 i = 0; i < guest_page_count(g); i += 65521)
        assert_int_equal(guest_page_index(g, guest_page_gpa(g, i)), i);
    assert_int_equal(guest_page_gpa(g, guest_page_count(g)), ~0ull);
    memset(&g->memory, 0, sizeof(g->memory));
}

static void test_bitmap_against_a_plain_one(void **state)
{
    (void)state;
    enum { PAGES = 64 * 64 * 2 + 77 };
    static bool plain[PAGES];
    struct dirty_bitmap b;
    u64 count = 0;
    assert_int_equal(dirty_bitmap_init(&b, PAGES), 0);
    srand(7);
    for (int i = 0; i < 3000; i++) {
        u64 page = (u64)rand() % PAGES;
        assert_int_equal(dirty_bitmap_set(&b, page), !plain[page]);
        count += !plain[page];
        plain[page] = true;
    }
    assert_int_equal(b.count, count);
    u64 from = 0;
    for (u64 p; (p = dirty_bitmap_take_next(&b, from)) != ~0ull; from = p + 1) {
        for (u64 q = from; q < p; q++)
            assert_false(plain[q]);
        assert_true(plain[p]);
        assert_false(dirty_bitmap_test(&b, p));
        plain[p] = false;
        count--;
    }
    assert_int_equal(count, 0);
    assert_int_equal(b.count, 0);
    dirty_bitmap_free(&b);
}

static void test_bitmap_full_and_from_the_middle(void **state)
{
    (void)state;
    struct dirty_bitmap b;
    assert_int_equal(dirty_bitmap_init(&b, 130), 0);
    dirty_bitmap_fill(&b);
    assert_int_equal(b.count, 130);
    assert_false(dirty_bitmap_test(&b, 130));
    assert_int_equal(dirty_bitmap_take_next(&b, 129), 129);
    assert_int_equal(dirty_bitmap_take_next(&b, 129), ~0ull);
    assert_int_equal(dirty_bitmap_take_next(&b, 500), ~0ull);
    for (u64 i = 0; i < 129; i++)
        assert_int_equal(dirty_bitmap_take_next(&b, 0), i);
    assert_int_equal(dirty_bitmap_take_next(&b, 0), ~0ull);
    dirty_bitmap_free(&b);
}

static struct dirty_bitmap new_bitmap(void)
{
    struct dirty_bitmap b;
    assert_int_equal(dirty_bitmap_init(&b, guest_page_count(&fake_guest)), 0);
    return b;
}

static void test_own_writes_are_logged(void **state)
{
    (void)state;
    struct guest *g = &fake_guest;
    u8 bytes[PAGE_SIZE] = {1};
    guest_write(g, 0x5000, bytes, 1); // before: counts as clean
    assert_int_equal(dirty_log_start(g, DIRTY_AUTO), 0);
    assert_string_equal(dirty_log_backend_name(g), "pml");
    guest_write(g, 0x10ff0, bytes, 32);
    guest_zero(g, 0x20000, 1);
    void *p = guest_borrow(g, 0x30800, 64);
    assert_non_null(p);
    guest_release(g, 0x30800, 64, false);
    assert_int_equal(dirty_log_pending(g), 3);
    guest_release(g, 0x30800, 64, true);
    struct dirty_bitmap b = new_bitmap();
    assert_int_equal(dirty_log_collect(g, &b), 4);
    const u64 expected[] = {0x10, 0x11, 0x20, 0x30};
    for (unsigned i = 0; i < 4; i++) {
        assert_int_equal(dirty_bitmap_take_next(&b, 0), expected[i]);
        assert_int_equal(rearmed[i], expected[i] << 12);
    }
    assert_int_equal(dirty_log_collect(g, &b), 0);
    assert_int_equal(dirty_log_pending(g), 0);
    dirty_log_stop(g);
    assert_int_equal(stops, 1);
    guest_write(g, 0x40000, bytes, 1);
    assert_int_equal(dirty_log_pending(g), 0);
    dirty_bitmap_free(&b);
}

static void hit_page_9(void)
{
    dirty_log_hit(&fake_guest, 0x9000);
}

static void test_a_write_before_the_drain_is_in_this_round(void **state)
{
    (void)state;
    dirty_log_start(&fake_guest, DIRTY_AUTO);
    struct dirty_bitmap b = new_bitmap();
    during_drain = hit_page_9;
    assert_int_equal(dirty_log_collect(&fake_guest, &b), 1);
    assert_true(dirty_bitmap_test(&b, 9));
    assert_int_equal(flushes, 1);
    assert_int_equal(drains, 2); // before the snapshot, and after the shoot-down
    dirty_log_stop(&fake_guest);
    dirty_bitmap_free(&b);
}

static void test_a_write_during_the_shootdown_stays_for_the_next_round(void **state)
{
    (void)state;
    dirty_log_start(&fake_guest, DIRTY_AUTO);
    dirty_log_hit(&fake_guest, 0x9000);
    struct dirty_bitmap b = new_bitmap();
    during_flush = hit_page_9;
    assert_int_equal(dirty_log_collect(&fake_guest, &b), 1);
    during_flush = NULL;
    assert_int_equal(dirty_bitmap_take_next(&b, 0), 9);
    assert_int_equal(dirty_log_collect(&fake_guest, &b), 1);
    assert_int_equal(dirty_bitmap_take_next(&b, 0), 9);
    assert_int_equal(dirty_log_collect(&fake_guest, &b), 0);
    dirty_log_stop(&fake_guest);
    dirty_bitmap_free(&b);
}

static void test_collected_bits_are_added(void **state)
{
    (void)state;
    dirty_log_start(&fake_guest, DIRTY_AUTO);
    struct dirty_bitmap b = new_bitmap();
    dirty_bitmap_set(&b, 9);
    dirty_log_hit(&fake_guest, 0x9000);
    dirty_log_hit(&fake_guest, 0xa000);
    dirty_log_hit(&fake_guest, 64 * MIB); // not RAM
    assert_int_equal(dirty_log_collect(&fake_guest, &b), 1);
    assert_int_equal(b.count, 2);
    dirty_log_stop(&fake_guest);
    dirty_bitmap_free(&b);
}

static void test_a_failed_split_is_told_once(void **state)
{
    (void)state;
    struct dirty_bitmap b = new_bitmap();
    assert_int_equal(dirty_log_collect(&fake_guest, &b), E_INVAL);
    dirty_log_start(&fake_guest, DIRTY_AUTO);
    dirty_log_fail(&fake_guest);
    assert_int_equal(dirty_log_collect(&fake_guest, &b), E_NOMEM);
    assert_int_equal(dirty_log_collect(&fake_guest, &b), 0);
    dirty_log_stop(&fake_guest);
    dirty_bitmap_free(&b);
}

static void test_a_second_try_starts_clean(void **state)
{
    (void)state;
    struct guest *g = &fake_guest;
    struct dirty_bitmap b = new_bitmap();
    dirty_log_start(g, DIRTY_AUTO);
    assert_int_equal(dirty_log_start(g, DIRTY_AUTO), E_BUSY);
    dirty_log_hit(g, 0x9000);
    dirty_log_fail(g);
    dirty_log_stop(g);
    assert_int_equal(dirty_log_start(g, DIRTY_WP), 0);
    assert_string_equal(dirty_log_backend_name(g), "wp");
    assert_int_equal(dirty_log_collect(g, &b), 0);
    dirty_log_stop(g);
    dirty_log_stop(g);
    assert_int_equal(stops, 2);
    dirty_bitmap_free(&b);
}

static void test_modes(void **state)
{
    (void)state;
    struct guest *g = &fake_guest;
    fake_pml = false;
    assert_int_equal(dirty_log_start(g, DIRTY_PML), E_NOSUP);
    assert_int_equal(dirty_log_start(g, DIRTY_AUTO), 0);
    assert_string_equal(dirty_log_backend_name(g), "wp");
    dirty_log_stop(g);
    start_error = E_NOMEM;
    assert_int_equal(dirty_log_start(g, DIRTY_AUTO), E_NOMEM);
    assert_false(dirty_log_active(g));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
        T(test_ram_is_zero_and_bounded),
        T(test_copies_cross_chunks),
        T(test_no_memory_leaves_nothing),
        T(test_page_indices_over_the_hole),
        T(test_bitmap_against_a_plain_one),
        T(test_bitmap_full_and_from_the_middle),
        T(test_own_writes_are_logged),
        T(test_a_write_before_the_drain_is_in_this_round),
        T(test_a_write_during_the_shootdown_stays_for_the_next_round),
        T(test_collected_bits_are_added),
        T(test_a_failed_split_is_told_once),
        T(test_a_second_try_starts_clean),
        T(test_modes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
