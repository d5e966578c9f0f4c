// SPDX-License-Identifier: MIT
// ATA's commands, whatever carries them to the disk. Sections are those of ACS-3 (T13/2161-D).
#ifndef SKIFF_STORAGE_ATA_COMMAND_H
#define SKIFF_STORAGE_ATA_COMMAND_H

#include "storage/block.h"

#define ATA_WORDS    256u // of IDENTIFY DEVICE's answer
#define ATA_IDENTIFY 0xec // 7.12

// 6: of the status register.
#define ATA_BUSY  0x80
#define ATA_READY 0x40
#define ATA_FAULT 0x20
#define ATA_DRQ   0x08
#define ATA_ERROR 0x01

struct ata_disk {
    bool lba48, flush, flush_ext;
};

struct ata_command {
    u8 opcode, device;
    u16 features, count; // 0 counts as the most there can be
    u64 lba;
    bool data, write; // moves data, to the disk
    bool ext;         // count and lba have their upper halves
};

// Fills in what the disk says of itself. False, with the reason, for what Skiff cannot use.
bool ata_understand(const u16 *word, struct ata_disk *a, struct block_device *b, const char **why);
// The command of a request; trim: where a discard's ranges go, a sector that is the command's data.
struct ata_command ata_command(const struct ata_disk *a, const struct block_request *r, u64 *trim);

#endif
