// SPDX-License-Identifier: MIT
// Datastores and volumes on a disk that keeps what it is given: names, sizes, holes, faults.

// sources: storage/datastore.c storage/volume.c storage/volume_io.c storage/volume_work.c
// sources: storage/space.c storage/record.c storage/meta.c storage/meta_load.c storage/gpt.c
// sources: storage/meta_format.c storage/block.c storage/tool/kernel.c kernel/name.c kernel/crc32c.c
#include "tests/unit/unit.h"

#include "kernel/log.h"
#include "storage/gpt.h"
#include "storage/store.h"
#include "storage/tool/kernel.h"
#include "tests/unit/fake_disk.h"

#define DISK_BYTES (64 * MIB)

static char err[256], last_log[300];

void log_write(enum log_level level, const char *area, const char *fmt, ...)
{
    va_list ap;
    (void)level, (void)area;
    va_start(ap, fmt);
    vsnprintf(last_log, sizeof(last_log), fmt, ap);
    va_end(ap);
}

static void forget(void)
{
    stores_forget();
    kernel_forget_threads();
}

static void remount(void)
{
    forget();
    datastores_start();
}

static int setup(void **state)
{
    (void)state;
    forget();
    memset(disk_data, 0, DISK_BYTES);
    fail_reads = fail_writes = fail_flushes = 0;
    assert_int_equal(datastore_create(&disk, BLOCK_SECTOR, "fast", err, sizeof(err)), 0);
    return 0;
}

static struct block_device *make(const char *path, u64 bytes)
{
    assert_int_equal(volume_create(path, bytes, err, sizeof(err)), 0);
    struct block_device *b = volume_open(path, "the test", err, sizeof(err));
    assert_non_null(b);
    return b;
}

static struct block_device *reopen(const char *path)
{
    struct block_device *b = volume_open(path, "the test", err, sizeof(err));
    if (!b)
        fail_msg("%s", err);
    return b;
}

static void fill(struct block_device *b, u64 sector, u64 sectors, u8 with)
{
    u8 *data = malloc(sectors * BLOCK_SECTOR);
    memset(data, with, sectors * BLOCK_SECTOR);
    assert_int_equal(block_write(b, sector, sectors, data), 0);
    free(data);
}

static void holds(struct block_device *b, u64 sector, u64 sectors, u8 wanted)
{
    u8 *data = malloc(sectors * BLOCK_SECTOR);
    memset(data, 0xee, sectors * BLOCK_SECTOR);
    assert_int_equal(block_read(b, sector, sectors, data), 0);
    for (u64 i = 0; i < sectors * BLOCK_SECTOR; i++)
        if (data[i] != wanted)
            fail_msg("sector %llu holds %02x, wanted %02x", (unsigned long long)(sector + i / 512),
                     data[i], wanted);
    free(data);
}

static u64 allocated(const char *path)
{
    struct volume_info v;
    for (u32 i = 0; volume_get_info(i, &v); i++)
        if (!strcmp(v.path, path))
            return v.allocated_bytes;
    fail_msg("no volume %s", path);
    return 0;
}

static u64 id_of(const char *path)
{
    struct volume_info v;
    for (u32 i = 0; volume_get_info(i, &v); i++)
        if (!strcmp(v.path, path))
            return v.id;
    return 0;
}

static u64 free_bytes(void)
{
    struct datastore_info d;
    assert_true(datastore_get_info(0, &d));
    assert_string_equal(d.error, "");
    return d.free_bytes;
}

// A volume keeps its id, and one that takes its name later has another.
static void test_ids(void **state)
{
    (void)state;
    volume_close(make("fast/a", MIB));
    volume_close(make("fast/b", MIB));
    u64 a = id_of("fast/a");
    assert_true(a && a != id_of("fast/b"));
    remount();
    assert_int_equal(id_of("fast/a"), a);
    assert_int_equal(volume_delete("fast/a", err, sizeof(err)), 0);
    assert_int_equal(id_of("fast/a"), 0);
    volume_close(make("fast/a", MIB));
    assert_true(id_of("fast/a") && id_of("fast/a") != a);
    assert_int_equal(id_of("fast/a") >> 32, a >> 32);
}

static void test_thin(void **state)
{
    (void)state;
    u64 before = free_bytes();
    struct block_device *b = make("fast/a", 8 * MIB);
    assert_int_equal(allocated("fast/a"), 0);
    holds(b, 0, b->sectors, 0);
    fill(b, 1000, 3000, 0xa5);
    holds(b, 0, 1000, 0);
    holds(b, 1000, 3000, 0xa5);
    holds(b, 4000, b->sectors - 4000, 0);
    assert_int_equal(free_bytes(), before - allocated("fast/a"));
    assert_int_equal(block_flush(b), 0);
    remount();
    b = reopen("fast/a");
    holds(b, 0, 1000, 0);
    holds(b, 1000, 3000, 0xa5);
    holds(b, 4000, b->sectors - 4000, 0);
    assert_int_equal(datastore_check("fast", err, sizeof(err)), 0);
}

