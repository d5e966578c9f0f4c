// SPDX-License-Identifier: MIT
// The operator's test of a disk: a MiB at a time, so that many requests are under way at once.
#include "storage/disk_test.h"

#include "kernel/lib.h"
#include "kernel/mem.h"
#include "kernel/random.h"
#include "kernel/thread.h"
#include "kernel/time.h"

#define PIECE         (u32)(MIB / BLOCK_SECTOR) // sectors
#define WORDS         (BLOCK_SECTOR / 8)
#define BOOT_SIGNED   510 // UEFI 2.10, 5.2.1: 55h AAh ends a partition table or a boot sector
#define GPT_SIGNATURE "EFI PART" // 5.3.2: in the second sector and in the last

u64 disk_test_word(u64 seed, u64 sector, u32 i)
{
    return (sector * WORDS + i + 1) * 0x9e3779b97f4a7c15ull ^ seed;
}

static int fail(struct disk_test *t, int r, const char *doing, u64 sector)
{
    snprintf(t->error, sizeof(t->error), "%s at sector %llu failed; the log has what the disk said",
             doing, (unsigned long long)sector);
    return r;
}

static int refuse(struct disk_test *t, const char *what)
{
    snprintf(t->error, sizeof(t->error), "%s; add --force to write over it", what);
    return E_BUSY;
}

static int check_empty(struct block_device *b, struct disk_test *t, u8 *buf)
{
    static const char gpt[] = "a GUID partition table is on it";
    int r = block_read(b, 0, 2, buf);
    if (r == 0)
        r = block_read(b, b->sectors - 1, 1, buf + 2 * BLOCK_SECTOR);
    if (r)
        return fail(t, r, "a read", 0);
    if (!memcmp(buf + BLOCK_SECTOR, GPT_SIGNATURE, 8) ||
        !memcmp(buf + 2 * BLOCK_SECTOR, GPT_SIGNATURE, 8))
        return refuse(t, gpt);
    if (buf[BOOT_SIGNED] == 0x55 && buf[BOOT_SIGNED + 1] == 0xaa)
        return refuse(t, "a partition table or a boot sector is on it");
    return 0;
}

static void fill(u64 *word, u64 seed, u64 sector, u32 sectors)
{
    for (u32 s = 0; s < sectors; s++, thread_yield_if_needed())
        for (u32 i = 0; i < WORDS; i++)
            *word++ = disk_test_word(seed, sector + s, i);
}

static int compare(struct disk_test *t, const u64 *word, u64 sector, u32 sectors)
{
    for (u32 s = 0; s < sectors; s++, thread_yield_if_needed())
        for (u32 i = 0; i < WORDS; i++)
            if (*word++ != disk_test_word(t->seed, sector + s, i)) {
                snprintf(t->error, sizeof(t->error),
                         "sector %llu does not read as it was written: the disk is broken",
                         (unsigned long long)(sector + s));
                return E_IO;
            }
    return 0;
}

static int write_all(struct block_device *b, struct disk_test *t, u64 end, void *buf)
{
    for (u64 at = 0; at < end; at += PIECE) {
        u32 sectors = (u32)MIN(end - at, PIECE);
        fill(buf, t->seed, at, sectors);
        int r = block_write(b, at, sectors, buf);
        if (r)
            return fail(t, r, "a write", at);
    }
    int r = block_flush(b);
    return r ? fail(t, r, "the flush after all writes, not a write", 0) : 0;
}

static int read_all(struct block_device *b, struct disk_test *t, u64 end, void *buf)
{
    for (u64 at = 0; at < end; at += PIECE) {
        u32 sectors = (u32)MIN(end - at, PIECE);
        memset(buf, 0, sectors * BLOCK_SECTOR);
        int r = block_read(b, at, sectors, buf);
        if (r)
            return fail(t, r, "a read", at);
        r = t->write ? compare(t, buf, at, sectors) : 0;
        if (r)
            return r;
    }
    return 0;
}

static int run(struct block_device *b, struct disk_test *t, void *buf)
{
    u64 end = MIN(b->sectors, MIN(t->mib, b->sectors) * PIECE), start = time_ns();
    int r = t->write && !t->force ? check_empty(b, t, buf) : 0;
    if (r == 0 && t->write)
        r = write_all(b, t, end, buf);
    if (r == 0)
        r = read_all(b, t, end, buf);
    t->bytes = end * BLOCK_SECTOR;
    t->ns = time_ns() - start;
    return r;
}

int disk_test_run(struct block_device *b, struct disk_test *t)
{
    u64 buf = pages_alloc(MIB / PAGE_SIZE);
    if (!buf) {
        strlcpy(t->error, "no memory for a buffer of 1 MiB", sizeof(t->error));
        return E_NOMEM;
    }
    random_bytes(&t->seed, sizeof(t->seed));
    int r = t->write ? block_claim(b, "disk-test") : 0;
    if (r)
        snprintf(t->error, sizeof(t->error), "it is in use by %s, so nothing else writes to it",
                 b->used_by);
    else if ((r = run(b, t, phys_ptr(buf)), t->write))
        block_release(b);
    pages_free(buf, MIB / PAGE_SIZE);
    return r;
}
