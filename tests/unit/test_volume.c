// SPDX-License-Identifier: MIT
// Many requests on volumes at the same time, on a disk that ends them in any order: neighbours in
// one piece, first writes, discards, flushes, and more of them than the disk is given at once.

// sources: storage/datastore.c storage/volume.c storage/volume_io.c storage/volume_work.c
// sources: storage/space.c storage/record.c storage/meta.c storage/meta_load.c storage/gpt.c
// sources: storage/meta_format.c storage/block.c storage/tool/kernel.c kernel/name.c kernel/crc32c.c
#include "tests/unit/unit.h"

#include "kernel/log.h"
#include "storage/store.h"
#include "storage/tool/kernel.h"
#include "tests/unit/fake_disk.h"

#define DISK_BYTES   (32 * MIB)
#define SLOTS        400u // requests under way, each on its own sectors
#define SLOT_SECTORS 13u  // so that neighbours share pieces of 8
#define VOLUMES      2u
#define ROUNDS       60000u
#define UNKNOWN      0xff // or zero, or something of the volume's own

void log_write(enum log_level level, const char *area, const char *fmt, ...)
{
    (void)level, (void)area, (void)fmt;
}

static u64 seed = 88172645463325252ull;
static u32 chance(u32 n)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (u32)(seed >> 16) % n;
}

// ---- A disk that takes its time -----------------------------------------------------------------

static struct block_request *waiting[4096];
static u32 waiting_count, most_waiting;
static bool slow;

static void slow_submit(struct block_device *b, struct block_request *r)
{
    if (!slow) {
        disk_submit(b, r);
        return;
    }
    assert_true(waiting_count < ARRAY_SIZE(waiting));
    waiting[waiting_count++] = r;
    most_waiting = MAX(most_waiting, waiting_count);
}

static void end_one(void)
{
    if (!waiting_count)
        return;
    u32 i = chance(waiting_count);
    struct block_request *r = waiting[i];
    waiting[i] = waiting[--waiting_count];
    disk_submit(&disk, r);
}

static const struct block_ops slow_ops = {"fake", slow_submit};

// ---- Requests -----------------------------------------------------------------------------------

struct slot {
    struct block_request r;
    struct block_segment segment[3];
    u8 data[SLOT_SECTORS * BLOCK_SECTOR];
    u8 now[SLOT_SECTORS]; // what each sector is full of
    u8 with;
    u32 first, count; // sectors of the request, within the slot
    bool busy, raced; // by a discard
};

static struct slot slots[VOLUMES][SLOTS], all[VOLUMES]; // all: a discard of everything
static struct block_device *volumes[VOLUMES];
static u32 done_count;

// The two volumes' numbers differ in the lowest bit.
static void check_sector(const struct slot *s, const u8 *data, u8 wanted)
{
    bool second = s >= slots[1];
    for (u32 k = 0; k < BLOCK_SECTOR; k++)
        if (wanted != UNKNOWN)
            assert_int_equal(data[k], wanted);
        else
            assert_true(data[k] == 0 || (data[k] & 1) == second);
}

static void done(struct block_request *r)
{
    struct slot *s = r->owner;
    assert_int_equal(r->status, 0);
    for (u32 i = 0; i < s->count; i++) {
        u8 *now = &s->now[s->first + i];
        if (r->op == BLOCK_READ)
            check_sector(s, &s->data[i * BLOCK_SECTOR], s->raced ? UNKNOWN : *now);
        else if (s->raced)
            *now = UNKNOWN;
        else
            *now = r->op == BLOCK_WRITE ? s->with : 0;
    }
    s->busy = s->raced = false;
    done_count++;
}

static void cut_memory(struct slot *s)
{
    u32 left = s->count, n = 0;
    u8 *at = s->data;
    for (; left; n++) {
        u32 take = n == 2 ? left : 1 + chance(left);
        s->segment[n] = (struct block_segment){at, take * BLOCK_SECTOR};
        at += take * BLOCK_SECTOR;
        left -= take;
    }
    s->r.segment = s->segment;
    s->r.segments = n;
}

