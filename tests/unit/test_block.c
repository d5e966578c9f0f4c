// SPDX-License-Identifier: MIT
// Requests are checked and cut up, threads wait for them, disks are found and claimed.
// sources: storage/block.c
#include "tests/unit/unit.h"

#include "kernel/lib.h"
#include "kernel/thread.h"
#include "storage/block.h"

#define SECTORS 1000u

// A disk in memory that takes requests at once and is done with them when somebody waits, the last
// one first.
static u8 medium[SECTORS * BLOCK_SECTOR];
static struct block_request *taken;
static u32 requests, longest, flushes;
static bool at_once;
static u64 bad_sector;

static bool touches_bad(const struct block_request *r)
{
    return bad_sector >= r->sector && bad_sector - r->sector < r->sectors;
}

static void carry_out(struct block_request *r)
{
    u8 *at = medium + r->sector * BLOCK_SECTOR;
    u32 bytes = r->sectors * BLOCK_SECTOR;
    r->status = touches_bad(r) ? E_IO : 0;
    if (r->op == BLOCK_READ && r->status == 0)
        memcpy(r->segment[0].data, at, bytes);
    else if (r->op == BLOCK_WRITE && r->status == 0)
        memcpy(at, r->segment[0].data, bytes);
    else if (r->op == BLOCK_FLUSH)
        flushes++;
    else if (r->op == BLOCK_WRITE_ZEROES)
        memset(at, 0, bytes);
    r->done(r);
}

static void disk_submit(struct block_device *b, struct block_request *r)
{
    (void)b;
    requests++;
    longest = MAX(longest, r->sectors);
    r->next = taken;
    taken = r;
    if (at_once) {
        taken = r->next;
        carry_out(r);
    }
}

static const struct block_ops disk_ops = {"test", disk_submit};
static const struct block_ops other_ops = {"other", disk_submit};
static struct block_device disk;

bool waitq_commit(struct waitq *q, u64 deadline_ns)
{
    (void)q, (void)deadline_ns;
    assert_non_null(taken); // or nothing would ever end the wait
    while (taken) {
        struct block_request *r = taken;
        taken = r->next;
        carry_out(r);
    }
    return true;
}

void waitq_set_and_wake(struct waitq *q, volatile bool *flag)
{
    (void)q;
    *flag = true;
}

static int setup(void **state)
{
    (void)state;
    disk = (struct block_device){.ops = &disk_ops,
                                 .sectors = SECTORS,
                                 .max_sectors = 16,
                                 .max_segments = 2,
                                 .max_clear_sectors = 64,
                                 .can_write_zeroes = true};
    for (u32 i = 0; i < sizeof(medium); i++)
        medium[i] = (u8)(i / BLOCK_SECTOR + i);
    requests = longest = flushes = 0;
    bad_sector = ~0ull;
    at_once = false;
    return 0;
}

static void test_long_read_is_cut_up(void **state)
{
    static u8 data[300 * BLOCK_SECTOR];
    (void)state;
    for (int i = 0; i < 2; i++) {
        at_once = i;
        requests = longest = 0;
        memset(data, 0, sizeof(data));
        assert_int_equal(block_read(&disk, 7, 300, data), 0);
        assert_memory_equal(data, medium + 7 * BLOCK_SECTOR, sizeof(data));
        assert_int_equal(requests, 19);
        assert_int_equal(longest, 16);
    }
}

static void test_write_and_flush(void **state)
{
    static u8 data[33 * BLOCK_SECTOR];
    (void)state;
    memset(data, 0x5a, sizeof(data));
    assert_int_equal(block_write(&disk, 900, 33, data), 0);
    assert_memory_equal(data, medium + 900 * BLOCK_SECTOR, sizeof(data));
    assert_int_equal(medium[900 * BLOCK_SECTOR - 1], (u8)(899 + 900 * BLOCK_SECTOR - 1));
    assert_int_equal(block_flush(&disk), 0);
    assert_int_equal(flushes, 1);
    assert_int_equal(requests, 4);
}

static void test_nothing_is_nothing(void **state)
{
    (void)state;
    assert_int_equal(block_read(&disk, 5, 0, medium), 0);
    assert_int_equal(requests, 0);
}

static void test_clear(void **state)
{
    (void)state;
    assert_int_equal(block_clear(&disk, BLOCK_WRITE_ZEROES, 10, 130), 0);
    assert_int_equal(requests, 3);
    for (u32 i = 10 * BLOCK_SECTOR; i < 140 * BLOCK_SECTOR; i++)
        assert_int_equal(medium[i], 0);
    assert_int_equal(block_clear(&disk, BLOCK_DISCARD, 10, 130), E_NOSUP);
    assert_int_equal(requests, 3);
}

