// SPDX-License-Identifier: MIT
// Small records that outlive the host: one page of the metadata each.
#include "kernel/lib.h"
#include "storage/store.h"

#define RECORDS (PAGE_CHUNKS - PAGE_RECORDS)

// All with the datastore's lock held, which is what their changes need: nobody else looks.
static struct record_cells *record_at(const struct datastore *s, u32 i)
{
    struct record_cells *r = meta_cell(&s->meta, PAGE_RECORDS + i, 0);
    return r && r->key[0] ? r : NULL;
}

static u32 find(const struct datastore *s, const char *key)
{
    u32 i = 0;
    for (; i < RECORDS; i++) {
        const struct record_cells *r = record_at(s, i);
        if (r && !strcmp(r->key, key))
            break;
    }
    return i;
}

static u32 find_empty(const struct datastore *s)
{
    u32 i = 0;
    while (i < RECORDS && record_at(s, i))
        i++;
    return i;
}

static void touch(struct datastore *s, u32 i, u32 bytes)
{
    u32 cells = (u32)(offsetof(struct record_cells, data) + bytes + CELL_BYTES - 1) / CELL_BYTES;
    meta_touch(&s->meta, PAGE_RECORDS + i, 0, cells);
}

static int put(struct datastore *s, const char *key, const void *data, u32 bytes)
{
    u32 i = find(s, key);
    if (i == RECORDS)
        i = find_empty(s);
    if (i == RECORDS || meta_need(&s->meta, PAGE_RECORDS + i))
        return E_NOMEM;
    u64 flags = spin_lock_irqsave(&s->meta.lock);
    struct record_cells *r = meta_cell(&s->meta, PAGE_RECORDS + i, 0);
    strlcpy(r->key, key, sizeof(r->key));
    r->bytes = bytes;
    memcpy(r->data, data, bytes);
    touch(s, i, bytes);
    spin_unlock_irqrestore(&s->meta.lock, flags);
    return store_commit(s);
}

int record_put(const char *key, const void *data, u32 bytes)
{
    if (!key[0] || strlen(key) >= RECORD_KEY || bytes > RECORD_MAX)
        return E_INVAL;
    struct datastore *s = store_for_records();
    if (!s)
        return E_NOENT;
    int e = put(s, key, data, bytes);
    mutex_unlock(&s->lock);
    return e;
}

static int get(const struct datastore *s, const char *key, void *data, u32 *bytes)
{
    u32 i = find(s, key);
    if (i == RECORDS)
        return E_NOENT;
    const struct record_cells *r = record_at(s, i);
    memcpy(data, r->data, MIN(r->bytes, *bytes));
    *bytes = r->bytes;
    return 0;
}

int record_get(const char *key, void *data, u32 *bytes)
{
    struct datastore *s = store_for_records();
    if (!s)
        return E_NOENT;
    int e = get(s, key, data, bytes);
    mutex_unlock(&s->lock);
    return e;
}

int record_delete(const char *key)
{
    struct datastore *s = store_for_records();
    if (!s)
        return E_NOENT;
    u32 i = find(s, key);
    int e = E_NOENT;
    if (i < RECORDS) {
        u64 flags = spin_lock_irqsave(&s->meta.lock);
        memset(meta_cell(&s->meta, PAGE_RECORDS + i, 0), 0, CELLS * CELL_BYTES);
        touch(s, i, RECORD_MAX);
        spin_unlock_irqrestore(&s->meta.lock, flags);
        e = store_commit(s);
    }
    mutex_unlock(&s->lock);
    return e;
}

bool record_next(u32 *at, char key[RECORD_KEY])
{
    struct datastore *s = store_for_records();
    bool found = false;
    if (!s)
        return false;
    for (; *at < RECORDS && !found; ++*at) {
        const struct record_cells *r = record_at(s, *at);
        found = r != NULL;
        if (r)
            strlcpy(key, r->key, RECORD_KEY);
    }
    mutex_unlock(&s->lock);
    return found;
}
