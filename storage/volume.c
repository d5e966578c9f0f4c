// SPDX-License-Identifier: MIT
// Volumes: in memory, made, deleted, resized, opened.
#include "kernel/config.h"
#include "kernel/lib.h"
#include "kernel/mem.h"
#include "storage/store.h"

// ---- Volumes in memory --------------------------------------------------------------------------

static struct volume_cells *cells_of(const struct datastore *s, u32 slot)
{
    return meta_cell(&s->meta, PAGE_VOLUMES + slot / VOLUMES_PER_PAGE, slot % VOLUMES_PER_PAGE * 4);
}

static struct volume *find_volume(const struct datastore *s, const char *name)
{
    struct volume *v = s->volumes;
    while (v && strcmp(strchr(v->dev.name, '/') + 1, name))
        v = v->next;
    return v;
}

static struct volume *find_id(const struct datastore *s, u32 id)
{
    struct volume *v = s->volumes;
    while (v && v->id != id)
        v = v->next;
    return v;
}

static void init_device(struct volume *v, u64 sectors, const char *name)
{
    struct datastore *s = v->store;
    v->dev.ops = &volume_ops;
    v->dev.priv = v;
    v->dev.sectors = sectors;
    v->dev.physical_bytes = (u32)(piece_sectors(s) * BLOCK_SECTOR);
    v->dev.max_sectors = 8192;
    v->dev.max_segments = 1024;
    v->dev.can_discard = v->dev.can_write_zeroes = true;
    v->dev.max_clear_sectors = 1u << 24;
    snprintf(v->dev.name, sizeof(v->dev.name), "%s/%s", s->name, name);
}

static struct volume *add_volume(struct datastore *s, u32 slot, u32 id, u64 sectors,
                                 const char *name)
{
    struct volume *v = kzalloc(sizeof(*v)), **at = &s->volumes;
    if (!v)
        return NULL;
    v->store = s;
    v->id = id;
    v->slot = slot;
    init_device(v, sectors, name);
    while (*at)
        at = &(*at)->next;
    *at = v;
    s->volume_count++;
    meta_account(&s->meta, sizeof(*v));
    return v;
}

static int mount_volume(struct datastore *s, u32 slot, char *err, size_t size)
{
    const struct volume_cells *c = cells_of(s, slot);
    const struct head_cell *head = meta_cell(&s->meta, PAGE_HEAD, 0);
    if (!c || !c->id)
        return 0;
    if (c->name[STORE_NAME - 1] || !config_name_valid(c->name))
        return meta_fail(E_IO, err, size, "volume %u has no proper name", slot);
    if (find_volume(s, c->name))
        return meta_fail(E_IO, err, size, "two volumes are called %s", c->name);
    if (find_id(s, c->id) || !head || c->id > head->last_volume)
        return meta_fail(E_IO, err, size, "volume %s has an id that cannot be its own", c->name);
    if (!c->sectors || c->sectors > VOLUME_MAX_SECTORS)
        return meta_fail(E_IO, err, size, "volume %s has %llu sectors", c->name,
                         (unsigned long long)c->sectors);
    if (!add_volume(s, slot, c->id, c->sectors, c->name))
        return meta_fail(E_NOMEM, err, size, "no memory for its volumes");
    return 0;
}

int volumes_mount(struct datastore *s, char *err, size_t size)
{
    int e = 0;
    for (u32 slot = 0; slot < VOLUMES_MAX && !e; slot++)
        e = mount_volume(s, slot, err, size);
    return e;
}

// ---- What an operator asks of them
// -----------------------------------------------------------------

static struct volume *open_volume(const char *path, char *err, size_t size)
{
    const char *name;
    struct datastore *s = store_open(path, &name, err, size);
    struct volume *v = s ? find_volume(s, name) : NULL;
    if (!s || v)
        return v;
    mutex_unlock(&s->lock);
    meta_fail(E_NOENT, err, size, "there is no volume %s in datastore %s", name, s->name);
    return NULL;
}

