// SPDX-License-Identifier: MIT
// Names the field in which two encodings of the same state differ.
#include "kernel/lib.h"
#include "kernel/migrate/sections.h"

// One field of the encoding of kernel/guest/state.h: u16 id, u8 size, u8 0, u32 count, data.
struct field_view {
    u16 id;
    u8 size;
    u32 count;
    const u8 *data;
};

struct cursor {
    const u8 *p;
    u64 left;
};

static struct cursor cursor_open(const void *buf, u64 bytes)
{
    struct cursor c = {buf, bytes};
    u64 head = MIN(bytes, 8ull); // u16 version, u16 fields, u32 total bytes
    c.p += head;
    c.left -= head;
    return c;
}

static bool cursor_next(struct cursor *c, struct field_view *f)
{
    if (c->left < 8)
        return false;
    memcpy(&f->id, c->p, 2);
    f->size = c->p[2];
    memcpy(&f->count, c->p + 4, 4);
    f->data = c->p + 8;
    u64 bytes = ALIGN_UP((u64)f->size * f->count, 8ull);
    if (bytes > c->left - 8)
        return false;
    c->p += 8 + bytes;
    c->left -= 8 + bytes;
    return true;
}

static const char *field_name(const struct state_table *t, u16 id)
{
    for (const struct state_field *f = t->fields; f->kind != FIELD_END; f++)
        if (f->id == id)
            return f->name;
    return "?";
}

static u64 element(const struct field_view *f, u32 i)
{
    u64 v = 0;
    if (f->size <= 8)
        memcpy(&v, f->data + (u64)i * f->size, f->size);
    return v;
}

static bool field_difference(const struct state_table *t, const struct field_view *a,
                             const struct field_view *b, char *out, size_t size)
{
    if (a->id != b->id || a->size != b->size || a->count != b->count) {
        snprintf(out, size, "%s: its shape differs", field_name(t, a->id));
        return true;
    }
    for (u32 i = 0; i < a->count; i++) {
        u64 x = element(a, i), y = element(b, i);
        if (x == y)
            continue;
        char index[16] = "";
        if (a->count > 1)
            snprintf(index, sizeof(index), "[%u]", i);
        snprintf(out, size, "%s%s is 0x%llx here and 0x%llx there", field_name(t, a->id), index,
                 (unsigned long long)x, (unsigned long long)y);
        return true;
    }
    return false;
}

bool section_difference(const struct state_table *t, const void *ours, u64 our_bytes,
                        const void *theirs, u64 their_bytes, char *out, size_t size)
{
    struct cursor a = cursor_open(ours, our_bytes), b = cursor_open(theirs, their_bytes);
    struct field_view x, y;
    for (;;) {
        bool more_a = cursor_next(&a, &x), more_b = cursor_next(&b, &y);
        if (!more_a && !more_b)
            return false;
        if (more_a != more_b) {
            snprintf(out, size, "one side has more fields than the other");
            return true;
        }
        if (field_difference(t, &x, &y, out, size))
            return true;
    }
}
