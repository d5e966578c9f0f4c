// SPDX-License-Identifier: MIT
// Reads and writes the records of the migration stream; every length is checked before it is used.
#include "kernel/migrate/stream.h"

#include "kernel/lib.h"
#include "kernel/mem.h"
#include "kernel/time.h"

#ifndef SKIFF_VERSION
#define SKIFF_VERSION "0"
#endif

#define BUFFER_PAGES                                                                               \
    ((sizeof(struct record_header) + STREAM_MAX_PAYLOAD + 8 + PAGE_SIZE - 1) / PAGE_SIZE)
#define CRC_BYTES offsetof(struct record_header, crc)
#define TEXT_MAX  4096u

// What version 2 knows: a record outside its bounds is malformed.
static const struct record_rule {
    u32 type;
    u32 min, max; // payload bytes
    const char *name;
} rules[] = {
    {REC_END, 0, 0, "END"},
    {REC_INFO_ASK, 0, 0, "INFO_ASK"},
    {REC_INFO, sizeof(struct wire_info), sizeof(struct wire_info), "INFO"},
    {REC_OWNER_ASK, sizeof(struct wire_owner_ask), sizeof(struct wire_owner_ask), "OWNER_ASK"},
    {REC_OWNER, sizeof(struct wire_owner), sizeof(struct wire_owner), "OWNER"},
    {REC_TEST, sizeof(struct wire_test), sizeof(struct wire_test), "TEST"},
    {REC_TEST_DONE, sizeof(struct wire_test_done), sizeof(struct wire_test_done), "TEST_DONE"},
    {REC_GUEST, sizeof(struct wire_guest), sizeof(struct wire_guest), "GUEST"},
    {REC_CPUID, 0, WIRE_MAX_CPUID * sizeof(struct wire_cpuid), "CPUID"},
    {REC_DEVICES, 0, WIRE_MAX_DEVICES * sizeof(struct wire_device), "DEVICES"},
    {REC_CHECK, sizeof(struct wire_check), sizeof(struct wire_check), "CHECK"},
    {REC_ACCEPT, 0, TEXT_MAX, "ACCEPT"},
    {REC_REFUSE, 1, TEXT_MAX, "REFUSE"},
    {REC_DISKS, sizeof(struct wire_disk), CONFIG_MAX_DISKS * sizeof(struct wire_disk), "DISKS"},
    {REC_PAGES, sizeof(struct wire_pages), STREAM_MAX_PAYLOAD, "PAGES"},
    {REC_ROUND, sizeof(struct wire_round), sizeof(struct wire_round), "ROUND"},
    {REC_PING, sizeof(struct wire_ping), sizeof(struct wire_ping), "PING"},
    {REC_PONG, sizeof(struct wire_pong), sizeof(struct wire_pong), "PONG"},
    {REC_STATE, sizeof(struct wire_section), STREAM_MAX_PAYLOAD, "STATE"},
    {REC_OFFER, sizeof(struct wire_offer), sizeof(struct wire_offer), "OFFER"},
    {REC_READY, sizeof(struct wire_ready), sizeof(struct wire_ready), "READY"},
    {REC_COMMIT, sizeof(struct wire_commit), sizeof(struct wire_commit), "COMMIT"},
    {REC_RUNNING, sizeof(struct wire_running), sizeof(struct wire_running), "RUNNING"},
    {REC_NOT_STARTED, sizeof(struct wire_not_started), sizeof(struct wire_not_started),
     "NOT_STARTED"},
    {REC_QUERY, sizeof(struct move_ident), sizeof(struct move_ident), "QUERY"},
    {REC_ANSWER, sizeof(struct wire_answer), sizeof(struct wire_answer), "ANSWER"},
    {REC_ABORT, 0, TEXT_MAX, "ABORT"},
    {REC_VERIFY, sizeof(struct wire_verify), sizeof(struct wire_verify), "VERIFY"},
    {REC_SUMMARY, sizeof(struct wire_summary), sizeof(struct wire_summary), "SUMMARY"},
    {REC_HASH_ASK, sizeof(struct wire_hash_ask), sizeof(struct wire_hash_ask), "HASH_ASK"},
    {REC_HASHES, sizeof(struct wire_hashes), sizeof(struct wire_hashes) + HASHES_MAX * 16,
     "HASHES"},
    {REC_STATE_ASK, 0, 0, "STATE_ASK"},
    {REC_FRAME, 14, WIRE_MAX_FRAME, "FRAME"},
    {REC_BLOCKS, sizeof(struct wire_blocks), STREAM_MAX_PAYLOAD, "BLOCKS"},
    {REC_DISK_ROUND, sizeof(struct wire_disk_round), sizeof(struct wire_disk_round), "DISK_ROUND"},
    {REC_DISK_DONE, sizeof(struct wire_disk_round), sizeof(struct wire_disk_round), "DISK_DONE"},
    {REC_DISK_HASHES, sizeof(struct wire_disk_hashes),
     sizeof(struct wire_disk_hashes) + DISK_HASHES_MAX * 16, "DISK_HASHES"},
    {REC_DISK_ASK, 0, 0, "DISK_ASK"},
    {REC_DISK_SUMMARY, sizeof(struct wire_disk_summary), sizeof(struct wire_disk_summary),
     "DISK_SUMMARY"},
};

