// SPDX-License-Identifier: MIT
// A day in a datastore's life, and the power fails at every write of it: whatever subset of what no
// flush covers has reached the disk, the datastore mounts, and what was promised is there.
// The day is recorded first: what went to the disk, and what the caller may believe from then on.
// Then it is played: after each step, disks are made of what is durable and of a subset of the
// sectors that are not (an old version of a sector is a subset too, and so is another order). The
// day itself has such failures as well, and goes on after them.

// sources: storage/datastore.c storage/volume.c storage/volume_io.c storage/volume_work.c
// sources: storage/space.c storage/record.c storage/meta.c storage/meta_load.c storage/gpt.c
// sources: storage/meta_format.c storage/block.c storage/tool/kernel.c kernel/name.c kernel/crc32c.c
#include "tests/unit/unit.h"

#include "kernel/log.h"
#include "storage/store.h"
#include "storage/tool/kernel.h"
#include "tests/unit/fake_disk.h"

#define DISK_BYTES  (7 * MIB)
#define PART_SECTOR (MIB / BLOCK_SECTOR)
#define VOLUMES     4
#define VOLUME_MAX  1600 // sectors
#define RECORDS     3
#define STEPS       330
#define EXHAUSTIVE  7  // so many sectors in doubt: all subsets
#define SAMPLES     40 // else
#define VALUES      24 // that a sector may have

void log_write(enum log_level level, const char *area, const char *fmt, ...)
{
    (void)level, (void)area, (void)fmt;
}

static u64 seed;
static u32 chance(u32 n)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (u32)(seed >> 16) % n;
}

// ---- The recording ------------------------------------------------------------------------------

enum event_kind {
    WROTE,
    FLUSHED,
    MAY,
    IS,
    SIZE_MAY,
    SIZE_IS,
    SYNCED,
    RECORD_MAY,
    RECORD_IS,
    KEPT,  // `value`: a write that reached the disk before the next
    POWER, // failure
    FOUND  // after it
};

struct event {
    enum event_kind kind;
    u64 sector; // on the disk, or on the volume
    u32 count, volume, value;
    u8 data[BLOCK_SECTOR];
};

static struct event *events;
static u32 event_count, flushed_at; // the first event behind the last flush
static u8 *durable;                 // what is on the disk for certain

static struct event *record(enum event_kind kind, u32 volume, u64 sector, u32 count, u32 value)
{
    if (event_count % 4096 == 0)
        events = realloc(events, (event_count + 4096) * sizeof(*events));
    struct event *e = &events[event_count++];
    *e = (struct event){kind, sector, count, volume, value, {0}};
    return e;
}

static void on_write(u64 sector, u32 sectors, const u8 *data)
{
    for (u32 i = 0; i < sectors; i++)
        memcpy(record(WROTE, 0, sector + i, 1, 0)->data, data + i * BLOCK_SECTOR, BLOCK_SECTOR);
}

static void reach_disk(u32 event)
{
    memcpy(durable + events[event].sector * BLOCK_SECTOR, events[event].data, BLOCK_SECTOR);
}

static void on_flush(void)
{
    for (; flushed_at < event_count; flushed_at++)
        if (events[flushed_at].kind == WROTE)
            reach_disk(flushed_at);
    record(FLUSHED, 0, 0, 0, 0);
}

// ---- The day ------------------------------------------------------------------------------------

static char err[256];
static u32 size_now[VOLUMES]; // sectors; 0: no such volume
static struct block_device *open_now[VOLUMES];
static u32 stamp;

static const char *path_of(u32 v)
{
    static char path[16];
    snprintf(path, sizeof(path), "day/v%u", v);
    return path;
}

static void ok(int e)
{
    if (e)
        fail_msg("%d: %s", e, err);
}

