// SPDX-License-Identifier: MIT
// Everything that can make a move fail, checked before the first page; every reason is named.
#ifndef SKIFF_MIGRATE_CHECK_H
#define SKIFF_MIGRATE_CHECK_H

#include "kernel/migrate/describe.h"

// One sentence a line. What doesn't fit is counted and said at the end.
struct reasons {
    u32 count;
    u32 used;
    char text[3800];
};
void reason_add(struct reasons *r, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

// Could this host run the guest described? `from` names the source for the texts.
void check_cpu(const struct guest_desc *d, const char *from, struct reasons *out);
// beside: bytes wanted for the move itself.
void check_memory(const struct guest_desc *d, u64 beside, struct reasons *out);
// Name and UUID against this host's guests. *existing: a reference to the entry that would take
// it, or NULL.
void check_identity(const struct guest_desc *d, const u8 uuid[16], const char *from,
                    struct guest **existing, struct reasons *out);
// After guest_build: regions and devices with their table versions.
void check_built(const struct guest_desc *d, const struct guest *g, const char *from,
                 struct reasons *out);

// "avx512f" for leaf 7, EBX bit 16; NULL for a bit without a name here.
const char *cpu_feature_name(u32 leaf, u32 sub, u32 reg, u32 bit);
const char *xcr0_component_name(u32 bit);
// Feature words that are compared: i-th, false after the last. `mask` leaves out what the
// hypervisor provides by itself or what the guest changes as it runs.
struct cpu_feature_word {
    u32 leaf, sub, reg, mask;
    const char *const *names; // 32
};
bool cpu_feature_word(u32 i, struct cpu_feature_word *out);

#endif