static const struct record_rule *rule_find(u32 type)
{
    for (size_t i = 0; i < ARRAY_SIZE(rules); i++)
        if (rules[i].type == (type & ~(u32)RECORD_OPTIONAL))
            return &rules[i];
    return NULL;
}

const char *record_name(u32 type)
{
    const struct record_rule *r = rule_find(type);
    return r ? r->name : "unknown";
}

int stream_fail(struct stream *s, int error, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(s->error, sizeof(s->error), fmt, ap);
    va_end(ap);
    return error;
}

int stream_open(struct stream *s, struct conn *c)
{
    memset(s, 0, sizeof(*s));
    u64 in = pages_alloc(BUFFER_PAGES), out = pages_alloc(BUFFER_PAGES);
    if (!in || !out) {
        if (in)
            pages_free(in, BUFFER_PAGES);
        if (out)
            pages_free(out, BUFFER_PAGES);
        return stream_fail(s, E_NOMEM, "no memory for the stream's buffers (%llu KiB)",
                           (unsigned long long)(2 * BUFFER_PAGES * PAGE_SIZE / KIB));
    }
    s->conn = c;
    s->in = phys_ptr(in);
    s->out = phys_ptr(out);
    hash_start(&s->digest_in);
    hash_start(&s->digest_out);
    return 0;
}

void stream_close(struct stream *s, bool orderly)
{
    if (!s->conn)
        return;
    if (orderly) {
        conn_set_deadline(s->conn, time_ns() + NS_PER_SEC);
        stream_send(s, REC_END, NULL, 0);
    }
    conn_close(s->conn);
    pages_free(ptr_phys(s->in), BUFFER_PAGES);
    pages_free(ptr_phys(s->out), BUFFER_PAGES);
    s->conn = NULL;
    s->in = s->out = NULL;
}

// ---- Headers -----------------------------------------------------------------------------------

void stream_header_seal(struct stream_header *h)
{
    h->crc = crc32c(0, h, offsetof(struct stream_header, crc));
}

void stream_header_fill(struct stream_header *h, const char *host, u64 boot_id, u16 port)
{
    memset(h, 0, sizeof(*h));
    memcpy(h->magic, STREAM_MAGIC, sizeof(h->magic));
    h->version_min = STREAM_VERSION_MIN;
    h->version_max = STREAM_VERSION_MAX;
    h->bytes = sizeof(*h);
    h->sender_boot_id = boot_id;
    h->port = port;
    strlcpy(h->host, host, sizeof(h->host));
    strlcpy(h->software, SKIFF_VERSION, sizeof(h->software));
}

static int version_agree(const struct stream_header *h, const struct stream_header *self,
                         u16 *version, char *err, size_t size)
{
    if (h->version_min > h->version_max || h->version_max == 0) {
        snprintf(err, size, "malformed stream header: version range %u..%u", h->version_min,
                 h->version_max);
        return E_PROTO;
    }
    if (h->version_max < self->version_min || h->version_min > self->version_max) {
        snprintf(err, size,
                 "%s speaks stream versions %u to %u, this host %u to %u: update the older host",
                 h->host, h->version_min, h->version_max, self->version_min, self->version_max);
        return E_NOSUP;
    }
    *version = MIN(h->version_max, self->version_max);
    return 0;
}