static void start(u32 v, u32 i)
{
    static const enum block_op ops[] = {BLOCK_READ,  BLOCK_READ,    BLOCK_WRITE,       BLOCK_WRITE,
                                        BLOCK_WRITE, BLOCK_DISCARD, BLOCK_WRITE_ZEROES};
    struct slot *s = &slots[v][i];
    s->busy = true;
    s->raced = all[v].busy;
    s->first = chance(SLOT_SECTORS);
    s->count = 1 + chance(SLOT_SECTORS - s->first);
    s->r = (struct block_request){.op = ops[chance(ARRAY_SIZE(ops))],
                                  .sector = i * SLOT_SECTORS + s->first,
                                  .sectors = s->count,
                                  .done = done,
                                  .owner = s};
    if (chance(40) == 0) {
        s->r.op = BLOCK_FLUSH;
        s->r.sector = s->r.sectors = s->count = 0;
    }
    s->with = (u8)(2 * (1 + chance(100)) + v);
    memset(s->data, s->with, sizeof(s->data));
    if (s->r.op == BLOCK_READ || s->r.op == BLOCK_WRITE)
        cut_memory(s);
    block_submit(volumes[v], &s->r);
}

// Chunks become free while requests on them are under way.
static void discard_all(u32 v)
{
    if (all[v].busy)
        return;
    for (u32 i = 0; i < SLOTS; i++) {
        slots[v][i].raced = slots[v][i].busy;
        memset(slots[v][i].now, 0, SLOT_SECTORS);
    }
    all[v].busy = true;
    all[v].r = (struct block_request){.op = BLOCK_DISCARD,
                                      .sectors = SLOTS * SLOT_SECTORS,
                                      .done = done,
                                      .owner = &all[v]};
    block_submit(volumes[v], &all[v].r);
}

static void open_volumes(bool make)
{
    char path[16], err[200];
    for (u32 v = 0; v < VOLUMES; v++) {
        snprintf(path, sizeof(path), "store/v%u", v);
        u64 bytes = (u64)SLOTS * SLOT_SECTORS * BLOCK_SECTOR;
        assert_int_equal(make ? volume_create(path, bytes, err, sizeof(err)) : 0, 0);
        volumes[v] = volume_open(path, "the test", err, sizeof(err));
        assert_non_null(volumes[v]);
    }
}

static void check_all(void)
{
    u8 *data = malloc(SLOT_SECTORS * BLOCK_SECTOR);
    for (u32 i = 0; i < VOLUMES * SLOTS; i++) {
        struct slot *s = &slots[i / SLOTS][i % SLOTS];
        assert_false(s->busy);
        assert_int_equal(
            block_read(volumes[i / SLOTS], i % SLOTS * SLOT_SECTORS, SLOT_SECTORS, data), 0);
        for (u32 k = 0; k < SLOT_SECTORS; k++)
            check_sector(s, data + k * BLOCK_SECTOR, s->now[k]);
    }
    free(data);
}

static void test_many_at_once(void **state)
{
    (void)state;
    char err[200];
    assert_int_equal(datastore_create(&disk, BLOCK_SECTOR, "store", err, sizeof(err)), 0);
    open_volumes(true);
    slow = true;
    kernel_idle = end_one;
    for (u32 round = 0; round < ROUNDS; round++) {
        u32 v = chance(VOLUMES), i = chance(SLOTS);
        if (!slots[v][i].busy)
            start(v, i);
        if (chance(400) == 0)
            discard_all(v);
        for (u32 n = round / 500 % 2 ? chance(5) : 0; n; n--) // it lets them pile up at times
            end_one();
        if (chance(round / 500 % 2 ? 20 : 300) == 0)
            kernel_work();
    }
    print_message("%u requests, at most %u on the disk\n", done_count, most_waiting);
    assert_true(most_waiting > 100); // as many as the volumes may have there
    for (u32 i = 0; waiting_count || i < 3; i++) {
        kernel_work();
        while (waiting_count)
            end_one();
    }
    assert_true(done_count > ROUNDS / 4);
    slow = false;
    check_all();
    assert_int_equal(block_flush(volumes[0]), 0);
    assert_int_equal(datastore_check("store", err, sizeof(err)), 0);
    stores_forget();
    kernel_forget_threads();
    datastores_start();
    open_volumes(false);
    check_all();
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_many_at_once)};
    disk_make(DISK_BYTES);
    disk.ops = &slow_ops;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
