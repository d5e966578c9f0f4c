// SPDX-License-Identifier: MIT
// GUID partition tables: found, or written to a blank disk. Sections are those of UEFI 2.10.
#include "storage/gpt.h"

#include "kernel/lib.h"
#include "kernel/mem.h"

#define SIGNATURE     "EFI PART"
#define REVISION      0x00010000u
#define HEADER_BYTES  92u
#define ENTRY_BYTES   128u
#define ENTRIES       128u
#define TABLE_MAX     (256u * 1024)
#define ALIGN_SECTORS (MIB / BLOCK_SECTOR)

struct gpt_header { // 5.3.2
    char signature[8];
    u32 revision, header_bytes, crc, reserved;
    u64 my_lba, alternate_lba, first_usable, last_usable;
    u8 disk_id[16];
    u64 entries_lba;
    u32 entries, entry_bytes, entries_crc;
} __attribute__((packed));
static_assert(sizeof(struct gpt_header) == HEADER_BYTES, "GPT header");

struct gpt_entry { // 5.3.3
    u8 type[16], id[16];
    u64 first, last, attributes;
    u16 name[36];
};
static_assert(sizeof(struct gpt_entry) == ENTRY_BYTES, "GPT entry");

static u32 crc32(const void *data, size_t bytes)
{
    u32 crc = ~0u;
    for (const u8 *p = data; bytes; bytes--, p++) {
        crc ^= *p;
        for (u32 bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? 0xedb88320u : 0);
    }
    return ~crc;
}

// ---- Finding ------------------------------------------------------------------------------------

// One of the two tables, in memory.
struct table {
    struct block_device *disk;
    u32 lba_sectors; // of BLOCK_SECTOR, in a logical block
    u8 *block;       // 4 KiB: the header
    u8 *entries;     // TABLE_MAX
};

static bool header_good(const struct table *t, u64 lba)
{
    struct gpt_header *h = (struct gpt_header *)(void *)t->block;
    u64 lbas = t->disk->sectors / t->lba_sectors;
    u32 crc = h->crc;
    if (memcmp(h->signature, SIGNATURE, 8) || h->header_bytes < HEADER_BYTES ||
        h->header_bytes > t->lba_sectors * BLOCK_SECTOR || h->my_lba != lba)
        return false;
    h->crc = 0;
    bool good = crc == crc32(h, h->header_bytes);
    return good && h->entry_bytes >= ENTRY_BYTES && h->entry_bytes % 8 == 0 &&
           h->entry_bytes <= TABLE_MAX && h->entries <= TABLE_MAX / h->entry_bytes &&
           h->entries_lba < lbas && h->last_usable < lbas;
}

// 5.3.2: before a table is used, its checksums and its own address are checked.
static int load(struct table *t, u64 lba)
{
    const struct gpt_header *h = (const struct gpt_header *)(const void *)t->block;
    if (block_read(t->disk, lba * t->lba_sectors, t->lba_sectors, t->block))
        return E_IO;
    if (!header_good(t, lba))
        return E_NOENT;
    u32 bytes = h->entries * h->entry_bytes;
    u64 sectors = (bytes + BLOCK_SECTOR - 1) / BLOCK_SECTOR;
    if (sectors > t->disk->sectors - h->entries_lba * t->lba_sectors)
        return E_NOENT;
    if (block_read(t->disk, h->entries_lba * t->lba_sectors, sectors, t->entries))
        return E_IO;
    return crc32(t->entries, bytes) == h->entries_crc ? 0 : E_NOENT;
}

static int search(const struct table *t, const u8 type[16], struct gpt_partition *out)
{
    const struct gpt_header *h = (const struct gpt_header *)(const void *)t->block;
    for (u32 i = 0; i < h->entries; i++) {
        struct gpt_entry e;
        memcpy(&e, t->entries + i * h->entry_bytes, sizeof(e));
        if (memcmp(e.type, type, 16) || e.first < h->first_usable || e.last > h->last_usable ||
            e.first > e.last)
            continue;
        out->first = e.first * t->lba_sectors;
        out->sectors = (e.last - e.first + 1) * t->lba_sectors;
        return 0;
    }
    return E_NOENT;
}

static int find(struct table *t, const u8 type[16], struct gpt_partition *out)
{
    int e = E_NOENT;
    for (t->lba_sectors = 1; t->lba_sectors <= 8; t->lba_sectors *= 8) {
        u64 lbas = t->disk->sectors / t->lba_sectors;
        if (lbas < 4)
            continue;
        int first = load(t, 1);
        if (!first || !load(t, lbas - 1))
            return search(t, type, out);
        e = first == E_IO ? E_IO : e;
    }
    return e;
}

int gpt_find(struct block_device *disk, const u8 type[16], struct gpt_partition *out)
{
    struct table t = {.disk = disk, .block = kmalloc(4096), .entries = kmalloc(TABLE_MAX)};
    int e = t.block && t.entries ? find(&t, type, out) : E_NOMEM;
    kfree(t.block);
    kfree(t.entries);
    return e;
}

