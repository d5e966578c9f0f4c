// SPDX-License-Identifier: MIT
// Transitions of the hand-over (stream.md, "Hand-over").
#include "kernel/migrate/handover.h"

static const struct transition {
    u8 state, event, next;
    u16 action;
} transitions[] = {
    // Source: until COMMIT is sent it may always go on by itself.
    {HO_PRECOPY, HO_EV_OFFER_SENT, HO_OFFERED, 0},
    {HO_PRECOPY, HO_EV_FAILED, HO_ABORTED, HO_RESUME},
    {HO_PRECOPY, HO_EV_QUERY, HO_PRECOPY, HO_ANSWER_WAIT},
    {HO_OFFERED, HO_EV_READY, HO_COMMITTED, HO_SEND_COMMIT},
    {HO_OFFERED, HO_EV_FAILED, HO_ABORTED, HO_RESUME},
    {HO_OFFERED, HO_EV_QUERY, HO_OFFERED, HO_ANSWER_WAIT},
    {HO_COMMITTED, HO_EV_READY, HO_COMMITTED, HO_SEND_COMMIT},
    {HO_COMMITTED, HO_EV_RUNNING, HO_MOVED, HO_RELEASE},
    {HO_COMMITTED, HO_EV_NOT_STARTED, HO_ABORTED, HO_RESUME},
    {HO_COMMITTED, HO_EV_QUERY, HO_COMMITTED, HO_ANSWER_COMMITTED},
    {HO_COMMITTED, HO_EV_FAILED, HO_COMMITTED, 0},
    {HO_COMMITTED, HO_EV_KEEP, HO_ABORTED, HO_RESUME},
    {HO_COMMITTED, HO_EV_DROP, HO_MOVED, HO_RELEASE},
    {HO_MOVED, HO_EV_QUERY, HO_MOVED, HO_ANSWER_COMMITTED},
    {HO_MOVED, HO_EV_RUNNING, HO_MOVED, 0},
    {HO_MOVED, HO_EV_READY, HO_MOVED, HO_SEND_COMMIT},
    {HO_MOVED, HO_EV_FAILED, HO_MOVED, 0},
    {HO_ABORTED, HO_EV_QUERY, HO_ABORTED, HO_ANSWER_ABORTED},
    {HO_ABORTED, HO_EV_READY, HO_ABORTED, HO_ANSWER_ABORTED},
    {HO_ABORTED, HO_EV_NOT_STARTED, HO_ABORTED, 0},
    {HO_ABORTED, HO_EV_FAILED, HO_ABORTED, 0},
    // Destination: it starts on COMMIT only, and once dropped it never starts.
    {HO_RECEIVING, HO_EV_OFFER, HO_READY, HO_SEND_READY},
    {HO_RECEIVING, HO_EV_COMMIT, HO_DROPPED, HO_DISCARD | HO_SEND_NOT_STARTED},
    {HO_RECEIVING, HO_EV_ABORTED, HO_DROPPED, HO_DISCARD},
    {HO_RECEIVING, HO_EV_FAILED, HO_DROPPED, HO_DISCARD},
    {HO_READY, HO_EV_OFFER, HO_READY, HO_SEND_READY},
    {HO_READY, HO_EV_UNSENT, HO_DROPPED, HO_DISCARD},
    {HO_READY, HO_EV_COMMIT, HO_STARTED, HO_START | HO_SEND_RUNNING},
    {HO_READY, HO_EV_ABORTED, HO_DROPPED, HO_DISCARD},
    {HO_READY, HO_EV_FAILED, HO_READY, 0},
    {HO_READY, HO_EV_KEEP, HO_STARTED, HO_START},
    {HO_READY, HO_EV_DROP, HO_DROPPED, HO_DISCARD},
    {HO_STARTED, HO_EV_COMMIT, HO_STARTED, HO_SEND_RUNNING},
    {HO_STARTED, HO_EV_OFFER, HO_STARTED, HO_SEND_RUNNING},
    {HO_STARTED, HO_EV_FAILED, HO_STARTED, 0},
    {HO_DROPPED, HO_EV_COMMIT, HO_DROPPED, HO_SEND_NOT_STARTED},
    {HO_DROPPED, HO_EV_OFFER, HO_DROPPED, HO_SEND_NOT_STARTED},
    {HO_DROPPED, HO_EV_ABORTED, HO_DROPPED, 0},
    {HO_DROPPED, HO_EV_FAILED, HO_DROPPED, 0},
};

unsigned handover_step(enum handover_state *s, enum handover_event e)
{
    for (size_t i = 0; i < ARRAY_SIZE(transitions); i++) {
        if (transitions[i].state == *s && transitions[i].event == e) {
            *s = transitions[i].next;
            return transitions[i].action;
        }
    }
    return HO_REFUSED;
}

enum handover_state handover_after_restart(enum handover_state s)
{
    switch (s) {
    case HO_PRECOPY:
    case HO_OFFERED:
        return HO_ABORTED; // COMMITTED is on record before COMMIT is sent
    case HO_RECEIVING:
    case HO_READY:
        return HO_DROPPED; // STARTED is on record before the guest runs
    default:
        return s;
    }
}

const char *handover_state_name(enum handover_state s)
{
    static const char *const names[HO_STATES] = {
        [HO_PRECOPY] = "precopy", [HO_OFFERED] = "offered", [HO_COMMITTED] = "committed",
        [HO_MOVED] = "moved",     [HO_ABORTED] = "aborted", [HO_RECEIVING] = "receiving",
        [HO_READY] = "ready",     [HO_STARTED] = "started", [HO_DROPPED] = "dropped",
    };
    return s < HO_STATES ? names[s] : "?";
}

bool handover_final(enum handover_state s)
{
    return s == HO_MOVED || s == HO_ABORTED || s == HO_STARTED || s == HO_DROPPED;
}

bool handover_in_doubt(enum handover_state s)
{
    return s == HO_COMMITTED || s == HO_READY;
}
