// SPDX-License-Identifier: MIT
// The record codec: what is sent arrives, and nothing malformed does.
// sources: kernel/migrate/stream.c kernel/migrate/hash.c kernel/crc32c.c
#include "tests/unit/unit.h"

#include "kernel/lib.h"
#include "kernel/mem.h"
#include "kernel/migrate/stream.h"
#include "kernel/time.h"

u64 time_ns(void)
{
    return 1;
}

u64 pages_alloc(u64 count)
{
    return (u64)(uintptr_t)aligned_alloc(PAGE_SIZE, count * PAGE_SIZE);
}

void pages_free(u64 pa, u64 count)
{
    (void)count;
    free((void *)(uintptr_t)pa);
}

// A wire that keeps what is written for whoever reads it.
static struct wire {
    struct conn base;
    u8 data[4 * STREAM_MAX_PAYLOAD];
    u64 head, tail;
} wire;

static s64 wire_read(struct conn *c, void *buf, u64 size)
{
    (void)c;
    u64 n = MIN(size, wire.tail - wire.head);
    memcpy(buf, wire.data + wire.head, n);
    wire.head += n;
    return (s64)n;
}

static s64 wire_write(struct conn *c, const void *buf, u64 size)
{
    (void)c;
    assert_true(wire.tail + size <= sizeof(wire.data));
    memcpy(wire.data + wire.tail, buf, size);
    wire.tail += size;
    return (s64)size;
}

static int wire_flush(struct conn *c)
{
    (void)c;
    return 0;
}

static void wire_end(struct conn *c)
{
    (void)c;
}

static void wire_deadline(struct conn *c, u64 ns)
{
    (void)c, (void)ns;
}

static const struct conn_ops wire_ops = {wire_read, wire_write, wire_flush,
                                         wire_end,  wire_end,   wire_deadline};

int conn_read_full(struct conn *c, void *buf, u64 size)
{
    return conn_read(c, buf, size) == (s64)size ? 0 : E_IO;
}

static struct stream out, in;

static int setup(void **state)
{
    (void)state;
    wire.head = wire.tail = 0;
    wire.base.ops = &wire_ops;
    assert_int_equal(stream_open(&out, &wire.base), 0);
    assert_int_equal(stream_open(&in, &wire.base), 0);
    stream_header_fill(&out.self, "alpha", 11, 7070);
    stream_header_fill(&in.self, "bravo", 22, 7070);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    stream_close(&out, false);
    stream_close(&in, false);
    return 0;
}

static void test_header(void **state)
{
    (void)state;
    out.self.epoch = 7;
    assert_int_equal(stream_send_header(&out), 0);
    assert_int_equal(stream_receive_header(&in), 0);
    assert_int_equal(in.peer.epoch, 7);
    assert_int_equal(in.peer.sender_boot_id, 11);
    assert_string_equal(in.peer.host, "alpha");
    assert_int_equal(in.version, STREAM_VERSION_MAX);
}

static int check(const struct stream_header *h, char *err)
{
    u16 version;
    return stream_header_check(h, &in.self, &version, err, 200);
}

static void test_header_refused(void **state)
{
    (void)state;
    char err[200];
    struct stream_header h = out.self;
    stream_header_seal(&h);
    assert_int_equal(check(&h, err), 0);
    for (size_t i = 0; i < sizeof(h); i++) { // any flipped bit is found
        ((u8 *)&h)[i] ^= 1 << i % 8;
        assert_int_not_equal(check(&h, err), 0);
        assert_true(strlen(err) > 10);
        ((u8 *)&h)[i] ^= 1 << i % 8;
    }
    h.host[0] = '\0';
    stream_header_seal(&h);
    assert_int_equal(check(&h, err), E_PROTO);
}

static void test_versions(void **state)
{
    (void)state;
    char err[200];
    u16 version = 0;
    struct stream_header ours = in.self, theirs = out.self;
    ours.version_min = 2, ours.version_max = 4;
    theirs.version_min = 1, theirs.version_max = 3;
    stream_header_seal(&theirs);
    assert_int_equal(stream_header_check(&theirs, &ours, &version, err, sizeof(err)), 0);
    assert_int_equal(version, 3);
    theirs.version_max = 1;
    stream_header_seal(&theirs);
    assert_int_equal(stream_header_check(&theirs, &ours, &version, err, sizeof(err)), E_NOSUP);
    assert_string_equal(err, "alpha speaks stream versions 1 to 1, this host 2 to 4: update the "
                             "older host");
    theirs.version_min = 5, theirs.version_max = 4;
    stream_header_seal(&theirs);
    assert_int_equal(stream_header_check(&theirs, &ours, &version, err, sizeof(err)), E_PROTO);
}

static void test_records(void **state)
{
    (void)state;
    struct record r;
    struct wire_round round = {.round = 3, .final = 1, .pages = 99};
    u8 *big = stream_payload(&out);
    assert_int_equal(stream_send(&out, REC_ROUND, &round, sizeof(round)), 0);
    memset(big, 0x5a, STREAM_MAX_PAYLOAD);
    assert_int_equal(stream_send_built(&out, REC_PAGES, STREAM_MAX_PAYLOAD), 0);
    assert_int_equal(stream_send_text(&out, REC_ABORT, "why\x01 not"), 0);
    assert_int_equal(wire.tail % 8, 0);

    assert_int_equal(stream_receive(&in, &r), 0);
    assert_int_equal(r.type, REC_ROUND);
    assert_memory_equal(r.payload, &round, sizeof(round));
    assert_int_equal(stream_receive(&in, &r), 0);
    assert_int_equal(r.bytes, STREAM_MAX_PAYLOAD);
    assert_int_equal(((const u8 *)r.payload)[STREAM_MAX_PAYLOAD - 1], 0x5a);
    char text[20];
    assert_int_equal(stream_receive(&in, &r), 0);
    stream_text(&r, text, sizeof(text));
    assert_string_equal(text, "why? not");
    assert_int_equal(stream_receive(&in, &r), E_IO);

    u64 a[2], b[2];
    hash_finish(&out.digest_out, a);
    hash_finish(&in.digest_in, b);
    assert_memory_equal(a, b, sizeof(a));
}

