// SPDX-License-Identifier: MIT
// What the files of kernel/migrate share beside their own headers.
#ifndef SKIFF_MIGRATE_INTERNAL_H
#define SKIFF_MIGRATE_INTERNAL_H

#include "kernel/migrate/jobs.h"
#include "kernel/migrate/migrate.h"
#include "kernel/migrate/ownership.h"
#include "kernel/migrate/stream.h"

// How long each step may take before the other side counts as lost.
#define CONNECT_TIMEOUT_NS  (3 * NS_PER_SEC)
#define ASK_TIMEOUT_NS      (2 * NS_PER_SEC)
#define CHECK_TIMEOUT_NS    (300 * NS_PER_SEC) // the destination zeroes the guest's memory
#define PRECOPY_TIMEOUT_NS  (10 * NS_PER_SEC)
#define HANDOVER_TIMEOUT_NS (5 * NS_PER_SEC)
#define VERIFY_TIMEOUT_NS   (120 * NS_PER_SEC)
#define ASK_AGAIN_NS        (3 * NS_PER_SEC) // between two questions about a move in doubt

extern const struct host_config *migrate_cfg; // set by migrate_start

// Peers (peers.c)
const struct peer_config *peer_find(const char *name);
u16 peer_port(u16 configured);
// Connects, exchanges headers. `id` may be NULL (no guest concerned). On success the caller closes
// the stream; on failure nothing is left and err has a sentence.
int peer_open(struct stream *s, const char *name, const struct ip_address *to, u16 port,
              const struct move_ident *id, u32 flags, u64 timeout_ns, char *err, size_t size);

u32 verify_flags(enum verify_mode mode); // HEADER_*

// Acting on what handover_step said (settle.c); claims_lock held.
void settle(struct claim *c, unsigned actions, const char *why);
// Marks the guest of a claim that lost its connection, with the advice to show. claims_lock held.
void settle_doubt(struct claim *c, const char *fact);
// Lets a guest of which no claim speaks go on (a move that failed before its claim was made, or
// before it was stopped): ends the dirty log.
void settle_end_log(struct guest *g);

// Questions about moves in doubt (doubt.c)
void doubt_start(void);
// Asks the peer once, now. 0 when the claim is settled, else why it is not, in err.
int doubt_ask(struct claim *c, char *err, size_t size);
// Answers on a connection that a peer opened.
int doubt_answer_commit(struct stream *s, const struct record *r);
int doubt_answer_query(struct stream *s, const struct record *r);

// The two ends of a move
void source_thread(void *move); // source.c; a struct move from kmalloc, which it frees
int dest_receive(struct stream *s, const struct record *first); // dest.c

// A test of the connection (link_test.c), on one that a peer opened.
int link_test_answer(struct stream *s, const struct record *r);

// The listener's thread body (serve.c): one connection that a peer opened.
void serve_connection(struct conn *c);

#endif
