// SPDX-License-Identifier: MIT
// A guest's state as a list of sections, each described by a field table: vCPUs, their local APICs,
// devices. One list for sending, checking, applying and comparing.
#ifndef SKIFF_MIGRATE_SECTIONS_H
#define SKIFF_MIGRATE_SECTIONS_H

#include "kernel/guest/guest.h"
#include "kernel/guest/state.h"
#include "kernel/migrate/wire.h"

extern const struct state_table vcpu_table; // over struct vcpu_state (vcpu_fields.c)

#define SECTION_DATA_MAX (STREAM_MAX_PAYLOAD - sizeof(struct wire_section))

struct section {
    enum section_kind kind;
    u32 instance;
    const char *name;
    const struct state_table *table;
    struct vcpu *vcpu;     // SECTION_VCPU and SECTION_LAPIC
    struct device *device; // SECTION_DEVICE
};

// Walks a guest's sections in the order they travel and are applied: every local APIC, then the
// devices, then the vCPUs, so that nothing can raise an interrupt towards an APIC that is not
// loaded. Zeroed but for `guest` at the start.
struct section_iter {
    const struct guest *guest;
    u32 stage, vcpu;
    struct device *device;
};
bool section_next(struct section_iter *it, struct section *out);
bool section_find(const struct guest *g, const struct wire_section *w, struct section *out);

// Encodes one section of a stopped guest into buf. Bytes, or E_NOMEM, E_INVAL when it does not fit.
s64 section_save(const struct section *sec, void *buf, u64 size);
// The same, with one register changed on the way (fault change-register).
s64 section_save_changed(const struct section *sec, void *buf, u64 size);

// Destination: what has been received and checked, to be applied all at once.
struct loaded_section {
    struct section sec;
    void *scratch; // the table's structure with the stream's values
};
struct load {
    struct guest *guest;
    u32 count;
    struct loaded_section sections[WIRE_MAX_DEVICES];
};
// Pass 1 for one STATE record. E_PROTO (or E_NOMEM) with a sentence; the guest is not touched.
int load_check(struct load *l, const void *payload, u32 bytes, char *err, size_t size);
// All sections there and every vCPU enterable? E_PROTO naming what is missing or wrong.
int load_complete(struct load *l, char *err, size_t size);
// Pass 2. E_INVAL when a vCPU's state is not accepted after all.
int load_apply(struct load *l, char *err, size_t size);
void load_free(struct load *l);

// Names the first field in which two encodings of one table differ, "field[3]: 0x12 here, 0x13 at
// the peer". False when they are equal.
bool section_difference(const struct state_table *t, const void *ours, u64 our_bytes,
                        const void *theirs, u64 their_bytes, char *out, size_t size);

#endif
