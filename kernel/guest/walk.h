// SPDX-License-Identifier: MIT
// Guest page tables walked in software, for the operands and bytes of emulated instructions.
#ifndef SKIFF_GUEST_WALK_H
#define SKIFF_GUEST_WALK_H

#include "kernel/guest/guest.h"

enum access { ACCESS_READ, ACCESS_WRITE, ACCESS_FETCH };

struct paging {
    u64 cr0, cr3, cr4, efer, rflags;
    bool user; // CPL 3
};

// Page-fault error code bits (SDM 3A 4.7).
#define PF_PRESENT  BIT(0)
#define PF_WRITE    BIT(1)
#define PF_USER     BIT(2)
#define PF_RESERVED BIT(3)
#define PF_FETCH    BIT(4)

// Translates and sets accessed and dirty bits like the hardware. Returns 0, or E_INVAL with the
// error code of the #PF. Not followed: five-level paging, which no guest is offered, and protection
// keys, which the hardware has checked for the access that made the exit.
int guest_walk(struct guest *g, const struct paging *p, u64 linear, enum access a, u64 *gpa,
               u32 *error);

#endif
