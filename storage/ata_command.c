// SPDX-License-Identifier: MIT
// ATA's commands: what IDENTIFY DEVICE tells, and a request in the disk's words.
#include "storage/ata_command.h"

#include "kernel/lib.h"
#include "storage/disk.h"

// 7.13 to 7.45
enum {
    READ_DMA = 0xc8,
    READ_DMA_EXT = 0x25,
    WRITE_DMA = 0xca,
    WRITE_DMA_EXT = 0x35,
    FLUSH_CACHE = 0xe7,
    FLUSH_CACHE_EXT = 0xea,
    DATA_SET_MANAGEMENT = 0x06,
};
#define DEVICE_LBA   0x40
#define FEATURE_TRIM 1
#define TRIM_RANGES  (BLOCK_SECTOR / 8u)
#define TRIM_MOST    0xffffu // sectors of a range

// Words of IDENTIFY DEVICE (7.12.7)
enum {
    WORD_SERIAL = 10,
    WORD_MODEL = 27,
    WORD_CAPABILITIES = 49,
    WORD_SECTORS28 = 60,
    WORD_COMMANDS = 83,
    WORD_SECTORS48 = 100,
    WORD_SECTOR_SIZE = 106,
    WORD_TRIM = 169,
};
#define CAN_DMA        BIT(8)
#define CAN_LBA        BIT(9)
#define COMMANDS_VALID (BIT(14) | BIT(15)) // the value 1 says so
#define HAS_LBA48      BIT(10)
#define HAS_FLUSH      BIT(12)
#define HAS_FLUSH_EXT  BIT(13)
#define LONG_SECTORS   BIT(12)
#define SHARED_SECTORS BIT(13) // 2 to the power of bits 3:0 logical ones in a physical one

// The first character of each word is its upper byte (3.3.10).
static void get_text(char *to, size_t size, const u16 *word, u32 words)
{
    char text[40];
    for (u32 i = 0; i < words; i++) {
        text[2 * i] = (char)(word[i] >> 8);
        text[2 * i + 1] = (char)word[i];
    }
    disk_text(to, size, text, 2 * words);
}

static bool valid(u16 word)
{
    return (word & COMMANDS_VALID) == BIT(14);
}

bool ata_understand(const u16 *word, struct ata_disk *a, struct block_device *b, const char **why)
{
    u16 commands = valid(word[WORD_COMMANDS]) ? word[WORD_COMMANDS] : 0;
    u16 size = valid(word[WORD_SECTOR_SIZE]) ? word[WORD_SECTOR_SIZE] : 0;
    *why = !(word[WORD_CAPABILITIES] & CAN_DMA)   ? "it has no DMA"
           : !(word[WORD_CAPABILITIES] & CAN_LBA) ? "it has no logical block addresses"
           : size & LONG_SECTORS                  ? "its logical sectors are longer than 512 bytes"
                                                  : NULL;
    a->lba48 = commands & HAS_LBA48;
    a->flush = commands & HAS_FLUSH;
    a->flush_ext = commands & HAS_FLUSH_EXT;
    get_text(b->model, sizeof(b->model), word + WORD_MODEL, 20);
    get_text(b->serial, sizeof(b->serial), word + WORD_SERIAL, 10);
    b->sectors = word[WORD_SECTORS28] | (u64)word[WORD_SECTORS28 + 1] << 16;
    if (a->lba48)
        memcpy(&b->sectors, word + WORD_SECTORS48, 8);
    b->physical_bytes = BLOCK_SECTOR << (size & SHARED_SECTORS ? size & 0xf : 0);
    b->can_discard = a->lba48 && word[WORD_TRIM] & 1;
    b->max_clear_sectors = TRIM_RANGES * TRIM_MOST;
    return !*why;
}

// 7.7.3.2
static void put_ranges(const struct block_request *r, u64 *trim)
{
    u64 at = r->sector;
    u32 left = r->sectors;
    for (u32 i = 0; i < TRIM_RANGES; i++) {
        u32 sectors = MIN(left, TRIM_MOST);
        trim[i] = sectors ? at | (u64)sectors << 48 : 0;
        at += sectors;
        left -= sectors;
    }
}

struct ata_command ata_command(const struct ata_disk *a, const struct block_request *r, u64 *trim)
{
    struct ata_command c = {.device = DEVICE_LBA, .write = r->op != BLOCK_READ};
    if (r->op == BLOCK_FLUSH) {
        c.opcode = a->flush_ext ? FLUSH_CACHE_EXT : FLUSH_CACHE;
        return c;
    }
    c.data = true;
    c.ext = a->lba48;
    if (r->op == BLOCK_DISCARD) {
        c.opcode = DATA_SET_MANAGEMENT;
        c.features = FEATURE_TRIM;
        c.count = 1;
        put_ranges(r, trim);
        return c;
    }
    if (a->lba48)
        c.opcode = c.write ? WRITE_DMA_EXT : READ_DMA_EXT;
    else
        c.opcode = c.write ? WRITE_DMA : READ_DMA;
    c.count = (u16)(a->lba48 ? r->sectors : r->sectors & 0xff);
    c.lba = r->sector;
    if (!a->lba48) // bits 27:24 lie in the device register
        c.device |= (u8)(r->sector >> 24 & 0xf);
    return c;
}
