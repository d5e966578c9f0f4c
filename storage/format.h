// SPDX-License-Identifier: MIT
// The datastore's structures as they are on the disk (storage/datastore.md).
#ifndef SKIFF_STORAGE_FORMAT_H
#define SKIFF_STORAGE_FORMAT_H

#include "kernel/types.h"

#define STORE_BLOCK         4096u // bytes of a page and of a journal block
#define STORE_BLOCK_SECTORS 8u

#define SUPER_MAGIC      "SKIFFSTO"
#define SUPER_VERSION    1
#define SUPER_BYTES      8192u
#define SUPER_SECOND     (64 * KIB)  // where the second copy is
#define JOURNAL_START    (128 * KIB) // bytes
#define JOURNAL_MAX      2048u       // blocks
#define JOURNAL_MIN      8u
#define CHUNKS_MAX       (1u << 22)
#define CHUNK_SHIFT_MIN  18u
#define CHUNK_SHIFT_MAX  26u
#define SUPER_MAP_BYTES  3968u
#define TXN_MAGIC        "SKTX"
#define TXN_MAX          65536u
#define CELL_BYTES       16u
#define CELLS            255u // of a page
#define VOLUMES_PER_PAGE 63u
#define STORE_NAME       32u

enum { PAGE_HEAD = 0, PAGE_VOLUMES = 1, PAGE_RECORDS = 5, PAGE_CHUNKS = 133 };
#define VOLUMES_MAX ((PAGE_RECORDS - PAGE_VOLUMES) * VOLUMES_PER_PAGE)

struct super {
    char magic[8];
    u32 crc;
    u32 version;
    u8 uuid[16];
    char name[STORE_NAME];
    u64 generation;
    u64 sectors;
    u32 chunk_shift, chunks;
    u32 journal_blocks, pages;
    u8 reserved[160];
    u8 present[SUPER_MAP_BYTES], second[SUPER_MAP_BYTES];
};
static_assert(sizeof(struct super) == SUPER_BYTES, "superblock");
static_assert(offsetof(struct super, present) == 256, "superblock");

struct page_header {
    u32 crc;
    u32 page;
    u64 generation;
};
static_assert(sizeof(struct page_header) + CELLS * CELL_BYTES == STORE_BLOCK, "page");

struct txn_header {
    char magic[4];
    u32 crc;
    u64 generation;
    u32 sequence;
    u32 block;
    u32 bytes, runs;
};
static_assert(sizeof(struct txn_header) == 32, "transaction");

struct txn_run {
    u32 page;
    u16 cell, cells;
};
static_assert(sizeof(struct txn_run) == 8, "run");

struct head_cell {
    u32 last_volume;
    u32 reserved[3];
};
static_assert(sizeof(struct head_cell) == CELL_BYTES, "cell");

struct volume_cells {
    u32 id;
    u32 reserved;
    u64 sectors;
    char name[STORE_NAME];
    u8 reserved2[16];
};
static_assert(sizeof(struct volume_cells) == 4 * CELL_BYTES, "volume");

#define RECORD_KEY 48u
#define RECORD_MAX 4000u
struct record_cells {
    char key[RECORD_KEY];
    u32 bytes;
    u32 reserved[7];
    u8 data[RECORD_MAX];
};
static_assert(sizeof(struct record_cells) == CELLS * CELL_BYTES, "record");

struct chunk_cell {
    u32 volume;
    u32 index;
    u64 valid;
};
static_assert(sizeof(struct chunk_cell) == CELL_BYTES, "chunk");

#endif
