// SPDX-License-Identifier: MIT
// When pre-copy stops: one pure function of what was measured.
#ifndef SKIFF_MIGRATE_POLICY_H
#define SKIFF_MIGRATE_POLICY_H

#include "kernel/types.h"

// Wire bytes of a page that is not zero, record overhead spread over a full batch.
#define POLICY_PAGE_BYTES (4096 + 8 + 2)
// Rounds without a new lowest count of dirty pages after which more rounds are pointless.
#define POLICY_STALE_ROUNDS 8

struct policy_input {
    u32 round; // rounds sent so far (1: the first, over all of RAM)
    u32 max_rounds;
    u64 dirty_pages;  // to be sent if the guest stopped now
    u64 dirty_rate;   // pages a second the guest dirtied in the last round
    u64 rate_bytes_s; // what the link and both hosts carried, 0 unknown
    u64 state_bytes;  // vCPU and device state
    u64 rtt_ns;
    u64 stop_ns;           // from the decision until the guest stands still
    u64 load_ns;           // loading the state at the destination
    u64 verify_ns;         // digests over all of RAM, 0 without verify
    u64 target_ns;         // stop when the blackout would be at most this
    u32 rounds_since_best; // rounds since dirty_pages was lowest
};

enum policy_verdict {
    POLICY_CONTINUE,
    POLICY_STOP_BLACKOUT,
    POLICY_STOP_ROUNDS,
    POLICY_STOP_STALE
};
struct policy_result {
    enum policy_verdict verdict;
    u64 predicted_ns; // the blackout if the guest stopped now
};

struct policy_result policy_decide(const struct policy_input *in);
u64 policy_predict_ns(const struct policy_input *in);
const char *policy_reason(enum policy_verdict v); // "blackout", "rounds", "no-progress", ""

#endif