int stream_header_check(const struct stream_header *h, const struct stream_header *self,
                        u16 *version, char *err, size_t size)
{
    if (memcmp(h->magic, STREAM_MAGIC, sizeof(h->magic)) != 0) {
        snprintf(err, size, "not a migration stream: wanted it to begin with \"%s\"", STREAM_MAGIC);
        return E_PROTO;
    }
    if (h->bytes != sizeof(*h)) {
        snprintf(err, size, "malformed stream header: %u bytes, wanted %u", h->bytes,
                 (unsigned)sizeof(*h));
        return E_PROTO;
    }
    u32 crc = crc32c(0, h, offsetof(struct stream_header, crc));
    if (crc != h->crc) {
        snprintf(err, size, "damaged stream header: CRC 0x%08x, wanted 0x%08x", h->crc, crc);
        return E_PROTO;
    }
    if (!wire_name_ok(h->host, sizeof(h->host)) ||
        !wire_text_ok(h->software, sizeof(h->software))) {
        snprintf(err, size, "malformed stream header: the host's name is not one");
        return E_PROTO;
    }
    return version_agree(h, self, version, err, size);
}

static void arm_deadline(struct stream *s)
{
    conn_set_deadline(s->conn, s->timeout_ns ? time_ns() + s->timeout_ns : 0);
}

static int io_failed(struct stream *s, s64 error, const char *doing)
{
    if (error == E_TIMEOUT)
        return stream_fail(s, E_TIMEOUT, "no answer from %s for %llu ms (%s)",
                           s->peer.host[0] ? s->peer.host : "the peer",
                           (unsigned long long)(s->timeout_ns / NS_PER_MS), doing);
    return stream_fail(s, E_IO, "the connection to %s was lost (%s)",
                       s->peer.host[0] ? s->peer.host : "the peer", doing);
}

int stream_send_header(struct stream *s)
{
    stream_header_seal(&s->self);
    arm_deadline(s);
    s64 n = conn_write(s->conn, &s->self, sizeof(s->self));
    return n < 0 ? io_failed(s, n, "sending the header") : 0;
}

int stream_receive_header(struct stream *s)
{
    struct stream_header h;
    arm_deadline(s);
    int e = conn_read_full(s->conn, &h, sizeof(h));
    if (e)
        return io_failed(s, e, "waiting for its header");
    e = stream_header_check(&h, &s->self, &s->version, s->error, sizeof(s->error));
    if (e == 0 || e == E_NOSUP)
        s->peer = h; // sound, if perhaps of another age: its name is worth having
    return e;
}

// ---- Records -----------------------------------------------------------------------------------

u32 stream_under_crc(u32 type, const void *payload, u32 bytes)
{
    const struct wire_pages *pages = payload;
    u64 head = bytes;
    type &= ~(u32)RECORD_OPTIONAL;
    if (type == REC_PAGES && bytes >= sizeof(*pages))
        head = sizeof(*pages) + (u64)pages->count * sizeof(struct wire_page);
    else if (type == REC_BLOCKS)
        head = sizeof(struct wire_blocks);
    return (u32)MIN(head, (u64)bytes);
}

static u32 record_crc(const struct record_header *h, const void *payload)
{
    return crc32c(crc32c(0, h, CRC_BYTES), payload, stream_under_crc(h->type, payload, h->bytes));
}

void *stream_payload(struct stream *s)
{
    return s->out + sizeof(struct record_header);
}

int stream_send_built(struct stream *s, u32 type, u32 bytes)
{
    assert(bytes <= STREAM_MAX_PAYLOAD);
    struct record_header h = {.type = type, .bytes = bytes, .seq = s->seq_out++};
    h.crc = record_crc(&h, stream_payload(s));
    memcpy(s->out, &h, sizeof(h));
    hash_add(&s->digest_out, &h, sizeof(h));

    u32 padded = ALIGN_UP(bytes, 8u);
    for (u32 i = bytes; i < padded; i++)
        s->out[sizeof(h) + i] = 0;
    arm_deadline(s);
    s64 n = conn_write(s->conn, s->out, sizeof(h) + padded);
    return n < 0 ? io_failed(s, n, "sending") : 0;
}

