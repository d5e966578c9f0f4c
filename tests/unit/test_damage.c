// SPDX-License-Identifier: MIT
// Pages and sectors that are damaged on their way: no bit of such a record can change unnoticed,
// and nothing that is damaged reaches a disk.

// sources: kernel/migrate/stream.c kernel/migrate/hash.c kernel/migrate/page_hashes.c
// sources: kernel/crc32c.c
// sources: kernel/migrate/dest_pages.c kernel/migrate/dest_disks.c storage/block.c
#include "tests/unit/unit.h"

#include "kernel/log.h"
#include "kernel/migrate/check.h"
#include "kernel/migrate/dest.h"
#include "storage/guest_disk.h"

#include "tests/unit/fake_wire.h"

#include "tests/unit/fake_datastore.h"

// ---- A guest of a few pages, with a disk --------------------------------------------------------

#define GUEST_PAGES 8u

static u8 ram[GUEST_PAGES][PAGE_SIZE] __attribute__((aligned(8)));

u64 guest_page_count(const struct guest *g)
{
    (void)g;
    return GUEST_PAGES;
}

u64 guest_page_gpa(const struct guest *g, u64 index)
{
    (void)g;
    return index * PAGE_SIZE;
}

void *guest_page(struct guest *g, u64 gpa)
{
    (void)g;
    return ram[gpa / PAGE_SIZE];
}

int incoming_fail(struct incoming *i, int error, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(i->error, sizeof(i->error), fmt, ap);
    va_end(ap);
    return error;
}

void reason_add(struct reasons *r, const char *fmt, ...)
{
    (void)r, (void)fmt;
}

void log_write(enum log_level level, const char *area, const char *fmt, ...)
{
    (void)level, (void)area, (void)fmt;
}

bool waitq_commit(struct waitq *q, u64 deadline_ns)
{
    (void)q, (void)deadline_ns;
    fail_msg("nothing may have to wait here");
    return false;
}

void waitq_set_and_wake(struct waitq *q, volatile bool *flag)
{
    (void)q;
    *flag = true;
}

static void disk_submit(struct block_device *b, struct block_request *r)
{
    (void)b;
    fake_volume_submit(&fake_volumes[0].dev, r);
}

static const struct block_ops disk_ops = {"disk", disk_submit};
static struct guest_disk disk;
static struct guest guest = {.config.disk_count = 1, .disk = {&disk}};
static struct job job;
static struct incoming incoming = {.guest = &guest, .job = &job, .s = &in};

static int setup(void **state)
{
    char err[200];
    wire_setup(state);
    memset(ram, 0, sizeof(ram));
    assert_int_equal(page_hashes_create(&incoming.hashes, GUEST_PAGES), 0);
    assert_int_equal(volume_create("fast/web", 64 * KIB, err, sizeof(err)), 0);
    disk.block = fake_volumes[0].dev;
    disk.block.ops = &disk_ops;
    incoming.disks = disks_in_open(&guest);
    assert_non_null(incoming.disks);
    return 0;
}

static int teardown(void **state)
{
    disks_in_close(incoming.disks);
    page_hashes_free(&incoming.hashes);
    fake_volume_free(&fake_volumes[0]);
    return wire_teardown(state);
}

// ---- Records ------------------------------------------------------------------------------------

// Bytes without a pattern, others for each seed.
static void fill(u8 *p, u32 bytes, u64 seed)
{
    for (u32 i = 0; i < bytes; i++) {
        seed = seed * 6364136223846793005ull + 1442695040888963407ull;
        p[i] = (u8)(seed >> 56);
    }
}

