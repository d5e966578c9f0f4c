// SPDX-License-Identifier: MIT
// verify = on: each host hashes all of the guest's RAM and state by itself, and where they differ
// the page or field is named. Runs while the guest stands still, so it is part of the blackout.
#ifndef SKIFF_MIGRATE_VERIFY_H
#define SKIFF_MIGRATE_VERIFY_H

#include "kernel/guest/guest.h"
#include "kernel/migrate/stream.h"

#define VERIFY_CHUNK_PAGES 512

// Hashes of one stopped guest. Two hosts with equal RAM and state get equal values.
struct verify_digest {
    u64 pages, chunk_count;
    u64 (*chunks)[2]; // one a VERIFY_CHUNK_PAGES pages
    u64 ram[2];       // over the chunks
    u64 state[2];     // over every section's encoding
};
// Yields as it goes. E_NOMEM.
int verify_digest(struct guest *g, struct verify_digest *d);
void verify_digest_free(struct verify_digest *d);
// Time one page takes here, measured on a few of the guest's.
u64 verify_page_ns(struct guest *g);

// Source: asks, compares. 0 when everything is equal; E_INVAL with what differs in report; other
// errors are the stream's.
int verify_ask(struct stream *s, struct guest *g, const struct move_ident *id, char *report,
               size_t size);
// Destination: answers VERIFY, HASH_ASK and STATE_ASK. d is zeroed at first and freed by the
// caller.
bool verify_is_question(u32 type);
int verify_answer(struct stream *s, struct guest *g, struct verify_digest *d,
                  const struct move_ident *id, const struct record *r);

#endif
