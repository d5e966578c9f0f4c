// SPDX-License-Identifier: MIT
// The operator's test of a disk: what it reads, and whether it keeps what is written.
#ifndef SKIFF_STORAGE_DISK_TEST_H
#define SKIFF_STORAGE_DISK_TEST_H

#include "storage/block.h"

struct disk_test {
    bool write; // a pattern, then a flush, then read it back
    bool force; // even where something is on the disk
    u64 mib;    // from the disk's start; cut to its size
    u64 seed, bytes, ns;
    char error[160];
};

// 0, or an error, with a sentence in t->error. A thread's.
int disk_test_run(struct block_device *b, struct disk_test *t);
// Word `i` of a sector, as written.
u64 disk_test_word(u64 seed, u64 sector, u32 i);

#endif