// Parts of a piece, one after the other, and what lies beside them.
static void test_small_writes(void **state)
{
    (void)state;
    struct block_device *other = make("fast/other", MIB);
    fill(other, 0, other->sectors, 0x77);
    assert_int_equal(block_flush(other), 0);
    volume_close(other);
    assert_int_equal(volume_delete("fast/other", err, sizeof(err)), 0);
    struct block_device *b = make("fast/a", 63 * 512);
    for (u32 i = 0; i < 63; i += 2) {
        fill(b, i, 1, (u8)(i + 1));
        for (u32 k = 0; k < 63; k++)
            holds(b, k, 1, k <= i && k % 2 == 0 ? (u8)(k + 1) : 0);
    }
}

static void test_discard(void **state)
{
    (void)state;
    struct block_device *b = make("fast/a", 4 * MIB);
    u64 before = free_bytes();
    fill(b, 0, b->sectors, 0x11);
    assert_int_equal(block_flush(b), 0);
    assert_int_equal(block_clear(b, BLOCK_DISCARD, 3, 2000), 0);
    holds(b, 0, 3, 0x11);
    holds(b, 3, 2000, 0);
    holds(b, 2003, b->sectors - 2003, 0x11);
    assert_int_equal(block_clear(b, BLOCK_WRITE_ZEROES, 0, b->sectors), 0);
    holds(b, 0, b->sectors, 0);
    assert_int_equal(allocated("fast/a"), 0);
    assert_int_equal(free_bytes(), before);
    fill(b, 9, 1, 0x22); // nothing of what was there before comes back beside it
    holds(b, 0, 9, 0);
    holds(b, 9, 1, 0x22);
    holds(b, 10, b->sectors - 10, 0);
}

static void test_holes(void **state)
{
    (void)state;
    struct block_device *b = make("fast/a", 1024 * MIB);
    u64 run;
    fill(b, 512, 8, 1);
    fill(b, 1024, 1024, 1);
    assert_false(volume_allocated(b, 0, &run));
    assert_int_equal(run, 512);
    assert_true(volume_allocated(b, 512, &run));
    assert_int_equal(run, 8);
    assert_false(volume_allocated(b, 521, &run));
    assert_int_equal(run, 503);
    assert_true(volume_allocated(b, 1030, &run));
    assert_int_equal(run, 1018);
    assert_false(volume_allocated(b, b->sectors - 7, &run));
    assert_int_equal(run, 7);
    u64 sectors = 0;
    for (u64 at = 0; at < b->sectors; at += run)
        if (volume_allocated(b, at, &run))
            sectors += run;
    assert_int_equal(sectors, 1032);
}

static void test_full(void **state)
{
    (void)state;
    struct block_device *a = make("fast/a", 1024 * MIB), *b = make("fast/b", MIB);
    u8 *data = malloc(MIB);
    u64 at = 0;
    int e;
    memset(data, 0x33, MIB);
    fill(b, 0, 8, 0x44);
    while ((e = block_write(a, at, 2048, data)) == 0)
        at += 2048;
    assert_int_equal(e, E_NOMEM);
    assert_non_null(strstr(last_log, "datastore fast is full"));
    assert_int_equal(free_bytes(), 0);
    holds(a, 0, at, 0x33);
    holds(b, 0, 8, 0x44);
    fill(b, 0, 8, 0x45); // what has its place can be written
    assert_int_equal(block_write(b, 512, 8, data), E_NOMEM);
    // What is freed can be had at once, though a commit must come between.
    assert_int_equal(block_clear(a, BLOCK_DISCARD, 0, 1024), 0);
    fill(b, 512, 8, 0x46);
    assert_int_equal(block_flush(b), 0);
    remount();
    b = reopen("fast/b");
    holds(b, 0, 8, 0x45);
    holds(b, 512, 8, 0x46);
    a = reopen("fast/a");
    holds(a, 0, 1024, 0);
    holds(a, 1024, at - 1024, 0x33);
    free(data);
}

static void test_resize(void **state)
{
    (void)state;
    struct block_device *b = make("fast/a", 2 * MIB);
    fill(b, 0, b->sectors, 0x55);
    assert_int_equal(volume_resize("fast/a", MIB, err, sizeof(err)), E_NOENT);
    assert_string_equal(err, "volume fast/a is used by the test");
    volume_close(b);
    assert_int_equal(volume_resize("fast/a", 700 * KIB + 512, err, sizeof(err)), 0);
    assert_int_equal(volume_resize("fast/a", 3 * MIB, err, sizeof(err)), 0);
    remount();
    b = reopen("fast/a");
    assert_int_equal(b->sectors, 3 * 2048);
    holds(b, 0, 1401, 0x55);
    holds(b, 1401, b->sectors - 1401, 0);
}