static void resize(u32 v, u32 sectors)
{
    const char *path = path_of(v);
    u32 old = size_now[v];
    if (open_now[v])
        volume_close(open_now[v]);
    open_now[v] = NULL;
    record(SIZE_MAY, v, 0, 0, sectors);
    if (sectors < old)
        record(MAY, v, sectors, old - sectors, 0);
    if (!old)
        ok(volume_create(path, (u64)sectors * BLOCK_SECTOR, err, sizeof(err)));
    else if (!sectors)
        ok(volume_delete(path, err, sizeof(err)));
    else
        ok(volume_resize(path, (u64)sectors * BLOCK_SECTOR, err, sizeof(err)));
    record(SIZE_IS, v, 0, 0, sectors);
    size_now[v] = sectors;
    if (sectors)
        assert_non_null(open_now[v] = volume_open(path, "the day", err, sizeof(err)));
}

static void discard_some(u32 v, u32 sector, u32 count)
{
    record(MAY, v, sector, count, 0);
    ok(block_clear(open_now[v], BLOCK_DISCARD, sector, count));
    record(IS, v, sector, count, 0);
}

// Each sector is full of one number, which no other write has used.
static void write_some(u32 v, u32 sector, u32 count)
{
    u32 *data = malloc(count * BLOCK_SECTOR);
    for (u32 i = 0; i < count; i++) {
        record(MAY, v, sector + i, 1, ++stamp);
        for (u32 k = 0; k < BLOCK_SECTOR / 4; k++)
            data[i * BLOCK_SECTOR / 4 + k] = stamp;
    }
    int e = block_write(open_now[v], sector, count, data);
    free(data);
    if (e && e != E_NOMEM)
        fail_msg("write: %d", e);
    if (e) // full, and how much was written is not known
        discard_some(v, sector, count);
    for (u32 i = 0; i < count && !e; i++)
        record(IS, v, sector + i, 1, stamp - count + 1 + i);
}

static void put_record(u32 i)
{
    u32 data[800];
    char key[16];
    snprintf(key, sizeof(key), "record-%u", i);
    record(RECORD_MAY, i, 0, 0, ++stamp);
    for (u32 k = 0; k < ARRAY_SIZE(data); k++)
        data[k] = stamp;
    ok(record_put(key, data, sizeof(data)));
    record(RECORD_IS, i, 0, 0, stamp);
}

static void note_what_is_there(u32 v)
{
    u32 data[BLOCK_SECTOR / 4];
    open_now[v] = volume_open(path_of(v), "the day", err, sizeof(err));
    assert_non_null(open_now[v]);
    for (u32 i = 0; i < size_now[v]; i++) {
        ok(block_read(open_now[v], i, 1, data));
        record(FOUND, v, i, 1, data[0]);
    }
}

static void lose_power(void)
{
    u32 end = event_count;
    stores_forget();
    kernel_forget_threads();
    for (u32 i = flushed_at; i < end; i++)
        if (events[i].kind == WROTE && chance(2)) {
            reach_disk(i);
            record(KEPT, 0, 0, 0, i);
        }
    memcpy(disk_data, durable, DISK_BYTES);
    record(POWER, 0, 0, 0, 0);
    flushed_at = event_count;
    datastores_start();
    for (u32 v = 0; v < VOLUMES; v++)
        if (size_now[v])
            note_what_is_there(v);
}

static void write_or_discard(u32 v, u32 what)
{
    if (what == 9 && chance(2)) { // chunks become free, for others
        discard_some(v, 0, size_now[v]);
        return;
    }
    u32 aligned = chance(2) ? 8 : 1;
    u32 sector = chance(size_now[v]) / aligned * aligned;
    u32 count = 1 + chance(what == 9 ? 700 : what < 2 ? 200 : 12);
    count = MIN(count, size_now[v] - sector);
    if (what == 9)
        discard_some(v, sector, count);
    else
        write_some(v, sector, count);
}

static void step(void)
{
    u32 v = chance(VOLUMES), what = chance(20);
    if (what < 10 && size_now[v]) {
        write_or_discard(v, what);
    } else if (what < 15 && size_now[v]) {
        ok(block_flush(open_now[v]));
        record(SYNCED, v, 0, 0, 0);
    } else if (what == 15) {
        put_record(chance(RECORDS));
    } else if (!size_now[v]) {
        resize(v, 200 + chance(VOLUME_MAX - 200));
    } else if (what == 16) {
        resize(v, chance(3) ? 1 + chance(VOLUME_MAX - 1) : 0);
    } else if (what == 17 && chance(3) == 0) {
        lose_power();
    }
}

