// SPDX-License-Identifier: MIT
// GUID partition tables (UEFI 2.10, 5.3).
#ifndef SKIFF_STORAGE_GPT_H
#define SKIFF_STORAGE_GPT_H

#include "storage/block.h"

struct gpt_partition {
    u64 first, sectors; // of BLOCK_SECTOR
};

// The first partition of this type, whose bytes are as in the table. 0; E_NOENT none, or no table;
// E_IO, E_NOMEM. The backup serves where the primary table is damaged.
int gpt_find(struct block_device *disk, const u8 type[16], struct gpt_partition *out);
// Whether the first and the last MiB, where tables and file systems leave their marks, are zeros.
// 0; E_EXIST; E_IO, E_NOMEM.
int gpt_blank(struct block_device *disk);
// Writes a table with one partition that takes the disk whole, but for its first and last MiB. It
// is durable when this returns 0. lba_bytes: the disk's logical block, 512 or 4096.
void gpt_whole(const struct block_device *disk, struct gpt_partition *out);
int gpt_write(struct block_device *disk, u32 lba_bytes, const u8 type[16], const u8 id[16],
              const char *name);

#endif
