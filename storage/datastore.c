// SPDX-License-Identifier: MIT
// The datastores of this host: mounted, made, listed; and their volumes.
#include "storage/datastore.h"

#include "kernel/config.h"
#include "kernel/lib.h"
#include "kernel/log.h"
#include "kernel/mem.h"
#include "kernel/random.h"
#include "storage/gpt.h"
#include "storage/store.h"

const u8 datastore_type[16] = { // 7f2d1c5a-3b9e-4c61-a8d4-53b1f0e6c927
    0x5a, 0x1c, 0x2d, 0x7f, 0x9e, 0x3b, 0x61, 0x4c, 0xa8, 0xd4, 0x53, 0xb1, 0xf0, 0xe6, 0xc9, 0x27};

static struct mutex stores_lock;
static struct datastore *stores; // stores_lock; what is in it stays
static bool looking;             // at the disks, for the first time
static struct waitq looked;

// ---- Mounting -----------------------------------------------------------------------------------

static int check_records(const struct datastore *s, char *err, size_t size)
{
    for (u32 i = PAGE_RECORDS; i < PAGE_CHUNKS; i++) {
        const struct record_cells *r = meta_cell(&s->meta, i, 0);
        if (r && (r->key[RECORD_KEY - 1] || r->bytes > RECORD_MAX))
            return meta_fail(E_IO, err, size, "record %u has no proper key or length",
                             i - PAGE_RECORDS);
    }
    return 0;
}

// What a failed mount leaves.
static void take_apart(struct datastore *s)
{
    space_unmount(s);
    requests_end(s);
    for (struct volume *v = s->volumes, *next; v; v = next) {
        next = v->next;
        kfree(v);
    }
    s->volumes = NULL;
    meta_unmount(&s->meta);
}

static int mount(struct datastore *s, const struct gpt_partition *p, char *err, size_t size)
{
    int e = meta_mount(&s->meta, s->disk, p->first, p->sectors, err, size);
    if (e)
        return e;
    strlcpy(s->name, s->meta.super->name, sizeof(s->name));
    if (!config_name_valid(s->name))
        e = meta_fail(E_IO, err, size, "it has no proper name");
    if (!e)
        e = volumes_mount(s, err, size);
    if (!e)
        e = check_records(s, err, size);
    if (!e)
        e = space_mount(s, err, size);
    if (!e && requests_start(s))
        e = meta_fail(E_NOMEM, err, size, "no memory for its requests");
    if (e)
        take_apart(s);
    return e;
}

static struct datastore *find_store(const char *name)
{
    struct datastore *s = stores;
    while (s && strcmp(s->name, name))
        s = s->next;
    return s;
}

static void add_store(struct datastore *s)
{
    struct datastore **at = &stores;
    while (*at)
        at = &(*at)->next;
    *at = s;
}

// Mounted, or listed with what is wrong with it. stores_lock held.
static int mount_partition(struct block_device *disk, const struct gpt_partition *p, char *err,
                           size_t size)
{
    char why[sizeof(((struct datastore *)0)->error)];
    struct datastore *s = kzalloc(sizeof(*s));
    if (!s)
        return meta_fail(E_NOMEM, err, size, "no memory for the datastore on %s", disk->name);
    s->disk = disk;
    strlcpy(s->name, disk->name, sizeof(s->name));
    int e = mount(s, p, why, sizeof(why));
    if (!e && find_store(s->name)) {
        e = meta_fail(E_EXIST, why, sizeof(why),
                      "another datastore is called %s; take one disk out", s->name);
        take_apart(s);
    }
    if (!e && !thread_create("datastore", store_worker, s, THREAD_BIG_STACK | THREAD_MOVABLE)) {
        e = meta_fail(E_NOMEM, why, sizeof(why), "no memory for its thread");
        take_apart(s);
    }
    if (e) {
        strlcpy(s->error, why, sizeof(s->error));
        meta_fail(e, err, size, "datastore on %s: %s", disk->name, why);
    }
    add_store(s);
    return e;
}

static void mount_disk(struct block_device *disk)
{
    struct gpt_partition p;
    char err[256];
    int e = gpt_find(disk, datastore_type, &p);
    if (e == E_IO)
        log_warn("storage", "%s: its partition table cannot be read", disk->name);
    if (e || block_claim(disk, "datastore"))
        return;
    if (mount_partition(disk, &p, err, sizeof(err)))
        log_error("storage", "%s", err);
    else
        log_info("storage", "datastore on %s is ready", disk->name);
}

static void look(void *arg)
{
    (void)arg;
    mutex_lock(&stores_lock);
    for (struct block_device *b = block_next(NULL); b; b = block_next(b))
        mount_disk(b);
    looking = false;
    mutex_unlock(&stores_lock);
    waitq_wake_all(&looked);
}

void datastores_start(void)
{
    looking = true;
    if (thread_create("datastores", look, NULL, THREAD_BIG_STACK))
        return;
    looking = false;
    log_error("storage", "no memory to look for datastores");
}

void stores_hold(void)
{
    wait_event(&looked, !__atomic_load_n(&looking, __ATOMIC_ACQUIRE));
    mutex_lock(&stores_lock);
}

void stores_release(void)
{
    mutex_unlock(&stores_lock);
}

struct datastore *store_next(struct datastore *s)
{
    s = s ? s->next : stores;
    while (s && s->error[0])
        s = s->next;
    return s;
}

