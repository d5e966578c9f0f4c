// SPDX-License-Identifier: MIT
// Field tables to bytes and back: saving, and loading in two passes (design rule 12).
#include "kernel/guest/state.h"

#include "kernel/lib.h"

// The encoding, little-endian like the machine. Field data follows its header, padded to 8 bytes.
struct table_header {
    u16 version, field_count;
    u32 bytes; // all of it, this header included
};
struct field_header {
    u16 id;
    u8 size, zero;
    u32 count;
};
_Static_assert(sizeof(struct table_header) == 8, "wire format");
_Static_assert(sizeof(struct field_header) == 8, "wire format");

struct reader {
    const struct state_table *table;
    const u8 *data;
    u64 bytes;
    u16 version; // the sender's
    char *err;
    size_t err_size;
};

static u64 data_bytes(u64 size, u64 count)
{
    return size * count;
}

static u64 padded(u64 bytes)
{
    return ALIGN_UP(bytes, 8);
}

s64 state_save(const struct state_table *t, const void *obj, void *buf, u64 size)
{
    struct table_header th = {.version = t->version, .bytes = sizeof(th)};
    for (const struct state_field *f = t->fields; f->kind != FIELD_END; f++) {
        th.field_count++;
        th.bytes += (u32)(sizeof(struct field_header) + padded(data_bytes(f->size, f->count)));
    }
    if (!buf)
        return th.bytes;
    if (th.bytes > size)
        return E_INVAL;
    u8 *at = buf;
    memset(buf, 0, th.bytes);
    memcpy(at, &th, sizeof(th));
    at += sizeof(th);
    for (const struct state_field *f = t->fields; f->kind != FIELD_END; f++) {
        struct field_header fh = {.id = f->id, .size = f->size, .count = f->count};
        memcpy(at, &fh, sizeof(fh));
        memcpy(at + sizeof(fh), (const u8 *)obj + f->offset, data_bytes(f->size, f->count));
        at += sizeof(fh) + padded(data_bytes(f->size, f->count));
    }
    return th.bytes;
}

__attribute__((format(printf, 2, 3))) static int refuse(const struct reader *r, const char *fmt,
                                                        ...)
{
    char text[128];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    snprintf(r->err, r->err_size, "state of %s: %s", r->table->name, text);
    return E_INVAL;
}

static const struct state_field *field_by_id(const struct state_table *t, u16 id)
{
    for (const struct state_field *f = t->fields; f->kind != FIELD_END; f++)
        if (f->id == id)
            return f;
    return NULL;
}

static u64 element(const u8 *data, u8 size)
{
    u64 v = 0;
    memcpy(&v, data, size);
    return v;
}

static int check_range(const struct reader *r, const struct state_field *f, const u8 *data)
{
    if (f->kind != FIELD_COPY || (!f->min && !f->max))
        return 0;
    for (u32 i = 0; i < f->count; i++) {
        u64 v = element(data + data_bytes(f->size, i), f->size);
        if (v < f->min || v > f->max)
            return refuse(r, "%s is 0x%llx, allowed are 0x%llx to 0x%llx", f->name,
                          (unsigned long long)v, (unsigned long long)f->min,
                          (unsigned long long)f->max);
    }
    return 0;
}

static int take_field(const struct reader *r, const struct state_field *f,
                      const struct field_header *fh, const u8 *data, const void *obj, void *scratch)
{
    if (fh->size != f->size || fh->count != f->count)
        return refuse(r, "%s has %u elements of %u bytes, wanted %u of %u", f->name, fh->count,
                      fh->size, f->count, f->size);
    u64 bytes = data_bytes(f->size, f->count);
    if (f->kind == FIELD_MUST_MATCH && memcmp((const u8 *)obj + f->offset, data, bytes))
        return refuse(r, "%s is 0x%llx, this host has 0x%llx", f->name,
                      (unsigned long long)element(data, f->size),
                      (unsigned long long)element((const u8 *)obj + f->offset, f->size));
    int error = check_range(r, f, data);
    if (!error)
        memcpy((u8 *)scratch + f->offset, data, bytes);
    return error;
}

// The field at *at; moves *at behind it.
static int read_field(const struct reader *r, u64 *at, const void *obj, void *scratch, u16 *id)
{
    struct field_header fh;
    if (r->bytes - *at < sizeof(fh))
        return refuse(r, "cut short in a field's header");
    memcpy(&fh, r->data + *at, sizeof(fh));
    u64 bytes = data_bytes(fh.size, fh.count);
    u64 left = r->bytes - *at - sizeof(fh);
    if (bytes > left || padded(bytes) > left)
        return refuse(r, "field %u has %llu bytes, only %llu are left", fh.id,
                      (unsigned long long)bytes, (unsigned long long)left);
    const u8 *data = r->data + *at + sizeof(fh);
    *at += sizeof(fh) + padded(bytes);
    *id = fh.id;
    const struct state_field *f = field_by_id(r->table, fh.id);
    if (f)
        return take_field(r, f, &fh, data, obj, scratch);
    if (r->version < r->table->version)
        return 0; // an older version's field that this one has dropped
    return refuse(r, "field %u is unknown in version %u", fh.id, r->table->version);
}

#define MAX_FIELDS 256

static int check_all_present(const struct reader *r, const u8 *seen)
{
    for (const struct state_field *f = r->table->fields; f->kind != FIELD_END; f++) {
        assert(f->id < MAX_FIELDS);
        if (!seen[f->id] && f->since <= r->version)
            return refuse(r, "%s is missing", f->name);
    }
    return 0;
}

static int check_header(struct reader *r, u64 bytes, struct table_header *th)
{
    if (bytes < sizeof(*th))
        return refuse(r, "%llu bytes are too few", (unsigned long long)bytes);
    memcpy(th, r->data, sizeof(*th));
    if (th->version > r->table->version)
        return refuse(r, "version %u is newer than this host's %u; update this host first",
                      th->version, r->table->version);
    if (th->bytes != bytes)
        return refuse(r, "says %u bytes, has %llu", th->bytes, (unsigned long long)bytes);
    if (th->field_count > MAX_FIELDS)
        return refuse(r, "%u fields, at most %u are allowed", th->field_count, MAX_FIELDS);
    r->version = th->version;
    return 0;
}

int state_check(const struct state_table *t, const void *obj, const void *buf, u64 bytes,
                void *scratch, char *err, size_t err_size)
{
    struct reader r = {.table = t, .data = buf, .bytes = bytes, .err = err, .err_size = err_size};
    struct table_header th;
    u8 seen[MAX_FIELDS] = {0};
    int error = check_header(&r, bytes, &th);
    if (error)
        return error;
    memcpy(scratch, obj, t->struct_size);
    u64 at = sizeof(th);
    for (u32 i = 0; i < th.field_count; i++) {
        u16 id = 0;
        error = read_field(&r, &at, obj, scratch, &id);
        if (error)
            return error;
        if (id < MAX_FIELDS && seen[id]++)
            return refuse(&r, "field %u comes twice", id);
    }
    if (at != bytes)
        return refuse(&r, "%llu bytes after the last field", (unsigned long long)(bytes - at));
    error = check_all_present(&r, seen);
    char why[128] = "not a state this device can be in";
    if (!error && t->check && !t->check(scratch, why, sizeof(why)))
        error = refuse(&r, "%s", why);
    return error;
}

void state_apply(const struct state_table *t, void *obj, const void *scratch)
{
    for (const struct state_field *f = t->fields; f->kind != FIELD_END; f++)
        memcpy((u8 *)obj + f->offset, (const u8 *)scratch + f->offset,
               data_bytes(f->size, f->count));
}
