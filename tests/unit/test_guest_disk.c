// SPDX-License-Identifier: MIT
// A guest's writes, on their way to the disk below, are logged and can be held back.
// sources: storage/guest_disk.c storage/block.c kernel/guest/dirty_bitmap.c
#include "tests/unit/unit.h"

#include "kernel/lib.h"
#include "kernel/mem.h"
#include "storage/datastore.h"
#include "storage/guest_disk.h"

#include "tests/unit/fake_datastore.h"

#define SECTORS 1003u // the last block is not whole
#define MANY    100u

static struct block_device disk;
static struct guest_disk *d;
static struct block_request *taken; // by the disk below, the last one first
static u32 taken_count, done_count, depth, deepest;
static bool at_once;
static struct block_request request[MANY];
static int status_below;

static void below_submit(struct block_device *b, struct block_request *r)
{
    (void)b;
    depth++;
    deepest = MAX(depth, deepest);
    if (at_once) {
        r->status = status_below;
        r->done(r);
    } else {
        r->next = taken;
        taken = r;
        taken_count++;
    }
    depth--;
}

static const struct block_ops below_ops = {"raw", below_submit};

static void finish_one(void)
{
    struct block_request *r = taken;
    assert_non_null(r);
    taken = r->next;
    taken_count--;
    r->status = status_below;
    r->done(r);
}

void *kzalloc(size_t size)
{
    return calloc(1, size);
}

bool waitq_commit(struct waitq *q, u64 deadline_ns)
{
    (void)q, (void)deadline_ns;
    return false;
}

void waitq_set_and_wake(struct waitq *q, volatile bool *flag)
{
    (void)q, (void)flag;
}

static void note_done(struct block_request *r)
{
    (void)r;
    done_count++;
    assert_int_equal(d->lock.locked, 0);
}

static void submit(u32 i, enum block_op op, u64 sector, u32 sectors)
{
    static u8 data[BLOCK_SECTOR * 64];
    static struct block_segment segment[MANY];
    segment[i] = (struct block_segment){data, sectors * BLOCK_SECTOR};
    request[i] = (struct block_request){.op = op, .sector = sector, .sectors = sectors};
    request[i].segment = &segment[i];
    request[i].segments = 1;
    request[i].done = note_done;
    block_submit(&d->block, &request[i]);
}

static int setup(void **state)
{
    char err[160];
    (void)state;
    if (!disk.ops) {
        disk = (struct block_device){.ops = &below_ops, .sectors = SECTORS, .max_sectors = 64};
        disk.max_segments = 1;
        disk.max_clear_sectors = ~0u;
        disk.can_discard = true;
        block_register(&disk);
    }
    at_once = false;
    status_below = 0;
    done_count = deepest = 0;
    return guest_disk_open("raw0", "guest web", &d, err, sizeof(err));
}

static int teardown(void **state)
{
    (void)state;
    while (taken)
        finish_one();
    guest_disk_close(d);
    assert_string_equal(disk.used_by, "");
    return 0;
}

static void test_one_user(void **state)
{
    char err[160];
    struct guest_disk *other = NULL;
    (void)state;
    assert_int_not_equal(guest_disk_open("raw0", "guest db", &other, err, sizeof(err)), 0);
    assert_string_equal(err, "disk raw0 is in use by guest web");
    assert_int_not_equal(guest_disk_open("raw7", "guest db", &other, err, sizeof(err)), 0);
    assert_string_equal(err, "there is no disk \"raw7\"; `disks` lists them");
    assert_null(other);
    assert_int_equal(volume_create("fast/web", 8 * KIB, err, sizeof(err)), 0);
    assert_int_equal(guest_disk_open("fast/web", "guest db", &other, err, sizeof(err)), 0);
    assert_string_equal(fake_volume_find("fast/web")->dev.used_by, "guest db");
    guest_disk_close(other);
    assert_int_equal(volume_delete("fast/web", err, sizeof(err)), 0); // nobody's any more
}

static void test_all_gets_through(void **state)
{
    (void)state;
    for (u32 i = 0; i < MANY; i++)
        submit(i, i % 3 ? BLOCK_WRITE : BLOCK_READ, i, 1);
    assert_true(taken_count > GUEST_DISK_WRITES); // reads do not count
    assert_true(taken_count < MANY);
    while (taken)
        finish_one();
    assert_int_equal(done_count, MANY);
}

static void test_a_disk_that_is_done_at_once(void **state)
{
    (void)state;
    for (u32 i = 0; i < 80; i++)
        submit(i, BLOCK_WRITE, i, 1);
    at_once = true; // for those that wait
    finish_one();
    assert_int_equal(deepest, 1);
    while (taken)
        finish_one();
    assert_int_equal(done_count, 80);
}

