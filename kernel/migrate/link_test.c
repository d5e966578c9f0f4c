// SPDX-License-Identifier: MIT
// Measures the connection to a peer: bytes without meaning, outside of records, that it throws
// away.
#include "kernel/lib.h"
#include "kernel/migrate/internal.h"
#include "kernel/thread.h"
#include "kernel/time.h"

#define BLOCK_BYTES  STREAM_MAX_PAYLOAD
#define TEST_TIMEOUT (10 * NS_PER_SEC) // for each block

int link_test_answer(struct stream *s, const struct record *r)
{
    struct wire_test_done done = {.bytes = ((const struct wire_test *)r->payload)->bytes};
    if (done.bytes > LINK_TEST_MAX)
        return stream_fail(s, E_PROTO, "TEST of %llu bytes, the most is %llu",
                           (unsigned long long)done.bytes, (unsigned long long)LINK_TEST_MAX);
    u64 start = time_ns();
    for (u64 left = done.bytes; left > 0;) {
        conn_set_deadline(s->conn, time_ns() + TEST_TIMEOUT);
        s64 n = conn_read(s->conn, s->in, MIN(left, (u64)BLOCK_BYTES));
        if (n <= 0)
            return stream_fail(s, E_IO, "the connection was lost in a test of it");
        left -= (u64)n;
        thread_yield_if_needed();
    }
    done.ns = time_ns() - start;
    return stream_send(s, REC_TEST_DONE, &done, sizeof(done));
}

static int send_all(struct stream *s, u64 bytes)
{
    struct wire_test ask = {.bytes = bytes};
    int e = stream_send(s, REC_TEST, &ask, sizeof(ask));
    if (e)
        return e;
    u8 *block = stream_payload(s);
    memset(block, 0x5a, BLOCK_BYTES);
    for (u64 left = bytes; left > 0;) {
        u64 n = MIN(left, (u64)BLOCK_BYTES);
        conn_set_deadline(s->conn, time_ns() + TEST_TIMEOUT);
        if (conn_write(s->conn, block, n) < 0)
            return stream_fail(s, E_IO, "the connection was lost after %llu bytes",
                               (unsigned long long)(bytes - left));
        left -= n;
        thread_yield_if_needed();
    }
    return 0;
}

int link_test(const char *peer, u64 bytes, u64 *ns, char *err, size_t size)
{
    const struct peer_config *p = peer_find(peer);
    struct stream s;
    struct record r;
    if (!p) {
        snprintf(err, size, "no peer %s", peer);
        return E_NOENT;
    }
    int e =
        peer_open(&s, p->name, &p->address, peer_port(p->port), NULL, 0, ASK_TIMEOUT_NS, err, size);
    if (e)
        return e;
    u64 start = time_ns();
    e = send_all(&s, bytes);
    s.timeout_ns = TEST_TIMEOUT;
    if (e == 0)
        e = stream_expect(&s, REC_TEST_DONE, &r);
    *ns = time_ns() - start;
    if (e)
        snprintf(err, size, "%s: %s", p->name, s.error);
    stream_close(&s, e == 0);
    return e;
}