static void test_names(void **state)
{
    (void)state;
    static const struct {
        const char *path;
        u64 bytes;
        const char *says;
    } wrong[] = {
        {"slow/a", MIB, "there is no datastore slow"},
        {"fast", MIB, "a volume is called STORE/NAME, the name 1 to 31 letters, digits, '-', '_' or "
                      "'.', found \"fast\""},
        {"fast/a/b", MIB, "a volume is called STORE/NAME, the name 1 to 31 letters, digits, '-', "
                          "'_' or '.', found \"fast/a/b\""},
        {"fast/a", 0, "a volume has 512 bytes to 64 TiB, a multiple of 512, wanted are 0 bytes"},
        {"fast/a", 1000, "a volume has 512 bytes to 64 TiB, a multiple of 512, wanted are 1000 bytes"},
        {"fast/used", MIB, "there is a volume fast/used already"},
    };
    struct block_device *b = make("fast/used", MIB);
    for (u32 i = 0; i < ARRAY_SIZE(wrong); i++) {
        assert_int_not_equal(volume_create(wrong[i].path, wrong[i].bytes, err, sizeof(err)), 0);
        assert_string_equal(err, wrong[i].says);
    }
    assert_null(volume_open("fast/none", "x", err, sizeof(err)));
    assert_string_equal(err, "there is no volume none in datastore fast");
    assert_int_not_equal(volume_delete("fast/used", err, sizeof(err)), 0);
    assert_string_equal(err, "volume fast/used is used by the test");
    volume_close(b);
    assert_int_equal(volume_delete("fast/used", err, sizeof(err)), 0);
    for (u32 i = 0; i < VOLUMES_MAX; i++) {
        char path[32];
        snprintf(path, sizeof(path), "fast/v%u", i);
        assert_int_equal(volume_create(path, MIB, err, sizeof(err)), 0);
    }
    assert_int_not_equal(volume_create("fast/more", MIB, err, sizeof(err)), 0);
    assert_string_equal(err, "datastore fast has 252 volumes, more it cannot hold");
    remount();
    assert_non_null(reopen("fast/v251"));
}

static void test_records(void **state)
{
    (void)state;
    u8 data[RECORD_MAX], back[RECORD_MAX];
    char key[RECORD_KEY];
    u32 bytes = sizeof(back), at = 0;
    memset(data, 0x5a, sizeof(data));
    assert_int_equal(record_get("move/1", back, &bytes), E_NOENT);
    assert_int_equal(record_put("move/1", data, sizeof(data)), 0);
    assert_int_equal(record_put("move/2", "hello", 6), 0);
    assert_int_equal(record_put("move/1", "again", 6), 0);
    remount();
    assert_int_equal(record_get("move/1", back, &bytes), 0);
    assert_int_equal(bytes, 6);
    assert_string_equal((char *)back, "again");
    assert_true(record_next(&at, key));
    assert_string_equal(key, "move/1");
    assert_int_equal(record_delete("move/1"), 0);
    assert_int_equal(record_delete("move/1"), E_NOENT);
    at = 0;
    assert_true(record_next(&at, key));
    assert_string_equal(key, "move/2");
    assert_false(record_next(&at, key));
    assert_int_equal(record_put("x", data, RECORD_MAX + 1), E_INVAL);
    assert_int_equal(record_put("", data, 1), E_INVAL);
}

// After a flush that failed nobody knows what the disk holds: nothing is promised any more.
static void test_errors(void **state)
{
    (void)state;
    struct block_device *b = make("fast/a", MIB);
    u8 data[4096] = {1};
    fill(b, 0, 8, 0x66);
    assert_int_equal(block_flush(b), 0);
    fail_reads = 1;
    assert_int_equal(block_read(b, 0, 8, data), E_IO);
    holds(b, 0, 8, 0x66);
    fail_writes = 1;
    assert_int_equal(block_write(b, 0, 8, data), E_IO);
    fill(b, 8, 8, 0x67);
    fail_flushes = 1;
    assert_int_equal(block_flush(b), E_IO);
    assert_non_null(strstr(last_log, "nothing is written there any more"));
    assert_int_equal(block_write(b, 0, 8, data), E_IO);
    assert_int_equal(block_flush(b), E_IO);
    assert_int_equal(block_clear(b, BLOCK_DISCARD, 0, 8), E_IO);
    holds(b, 8, 8, 0x67);
    assert_int_not_equal(volume_create("fast/b", MIB, err, sizeof(err)), 0);
    assert_int_not_equal(datastore_check("fast", err, sizeof(err)), 0);
    assert_non_null(strstr(err, "failed to write or flush"));
    remount();
    assert_int_equal(datastore_check("fast", err, sizeof(err)), 0);
}