void datastores_stop(void)
{
    stores_hold();
    for (struct datastore *s = store_next(NULL); s; s = store_next(s)) {
        mutex_lock(&s->lock);
        store_commit(s);
        mutex_unlock(&s->lock);
    }
    stores_release();
}

void stores_forget(void)
{
    for (struct datastore *s = stores, *next; s; s = next) {
        next = s->next;
        block_release(s->disk);
        if (!s->error[0])
            take_apart(s);
        kfree(s);
    }
    stores = NULL;
}

struct datastore *store_for_records(void)
{
    stores_hold();
    struct datastore *s = store_next(NULL); // also when it has failed: its user must know that
    if (s)
        mutex_lock(&s->lock);
    stores_release();
    return s;
}

// ---- Making and checking ------------------------------------------------------------------------

static int make(struct block_device *disk, u32 lba_bytes, const char *name, char *err, size_t size)
{
    struct gpt_partition p;
    u8 uuid[16];
    int e = gpt_blank(disk);
    if (e == E_EXIST)
        return meta_fail(e, err, size,
                         "there is something on %s; erase its first and last MiB first",
                         disk->name);
    if (e)
        return meta_fail(e, err, size, "%s cannot be read", disk->name);
    random_bytes(uuid, sizeof(uuid));
    gpt_whole(disk, &p);
    e = meta_format(disk, p.first, p.sectors, name, uuid, err, size);
    if (e)
        return e;
    if (gpt_write(disk, lba_bytes, datastore_type, uuid, "Skiff datastore"))
        return meta_fail(E_IO, err, size, "%s: the disk does not take writes", disk->name);
    return mount_partition(disk, &p, err, size);
}

int datastore_create(struct block_device *disk, u32 lba_bytes, const char *name, char *err,
                     size_t size)
{
    if (!config_name_valid(name))
        return meta_fail(
            E_INVAL, err, size,
            "a datastore's name is 1 to 31 letters, digits, '-', '_' or '.', found \"%s\"", name);
    if (disk->read_only)
        return meta_fail(E_NOSUP, err, size, "%s is read-only", disk->name);
    stores_hold();
    int e = find_store(name)
                ? meta_fail(E_EXIST, err, size, "there is a datastore %s already", name)
                : 0;
    if (!e && block_claim(disk, "datastore"))
        e = meta_fail(E_BUSY, err, size, "%s is used by %s", disk->name, disk->used_by);
    else if (!e && (e = make(disk, lba_bytes, name, err, size)))
        block_release(disk);
    stores_release();
    return e;
}

// "STORE" or "STORE/NAME": the datastore, locked; *name is left at what follows the slash.
struct datastore *store_open(const char *path, const char **name, char *err, size_t size)
{
    char store[STORE_NAME];
    const char *slash = strchr(path, '/');
    size_t n = slash ? (size_t)(slash - path) : strlen(path);
    strlcpy(store, path, MIN(n + 1, sizeof(store)));
    *name = slash ? slash + 1 : "";
    stores_hold();
    struct datastore *s = find_store(store);
    if (s && !s->error[0])
        mutex_lock(&s->lock);
    stores_release();
    if (!s)
        meta_fail(E_NOENT, err, size, "there is no datastore %s", store);
    else if (s->error[0])
        meta_fail(E_IO, err, size, "datastore on %s: %s", s->disk->name, s->error);
    return s && !s->error[0] ? s : NULL;
}

int datastore_check(const char *name, char *err, size_t size)
{
    const char *rest;
    char why[200];
    struct datastore *s = store_open(name, &rest, err, size);
    if (!s)
        return E_NOENT;
    int e = s->meta.failed ? 0 : store_commit(s); // verify says what failed
    e = meta_verify(&s->meta, why, sizeof(why));
    if (e)
        meta_fail(e, err, size, "datastore %s: %s", s->name, why);
    mutex_unlock(&s->lock);
    return e;
}

u64 datastores_memory_limit(void)
{
    u64 limit = 0;
    stores_hold();
    for (struct datastore *s = store_next(NULL); s; s = store_next(s))
        limit += s->meta.memory_bytes + s->meta.absent * META_PAGE_BYTES +
                 (VOLUMES_MAX - s->volume_count) * sizeof(struct volume);
    stores_release();
    return limit;
}

// ---- For the console ----------------------------------------------------------------------------

static void describe(struct datastore *s, struct datastore_info *out)
{
    const struct super *super = s->meta.super;
    u64 flags = spin_lock_irqsave(&s->meta.lock);
    out->failed = s->meta.failed;
    memcpy(out->uuid, super->uuid, sizeof(out->uuid));
    out->volumes = s->volume_count;
    out->volumes_max = VOLUMES_MAX;
    out->chunk_bytes = 1u << super->chunk_shift;
    out->bytes = (u64)super->chunks << super->chunk_shift;
    out->free_bytes = s->free_chunks << super->chunk_shift;
    out->memory_bytes = s->meta.memory_bytes;
    out->commits = s->meta.commits;
    out->checkpoints = s->meta.checkpoints;
    spin_unlock_irqrestore(&s->meta.lock, flags);
}

bool datastore_get_info(u32 i, struct datastore_info *out)
{
    memset(out, 0, sizeof(*out));
    stores_hold();
    struct datastore *s = stores;
    while (s && i--)
        s = s->next;
    if (s) {
        strlcpy(out->name, s->name, sizeof(out->name));
        strlcpy(out->disk, s->disk->name, sizeof(out->disk));
        strlcpy(out->error, s->error, sizeof(out->error));
    }
    if (s && !s->error[0])
        describe(s, out);
    stores_release();
    return s != NULL;
}
