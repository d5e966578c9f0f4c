// SPDX-License-Identifier: MIT
// One incoming move, as the destination's files share it.
#ifndef SKIFF_MIGRATE_DEST_H
#define SKIFF_MIGRATE_DEST_H

#include "kernel/migrate/describe.h"
#include "kernel/migrate/disks.h"
#include "kernel/migrate/internal.h"
#include "kernel/migrate/sections.h"
#include "kernel/migrate/verify.h"

// Belongs to the connection's thread; others see its job and its claim only.
struct incoming {
    struct stream *s;
    struct guest_desc desc;
    struct move_ident id;
    u32 mode; // enum check_mode
    enum verify_mode verify;
    struct guest *guest; // a reference
    bool added;          // the entry was made for this move
    bool built;
    u64 disk_id[CONFIG_MAX_DISKS]; // of volumes that were made for this move
    struct disks_in *disks;        // NULL: the guest has none
    struct disks_seen seen;        // what was compared
    // Of an entry that was there already:
    struct guest_config saved;
    u8 saved_state;
    bool saved_pending;
    char saved_why[200];
    struct job *job;
    struct claim *claim;
    struct load load;
    struct page_hashes hashes; // of what was put into the guest's RAM
    bool compared;             // the source has asked for digests
    u64 final_ns; // when the source's guest had stopped and all pages were here; 0 not yet
    u64 offer_ns;
    u64 state_ns; // what encoding the guest's state takes
    u64 pages_in, pages_zero;
    char error[200];
};

int incoming_fail(struct incoming *in, int error, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
// dest_check.c: judges the description, makes and builds the guest's entry. 0 accepted, E_NOSUP
// when refused (the peer was told), other errors for the connection.
int incoming_accept(struct incoming *in);
// Undoes what incoming_accept made, as far as no claim took it over.
void incoming_undo(struct incoming *in);
// dest_pages.c: one PAGES record into the guest's RAM.
int incoming_pages(struct incoming *in, const struct record *r);
// Puts one page there, as a page of a record: 4096 bytes, or NULL for zeros. E_PROTO where what
// lies there then hasn't this hash.
int incoming_put(struct incoming *in, u64 index, const void *data, const u64 hash[2]);

#endif