// ---- Writing ------------------------------------------------------------------------------------

int gpt_blank(struct block_device *disk)
{
    u64 sectors = MIN(disk->sectors, ALIGN_SECTORS);
    u64 *data = kmalloc(sectors * BLOCK_SECTOR);
    int e = data ? 0 : E_NOMEM;
    for (u32 end = 0; end < 2 && !e; end++) {
        e = block_read(disk, end ? disk->sectors - sectors : 0, sectors, data);
        for (u64 i = 0; i < sectors * BLOCK_SECTOR / sizeof(*data) && !e; i++)
            e = data[i] ? E_EXIST : 0;
    }
    kfree(data);
    return e;
}

void gpt_whole(const struct block_device *disk, struct gpt_partition *out)
{
    u64 end = ALIGN_DOWN(disk->sectors, ALIGN_SECTORS);
    if (disk->sectors - end < ALIGN_SECTORS)
        end -= MIN(end, ALIGN_SECTORS);
    out->first = ALIGN_SECTORS;
    out->sectors = end > out->first ? end - out->first : 0;
}

static void make_entry(struct gpt_entry *e, const struct block_device *disk, u32 lba_sectors,
                       const u8 type[16], const u8 id[16], const char *name)
{
    struct gpt_partition whole;
    gpt_whole(disk, &whole);
    memcpy(e->type, type, 16);
    memcpy(e->id, id, 16);
    e->id[0] ^= 1; // the partition's, beside the disk's
    e->first = whole.first / lba_sectors;
    e->last = (whole.first + whole.sectors) / lba_sectors - 1;
    for (u32 i = 0; name[i] && i < ARRAY_SIZE(e->name); i++)
        e->name[i] = (u8)name[i];
}

static void make_header(struct gpt_header *h, u64 lba, u64 other, u64 entries_lba, u64 usable)
{
    h->my_lba = lba;
    h->alternate_lba = other;
    h->entries_lba = entries_lba;
    h->last_usable = usable;
    h->crc = 0;
    h->crc = crc32(h, HEADER_BYTES);
}

// 5.2.3
static void make_mbr(u8 *mbr, u64 lbas)
{
    static const u8 entry[] = {0, 0, 2, 0, 0xee, 0xff, 0xff, 0xff, 1, 0, 0, 0};
    u32 size = (u32)MIN(lbas - 1, 0xffffffffu);
    memset(mbr, 0, 4096);
    memcpy(mbr + 446, entry, sizeof(entry));
    memcpy(mbr + 446 + sizeof(entry), &size, sizeof(size));
    mbr[510] = 0x55;
    mbr[511] = 0xaa;
}

// The backup first, so that a primary table is never without one.
static int write_all(struct table *t, struct gpt_header *h, const u8 *mbr)
{
    u32 n = t->lba_sectors, table = ENTRIES * ENTRY_BYTES / BLOCK_SECTOR;
    u64 lbas = t->disk->sectors / n, backup = lbas - 1 - table / n;
    make_header(h, lbas - 1, 1, backup, backup - 1);
    int e = block_write(t->disk, backup * n, table, t->entries);
    if (!e)
        e = block_write(t->disk, (lbas - 1) * n, n, t->block);
    if (!e)
        e = block_flush(t->disk);
    make_header(h, 1, lbas - 1, 2, backup - 1);
    if (!e)
        e = block_write(t->disk, 2 * n, table, t->entries);
    if (!e)
        e = block_write(t->disk, n, n, t->block);
    if (!e)
        e = block_write(t->disk, 0, n, mbr);
    return e ? e : block_flush(t->disk);
}

int gpt_write(struct block_device *disk, u32 lba_bytes, const u8 type[16], const u8 id[16],
              const char *name)
{
    struct table t = {.disk = disk,
                      .lba_sectors = lba_bytes / BLOCK_SECTOR,
                      .block = kzalloc(4096),
                      .entries = kzalloc(ENTRIES * ENTRY_BYTES)};
    struct gpt_header *h = (struct gpt_header *)(void *)t.block;
    u8 *mbr = kmalloc(4096);
    int e = t.block && t.entries && mbr ? 0 : E_NOMEM;
    if (!e) {
        make_entry((struct gpt_entry *)(void *)t.entries, disk, t.lba_sectors, type, id, name);
        make_mbr(mbr, disk->sectors / t.lba_sectors);
        *h = (struct gpt_header){.revision = REVISION,
                                 .header_bytes = HEADER_BYTES,
                                 .first_usable = 2 + ENTRIES * ENTRY_BYTES / lba_bytes,
                                 .entries = ENTRIES,
                                 .entry_bytes = ENTRY_BYTES,
                                 .entries_crc = crc32(t.entries, ENTRIES * ENTRY_BYTES)};
        memcpy(h->signature, SIGNATURE, 8);
        memcpy(h->disk_id, id, 16);
        e = write_all(&t, h, mbr);
    }
    kfree(mbr);
    kfree(t.block);
    kfree(t.entries);
    return e;
}
