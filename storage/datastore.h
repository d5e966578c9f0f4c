// SPDX-License-Identifier: MIT
// Datastores: volumes and small durable records on the host's disks (storage/datastore.md).
#ifndef SKIFF_STORAGE_DATASTORE_H
#define SKIFF_STORAGE_DATASTORE_H

#include "storage/block.h"
#include "storage/format.h"

#define VOLUME_PATH        (2 * STORE_NAME) // "STORE/NAME"
#define VOLUME_MAX_SECTORS (64ull << 31)    // 64 TiB

struct datastore;

// Mounts what is on the host's disks, in a thread. Whoever asks for a datastore or a volume before
// that is over waits for it.
void datastores_start(void);
void datastores_stop(void); // everything is made durable; before the host goes down

// What the metadata of all of them can come to at most.
u64 datastores_memory_limit(void);

struct datastore_info {
    char name[STORE_NAME];
    char disk[32];
    char error[200]; // why it is not usable; the rest is then unset. "": it is
    bool failed;     // a write or flush of its own failed: it takes no more
    u8 uuid[16];
    u32 volumes, volumes_max;
    u64 bytes, free_bytes; // in chunks
    u32 chunk_bytes;
    u64 memory_bytes; // that its metadata takes
    u64 commits, checkpoints;
};
bool datastore_get_info(u32 i, struct datastore_info *out); // false: there is no i-th

struct volume_info {
    char path[VOLUME_PATH];
    u64 id; // that no other volume has or will have, in whatever datastore
    u64 bytes, allocated_bytes;
    char used_by[48]; // "": nobody
};
bool volume_get_info(u32 i, struct volume_info *out); // of all datastores

// All return 0, or an error with one sentence. In a thread; durable when they return.
// Refused unless the disk is blank. lba_bytes: its logical block, 512 or 4096.
int datastore_create(struct block_device *disk, u32 lba_bytes, const char *name, char *err,
                     size_t size);
int datastore_check(const char *name, char *err, size_t size); // the disk says what it should
int volume_create(const char *path, u64 bytes, char *err, size_t size);
int volume_delete(const char *path, char *err, size_t size);
int volume_resize(const char *path, u64 bytes, char *err, size_t size);

// The block device of "STORE/NAME", claimed for `user` until it is closed. NULL with a sentence.
// Thin: what was not written, or was discarded, reads as zeros. A write for which the datastore has
// no room ends with E_NOMEM.
struct block_device *volume_open(const char *path, const char *user, char *err, size_t size);
void volume_close(struct block_device *volume);
// Whether `sector` was written, and how many sectors from there on are alike (at least that). A
// hole reads as zeros.
bool volume_allocated(struct block_device *volume, u64 sector, u64 *run);

// Small records that outlive the host: up to RECORD_MAX bytes under a key of up to RECORD_KEY - 1
// characters, replaced as a whole and durable when record_put returns. They are kept in the first
// datastore. In a thread.
int record_put(const char *key, const void *data,
               u32 bytes); // E_NOENT no datastore, E_NOMEM full, E_IO it has failed
int record_get(const char *key, void *data, u32 *bytes); // *bytes: room, then length; E_NOENT
int record_delete(const char *key);                      // E_NOENT
bool record_next(u32 *at, char key[RECORD_KEY]);         // begin with *at 0

#endif
