// SPDX-License-Identifier: MIT
// Field tables: one declarative description of a structure's migrated state, for both directions.
#ifndef SKIFF_GUEST_STATE_H
#define SKIFF_GUEST_STATE_H

#include "kernel/types.h"

enum field_kind {
    FIELD_COPY,       // little-endian integers, copied
    FIELD_MUST_MATCH, // sent; refused when the receiver's value differs
    FIELD_BYTES,      // opaque bytes, copied
    FIELD_END,
};

struct state_field {
    const char *name;
    u16 id;       // unique in the table, never reused for something else
    u8 kind;      // enum field_kind
    u8 size;      // bytes of one element: 1, 2, 4, 8 (FIELD_BYTES: 1)
    u32 count;    // elements
    u32 offset;   // in the structure
    u16 since;    // table version that brought it; a stream of an older version may lack it
    u64 min, max; // FIELD_COPY: allowed range, 0,0: any
};

struct state_table {
    const char *name; // in the stream, e.g. "pit"
    u16 version;
    const struct state_field *fields; // ends with FIELD_END
    // Rejects states the device cannot reach; err gets one sentence. May be NULL. `copy` is a
    // scratch structure with the stream's values in it.
    bool (*check)(const void *copy, char *err, size_t size);
    u32 struct_size;
};

#define FIELD(id_, kind_, type_, member_, since_, min_, max_)                                      \
    {                                                                                              \
#member_, id_, kind_, sizeof(((type_ *)0)->member_), 1, offsetof(type_, member_), since_,  \
            min_, max_                                                                             \
    }
#define FIELD_ARRAY(id_, kind_, type_, member_, since_)                                            \
    {                                                                                              \
#member_, id_, kind_, sizeof(((type_ *)0)->member_[0]), ARRAY_SIZE(((type_ *)0)->member_), \
            offsetof(type_, member_), since_, 0, 0                                                 \
    }
#define FIELD_LAST                                                                                 \
    {                                                                                              \
        NULL, 0, FIELD_END, 0, 0, 0, 0, 0, 0                                                       \
    }

// Encoded: u16 version, u16 field count, u32 total bytes, then per field u16 id, u8 size, u8 0,
// u32 count, count*size bytes little-endian, padded to 8. Returns bytes used; with buf NULL, the
// bytes needed; E_INVAL when it does not fit.
s64 state_save(const struct state_table *t, const void *obj, void *buf, u64 size);
// Pass 1: checks the encoding against the table into scratch (struct_size bytes, starting as a copy
// of obj so that absent optional fields keep their defaults). 0 or E_INVAL with a sentence in err
// naming table and field. obj is not touched.
int state_check(const struct state_table *t, const void *obj, const void *buf, u64 bytes,
                void *scratch, char *err, size_t err_size);
// Pass 2: copies the described fields from scratch into obj.
void state_apply(const struct state_table *t, void *obj, const void *scratch);

#endif