static struct super first_super;

static void live_a_day(u64 with)
{
    seed = with;
    event_count = flushed_at = stamp = 0;
    memset(size_now, 0, sizeof(size_now));
    memset(open_now, 0, sizeof(open_now));
    memset(disk_data, 0, DISK_BYTES);
    ok(datastore_create(&disk, BLOCK_SECTOR, "day", err, sizeof(err)));
    memcpy(&first_super, disk_data + MIB, sizeof(first_super));
    memcpy(durable, disk_data, DISK_BYTES);
    disk_wrote = on_write;
    disk_flushed = on_flush;
    for (u32 i = 0; i < STEPS; i++)
        step();
    disk_wrote = NULL;
    disk_flushed = NULL;
    ok(datastore_check("day", err, sizeof(err)));
    stores_forget();
    kernel_forget_threads();
}

// ---- What may be there --------------------------------------------------------------------------

struct may {
    u32 count, value[VALUES]; // the first is what there is if nothing goes wrong
};
static struct may sector_may[VOLUMES][VOLUME_MAX], size_may[VOLUMES], record_may[RECORDS];

static bool may_be(const struct may *m, u32 value)
{
    for (u32 i = 0; i < m->count; i++)
        if (m->value[i] == value)
            return true;
    return false;
}

static void add_value(struct may *m, u32 value)
{
    if (may_be(m, value))
        return;
    assert(m->count < VALUES);
    m->value[m->count++] = value;
}

static void now_is(struct may *m, u32 value)
{
    add_value(m, value);
    for (u32 i = 0; i < m->count; i++)
        if (m->value[i] == value) {
            m->value[i] = m->value[0];
            m->value[0] = value;
        }
}

static void only(struct may *m, u32 value)
{
    *m = (struct may){1, {value}};
}

static void forget_all(struct may *m, u32 count)
{
    for (u32 i = 0; i < count; i++)
        only(&m[i], 0);
}

static u64 faults;
static char first_fault[300];

static void fault(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    if (!faults++)
        vsnprintf(first_fault, sizeof(first_fault), fmt, ap);
    va_end(ap);
}

static void believe(const struct event *e)
{
    struct may *s = &sector_may[e->volume % VOLUMES][e->sector % VOLUME_MAX];
    switch (e->kind) {
    case MAY:
    case IS:
        for (u32 i = 0; i < e->count; i++)
            e->kind == MAY ? add_value(&s[i], e->value) : now_is(&s[i], e->value);
        break;
    case SYNCED:
        for (u32 i = 0; i < VOLUME_MAX; i++)
            only(&sector_may[e->volume][i], sector_may[e->volume][i].value[0]);
        break;
    case SIZE_MAY:
        add_value(&size_may[e->volume], e->value);
        break;
    case SIZE_IS: // durable, and so is what a smaller size has cut off
        only(&size_may[e->volume], e->value);
        forget_all(sector_may[e->volume] + e->value, VOLUME_MAX - e->value);
        break;
    case RECORD_MAY:
        add_value(&record_may[e->volume], e->value);
        break;
    case RECORD_IS:
        only(&record_may[e->volume], e->value);
        break;
    case FOUND:
        if (!may_be(s, e->value))
            fault("volume %u sector %u held %u, wanted %u", e->volume, (u32)e->sector, e->value,
                  s->value[0]);
        only(s, e->value);
        break;
    default:
        break;
    }
}

// ---- The power fails ----------------------------------------------------------------------------

static u32 doubt[1 << 16]; // events whose sectors are not
static u32 doubt_count;
static u64 cuts, disks;

static void check_sectors(u32 v, struct block_device *b)
{
    static u32 data[VOLUME_MAX][BLOCK_SECTOR / 4];
    if (block_read(b, 0, b->sectors, data))
        fault("volume %u cannot be read", v);
    for (u32 i = 0; i < b->sectors; i++) {
        if (!may_be(&sector_may[v][i], data[i][0]))
            fault("volume %u sector %u holds %u, wanted %u", v, i, data[i][0],
                  sector_may[v][i].value[0]);
        if (memcmp(data[i], data[i] + 1, BLOCK_SECTOR - 4))
            fault("volume %u sector %u is torn", v, i);
    }
}

