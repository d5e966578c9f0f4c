// SPDX-License-Identifier: MIT
// Inside a datastore: what its sources share, file by file.
#ifndef SKIFF_STORAGE_STORE_H
#define SKIFF_STORAGE_STORE_H

#include "storage/datastore.h"
#include "storage/meta.h"

#define NO_CHUNK 0xffffffffu

struct volume {
    struct block_device dev; // dev.priv is the volume
    struct datastore *store;
    u32 id, slot;    // slot of the volumes' pages
    u64 changed;     // the transaction that takes its last change; meta.lock
    u32 inflight;    // requests that are being carried out; meta.lock
    bool closed;     // requests wait in the store's queue until the worker is done; meta.lock
    bool full_told;  // the log says that there is no room; the worker
    u64 chunks_used; // meta.lock
    struct volume *next;
};

struct volume_io; // volume_io.c

struct datastore {
    struct meta meta;
    char name[STORE_NAME];
    char error[200];
    struct block_device *disk;
    struct mutex lock; // all changes but those of valid bits; volumes; commits
    struct volume *volumes;
    u32 volume_count;
    // Chunks (space.c); meta.lock
    u32 *table; // open addressing: chunk + 1 by volume and index
    u32 table_mask;
    u16 *page_free; // free chunks by page of cells, those included that are not settled
    u32 chunk_pages, rotor;
    u64 free_chunks;
    // Requests (volume_io.c); meta.lock
    struct volume_io *ios, *free_ios;
    struct block_request *queue, **queue_end;     // for the worker
    struct block_request *stalled, **stalled_end; // without an io
    struct waitq wake;                            // the worker, and whoever waits for quiet
    struct datastore *next;
};

// ---- space.c: chunks ----------------------------------------------------------------------------

static inline u64 chunk_sectors(const struct datastore *s)
{
    return (1ull << s->meta.super->chunk_shift) / BLOCK_SECTOR;
}
static inline u64 piece_sectors(const struct datastore *s) // what a bit of `valid` stands for
{
    return chunk_sectors(s) / 64;
}
static inline u64 chunk_sector(const struct datastore *s, u32 chunk) // on the disk
{
    return s->meta.first + meta_data_start(s->meta.super) + chunk * chunk_sectors(s);
}
// Builds the tables from the cells, and frees what is nobody's. 0, or an error with a sentence.
int space_mount(struct datastore *s, char *err, size_t size);
void space_unmount(struct datastore *s);
// meta.lock held:
u32 chunk_find(const struct datastore *s, u32 volume, u32 index); // NO_CHUNK
struct chunk_cell *chunk_cell(const struct datastore *s, u32 chunk);
void chunk_set_valid(struct volume *v, u32 chunk, u64 valid); // 0 frees it
// meta.lock not held, s->lock held: a chunk near `near`, with nothing valid. NO_CHUNK and in *error
// E_NOMEM: none is free; E_BUSY: none before the next commit.
u32 chunk_take(struct volume *v, u32 index, u32 near, int *error);
// Frees the volume's chunks from index `first` on. s->lock held; nothing may be under way there.
void chunks_drop(struct volume *v, u32 first);

// ---- volume_io.c: requests ----------------------------------------------------------------------

int requests_start(struct datastore *s); // memory for requests. 0 or E_NOMEM
void requests_end(struct datastore *s);
extern const struct block_ops volume_ops;
// meta.lock not held. Starts, or goes on with, a request that is counted in inflight.
void request_go(struct block_request *r);
void request_start(struct volume *v, struct block_request *r); // counts it
void request_end(struct block_request *r, int status);         // one that was never counted
struct volume *request_volume(struct block_request *r);

// ---- volume_work.c: what has to wait ------------------------------------------------------------

void store_work(struct datastore *s);  // everything in the queue
void store_worker(void *arg);          // for ever
int store_commit(struct datastore *s); // meta_commit, and what went wrong is told; s->lock held
// s->lock held, and nothing under way on the volume.
int volume_clear(struct volume *v, u64 sector, u64 end);

// ---- datastore.c --------------------------------------------------------------------------------

// The first datastore that works, locked. NULL: there is none.
struct datastore *store_for_records(void);
// The datastore of "STORE" or "STORE/NAME", locked; *name is left at NAME. NULL with a sentence.
struct datastore *store_open(const char *path, const char **name, char *err, size_t size);
void stores_hold(void); // none is added until stores_release
void stores_release(void);
struct datastore *store_next(struct datastore *s); // of those that work; NULL: the first
void stores_forget(void); // for programs that begin anew: as if the host had been switched off

// ---- volume.c: by name --------------------------------------------------------------------------

int volumes_mount(struct datastore *s, char *err, size_t size);

#endif
