// SPDX-License-Identifier: MIT
// One incoming move, as the destination's files share it.
#ifndef SKIFF_MIGRATE_DEST_H
#define SKIFF_MIGRATE_DEST_H

#include "kernel/migrate/describe.h"
#include "kernel/migrate/internal.h"
#include "kernel/migrate/sections.h"
#include "kernel/migrate/verify.h"

// Belongs to the connection's thread; others see its job and its claim only.
struct incoming {
    struct stream *s;
    struct guest_desc desc;
    struct move_ident id;
    u32 mode; // enum check_mode
    bool verify;
    struct guest *guest;
    bool added; // the entry was made for this move
    bool built;
    // Of an entry that was there already:
    struct guest_config saved;
    u8 saved_state;
    bool saved_pending;
    char saved_why[200];
    struct job *job;
    struct claim *claim;
    struct load load;
    struct verify_digest digest;
    bool final_round; // the source's guest is stopped
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

#endif
