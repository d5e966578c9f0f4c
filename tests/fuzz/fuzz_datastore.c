// SPDX-License-Identifier: MIT
// A datastore whose metadata anybody may have written, with checksums that are right or not: it is
// mounted or refused with a sentence, and what is mounted can be used.

// sources: storage/datastore.c storage/volume.c storage/volume_io.c storage/volume_work.c
// sources: storage/space.c storage/record.c storage/meta.c storage/meta_load.c storage/gpt.c
// sources: storage/meta_format.c storage/block.c storage/tool/kernel.c kernel/name.c
// sources: kernel/crc32c.c

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernel/log.h"
#include "storage/store.h"
#include "storage/tool/kernel.h"
#include "tests/unit/fake_disk.h"

#define DISK_BYTES (7 * MIB)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static u8 *fresh;                              // a disk with some volumes and records
static bool touched[DISK_BYTES / STORE_BLOCK]; // blocks that differ from it
static char err[256];

#define check(ok)                                                                                 \
    do {                                                                                           \
        if (!(ok))                                                                                 \
            fail(#ok, __LINE__);                                                                   \
    } while (0)

static void fail(const char *what, int line)
{
    struct datastore_info d;
    fprintf(stderr, "fuzz_datastore.c:%d: %s; last error \"%s\", store's \"%s\"\n", line, what, err,
            datastore_get_info(0, &d) ? d.error : "no store");
    abort();
}

void log_write(enum log_level level, const char *area, const char *fmt, ...)
{
    (void)level, (void)area, (void)fmt;
}

static void forget(void)
{
    stores_forget();
    kernel_forget_threads();
}

static void touch(u64 sector, u32 sectors, const u8 *data)
{
    (void)data;
    for (u64 i = sector / 8; i <= (sector + sectors - 1) / 8; i++)
        touched[i] = true;
}

static void restore(void)
{
    for (u64 i = 0; i < ARRAY_SIZE(touched); i++)
        if (touched[i])
            memcpy(disk_data + i * STORE_BLOCK, fresh + i * STORE_BLOCK, STORE_BLOCK);
    memset(touched, 0, sizeof(touched));
}

static void make_fresh(void)
{
    static u8 data[300 * KIB];
    disk_make(DISK_BYTES);
    check(!datastore_create(&disk, BLOCK_SECTOR, "store", err, sizeof(err)));
    check(!volume_create("store/a", MIB, err, sizeof(err)));
    check(!volume_create("store/b", GIB, err, sizeof(err)));
    struct block_device *b = volume_open("store/b", "fuzz", err, sizeof(err));
    for (u32 i = 0; i < 20; i++) // until there is a checkpoint behind, and a journal
        check(!block_write(b, i * 100, i + 1, data) && !block_flush(b));
    check(!record_put("key", data, 100));
    forget();
    fresh = malloc(DISK_BYTES);
    memcpy(fresh, disk_data, DISK_BYTES);
    disk_wrote = touch;
}

// ---- What the input changes ---------------------------------------------------------------------

static const u64 places[] = {MIB, MIB + SUPER_SECOND, MIB + JOURNAL_START,
                             MIB + JOURNAL_START + 16 * STORE_BLOCK};

static void patch(const u8 **at, const u8 *end)
{
    const u8 *p = *at;
    u64 offset = places[p[0] % ARRAY_SIZE(places)] +
                 (p[0] & 0x80 ? (p[1] | p[2] << 8) * 16u : p[1] | p[2] << 8);
    u64 n = MIN(MIN(p[3] % 32u + 1, (u64)(end - p - 4)), DISK_BYTES - offset);
    memcpy(disk_data + offset, p + 4, n);
    touch(offset / BLOCK_SECTOR, (u32)(n / BLOCK_SECTOR) + 2, NULL);
    *at = p + 4 + n;
}

static void sign_blocks(u32 seed)
{
    for (u64 at = MIB + JOURNAL_START; at < MIB + 2 * MIB; at += STORE_BLOCK) {
        struct txn_header *t = (struct txn_header *)(void *)(disk_data + at);
        struct page_header *h = (struct page_header *)(void *)t;
        if (!touched[at / STORE_BLOCK])
            continue;
        if (!memcmp(t->magic, TXN_MAGIC, 4) && t->bytes >= sizeof(*t) && t->bytes <= TXN_MAX)
            t->crc = meta_crc(seed, t, offsetof(struct txn_header, crc), t->bytes);
        else
            h->crc = meta_crc(seed, h, offsetof(struct page_header, crc), STORE_BLOCK);
    }
}

static void sign(void)
{
    for (u32 i = 0; i < 2; i++) {
        struct super *s = (struct super *)(void *)(disk_data + places[i]);
        u32 seed = crc32c(0, s->uuid, sizeof(s->uuid));
        s->crc = meta_crc(seed, s, offsetof(struct super, crc), sizeof(*s));
        touch(places[i] / BLOCK_SECTOR, 1, NULL);
        if (i == 0)
            sign_blocks(seed);
    }
}

// ---- What is done with it -----------------------------------------------------------------------

static void use_volume(const char *path)
{
    static u8 data[64 * KIB];
    u64 run, at = 0;
    struct block_device *b = volume_open(path, "fuzz", err, sizeof(err));
    check(b != NULL);
    u64 n = MIN(b->sectors, sizeof(data) / BLOCK_SECTOR);
    check(!block_read(b, 0, n, data));
    check(!block_read(b, b->sectors - n, n, data));
    for (u32 i = 0; i < 8 && at < b->sectors; i++, at += run) {
        volume_allocated(b, at, &run);
        check(run > 0 && run <= b->sectors - at);
    }
    int e = block_write(b, b->sectors - 1, 1, data);
    check(!e || e == E_NOMEM);
    check(!block_clear(b, BLOCK_DISCARD, 0, n) && !block_flush(b));
    volume_close(b);
}

static void use(void)
{
    struct volume_info v;
    char key[RECORD_KEY];
    for (u32 i = 0; i < 4 && volume_get_info(i, &v); i++)
        use_volume(v.path);
    for (u32 at = 0; record_next(&at, key);)
        check(key[0] && strnlen(key, sizeof(key)) < sizeof(key));
    if (volume_get_info(0, &v))
        check(!volume_resize(v.path, 5 * BLOCK_SECTOR, err, sizeof(err)));
    if (volume_get_info(1, &v))
        check(!volume_delete(v.path, err, sizeof(err)));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct datastore_info d;
    if (!fresh)
        make_fresh();
    restore();
    if (!size)
        return 0;
    const u8 *at = data + 1, *end = data + size;
    while (end - at > 4)
        patch(&at, end);
    if (data[0] & 1)
        sign();
    datastores_start();
    check(datastore_get_info(0, &d));
    if (!d.error[0]) {
        use();
        check(!datastore_check(d.name, err, sizeof(err)));
        forget();
        datastores_start(); // what was left mounts
        check(datastore_get_info(0, &d) && !d.error[0]);
    }
    forget();
    return 0;
}