static int committed(struct datastore *s, char *err, size_t size)
{
    int e = store_commit(s);
    return e ? meta_fail(e, err, size,
                         "%s failed to write or flush; restart this host to use datastore %s",
                         s->disk->name, s->name)
             : 0;
}

static u32 free_slot(const struct datastore *s)
{
    u32 slot = 0;
    for (; slot < VOLUMES_MAX; slot++) {
        const struct volume_cells *c = cells_of(s, slot);
        if (!c || !c->id)
            break;
    }
    return slot;
}

static void touch_volume(struct datastore *s, u32 slot)
{
    meta_touch(&s->meta, PAGE_VOLUMES + slot / VOLUMES_PER_PAGE, slot % VOLUMES_PER_PAGE * 4, 4);
}

static struct volume *make_volume(struct datastore *s, u32 slot, const char *name, u64 sectors)
{
    if (meta_need(&s->meta, PAGE_HEAD) ||
        meta_need(&s->meta, PAGE_VOLUMES + slot / VOLUMES_PER_PAGE))
        return NULL;
    struct head_cell *head = meta_cell(&s->meta, PAGE_HEAD, 0);
    struct volume *v = add_volume(s, slot, head->last_volume + 1, sectors, name);
    if (!v)
        return NULL;
    u64 flags = spin_lock_irqsave(&s->meta.lock);
    struct volume_cells *c = cells_of(s, slot);
    *c = (struct volume_cells){.id = ++head->last_volume, .sectors = sectors};
    strlcpy(c->name, name, sizeof(c->name));
    meta_touch(&s->meta, PAGE_HEAD, 0, 1);
    touch_volume(s, slot);
    spin_unlock_irqrestore(&s->meta.lock, flags);
    return v;
}

static int size_wrong(u64 bytes, char *err, size_t size)
{
    if (bytes && bytes % BLOCK_SECTOR == 0 && bytes / BLOCK_SECTOR <= VOLUME_MAX_SECTORS)
        return 0;
    return meta_fail(E_INVAL, err, size,
                     "a volume has 512 bytes to 64 TiB, a multiple of 512, wanted are %llu bytes",
                     (unsigned long long)bytes);
}

int volume_create(const char *path, u64 bytes, char *err, size_t size)
{
    const char *name;
    struct datastore *s = store_open(path, &name, err, size);
    if (!s)
        return E_NOENT;
    u32 slot = free_slot(s);
    int e = size_wrong(bytes, err, size);
    if (!e && !config_name_valid(name))
        e = meta_fail(
            E_INVAL, err, size,
            "a volume is called STORE/NAME, the name 1 to 31 letters, digits, '-', '_' or "
            "'.', found \"%s\"",
            path);
    else if (!e && find_volume(s, name))
        e = meta_fail(E_EXIST, err, size, "there is a volume %s already", path);
    else if (!e && slot == VOLUMES_MAX)
        e = meta_fail(E_NOMEM, err, size, "datastore %s has %u volumes, more it cannot hold",
                      s->name, s->volume_count);
    if (!e && !make_volume(s, slot, name, bytes / BLOCK_SECTOR))
        e = meta_fail(E_NOMEM, err, size, "no memory for volume %s", path);
    if (!e)
        e = committed(s, err, size);
    mutex_unlock(&s->lock);
    return e;
}

static void forget_volume(struct volume *v)
{
    struct datastore *s = v->store;
    u64 flags = spin_lock_irqsave(&s->meta.lock);
    memset(cells_of(s, v->slot), 0, sizeof(struct volume_cells));
    touch_volume(s, v->slot);
    spin_unlock_irqrestore(&s->meta.lock, flags);
    struct volume **at = &s->volumes;
    while (*at != v)
        at = &(*at)->next;
    *at = v->next;
    s->volume_count--;
    meta_account(&s->meta, -(s64)sizeof(*v));
    kfree(v);
}

