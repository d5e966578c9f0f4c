// SPDX-License-Identifier: MIT
// Decides after each round whether the guest may be stopped.
#include "kernel/migrate/policy.h"

static u64 transfer_ns(u64 bytes, u64 rate)
{
    if (rate == 0)
        return ~0ull / 4;
    // In two steps, so that gigabytes in nanoseconds don't overflow.
    return bytes / rate * NS_PER_SEC + bytes % rate * 1000 / rate * NS_PER_MS +
           bytes % rate * 1000 % rate * 1000 / rate * NS_PER_US;
}

u64 policy_predict(const struct policy_input *in, u64 part_ns[BLACKOUT_PARTS])
{
    u64 crossing = in->rtt_ns / 2, total = 0, pages = in->dirty_pages;
    // The rate is that of a full pipeline: a record is filled before it is sent, and has come
    // whole before it is applied.
    pages += 2 * MIN(pages, (u64)POLICY_BATCH);
    // Stopping costs next to nothing. Where sending ends and READY begins depends on what the
    // connection buffers; the sum does not.
    part_ns[BLACKOUT_STOP] = 0;
    part_ns[BLACKOUT_PAGES] =
        in->collect_ns + transfer_ns(pages * POLICY_PAGE_BYTES, in->rate_bytes_s);
    part_ns[BLACKOUT_STATE] = in->state_ns + transfer_ns(in->state_bytes, in->rate_bytes_s);
    part_ns[BLACKOUT_READY] = 2 * crossing + in->state_ns; // OFFER there, READY back
    part_ns[BLACKOUT_VERIFY] = in->verify ? 2 * crossing + in->verify_ns : 0;
    part_ns[BLACKOUT_COMMIT] = crossing;
    for (unsigned p = 0; p < BLACKOUT_PARTS; p++)
        total += part_ns[p];
    return total;
}

// Whether one more round is expected to be worth it. It takes as long as sending what is dirty, in
// which as much gets dirty as in the same part of the last round. A guest that writes the same
// pages over and over breaks this rule at once: what is dirty didn't fall, and that ends it.
static bool worth_another_round(const struct policy_input *in, u64 pages_ns)
{
    u64 half = transfer_ns(in->dirty_pages / 2 * POLICY_PAGE_BYTES, in->rate_bytes_s);
    return in->round < in->max_rounds && in->rounds_since_best == 0 &&
           pages_ns + in->rtt_ns <= in->round_ns / 2 && half >= POLICY_WORTH_NS;
}

struct policy_result policy_decide(const struct policy_input *in)
{
    struct policy_result r = {.verdict = POLICY_CONTINUE};
    r.predicted_ns = policy_predict(in, r.part_ns);
    // What no round can shorten must not keep the pre-copy going for ever: the target is for the
    // part that depends on dirty pages.
    u64 floor = r.part_ns[BLACKOUT_VERIFY];

    if (in->dirty_pages == 0)
        r.verdict = POLICY_STOP_BLACKOUT;
    else if (r.predicted_ns - floor <= in->target_ns)
        r.verdict = worth_another_round(in, r.part_ns[BLACKOUT_PAGES]) ? POLICY_CONTINUE
                                                                       : POLICY_STOP_BLACKOUT;
    else if (in->round >= in->max_rounds)
        r.verdict = POLICY_STOP_ROUNDS;
    else if (in->rounds_since_best >= POLICY_STALE_ROUNDS)
        r.verdict = POLICY_STOP_STALE;
    return r;
}

const char *blackout_part_name(enum blackout_part p)
{
    static const char *const names[] = {"stop", "pages", "state", "ready", "verify", "commit"};
    return (unsigned)p < ARRAY_SIZE(names) ? names[p] : "?";
}

const char *policy_reason(enum policy_verdict v)
{
    switch (v) {
    case POLICY_STOP_BLACKOUT:
        return "blackout";
    case POLICY_STOP_ROUNDS:
        return "rounds";
    case POLICY_STOP_STALE:
        return "no-progress";
    case POLICY_CONTINUE:
        break;
    }
    return "";
}
