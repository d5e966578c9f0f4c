// SPDX-License-Identifier: MIT
// The record codec of the migration stream over a connection. See stream.md.
#ifndef SKIFF_MIGRATE_STREAM_H
#define SKIFF_MIGRATE_STREAM_H

#include "kernel/migrate/hash.h"
#include "kernel/migrate/wire.h"
#include "net/net.h"

// Belongs to one thread; only conn_abort may come from another.
struct stream {
    struct conn *conn;
    u8 *in, *out; // one record each, its header in front
    u32 seq_in, seq_out;
    u16 version;
    u64 timeout_ns;                    // for each send and receive, 0 none
    struct hash digest_in, digest_out; // over the record headers (with their CRCs) so far
    struct hash digest_before;         // digest_in before the record received last
    struct stream_header self, peer;
    char error[200]; // one sentence after any call failed
};

struct record {
    u32 type;
    u32 bytes;
    const void *payload; // 8-byte aligned, valid until the next stream_receive
};

// How many of a payload's bytes are under the record's CRC: all, but for the bulk data of PAGES and
// BLOCKS. These are under hashes among the bytes before them, and whoever puts them in place
// compares, so that nothing is read once more for a checksum.
u32 stream_under_crc(u32 type, const void *payload, u32 bytes);

// Takes c over. E_NOMEM (c is then still the caller's).
int stream_open(struct stream *s, struct conn *c);
// Sends END where the stream still works and closes the connection.
void stream_close(struct stream *s, bool orderly);

// Headers. The identity fields (uuid, epoch, move_id, flags) of s->self are set before sending.
void stream_header_fill(struct stream_header *h, const char *host, u64 boot_id, u16 port);
int stream_send_header(struct stream *s);
// Reads and checks the other side's header and agrees on a version. E_PROTO with the reason.
int stream_receive_header(struct stream *s);
// Pure parts, for the two above and the tests.
void stream_header_seal(struct stream_header *h);
int stream_header_check(const struct stream_header *h, const struct stream_header *self,
                        u16 *version, char *err, size_t size);

// Where the next record's payload is built: STREAM_MAX_PAYLOAD bytes.
void *stream_payload(struct stream *s);
// Sends what was built there. A type with RECORD_OPTIONAL may be skipped by the peer.
int stream_send_built(struct stream *s, u32 type, u32 bytes);
int stream_send(struct stream *s, u32 type, const void *payload, u32 bytes);

// The next record that this version knows. 0; E_IO, E_TIMEOUT; E_PROTO for anything malformed.
int stream_receive(struct stream *s, struct record *r);
// Receives and insists on one type; a peer's ABORT or REFUSE becomes E_ABORT with its reason.
int stream_expect(struct stream *s, u32 type, struct record *r);
const char *record_name(u32 type);

// Text payloads (ABORT, REFUSE, ACCEPT): printable lines, cut where they don't fit.
void stream_text(const struct record *r, char *out, size_t size);
int stream_send_text(struct stream *s, u32 type, const char *text);
int stream_fail(struct stream *s, int error, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

// True when s is NUL-terminated within size, not empty, and a name as host.cfg allows them.
bool wire_name_ok(const char *s, size_t size);
// True when s is NUL-terminated within size and printable.
bool wire_text_ok(const char *s, size_t size);

#endif
