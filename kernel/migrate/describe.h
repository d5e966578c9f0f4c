// SPDX-License-Identifier: MIT
// The description of a guest that a destination judges before the first page.
#ifndef SKIFF_MIGRATE_DESCRIBE_H
#define SKIFF_MIGRATE_DESCRIBE_H

#include "kernel/guest/guest.h"
#include "kernel/migrate/stream.h"

struct guest_desc {
    struct wire_guest g;
    struct wire_cpuid cpuid[WIRE_MAX_CPUID];
    struct wire_device devices[WIRE_MAX_DEVICES];
    struct wire_disk disks[CONFIG_MAX_DISKS];
    u32 disk_count;
    bool have_guest, have_cpuid, have_devices;
};

// Source: fills *d from a guest that has memory. E_NOSUP when it has more than the stream carries.
int describe_guest(const struct guest *g, struct guest_desc *d, char *err, size_t size);
int describe_send(struct stream *s, const struct guest_desc *d);

// Destination: takes a GUEST, CPUID, DEVICES or DISKS record; checks counts, sizes and texts.
// E_PROTO with a sentence.
int describe_take(struct guest_desc *d, const struct record *r, char *err, size_t size);
bool describe_complete(const struct guest_desc *d);
// A guest's configuration alone, both ways.
void describe_config_save(const struct guest *g, struct wire_guest *w);
void describe_config(const struct wire_guest *w, const u8 uuid[16], struct guest_config *out);
bool describe_config_valid(const struct wire_guest *w);
const struct wire_cpuid *describe_cpuid(const struct guest_desc *d, u32 leaf, u32 sub);

#endif
