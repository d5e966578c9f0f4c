// SPDX-License-Identifier: MIT
// Receives a guest's disks into volumes made for them. Every disk, sector and length is checked.
#include "kernel/migrate/disks.h"

#include "kernel/lib.h"
#include "kernel/log.h"
#include "kernel/mem.h"
#include "kernel/migrate/check.h"
#include "kernel/thread.h"
#include "storage/datastore.h"
#include "storage/guest_disk.h"

#define WRITES 16u // under way at the same time

// ---- Before the first page ----------------------------------------------------------------------

static bool find_store(const char *path, struct datastore_info *out)
{
    const char *slash = strchr(path, '/');
    size_t n = slash ? (size_t)(slash - path) : 0;
    for (u32 i = 0; n && datastore_get_info(i, out); i++)
        if (strlen(out->name) == n && !strncmp(out->name, path, n))
            return true;
    return false;
}

static bool find_volume(const char *path, struct volume_info *out)
{
    for (u32 i = 0; volume_get_info(i, out); i++)
        if (!strcmp(out->path, path))
            return true;
    return false;
}

static u64 volume_id(const char *path)
{
    struct volume_info v;
    return find_volume(path, &v) ? v.id : 0;
}

void disks_check(const struct guest_desc *d, const char *host, struct reasons *why)
{
    for (u32 i = 0; i < d->disk_count; i++) {
        const struct wire_disk *w = &d->disks[i];
        struct datastore_info store;
        if (!strchr(w->path, '/'))
            reason_add(why, "disk %s is a whole disk of %s: only volumes of datastores move",
                       w->path, host);
        else if (!find_store(w->path, &store))
            reason_add(why, "disk %s: this host has no datastore of that name", w->path);
        else if (store.error[0])
            reason_add(why, "disk %s: the datastore here is not usable: %s", w->path, store.error);
        else if (volume_id(w->path))
            reason_add(why, "disk %s: there is a volume of that name here already", w->path);
        else if (store.free_bytes < w->allocated_bytes)
            reason_add(why, "disk %s: it holds %llu MiB, the datastore here has %llu MiB left",
                       w->path, (unsigned long long)(w->allocated_bytes / MIB),
                       (unsigned long long)(store.free_bytes / MIB));
    }
}

int disks_make(const struct guest_desc *d, char *err, size_t size)
{
    for (u32 i = 0; i < d->disk_count; i++) {
        int e = volume_create(d->disks[i].path, d->disks[i].sectors * BLOCK_SECTOR, err, size);
        for (; e && i > 0; i--) {
            u64 id = volume_id(d->disks[i - 1].path);
            disks_delete(&d->disks[i - 1].path, 1, &id);
        }
        if (e)
            return e;
    }
    return 0;
}

void disks_identify(const char (*path)[CONFIG_DISK], u32 count, u64 *id)
{
    for (u32 i = 0; i < count; i++)
        id[i] = volume_id(path[i]);
}

void disks_identify_empty(const char (*path)[CONFIG_DISK], u32 count, u64 *id)
{
    struct volume_info v;
    for (u32 i = 0; i < count; i++)
        if (!id[i] && find_volume(path[i], &v) && !v.allocated_bytes)
            id[i] = v.id;
}

void disks_delete(const char (*path)[CONFIG_DISK], u32 count, const u64 *id)
{
    char err[160];
    for (u32 i = 0; i < count; i++)
        if (id[i] && volume_id(path[i]) == id[i] && volume_delete(path[i], err, sizeof(err)) != 0)
            log_warn("migrate",
                     "volume %s stays until this host starts again, and is of no use: %s", path[i],
                     err);
}

// ---- Writing -----------------------------------------------------------------------------------

struct write {
    struct block_request request;
    struct block_segment segment;
    volatile bool idle; // set under the queue's lock
    struct disks_in *in;
};

struct disks_in {
    struct guest_disk *disk[CONFIG_MAX_DISKS];
    u32 count;
    struct waitq wait;
    struct write write[WRITES];
    int status; // of the first write that failed; atomic
    bool complete;
};

struct disks_in *disks_in_open(struct guest *g)
{
    struct disks_in *in = kzalloc(sizeof(*in));
    if (!in)
        return NULL;
    in->count = g->config.disk_count;
    memcpy(in->disk, g->disk, sizeof(in->disk));
    for (u32 i = 0; i < WRITES; i++) {
        u64 pa = pages_alloc(BLOCKS_MAX * BLOCK_SECTOR / PAGE_SIZE);
        in->write[i] = (struct write){.idle = true, .in = in};
        in->write[i].segment.data = pa ? phys_ptr(pa) : NULL;
        if (!pa) {
            disks_in_close(in);
            return NULL;
        }
    }
    return in;
}