static const char *mount_error(void)
{
    static struct datastore_info d;
    remount();
    assert_true(datastore_get_info(0, &d));
    return d.error;
}

static void test_damage(void **state)
{
    (void)state;
    u8 *first = disk_data + MIB;
    struct super *supers[] = {(void *)first, (void *)(first + SUPER_SECOND)};
    struct block_device *b = make("fast/a", MIB);
    fill(b, 0, 8, 0x66);
    assert_int_equal(block_flush(b), 0);
    volume_close(b);
    forget();
    // The primary partition table is lost.
    memset(disk_data + 512, 0xff, 512);
    assert_string_equal(mount_error(), "");
    // A transaction in the middle of the journal.
    u8 *journal = first + JOURNAL_START;
    assert_int_equal(volume_create("fast/b", MIB, err, sizeof(err)), 0);
    assert_int_equal(volume_create("fast/c", MIB, err, sizeof(err)), 0);
    journal[STORE_BLOCK + 40] ^= 1;
    assert_string_equal(mount_error(), "transaction 1 of its journal is damaged, and 2 is not");
    journal[STORE_BLOCK + 40] ^= 1;
    assert_string_equal(mount_error(), "");
    supers[0]->reserved[5] ^= 1;
    assert_string_equal(mount_error(), "neither superblock is good: the first one has a wrong "
                                       "checksum, the second one is not there");
    supers[0]->reserved[5] ^= 1;
}

static void test_a_damaged_superblock_is_no_way_back(void **state)
{
    (void)state;
    struct datastore_info d = {0};
    char name[32];
    u32 made = 0;
    while (datastore_get_info(0, &d) && d.checkpoints < 2) {
        snprintf(name, sizeof(name), "fast/v%u", made % 4);
        if (made++ >= 4)
            assert_int_equal(volume_delete(name, err, sizeof(err)), 0);
        assert_int_equal(volume_create(name, MIB, err, sizeof(err)), 0);
    }
    assert_int_equal(volume_create("fast/last", MIB, err, sizeof(err)), 0);
    struct super *newest = (void *)(disk_data + MIB);
    assert_int_equal(newest->generation, 3);
    newest->crc ^= 1;
    assert_non_null(strstr(mount_error(), "its newest superblock is damaged"));
    newest->crc ^= 1;
    assert_string_equal(mount_error(), "");
    // A page that the superblock points to.
    u64 page = meta_page_sector(newest, PAGE_VOLUMES, map_bit(newest->second, PAGE_VOLUMES));
    disk_data[MIB + page * BLOCK_SECTOR + 40] ^= 1;
    assert_non_null(strstr(mount_error(), "page 1 of its metadata is damaged"));
}

static void test_format_refuses(void **state)
{
    (void)state;
    assert_int_not_equal(datastore_create(&disk, BLOCK_SECTOR, "slow", err, sizeof(err)), 0);
    assert_string_equal(err, "fake0 is used by datastore");
    forget();
    assert_int_not_equal(datastore_create(&disk, BLOCK_SECTOR, "slow", err, sizeof(err)), 0);
    assert_string_equal(err, "there is something on fake0; erase its first and last MiB first");
    memset(disk_data, 0, DISK_BYTES);
    disk_data[DISK_BYTES - 1] = 1;
    assert_int_not_equal(datastore_create(&disk, BLOCK_SECTOR, "slow", err, sizeof(err)), 0);
    disk_data[DISK_BYTES - 1] = 0;
    assert_int_not_equal(datastore_create(&disk, BLOCK_SECTOR, "no/name", err, sizeof(err)), 0);
    assert_int_equal(datastore_create(&disk, BLOCK_SECTOR, "slow", err, sizeof(err)), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_thin, setup),
        cmocka_unit_test_setup(test_ids, setup),
        cmocka_unit_test_setup(test_small_writes, setup),
        cmocka_unit_test_setup(test_discard, setup),
        cmocka_unit_test_setup(test_holes, setup),
        cmocka_unit_test_setup(test_full, setup),
        cmocka_unit_test_setup(test_resize, setup),
        cmocka_unit_test_setup(test_names, setup),
        cmocka_unit_test_setup(test_records, setup),
        cmocka_unit_test_setup(test_errors, setup),
        cmocka_unit_test_setup(test_damage, setup),
        cmocka_unit_test_setup(test_a_damaged_superblock_is_no_way_back, setup),
        cmocka_unit_test_setup(test_format_refuses, setup),
    };
    disk_make(DISK_BYTES);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
