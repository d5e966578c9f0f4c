// SPDX-License-Identifier: MIT
// Ping-pongs that find the offset between source and destination time (stream.md, "Clock").
#include "kernel/migrate/clock_sync.h"

#include "kernel/lib.h"
#include "kernel/time.h"

void clock_sync_reset(struct clock_sync *c)
{
    c->valid = false;
}

void clock_sync_take(struct clock_sync *c, u64 sent, u64 peer_received, u64 peer_sent, u64 received)
{
    u64 total = received - sent, there = peer_sent - peer_received;
    c->last_ns = total;
    if (received < sent || peer_sent < peer_received || there > total)
        return; // clocks that run at such different rates tell nothing
    u64 rtt = total - there;
    if (c->valid && rtt >= c->rtt_ns)
        return;
    // Wherever the delay was, the middle is at most half a round trip away from the truth.
    s64 out = (s64)(peer_received - sent), back = (s64)(peer_sent - received);
    c->offset_ns = out / 2 + back / 2;
    c->error_ns = rtt / 2 + 1;
    c->rtt_ns = rtt;
    c->valid = true;
}

int clock_ping(struct stream *s, struct clock_sync *c)
{
    struct wire_ping ping = {.id = ++c->next_id, .source_ns = time_ns()};
    struct record r;
    int e = stream_send(s, REC_PING, &ping, sizeof(ping));
    if (e == 0)
        e = stream_expect(s, REC_PONG, &r);
    if (e)
        return e;
    u64 now = time_ns();
    const struct wire_pong *pong = r.payload;
    if (pong->id != ping.id || pong->source_ns != ping.source_ns)
        return stream_fail(s, E_PROTO, "%s answered PING %llu with PONG %llu", s->peer.host,
                           (unsigned long long)ping.id, (unsigned long long)pong->id);
    c->peer_busy_ns = pong->busy_ns;
    c->peer_state_ns = pong->state_ns;
    clock_sync_take(c, ping.source_ns, pong->received_ns, pong->sent_ns, now);
    return 0;
}

int clock_ping_many(struct stream *s, struct clock_sync *c, u32 count)
{
    int e = 0;
    while (e == 0 && count--)
        e = clock_ping(s, c);
    return e;
}

int clock_answer(struct stream *s, const struct record *ping, u64 busy_ns, u64 state_ns)
{
    const struct wire_ping *p = ping->payload;
    struct wire_pong pong = {
        .id = p->id,
        .source_ns = p->source_ns,
        .received_ns = time_ns(),
        .busy_ns = busy_ns,
        .state_ns = state_ns,
    };
    pong.sent_ns = time_ns();
    return stream_send(s, REC_PONG, &pong, sizeof(pong));
}