static void check_volume(u32 v)
{
    struct block_device *b = volume_open(path_of(v), "check", err, sizeof(err));
    if (!may_be(&size_may[v], b ? (u32)b->sectors : 0))
        fault("volume %u has %u sectors, wanted %u", v, b ? (u32)b->sectors : 0,
              size_may[v].value[0]);
    else if (b)
        check_sectors(v, b);
}

static void check_record(u32 i)
{
    u32 data[RECORD_MAX / 4] = {0}, bytes = sizeof(data);
    char key[16];
    snprintf(key, sizeof(key), "record-%u", i);
    int e = record_get(key, data, &bytes);
    bool even = e || !memcmp(data, data + 1, 3200 - 4);
    if (!may_be(&record_may[i], e ? 0 : data[0]) || !even || (!e && bytes != 3200))
        fault("record %u is %u, wanted %u", i, data[0], record_may[i].value[0]);
}

static void check_disk(void)
{
    struct datastore_info d;
    disks++;
    datastores_start();
    if (!datastore_get_info(0, &d))
        fault("there is no datastore");
    else if (d.error[0])
        fault("%s", d.error);
    for (u32 v = 0; v < VOLUMES && !d.error[0]; v++)
        check_volume(v);
    for (u32 i = 0; i < RECORDS && !d.error[0]; i++)
        check_record(i);
    stores_forget();
    kernel_forget_threads();
}

// Only the first part of one of the metadata's sectors was written.
static void tear(const struct event *e)
{
    if (e->sector >= PART_SECTOR + meta_data_start(&first_super) || chance(4))
        return;
    u32 at = chance(BLOCK_SECTOR);
    memcpy(disk_data + e->sector * BLOCK_SECTOR + at, durable + e->sector * BLOCK_SECTOR + at,
           BLOCK_SECTOR - at);
}

// bits: which of the first 64 sectors in doubt are written; beyond them the pattern repeats.
static void try_subset(u64 bits, bool torn)
{
    const struct event *last = NULL;
    for (u32 i = 0; i < doubt_count; i++) {
        const struct event *e = &events[doubt[i]];
        if (!(bits >> ((i + i / 64 * 7) % 64) & 1))
            continue;
        memcpy(disk_data + e->sector * BLOCK_SECTOR, e->data, BLOCK_SECTOR);
        last = e;
    }
    if (torn && last)
        tear(last);
    check_disk();
    for (u32 i = 0; i < doubt_count; i++) {
        u64 at = events[doubt[i]].sector * BLOCK_SECTOR;
        memcpy(disk_data + at, durable + at, BLOCK_SECTOR);
    }
}

static u64 some_bits(void)
{
    u64 a = (u64)chance(1u << 31) << 33 ^ (u64)chance(1u << 31) << 11 ^ chance(1u << 31);
    u64 b = (u64)chance(1u << 31) << 33 ^ (u64)chance(1u << 31) << 11 ^ chance(1u << 31);
    return chance(3) == 0 ? a : chance(2) ? a & b : a | b;
}

static void cut_power(void)
{
    cuts++;
    if (doubt_count <= EXHAUSTIVE) {
        for (u64 bits = 0; bits < BIT(doubt_count); bits++)
            try_subset(bits, false);
    } else {
        for (u32 i = 0; i < SAMPLES; i++)
            try_subset(i == 0 ? 0 : i == 1 ? ~0ull : i == 2 ? ~BIT(chance(64)) : some_bits(), false);
    }
    try_subset(~0ull, true);
}

// ---- Playing the day ----------------------------------------------------------------------------

// What a flush that is left out would have made durable, by the first sectors in doubt.
enum lost { NO_FLUSH_LOST, DATA_FLUSH, JOURNAL_FLUSH, PAGES_FLUSH, SUPER_FLUSH };

static enum lost kind_of_flush(void)
{
    enum lost kind = DATA_FLUSH;
    u64 journal = PART_SECTOR + JOURNAL_START / BLOCK_SECTOR;
    for (u32 i = 0; i < doubt_count; i++) {
        u64 sector = events[doubt[i]].sector;
        if (sector < journal)
            return SUPER_FLUSH;
        if (sector < PART_SECTOR + meta_page_sector(&first_super, 0, false))
            return JOURNAL_FLUSH;
        if (sector < PART_SECTOR + meta_data_start(&first_super))
            kind = PAGES_FLUSH;
    }
    return kind;
}

