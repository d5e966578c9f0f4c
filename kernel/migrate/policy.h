// SPDX-License-Identifier: MIT
// When pre-copy stops: one pure function of what was measured.
#ifndef SKIFF_MIGRATE_POLICY_H
#define SKIFF_MIGRATE_POLICY_H

#include "kernel/types.h"

// Wire bytes of a page that is not zero, record overhead spread over a full batch.
#define POLICY_PAGE_BYTES (4096 + 24 + 2)
// Pages of a record: the last one's way through both hosts adds to what the rate says.
#define POLICY_BATCH 16
// Rounds without a new lowest count of dirty pages after which more rounds are pointless.
#define POLICY_STALE_ROUNDS 8
// A blackout within its target is shortened all the same while one more round is expected to halve
// what is dirty and to take this much off it.
#define POLICY_WORTH_NS (5 * NS_PER_MS)

// What a blackout is made of, in the order of time.
enum blackout_part {
    BLACKOUT_STOP,   // from the moment the guest's clock stops: its vCPUs and devices
    BLACKOUT_PAGES,  // collecting the last dirty pages and sending them
    BLACKOUT_STATE,  // encoding the state and sending it
    BLACKOUT_READY,  // what was under way still crosses, the state is loaded, READY comes back
    BLACKOUT_VERIFY, // digests
    BLACKOUT_COMMIT, // COMMIT crosses, the guest is entered
    BLACKOUT_PARTS,
};
const char *blackout_part_name(enum blackout_part p);

struct policy_input {
    u32 round; // rounds sent so far (1: the first, over all of RAM)
    u32 max_rounds;
    u64 round_ns;     // that the last round took, collecting what got dirty in it included
    u64 dirty_pages;  // to be sent if the guest stopped now
    u64 rate_bytes_s; // what the link and both hosts carry while the guest stands still, 0 unknown
    u64 state_bytes;  // vCPU and device state
    u64 rtt_ns;
    u64 collect_ns; // collecting what is dirty
    u64 state_ns;   // encoding the state; checking and loading it take about as long
    bool verify;
    u64 verify_ns;         // digests, 0 without verify
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
    u64 part_ns[BLACKOUT_PARTS];
};

struct policy_result policy_decide(const struct policy_input *in);
u64 policy_predict(const struct policy_input *in, u64 part_ns[BLACKOUT_PARTS]); // the sum
const char *policy_reason(enum policy_verdict v); // "blackout", "rounds", "no-progress", ""

#endif
