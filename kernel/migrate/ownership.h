// SPDX-License-Identifier: MIT
// Who owns a guest: the record of every move this host took part in, and the answers to peers.
#ifndef SKIFF_MIGRATE_OWNERSHIP_H
#define SKIFF_MIGRATE_OWNERSHIP_H

#include "kernel/guest/guest.h"
#include "kernel/migrate/handover.h"
#include "kernel/migrate/wire.h"

#define CLAIMS_KEPT 64

// One move of one guest, as this host knows it. Kept after its end, so that a peer that lost an
// answer can ask again. Every field is under claims_lock.
struct claim {
    bool used;
    bool source; // this host sends; else it receives
    bool linked; // its first connection still works on it
    bool asking; // a thread asks the peer about it just now
    enum handover_state state;
    struct move_ident id;
    char guest[CONFIG_NAME], peer[CONFIG_NAME];
    char disks[CONFIG_MAX_DISKS][CONFIG_DISK]; // the guest's volumes, which move with it
    u64 disk_id[CONFIG_MAX_DISKS];             // which volumes these are here (disks_identify)
    u32 disk_count;
    struct ip_address address; // of the peer
    u16 port;
    u64 job;
    u64 frozen_ns; // when the guest stopped, in this host's time
    u64 clock_error_ns;
    u64 blackout_ns; // of a started guest
    bool paused;     // the operator had paused it
    u64 order;       // of creation
    u64 next_ask_ns;
    char last_word[120]; // why the peer's last answer did not settle it
};

extern struct mutex claims_lock;

// A new claim, PRECOPY or RECEIVING. NULL when the table is full of unsettled moves, or when one of
// this guest is unsettled already (why says so).
struct claim *claim_new(bool source, const struct move_ident *id, const char *guest,
                        const char *peer, char *why, size_t size);
// By identity, or NULL. claims_lock held.
struct claim *claim_find(const struct move_ident *id, bool source);
struct claim *claim_find_unsettled(const u8 uuid[16]);
struct claim *claim_get(u32 i); // i-th slot of CLAIMS_KEPT, used or not
// Puts a new claim, with all its fields, on record. 0 or the datastore's error.
int claim_record(struct claim *c);
// handover_step on it, logged, and on record where it matters: when that fails, COMMIT is not sent
// (HO_REFUSED) and the destination gives its copy up instead of running it. claims_lock held. The
// caller acts on what it returns.
unsigned claim_step(struct claim *c, enum handover_event e);
bool ident_equal(const struct move_ident *a, const struct move_ident *b);

// Is a move of this guest waiting for an answer or the operator?
bool ownership_in_doubt(const u8 uuid[16]);
// This host's answer to a peer's OWNER_ASK.
void ownership_answer(const struct wire_owner_ask *ask, struct wire_owner *out);

// ---- Permission to start (design rule 17) ------------------------------------------------------
// Two hosts may have the same guest in their configurations and come up together. A host that asks
// to start it is given a lease by each that answers "nothing": for that time the answerer will not
// start it itself. Of two that ask at once the smaller boot id goes first.
#define START_LEASE_NS (20 * NS_PER_SEC)
bool start_attempt_begin(const u8 uuid[16]); // false while another host holds a lease from us
// Gave way to another host since it began?
bool start_attempt_lost(const u8 uuid[16]);
void start_attempt_end(const u8 uuid[16], bool allowed);
void start_attempts_forget(void); // for tests

#endif
