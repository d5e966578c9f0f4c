// SPDX-License-Identifier: MIT
// The hand-over's two state machines as data: who may run the guest after which message.
// Pure: no guest, no connection, so that a test can walk through every order and loss of messages.
#ifndef SKIFF_MIGRATE_HANDOVER_H
#define SKIFF_MIGRATE_HANDOVER_H

#include "kernel/types.h"

enum handover_state {
    // Source. The guest runs, or can run again, in PRECOPY, OFFERED and ABORTED only.
    HO_PRECOPY,
    HO_OFFERED,   // frozen, OFFER sent
    HO_COMMITTED, // COMMIT may have left this host: in doubt until an answer
    HO_MOVED,     // runs at the destination
    HO_ABORTED,   // goes on here; final
    // Destination. It runs in STARTED only.
    HO_RECEIVING,
    HO_READY,   // loaded, READY sent: in doubt when the link is lost
    HO_STARTED, // final
    HO_DROPPED, // discarded without having run; final
    HO_STATES,
};

enum handover_event {
    HO_EV_OFFER_SENT,
    HO_EV_READY,
    HO_EV_RUNNING,
    HO_EV_NOT_STARTED, // the destination is certain of it
    HO_EV_QUERY,       // the destination asks how it stands
    HO_EV_OFFER,       // received, and everything before it loaded
    HO_EV_UNSENT,      // READY could not be handed to the network whole
    HO_EV_COMMIT,
    HO_EV_ABORTED, // the source says that it goes on there
    HO_EV_FAILED,  // link lost, time over, aborted by the operator, did not verify
    HO_EV_KEEP,    // operator: run the copy of this host
    HO_EV_DROP,    // operator: give it up
    HO_EVENTS,
};

enum handover_action {
    HO_RESUME = 1 << 0,  // source: let the guest go on
    HO_RELEASE = 1 << 1, // source: free the copy
    HO_START = 1 << 2,   // destination: run the guest
    HO_DISCARD = 1 << 3, // destination: free the copy
    HO_SEND_COMMIT = 1 << 4,
    HO_SEND_READY = 1 << 5,
    HO_SEND_RUNNING = 1 << 6,
    HO_SEND_NOT_STARTED = 1 << 7,
    HO_ANSWER_WAIT = 1 << 8,
    HO_ANSWER_COMMITTED = 1 << 9,
    HO_ANSWER_ABORTED = 1 << 10,
    HO_REFUSED = 1 << 11, // the event makes no sense in this state: nothing changed
};

// Moves *s on and returns the actions to take, in this order: state first, then the action. So a
// COMMIT that was perhaps sent is always COMMITTED already.
unsigned handover_step(enum handover_state *s, enum handover_event e);
// What a state becomes when its host restarts and has it on record: the guest's memory is lost, so
// what had not been decided is decided against the move.
enum handover_state handover_after_restart(enum handover_state s);
const char *handover_state_name(enum handover_state s);
bool handover_final(enum handover_state s);
bool handover_in_doubt(enum handover_state s); // once its connection is gone

#endif
