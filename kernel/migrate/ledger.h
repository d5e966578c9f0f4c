// SPDX-License-Identifier: MIT
// What a host must still know after a restart: each guest's last move, as a record in its
// datastore. A host without a datastore remembers nothing.
#ifndef SKIFF_MIGRATE_LEDGER_H
#define SKIFF_MIGRATE_LEDGER_H

#include "kernel/migrate/ownership.h"

// Makes the claim durable as if it were in `state`. 0, also without a datastore; else the
// datastore's error. In a thread, claims_lock held: nobody is told of a state that is not on
// record.
int ledger_write(const struct claim *c, enum handover_state state);

// At start, once the guests of host.cfg are listed: takes the records up in a thread. The claims of
// moves are as they were, less what was undecided; a guest that had arrived here is listed again.
void ledger_start(void);
// Waits until that is over: nobody is answered and no guest is started before.
void ledger_wait(void);

#endif