static bool all_idle(const struct disks_in *in)
{
    bool idle = true;
    for (u32 i = 0; i < WRITES; i++)
        idle &= in->write[i].idle || !in->write[i].segment.data;
    return idle;
}

void disks_in_close(struct disks_in *in)
{
    if (!in)
        return;
    wait_event(&in->wait, all_idle(in));
    for (u32 i = 0; i < WRITES; i++)
        if (in->write[i].segment.data)
            pages_free(ptr_phys(in->write[i].segment.data), BLOCKS_MAX * BLOCK_SECTOR / PAGE_SIZE);
    kfree(in);
}

static struct write *idle_write(struct disks_in *in)
{
    for (u32 i = 0; i < WRITES; i++)
        if (in->write[i].idle)
            return &in->write[i];
    return NULL;
}

static void write_done(struct block_request *r)
{
    struct write *w = r->owner;
    struct disks_in *in = w->in;
    if (r->status)
        __atomic_store_n(&in->status, r->status, __ATOMIC_RELAXED);
    waitq_set_and_wake(&in->wait, &w->idle);
}

// E_PROTO, with nothing written, where the copy that would be hasn't the hash that the record
// names.
static int start_write(struct disks_in *in, const struct wire_blocks *b, const void *data)
{
    u64 hash[2];
    wait_event(&in->wait, idle_write(in));
    struct write *w = idle_write(in);
    memcpy(w->segment.data, data, b->sectors * BLOCK_SECTOR);
    w->segment.bytes = b->sectors * BLOCK_SECTOR;
    hash_bytes(w->segment.data, w->segment.bytes, hash);
    if (memcmp(hash, b->hash, sizeof(hash)) != 0)
        return E_PROTO;
    w->request = (struct block_request){.op = BLOCK_WRITE, .sector = b->sector};
    w->request.sectors = b->sectors;
    w->request.segments = 1;
    w->request.segment = &w->segment;
    w->request.done = write_done;
    w->request.owner = w;
    w->idle = false;
    block_submit(&in->disk[b->disk]->block, &w->request);
    return 0;
}

// E_IO would say that the connection is lost, and nobody to tell the reason.
static int failed(const struct disks_in *in, int e, char *err, size_t size)
{
    snprintf(err, size, "writing to %s failed: %s", in->disk[0]->block.name,
             e == E_NOMEM ? "its datastore is full" : "see the log of this host");
    return e == E_IO ? E_NOSUP : e;
}

int disks_in_blocks(struct disks_in *in, const struct record *r, char *err, size_t size)
{
    const struct wire_blocks *b = r->payload;
    bool zero = b->flags & BLOCKS_ZERO;
    u64 end = b->disk < in->count ? in->disk[b->disk]->block.sectors : 0;
    u64 bytes = sizeof(*b) + (zero ? 0 : b->sectors * (u64)BLOCK_SECTOR);
    if (b->sectors == 0 || b->sector >= end || b->sectors > end - b->sector ||
        (!zero && b->sectors > BLOCKS_MAX) || r->bytes != bytes || b->flags & ~(u32)BLOCKS_ZERO) {
        snprintf(err, size, "malformed BLOCKS record: %u sectors at %llu of disk %u in %u bytes",
                 b->sectors, (unsigned long long)b->sector, b->disk, r->bytes);
        return E_PROTO;
    }
    in->complete = false;
    int e = 0;
    if (zero)
        e = block_clear(&in->disk[b->disk]->block, BLOCK_WRITE_ZEROES, b->sector, b->sectors);
    else
        e = start_write(in, b, b + 1);
    if (e == E_PROTO) {
        snprintf(err, size, "BLOCKS is damaged: %u sectors at %llu of disk %u haven't its hash",
                 b->sectors, (unsigned long long)b->sector, b->disk);
        return e;
    }
    e = e ? e : __atomic_load_n(&in->status, __ATOMIC_RELAXED);
    return e ? failed(in, e, err, size) : 0;
}

int disks_in_round(struct disks_in *in, struct stream *s, const struct record *r, char *err,
                   size_t size)
{
    const struct wire_disk_round *w = r->payload;
    wait_event(&in->wait, all_idle(in));
    int e = in->status;
    for (u32 i = 0; e == 0 && w->flags & DISK_ROUND_FLUSH && i < in->count; i++)
        e = block_flush(&in->disk[i]->block);
    if (e)
        return failed(in, e, err, size);
    in->complete = w->flags & DISK_ROUND_LAST;
    if (!(w->flags & DISK_ROUND_ANSWER))
        return 0;
    e = stream_send(s, REC_DISK_DONE, w, sizeof(*w));
    if (e)
        snprintf(err, size, "%s", s->error);
    return e;
}

bool disks_in_complete(const struct disks_in *in)
{
    return !in || !in->count || in->complete;
}