// Page 5, page 2, and page 3 of zeros.
static void send_pages(void)
{
    struct wire_pages *w = stream_payload(&out);
    struct wire_page *entry = (struct wire_page *)(w + 1);
    u8 *data = (u8 *)(entry + 3);
    static const u8 zeros[PAGE_SIZE] __attribute__((aligned(8)));
    *w = (struct wire_pages){.count = 3, .round = 2};
    fill(data, 2 * PAGE_SIZE, 1);
    entry[0].index = 5;
    hash_page(data, entry[0].hash);
    entry[1].index = 3 | PAGE_ZERO;
    hash_page(zeros, entry[1].hash);
    entry[2].index = 2;
    hash_page(data + PAGE_SIZE, entry[2].hash);
    u32 bytes = (u32)(sizeof(*w) + 3 * sizeof(*entry) + 2 * PAGE_SIZE);
    assert_int_equal(stream_send_built(&out, REC_PAGES, bytes), 0);
}

#define PAGES_DATA                                                                                 \
    (sizeof(struct record_header) + sizeof(struct wire_pages) + 3 * sizeof(struct wire_page))

// 16 sectors from 24 on.
static void send_blocks(void)
{
    struct wire_blocks *w = stream_payload(&out);
    *w = (struct wire_blocks){.sector = 24, .sectors = 16};
    fill((u8 *)(w + 1), 16 * BLOCK_SECTOR, 2);
    hash_bytes(w + 1, 16 * BLOCK_SECTOR, w->hash);
    assert_int_equal(stream_send_built(&out, REC_BLOCKS, (u32)sizeof(*w) + 16 * BLOCK_SECTOR), 0);
}

#define BLOCKS_DATA (sizeof(struct record_header) + sizeof(struct wire_blocks))

// What the destination makes of the record on the wire.
static int take(void)
{
    struct record r;
    wire.head = 0;
    in.seq_in = 0;
    int e = stream_receive(&in, &r);
    if (e)
        return e;
    if (r.type == REC_PAGES)
        return incoming_pages(&incoming, &r);
    return disks_in_blocks(incoming.disks, &r, incoming.error, sizeof(incoming.error));
}

static void assert_every_flip_is_found(void)
{
    for (u64 bit = 0; bit < wire.tail * 8; bit++) {
        wire.data[bit / 8] ^= 1 << bit % 8;
        int e = take();
        if (e != E_PROTO && e != E_IO)
            fail_msg("bit %llu: %d", (unsigned long long)bit, e);
        wire.data[bit / 8] ^= 1 << bit % 8;
    }
}

// ---- Tests --------------------------------------------------------------------------------------

static void test_pages_arrive(void **state)
{
    (void)state;
    memset(ram[3], 1, PAGE_SIZE);
    send_pages();
    assert_int_equal(take(), 0);
    assert_memory_equal(ram[5], wire.data + PAGES_DATA, PAGE_SIZE);
    assert_memory_equal(ram[2], wire.data + PAGES_DATA + PAGE_SIZE, PAGE_SIZE);
    for (u32 i = 0; i < GUEST_PAGES; i++) { // zeros where no data came
        u64 hash[2];
        assert_int_equal(hash_page(ram[i], hash), i != 5 && i != 2);
        assert_memory_equal(page_hashes_get(&incoming.hashes, i), hash, sizeof(hash));
    }
}

static void test_flips_in_pages(void **state)
{
    (void)state;
    send_pages();
    assert_every_flip_is_found();
    assert_int_equal(take(), 0);
}

static void test_damaged_page_is_named(void **state)
{
    (void)state;
    send_pages();
    wire.data[PAGES_DATA + PAGE_SIZE + 7] ^= 1;
    assert_int_equal(take(), E_PROTO);
    assert_non_null(strstr(incoming.error, "the page at 0x2000 is damaged: its hash is "));
}

