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

u64 policy_predict_ns(const struct policy_input *in)
{
    // While the guest is brought to a stop it still dirties pages, but none that weren't counted
    // costs more than its share of that time.
    u64 late_pages = in->dirty_rate * (in->stop_ns / NS_PER_US) / 1000000;
    u64 bytes = (in->dirty_pages + late_pages) * POLICY_PAGE_BYTES + in->state_bytes;
    // Last pages and OFFER there, READY back, COMMIT there: three crossings.
    u64 crossings = in->rtt_ns + in->rtt_ns / 2;
    return in->stop_ns + transfer_ns(bytes, in->rate_bytes_s) + crossings + in->load_ns +
           in->verify_ns;
}

struct policy_result policy_decide(const struct policy_input *in)
{
    struct policy_result r = {POLICY_CONTINUE, policy_predict_ns(in)};
    // What no round can shorten must not keep the pre-copy going for ever: the target is for the
    // part that depends on dirty pages.
    u64 floor = in->verify_ns;

    if (r.predicted_ns - floor <= in->target_ns || in->dirty_pages == 0)
        r.verdict = POLICY_STOP_BLACKOUT;
    else if (in->round >= in->max_rounds)
        r.verdict = POLICY_STOP_ROUNDS;
    else if (in->rounds_since_best >= POLICY_STALE_ROUNDS)
        r.verdict = POLICY_STOP_STALE;
    return r;
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
