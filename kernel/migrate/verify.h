// SPDX-License-Identifier: MIT
// Verification of a move (stream.md, "Verification"): both hosts digest what they know of all pages
// and their state while the guest stands still, and where they differ the page or field is named.
#ifndef SKIFF_MIGRATE_VERIFY_H
#define SKIFF_MIGRATE_VERIFY_H

#include "kernel/guest/guest.h"
#include "kernel/migrate/page_hashes.h"
#include "kernel/migrate/stream.h"

// Of one stopped guest. Two hosts with equal pages and state get equal values.
struct verify_digest {
    u64 ram[2];   // over the hashes of the chunks of pages
    u64 state[2]; // over every section's encoding
};
// Yields as it goes. E_NOMEM.
int verify_digest(struct guest *g, const struct page_hashes *h, struct verify_digest *d);
// Time that hashing a page takes here, measured on some that are spread over the guest's memory.
u64 verify_page_ns(struct guest *g);
// Time that the hash over the table takes, measured on one of its chunks.
u64 verify_table_ns(const struct page_hashes *h);
// Time that encoding and digesting the state takes, measured on a guest that is not yet loaded.
u64 verify_state_ns(struct guest *g);

// Source: asks, compares. 0 when everything is equal; E_INVAL with what differs in report; other
// errors are the stream's. strict: what the pages hold now is hashed anew on both hosts.
int verify_ask(struct stream *s, struct guest *g, struct page_hashes *h, bool strict,
               const struct move_ident *id, char *report, size_t size);
// Source, when the guest runs elsewhere: does the copy that stands still here hold what was sent?
// A page that does not was written without the dirty log's knowledge. How many, named in report.
// Yields.
u64 verify_audit(struct guest *g, const struct page_hashes *h, char *report, size_t size);

// Destination: answers VERIFY, HASH_ASK and STATE_ASK.
bool verify_is_question(u32 type);
int verify_answer(struct stream *s, struct guest *g, struct page_hashes *h, bool strict,
                  const struct move_ident *id, const struct record *r);

#endif