static void test_swapped_pages(void **state)
{
    (void)state;
    u8 page[PAGE_SIZE];
    send_pages();
    u8 *data = wire.data + PAGES_DATA;
    memcpy(page, data, PAGE_SIZE);
    memcpy(data, data + PAGE_SIZE, PAGE_SIZE);
    memcpy(data + PAGE_SIZE, page, PAGE_SIZE);
    assert_int_equal(take(), E_PROTO);
    assert_non_null(strstr(incoming.error, "the page at 0x5000 is damaged"));
    // Their hashes with them: the CRC is over these.
    struct wire_page *entry =
        (struct wire_page *)(wire.data + sizeof(struct record_header) + sizeof(struct wire_pages));
    for (u32 i = 0; i < 2; i++) {
        u64 word = entry[0].hash[i];
        entry[0].hash[i] = entry[2].hash[i];
        entry[2].hash[i] = word;
    }
    assert_int_equal(take(), E_PROTO);
    assert_non_null(strstr(in.error, "(PAGES) is damaged: CRC "));
}

// Some bytes are lost, and as many of the next record take their place at the end.
static void assert_lost_bytes_are_found(u64 data)
{
    u64 end = wire.tail;
    u8 *whole = malloc(end);
    memcpy(whole, wire.data, end);
    for (u64 by = 1; by <= 64; by++) {
        for (u64 from = data; from < end - by; from += 509) {
            memmove(wire.data + from, whole + from + by, end - by - from);
            memset(wire.data + end - by, 0, by);
            assert_int_equal(take(), E_PROTO);
            memcpy(wire.data, whole, end);
        }
    }
    free(whole);
}

static void test_lost_bytes(void **state)
{
    (void)state;
    send_pages();
    assert_lost_bytes_are_found(PAGES_DATA);
    wire.tail = 0;
    out.seq_out = 0;
    send_blocks();
    assert_lost_bytes_are_found(BLOCKS_DATA);
}

static void test_cut_short(void **state)
{
    (void)state;
    send_pages();
    u64 end = wire.tail;
    for (wire.tail = 0; wire.tail < end; wire.tail += wire.tail < PAGES_DATA ? 1 : 499)
        assert_int_equal(take(), E_IO);
    wire.tail = end;
    assert_int_equal(take(), 0);
}

// A record whose lengths disagree is malformed whatever its checksums say.
static void test_lengths_that_disagree(void **state)
{
    (void)state;
    u32 full = (u32)(sizeof(struct wire_pages) + 3 * sizeof(struct wire_page) + 2 * PAGE_SIZE);
    send_pages();
    for (u32 bytes = 0; bytes < full; bytes += bytes < 96 ? 1 : 499) {
        out.seq_out = 0;
        wire.tail = 0;
        assert_int_equal(stream_send_built(&out, REC_PAGES, bytes), 0);
        assert_int_equal(take(), E_PROTO);
    }
    struct wire_pages *w = stream_payload(&out);
    static const u32 counts[] = {0, 1, 2, 4, 16, 17, 0xaaaaaaabu, ~0u};
    for (u32 i = 0; i < ARRAY_SIZE(counts); i++) {
        out.seq_out = 0;
        wire.tail = 0;
        w->count = counts[i];
        assert_int_equal(stream_send_built(&out, REC_PAGES, full), 0);
        assert_int_equal(take(), E_PROTO);
    }
}

static void test_blocks_arrive(void **state)
{
    (void)state;
    send_blocks();
    assert_int_equal(take(), 0);
    assert_memory_equal(fake_volumes[0].data + 24 * BLOCK_SECTOR, wire.data + BLOCKS_DATA,
                        16 * BLOCK_SECTOR);
}

static void test_flips_in_blocks(void **state)
{
    (void)state;
    send_blocks();
    assert_every_flip_is_found();
    assert_int_equal(fake_volumes[0].written, 0);
    wire.data[BLOCKS_DATA + 99] ^= 1;
    assert_int_equal(take(), E_PROTO);
    assert_string_equal(incoming.error,
                        "BLOCKS is damaged: 16 sectors at 24 of disk 0 haven't its hash");
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_pages_arrive),          T(test_flips_in_pages), T(test_damaged_page_is_named),
        T(test_swapped_pages),         T(test_lost_bytes),     T(test_cut_short),
        T(test_lengths_that_disagree), T(test_blocks_arrive),  T(test_flips_in_blocks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