// Every byte of a record is under its checksum, its number or its type's bounds.
static void test_flipped_bits(void **state)
{
    (void)state;
    struct wire_ping ping = {1, 2};
    assert_int_equal(stream_send(&out, REC_PING, &ping, sizeof(ping)), 0);
    u64 bytes = wire.tail;
    for (u64 bit = 0; bit < bytes * 8; bit++) {
        struct record r;
        wire.head = 0;
        in.seq_in = 0;
        wire.data[bit / 8] ^= 1 << bit % 8;
        int e = stream_receive(&in, &r);
        assert_true(e == E_PROTO || e == E_IO);
        wire.data[bit / 8] ^= 1 << bit % 8;
    }
}

static void test_lost_record_is_noticed(void **state)
{
    (void)state;
    struct record r;
    stream_send(&out, REC_INFO_ASK, NULL, 0);
    wire.tail = 0;
    stream_send(&out, REC_INFO_ASK, NULL, 0);
    assert_int_equal(stream_receive(&in, &r), E_PROTO);
    assert_non_null(strstr(in.error, "is number 1, wanted number 0"));
}

static void test_unknown(void **state)
{
    (void)state;
    struct record r;
    u64 word = 5;
    stream_send(&out, 1000 | RECORD_OPTIONAL, &word, sizeof(word));
    stream_send(&out, REC_INFO_ASK, NULL, 0);
    assert_int_equal(stream_receive(&in, &r), 0);
    assert_int_equal(r.type, REC_INFO_ASK);
    in.peer = out.self;
    stream_send(&out, 1000, &word, sizeof(word));
    assert_int_equal(stream_receive(&in, &r), E_PROTO);
    assert_non_null(strstr(in.error, "record type 1000 is unknown here and not optional"));
}

static void test_sizes(void **state)
{
    (void)state;
    struct record r;
    u64 word = 5;
    stream_send(&out, REC_READY, &word, sizeof(word));
    assert_int_equal(stream_receive(&in, &r), E_PROTO);
    assert_non_null(strstr(in.error, "record READY has 8 bytes, wanted 64 to 64"));

    struct record_header h = {.type = REC_PAGES, .bytes = STREAM_MAX_PAYLOAD + 1, .seq = 1};
    wire_write(&wire.base, &h, sizeof(h));
    assert_int_equal(stream_receive(&in, &r), E_PROTO);
    assert_non_null(strstr(in.error, "claims"));
}

static void test_expect(void **state)
{
    (void)state;
    struct record r;
    in.peer = out.self;
    stream_send(&out, REC_INFO_ASK, NULL, 0);
    assert_int_equal(stream_expect(&in, REC_READY, &r), E_PROTO);
    assert_string_equal(in.error, "alpha sent INFO_ASK where READY was wanted");
    stream_send_text(&out, REC_REFUSE, "no room");
    assert_int_equal(stream_expect(&in, REC_READY, &r), E_ABORT);
    assert_string_equal(in.error, "no room");
}

static void test_names(void **state)
{
    (void)state;
    char name[4] = {'a', 'b', 'c', 'd'};
    assert_false(wire_name_ok(name, sizeof(name))); // not terminated
    assert_false(wire_text_ok(name, sizeof(name)));
    assert_true(wire_name_ok("web-1.x", 32));
    assert_false(wire_name_ok("", 32));
    assert_false(wire_name_ok("a b", 32));
    assert_true(wire_text_ok("", 32));
    assert_true(wire_text_ok("\\skiff\\vmlinuz", 32));
    assert_false(wire_text_ok("a\nb", 32));
}

static void test_digest(void **state)
{
    (void)state;
    static u8 page[PAGE_SIZE] __attribute__((aligned(8)));
    u64 first[2], other[2];
    hash_page(page, first);
    for (u32 i = 0; i < PAGE_SIZE * 8; i += 61) {
        page[i / 8] ^= 1 << i % 8;
        hash_page(page, other);
        assert_true(first[0] != other[0] && first[1] != other[1]); // each half by itself
        page[i / 8] ^= 1 << i % 8;
    }
    page[7] ^= 0x80; // two bits that a plain multiplication would let cancel
    page[4095] ^= 0x80;
    hash_page(page, other);
    assert_true(first[0] != other[0] && first[1] != other[1]);
    struct hash a, b;
    hash_start(&a);
    hash_start(&b);
    hash_add(&a, "abc", 3);
    hash_add(&b, "abc\0", 4);
    hash_finish(&a, first);
    hash_finish(&b, other);
    assert_true(first[0] != other[0] && first[1] != other[1]);
    hash_start(&a); // words that only change places
    hash_add(&a, "aaaaaaaabbbbbbbb", 16);
    hash_finish(&a, first);
    hash_start(&b);
    hash_add(&b, "bbbbbbbbaaaaaaaa", 16);
    hash_finish(&b, other);
    assert_true(first[0] != other[0] && first[1] != other[1]);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_header),  T(test_header_refused), T(test_versions),
        T(test_records), T(test_flipped_bits),   T(test_lost_record_is_noticed),
        T(test_unknown), T(test_sizes),          T(test_expect),
        T(test_names),   T(test_digest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