// Claimed, so that nothing is under way on it; its datastore is locked.
static struct volume *open_unused(const char *path, const char *verb, char *err, size_t size)
{
    struct volume *v = open_volume(path, err, size);
    if (!v || !block_claim(&v->dev, verb))
        return v;
    meta_fail(E_BUSY, err, size, "volume %s is used by %s", path, v->dev.used_by);
    mutex_unlock(&v->store->lock);
    return NULL;
}

int volume_delete(const char *path, char *err, size_t size)
{
    struct volume *v = open_unused(path, "volume delete", err, size);
    if (!v)
        return E_NOENT;
    struct datastore *s = v->store;
    chunks_drop(v, 0);
    forget_volume(v);
    int e = committed(s, err, size);
    mutex_unlock(&s->lock);
    return e;
}

static int set_size(struct volume *v, u64 sectors)
{
    struct datastore *s = v->store;
    u64 chunks = (sectors + chunk_sectors(s) - 1) / chunk_sectors(s);
    if (sectors < v->dev.sectors) { // if it grows again, there must be zeros
        int e = volume_clear(v, sectors, chunks * chunk_sectors(s));
        if (e)
            return e;
        chunks_drop(v, (u32)chunks);
    }
    u64 flags = spin_lock_irqsave(&s->meta.lock);
    v->dev.sectors = cells_of(s, v->slot)->sectors = sectors;
    touch_volume(s, v->slot);
    spin_unlock_irqrestore(&s->meta.lock, flags);
    return 0;
}

int volume_resize(const char *path, u64 bytes, char *err, size_t size)
{
    if (size_wrong(bytes, err, size))
        return E_INVAL;
    struct volume *v = open_unused(path, "volume resize", err, size);
    if (!v)
        return E_NOENT;
    struct datastore *s = v->store;
    int e = s->meta.failed ? E_IO : set_size(v, bytes / BLOCK_SECTOR);
    if (e && !s->meta.failed)
        meta_fail(e, err, size, "%s does not take writes", s->disk->name);
    else
        e = committed(s, err, size);
    block_release(&v->dev);
    mutex_unlock(&s->lock);
    return e;
}

struct block_device *volume_open(const char *path, const char *user, char *err, size_t size)
{
    struct volume *v = open_unused(path, user, err, size);
    if (!v)
        return NULL;
    mutex_unlock(&v->store->lock);
    return &v->dev;
}

void volume_close(struct block_device *volume)
{
    block_release(volume);
}

// ---- For the console ----------------------------------------------------------------------------

static struct volume *nth_volume(u32 i)
{
    for (struct datastore *s = store_next(NULL); s; s = store_next(s)) {
        struct volume *v;
        mutex_lock(&s->lock);
        for (v = s->volumes; v && i; v = v->next)
            i--;
        if (v)
            return v; // its datastore stays locked
        mutex_unlock(&s->lock);
    }
    return NULL;
}

// Ids are never used again in a datastore, whose UUID is random.
static u64 volume_identity(const struct volume *v)
{
    u32 store;
    memcpy(&store, v->store->meta.super->uuid, sizeof(store));
    return (u64)store << 32 | v->id;
}

bool volume_get_info(u32 i, struct volume_info *out)
{
    stores_hold();
    struct volume *v = nth_volume(i);
    if (v) {
        strlcpy(out->path, v->dev.name, sizeof(out->path));
        out->id = volume_identity(v);
        strlcpy(out->used_by, v->dev.used_by, sizeof(out->used_by));
        out->bytes = v->dev.sectors * BLOCK_SECTOR;
        out->allocated_bytes = v->chunks_used << v->store->meta.super->chunk_shift;
        mutex_unlock(&v->store->lock);
    }
    stores_release();
    return v != NULL;
}