int stream_send(struct stream *s, u32 type, const void *payload, u32 bytes)
{
    if (bytes)
        memcpy(stream_payload(s), payload, bytes);
    return stream_send_built(s, type, bytes);
}

// Checks one record's header before its payload is read.
static int header_sane(struct stream *s, const struct record_header *h)
{
    if (h->bytes > STREAM_MAX_PAYLOAD)
        return stream_fail(s, E_PROTO, "record %u (%s) claims %u bytes, the most is %u", h->type,
                           record_name(h->type), h->bytes, STREAM_MAX_PAYLOAD);
    if (h->seq != s->seq_in)
        return stream_fail(s, E_PROTO, "record %u (%s) is number %u, wanted number %u", h->type,
                           record_name(h->type), h->seq, s->seq_in);
    return 0;
}

static int record_check(struct stream *s, const struct record_header *h)
{
    u32 crc = record_crc(h, s->in);
    if (crc != h->crc)
        return stream_fail(s, E_PROTO, "record %u (%s) is damaged: CRC 0x%08x, wanted 0x%08x",
                           h->seq, record_name(h->type), h->crc, crc);
    const struct record_rule *rule = rule_find(h->type);
    if (!rule && !(h->type & RECORD_OPTIONAL))
        return stream_fail(s, E_PROTO,
                           "record type %u is unknown here and not optional: %s is newer, update "
                           "this host first",
                           h->type, s->peer.host);
    if (rule && (h->bytes < rule->min || h->bytes > rule->max))
        return stream_fail(s, E_PROTO, "record %s has %u bytes, wanted %u to %u", rule->name,
                           h->bytes, rule->min, rule->max);
    return 0;
}

static int receive_one(struct stream *s, struct record_header *h)
{
    int e = conn_read_full(s->conn, h, sizeof(*h));
    if (e)
        return io_failed(s, e, "waiting for a record");
    e = header_sane(s, h);
    if (e)
        return e;
    if (h->bytes)
        e = conn_read_full(s->conn, s->in, ALIGN_UP(h->bytes, 8u));
    if (e)
        return io_failed(s, e, "in the middle of a record");
    s->seq_in++;
    return record_check(s, h);
}

int stream_receive(struct stream *s, struct record *r)
{
    struct record_header h;
    do {
        arm_deadline(s);
        int e = receive_one(s, &h);
        if (e)
            return e;
        s->digest_before = s->digest_in;
        hash_add(&s->digest_in, &h, sizeof(h));
    } while (!rule_find(h.type)); // unknown and optional: skipped
    r->type = h.type & ~(u32)RECORD_OPTIONAL;
    r->bytes = h.bytes;
    r->payload = s->in;
    return 0;
}

int stream_expect(struct stream *s, u32 type, struct record *r)
{
    int e = stream_receive(s, r);
    if (e || r->type == type)
        return e;
    if (r->type == REC_ABORT || r->type == REC_REFUSE) {
        stream_text(r, s->error, sizeof(s->error));
        return E_ABORT;
    }
    return stream_fail(s, E_PROTO, "%s sent %s where %s was wanted", s->peer.host,
                       record_name(r->type), record_name(type));
}

// ---- Text --------------------------------------------------------------------------------------

void stream_text(const struct record *r, char *out, size_t size)
{
    const char *p = r->payload;
    size_t n = 0;
    for (u32 i = 0; i < r->bytes && p[i] && n + 1 < size; i++)
        out[n++] = (p[i] >= ' ' && p[i] < 127) || p[i] == '\n' ? p[i] : '?';
    out[n] = '\0';
}

int stream_send_text(struct stream *s, u32 type, const char *text)
{
    return stream_send(s, type, text, (u32)strnlen(text, TEXT_MAX));
}

bool wire_text_ok(const char *s, size_t size)
{
    size_t n = strnlen(s, size);
    for (size_t i = 0; i < n; i++)
        if (s[i] < ' ' || s[i] == 127)
            return false;
    return n < size;
}

static bool name_char(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '_' || c == '.';
}

bool wire_name_ok(const char *s, size_t size)
{
    size_t n = strnlen(s, size);
    for (size_t i = 0; i < n; i++)
        if (!name_char(s[i]))
            return false;
    return n > 0 && n < size;
}