static void add_doubt(u32 event)
{
    const struct event *e = &events[event];
    const u8 *before = durable + e->sector * BLOCK_SECTOR;
    for (u32 i = 0; i < doubt_count; i++)
        if (events[doubt[i]].sector == e->sector)
            before = events[doubt[i]].data;
    if (memcmp(before, e->data, BLOCK_SECTOR) == 0)
        return; // whether it is written makes no difference
    assert(doubt_count < ARRAY_SIZE(doubt));
    doubt[doubt_count++] = event;
}

static void make_durable(enum lost lost)
{
    if (lost != NO_FLUSH_LOST && kind_of_flush() == lost)
        return;
    for (u32 i = 0; i < doubt_count; i++) {
        const struct event *e = &events[doubt[i]];
        memcpy(durable + e->sector * BLOCK_SECTOR, e->data, BLOCK_SECTOR);
        memcpy(disk_data + e->sector * BLOCK_SECTOR, e->data, BLOCK_SECTOR);
    }
    doubt_count = 0;
}

// As it failed in the recording: of what is in doubt, that much is there.
static void fail_as_then(u32 power)
{
    u32 first = power;
    while (events[first - 1].kind == KEPT)
        first--;
    for (u32 i = first; i < power; i++)
        reach_disk(events[i].value);
    memcpy(disk_data, durable, DISK_BYTES);
    doubt_count = 0;
}

static void begin_again(void)
{
    for (u32 v = 0; v < VOLUMES; v++)
        forget_all(sector_may[v], VOLUME_MAX);
    forget_all(size_may, VOLUMES);
    forget_all(record_may, RECORDS);
    doubt_count = 0;
    faults = cuts = disks = 0;
    memset(disk_data, 0, DISK_BYTES);
    ok(datastore_create(&disk, BLOCK_SECTOR, "day", err, sizeof(err)));
    stores_forget();
    kernel_forget_threads();
    memcpy(disk_data + MIB, &first_super, sizeof(first_super));
    memcpy(durable, disk_data, DISK_BYTES);
}

static void play(enum lost lost)
{
    begin_again();
    for (u32 i = 0; i < event_count && !faults; i++) {
        const struct event *e = &events[i];
        if (e->kind == WROTE)
            add_doubt(i);
        else if (e->kind == FLUSHED)
            make_durable(lost);
        else if (e->kind == POWER)
            fail_as_then(i);
        else
            believe(e);
        // Writes that belong together are cut in the middle too, by the subsets.
        bool last = i + 1 == event_count || events[i + 1].kind != WROTE;
        if ((e->kind == WROTE && last) || e->kind == FLUSHED || e->kind == SYNCED)
            cut_power();
    }
}

static void test_nothing_is_lost(void **state)
{
    (void)state;
    const char *days = getenv("SKIFF_DAYS"); // for a longer run
    for (u64 day = 1, last = days ? strtoull(days, NULL, 10) : 1; day <= last; day++) {
        live_a_day((day + 5) * 20261126);
        play(NO_FLUSH_LOST);
        print_message("day %llu: power failed %llu times, %llu disks\n", (unsigned long long)day,
                      (unsigned long long)cuts, (unsigned long long)disks);
        if (faults)
            fail_msg("%s", first_fault);
        assert_true(cuts > 300 && disks > 5000);
    }
}

// Whoever leaves one of the flushes out is found out: the test above can fail.
static void test_every_flush_is_needed(void **state)
{
    (void)state;
    for (enum lost lost = DATA_FLUSH; lost <= SUPER_FLUSH; lost++) {
        play(lost);
        print_message("without flush %u: %s\n", lost, faults ? first_fault : "nothing is wrong");
        assert_true(faults > 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nothing_is_lost),
        cmocka_unit_test(test_every_flush_is_needed),
    };
    disk_make(DISK_BYTES);
    durable = malloc(DISK_BYTES);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