static void test_errors_come_back(void **state)
{
    static u8 data[64 * BLOCK_SECTOR];
    (void)state;
    bad_sector = 20;
    assert_int_equal(block_read(&disk, 0, 64, data), E_IO);
    assert_int_equal(block_read(&disk, 21, 43, data), 0);
    assert_null(taken); // all of a call is done when it returns
}

static int last_status;

static void note_status(struct block_request *r)
{
    last_status = r->status;
}

static int submitted(enum block_op op, u64 sector, u32 sectors, u32 segments,
                     const struct block_segment *s)
{
    struct block_request r = {.op = op,
                              .sector = sector,
                              .sectors = sectors,
                              .segments = segments,
                              .segment = s,
                              .done = note_status};
    last_status = 1;
    at_once = true;
    block_submit(&disk, &r);
    return last_status;
}

static void test_checks(void **state)
{
    static u8 data[32 * BLOCK_SECTOR];
    struct block_segment s[3] = {{data, 1024}, {data + 1024, 512}, {data + 2048, 512}};
    (void)state;
    assert_int_equal(submitted(BLOCK_READ, 0, 2, 1, s), 0);
    u32 before = requests;
    assert_int_equal(submitted(BLOCK_READ, SECTORS - 1, 2, 1, s), E_INVAL);
    assert_int_equal(submitted(BLOCK_READ, SECTORS, 2, 1, s), E_INVAL);
    assert_int_equal(submitted(BLOCK_READ, ~0ull, 2, 1, s), E_INVAL);
    assert_int_equal(submitted(BLOCK_READ, 0, 0, 0, s), E_INVAL);
    assert_int_equal(submitted(BLOCK_READ, 0, 3, 1, s), E_INVAL); // more than the segment
    assert_int_equal(submitted(BLOCK_READ, 0, 1, 1, s), E_INVAL); // less
    assert_int_equal(submitted(BLOCK_READ, 0, 4, 3, s), E_INVAL); // too many
    s[0].bytes = 1000;
    assert_int_equal(submitted(BLOCK_WRITE, 0, 2, 1, s), E_INVAL);
    s[0].bytes = 17 * BLOCK_SECTOR;
    assert_int_equal(submitted(BLOCK_WRITE, 0, 17, 1, s), E_INVAL); // longer than it takes
    assert_int_equal(submitted(BLOCK_WRITE_ZEROES, 0, 65, 0, NULL), E_INVAL);
    assert_int_equal(submitted((enum block_op)9, 0, 1, 1, s), E_INVAL);
    disk.read_only = true;
    s[0].bytes = 1024;
    assert_int_equal(submitted(BLOCK_WRITE, 0, 2, 1, s), E_NOSUP);
    assert_int_equal(requests, before);
    assert_int_equal(submitted(BLOCK_READ, 0, 2, 1, s), 0);
}

static void test_names_and_users(void **state)
{
    static struct block_device a, b, c;
    (void)state;
    a.ops = c.ops = &disk_ops;
    b.ops = &other_ops;
    block_register(&a);
    block_register(&b);
    block_register(&c);
    assert_ptr_equal(block_find("test0"), &a);
    assert_ptr_equal(block_find("other0"), &b);
    assert_ptr_equal(block_find("test1"), &c);
    assert_null(block_find("test2"));
    assert_ptr_equal(block_next(NULL), &a);
    assert_ptr_equal(block_next(&a), &b);
    assert_ptr_equal(block_next(&b), &c);
    assert_null(block_next(&c));
    assert_int_equal(block_claim(&b, "guest web"), 0);
    assert_int_equal(block_claim(&b, "guest db"), E_BUSY);
    assert_string_equal(b.used_by, "guest web");
    block_release(&b);
    assert_int_equal(block_claim(&b, "guest db"), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_long_read_is_cut_up, setup),
        cmocka_unit_test_setup(test_write_and_flush, setup),
        cmocka_unit_test_setup(test_nothing_is_nothing, setup),
        cmocka_unit_test_setup(test_clear, setup),
        cmocka_unit_test_setup(test_errors_come_back, setup),
        cmocka_unit_test_setup(test_checks, setup),
        cmocka_unit_test_setup(test_names_and_users, setup),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
