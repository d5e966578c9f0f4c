// SPDX-License-Identifier: MIT
// An empty datastore: how a partition is divided, and what is written to it.
#include "kernel/lib.h"
#include "kernel/mem.h"
#include "storage/meta.h"

static u64 sectors_wanted(const struct super *s)
{
    return meta_data_start(s) + ((u64)s->chunks << s->chunk_shift) / BLOCK_SECTOR;
}

// As many chunks as fit beside the pages that describe them.
static void divide(struct super *s, u64 sectors)
{
    u64 bytes = sectors * BLOCK_SECTOR;
    s->sectors = sectors;
    s->journal_blocks = (u32)(MIN(MAX(bytes / 64 / STORE_BLOCK, JOURNAL_MIN), JOURNAL_MAX));
    s->chunk_shift = CHUNK_SHIFT_MIN;
    while (bytes >> s->chunk_shift > CHUNKS_MAX && s->chunk_shift < CHUNK_SHIFT_MAX)
        s->chunk_shift++;
    s->chunks = (u32)MIN(bytes >> s->chunk_shift, CHUNKS_MAX);
    do {
        s->pages = PAGE_CHUNKS + (s->chunks + CELLS - 1) / CELLS;
    } while (sectors_wanted(s) > sectors && --s->chunks > 0);
}

static int write_empty(struct block_device *disk, u64 first, struct super *s)
{
    u32 seed = crc32c(0, s->uuid, sizeof(s->uuid));
    struct super *nothing = kzalloc(sizeof(*nothing));
    int e = nothing ? 0 : E_NOMEM;
    if (!e)
        e = block_write(disk, first + SUPER_SECOND / BLOCK_SECTOR, SUPER_BYTES / BLOCK_SECTOR,
                        nothing);
    if (!e)
        e = meta_write_super(disk, first, seed, s);
    kfree(nothing);
    return e;
}

int meta_format(struct block_device *disk, u64 first, u64 sectors, const char *name,
                const u8 uuid[16], char *err, size_t size)
{
    struct super *s = kzalloc(sizeof(*s));
    int e = s ? 0 : E_NOMEM;
    if (!e) {
        memcpy(s->magic, SUPER_MAGIC, sizeof(s->magic));
        s->version = SUPER_VERSION;
        memcpy(s->uuid, uuid, sizeof(s->uuid));
        strlcpy(s->name, name, sizeof(s->name));
        s->generation = 1;
        divide(s, sectors);
        if (!s->chunks) {
            meta_fail(E_INVAL, err, size,
                      "%s: %llu MiB are too small for a datastore, which takes 4 MiB or more",
                      disk->name, (unsigned long long)(sectors * BLOCK_SECTOR / MIB));
            kfree(s);
            return E_INVAL;
        }
        e = write_empty(disk, first, s);
    }
    if (e)
        snprintf(err, size, "%s: %s", disk->name,
                 e == E_NOMEM ? "no memory to write a datastore" : "the disk does not take writes");
    kfree(s);
    return e;
}