static void test_errors_pass(void **state)
{
    (void)state;
    status_below = E_IO;
    submit(0, BLOCK_WRITE, 3, 1);
    finish_one();
    assert_int_equal(request[0].status, E_IO);
}

static u64 collected(struct dirty_bitmap *b)
{
    dirty_bitmap_free(b);
    assert_int_equal(dirty_bitmap_init(b, guest_disk_blocks(d)), 0);
    return guest_disk_collect(d, b);
}

static void test_a_write_is_logged_when_it_is_done(void **state)
{
    struct dirty_bitmap b = {.pages = 0};
    (void)state;
    submit(0, BLOCK_WRITE, 7, 2); // before the log: it may end after the block was read
    assert_int_equal(guest_disk_log_start(d, false), 0);
    assert_int_equal(collected(&b), 0);
    finish_one();
    assert_int_equal(collected(&b), 2);
    assert_true(dirty_bitmap_test(&b, 0) && dirty_bitmap_test(&b, 1));
    assert_int_equal(collected(&b), 0);
    status_below = E_IO; // some of it may have got there
    submit(1, BLOCK_DISCARD, 1000, 3);
    submit(2, BLOCK_READ, 80, 8);
    finish_one();
    finish_one();
    assert_int_equal(collected(&b), 1);
    assert_true(dirty_bitmap_test(&b, 125));
    guest_disk_log_stop(d);
    submit(3, BLOCK_WRITE, 7, 2);
    finish_one();
    assert_int_equal(collected(&b), 0);
    dirty_bitmap_free(&b);
}

static void test_an_early_log_knows_before_the_disk(void **state)
{
    (void)state;
    assert_true(guest_disk_logged(d, 5)); // nobody can say
    assert_int_equal(guest_disk_log_start(d, true), 0);
    assert_false(guest_disk_logged(d, 5));
    submit(0, BLOCK_WRITE, 40, 1);
    assert_true(guest_disk_logged(d, 5));
    assert_int_equal(guest_disk_log_start(d, true), 0); // anew
    assert_false(guest_disk_logged(d, 5));
    finish_one();
    assert_true(guest_disk_logged(d, 5));
}

static void test_writes_wait_for_who_falls_behind(void **state)
{
    struct dirty_bitmap b = {.pages = 0};
    (void)state;
    assert_int_equal(guest_disk_log_start(d, false), 0);
    guest_disk_limit(d, 4);
    for (u32 i = 0; i < 6; i++)
        submit(i, BLOCK_WRITE, i * 8, 8);
    assert_int_equal(taken_count, 4);
    submit(6, BLOCK_READ, 0, 8); // goes on
    assert_int_equal(taken_count, 5);
    while (taken)
        finish_one();
    assert_int_equal(done_count, 5);
    assert_int_equal(collected(&b), 4);
    assert_int_equal(taken_count, 2);
    submit(7, BLOCK_WRITE, 80, 48); // more than the log may hold: waits until it is alone
    while (taken)
        finish_one();
    assert_int_equal(collected(&b), 2);
    assert_int_equal(taken_count, 1);
    finish_one();
    submit(8, BLOCK_WRITE, 80, 8);
    assert_int_equal(taken_count, 0);
    guest_disk_limit(d, 0); // at the stop nothing may be held back
    assert_int_equal(taken_count, 1);
    submit(9, BLOCK_WRITE, 80, 8);
    assert_int_equal(taken_count, 2);
    dirty_bitmap_free(&b);
}

static void test_the_end_of_the_log_lets_go(void **state)
{
    (void)state;
    assert_int_equal(guest_disk_log_start(d, false), 0);
    guest_disk_limit(d, 1);
    submit(0, BLOCK_WRITE, 0, 8);
    submit(1, BLOCK_WRITE, 8, 8);
    assert_int_equal(taken_count, 1);
    guest_disk_log_stop(d);
    assert_int_equal(taken_count, 2);
}

static void test_large_disks_have_large_blocks(void **state)
{
    (void)state;
    struct guest_disk big = {.block = {.sectors = 1ull << 31}};
    big.block_sectors = 128;
    assert_int_equal(guest_disk_blocks(&big), 1 << 24);
    assert_int_equal(guest_disk_blocks(d), 126);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_one_user, setup, teardown),
        cmocka_unit_test_setup_teardown(test_all_gets_through, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_disk_that_is_done_at_once, setup, teardown),
        cmocka_unit_test_setup_teardown(test_errors_pass, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_write_is_logged_when_it_is_done, setup, teardown),
        cmocka_unit_test_setup_teardown(test_an_early_log_knows_before_the_disk, setup, teardown),
        cmocka_unit_test_setup_teardown(test_writes_wait_for_who_falls_behind, setup, teardown),
        cmocka_unit_test_setup_teardown(test_the_end_of_the_log_lets_go, setup, teardown),
        cmocka_unit_test_setup_teardown(test_large_disks_have_large_blocks, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
