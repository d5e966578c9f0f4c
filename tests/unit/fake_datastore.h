// SPDX-License-Identifier: MIT
// A datastore "fast" of volumes in memory, which are done with a request at once, from any thread.
// Included once by a test.
#include <pthread.h>

#include "storage/datastore.h"

#define FAKE_VOLUMES 4
#define FAKE_BLOCK   4096u // the unit of what is allocated

struct fake_volume {
    struct block_device dev;
    u8 *data;
    bool *allocated; // by block
    u64 written;     // requests
    u64 id;
};
struct fake_store {
    struct fake_volume volume[FAKE_VOLUMES];
    // Set where the volumes outlive the process: memory that is shared, room for all of them.
    u8 *room;
    u64 last_id;
};
static struct fake_store fake_local_store, *fake_store = &fake_local_store;
#define fake_volumes (fake_store->volume)
#define FAKE_ROOM    (16 * MIB) // of each volume, with what is allocated
static u64 fake_store_free = 1 * GIB;
static int fake_volume_error;  // what every write ends with
static u32 fake_volume_losing; // writes that are said to be done and are not
static pthread_mutex_t fake_store_lock = PTHREAD_MUTEX_INITIALIZER;

static struct fake_volume *fake_volume_find(const char *path)
{
    for (u32 i = 0; i < FAKE_VOLUMES; i++)
        if (fake_volumes[i].data && !strcmp(fake_volumes[i].dev.name, path))
            return &fake_volumes[i];
    return NULL;
}

static void fake_volume_submit(struct block_device *b, struct block_request *r)
{
    struct fake_volume *v = container_of(b, struct fake_volume, dev);
    u8 *at = v->data + r->sector * BLOCK_SECTOR;
    pthread_mutex_lock(&fake_store_lock);
    for (u32 i = 0; i < r->segments && r->op <= BLOCK_WRITE; at += r->segment[i++].bytes) {
        if (r->op == BLOCK_READ)
            memcpy(r->segment[i].data, at, r->segment[i].bytes);
        else if (fake_volume_losing && r->segment[i].bytes >= FAKE_BLOCK)
            fake_volume_losing--;
        else if (!fake_volume_error)
            memcpy(at, r->segment[i].data, r->segment[i].bytes);
    }
    if (r->op == BLOCK_WRITE_ZEROES || r->op == BLOCK_DISCARD)
        memset(at, 0, r->sectors * BLOCK_SECTOR);
    for (u64 s = r->sector; r->op == BLOCK_WRITE && s < r->sector + r->sectors; s++)
        v->allocated[s * BLOCK_SECTOR / FAKE_BLOCK] = true;
    v->written += r->op == BLOCK_WRITE;
    pthread_mutex_unlock(&fake_store_lock);
    r->status = r->op == BLOCK_WRITE ? fake_volume_error : 0;
    r->done(r);
}

static const struct block_ops fake_volume_ops = {"volume", fake_volume_submit};

bool datastore_get_info(u32 i, struct datastore_info *out)
{
    *out = (struct datastore_info){.name = "fast", .free_bytes = fake_store_free};
    return i == 0;
}

bool volume_get_info(u32 i, struct volume_info *out)
{
    for (u32 n = 0; n < FAKE_VOLUMES; n++) {
        const struct fake_volume *v = &fake_volumes[n];
        if (!v->data || i--)
            continue;
        *out = (struct volume_info){.bytes = v->dev.sectors * BLOCK_SECTOR, .id = v->id};
        strlcpy(out->path, v->dev.name, sizeof(out->path));
        for (u64 b = 0; b < out->bytes / FAKE_BLOCK; b++)
            out->allocated_bytes += v->allocated[b] * FAKE_BLOCK;
        return true;
    }
    return false;
}

static void fake_volume_memory(struct fake_volume *v, u64 bytes)
{
    u64 at = (u64)(v - fake_volumes) * FAKE_ROOM, all = bytes + bytes / FAKE_BLOCK;
    *v = (struct fake_volume){.data = fake_store->room ? fake_store->room + at : malloc(all)};
    memset(v->data, 0, all);
    v->allocated = (bool *)(v->data + bytes);
}

static void fake_volume_free(struct fake_volume *v)
{
    if (!fake_store->room)
        free(v->data);
    *v = (struct fake_volume){.data = NULL};
}

int volume_create(const char *path, u64 bytes, char *err, size_t size)
{
    struct fake_volume *v = fake_volumes;
    while (v < fake_volumes + FAKE_VOLUMES && v->data)
        v++;
    if (bytes > FAKE_ROOM / 4 * 3 || fake_volume_find(path) || v == fake_volumes + FAKE_VOLUMES) {
        snprintf(err, size, "volume %s cannot be made", path);
        return E_EXIST;
    }
    fake_volume_memory(v, bytes);
    v->id = ++fake_store->last_id;
    v->dev = (struct block_device){.ops = &fake_volume_ops, .sectors = bytes / BLOCK_SECTOR};
    v->dev.max_sectors = v->dev.max_clear_sectors = 256;
    v->dev.max_segments = 8;
    v->dev.can_discard = v->dev.can_write_zeroes = true;
    strlcpy(v->dev.name, path, sizeof(v->dev.name));
    return 0;
}

int volume_delete(const char *path, char *err, size_t size)
{
    struct fake_volume *v = fake_volume_find(path);
    if (!v || v->dev.used_by[0]) {
        snprintf(err, size, "volume %s is %s", path, v ? "in use" : "not there");
        return E_BUSY;
    }
    fake_volume_free(v);
    return 0;
}

struct block_device *volume_open(const char *path, const char *user, char *err, size_t size)
{
    struct fake_volume *v = fake_volume_find(path);
    if (v && block_claim(&v->dev, user) == 0)
        return &v->dev;
    snprintf(err, size, "volume %s cannot be opened", path);
    return NULL;
}

void volume_close(struct block_device *volume)
{
    block_release(volume);
}

bool volume_allocated(struct block_device *volume, u64 sector, u64 *run)
{
    const struct fake_volume *v = container_of(volume, struct fake_volume, dev);
    u64 block = sector * BLOCK_SECTOR / FAKE_BLOCK;
    *run = (block + 1) * FAKE_BLOCK / BLOCK_SECTOR - sector;
    return v->allocated[block];
}
