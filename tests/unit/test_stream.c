// SPDX-License-Identifier: MIT
// The record codec: what is sent arrives, and nothing malformed does.
// sources: kernel/migrate/stream.c kernel/migrate/hash.c kernel/crc32c.c
#include "tests/unit/unit.h"

#include "kernel/lib.h"
#include "kernel/migrate/stream.h"

#include "tests/unit/fake_wire.h"

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
    assert_int_equal(stream_header_check(&theirs, &in.self, &version, err, sizeof(err)), E_NOSUP);
    assert_string_equal(err, "alpha speaks stream versions 1 to 1, this host 2 to 2: update the "
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

static u8 page[PAGE_SIZE] __attribute__((aligned(8)));

static void flip(u32 bit)
{
    page[bit / 8] ^= 1 << bit % 8;
}

// Each half finds it by itself.
static void assert_differ(const u64 a[2], const u64 b[2])
{
    assert_true(a[0] != b[0] && a[1] != b[1]);
}

static void fill_page(void)
{
    u64 x = 1;
    for (u32 i = 0; i < PAGE_SIZE; i++) {
        x = x * 6364136223846793005ull + 1442695040888963407ull;
        page[i] = (u8)(x >> 56);
    }
}

static void assert_every_flip_shows(void)
{
    u64 first[2], other[2];
    hash_page(page, first);
    for (u32 bit = 0; bit < PAGE_SIZE * 8; bit++) {
        flip(bit);
        hash_page(page, other);
        assert_differ(first, other);
        flip(bit);
    }
}

static void test_digest_finds_flips(void **state)
{
    (void)state;
    memset(page, 0, sizeof(page));
    assert_every_flip_shows();
    fill_page();
    assert_every_flip_shows();
}

// Of two bits the second may undo what the first did to a chain: in its own word it can't, in the
// words that follow only while the difference is simple, as that of a word's top bits is.
static void test_digest_finds_pairs(void **state)
{
    (void)state;
    u64 first[2], other[2];
    fill_page();
    hash_page(page, first);
    for (u32 word = 0; word < PAGE_SIZE / 8; word += 255) { // the first, an odd one, the last two
        for (u32 bit = 56; bit < 64; bit++) {
            u32 end = MIN((word + 8) * 64, PAGE_SIZE * 8u);
            flip(word * 64 + bit);
            for (u32 second = word * 64 + bit + 1; second < end; second++) {
                flip(second);
                hash_page(page, other);
                assert_differ(first, other);
                flip(second);
            }
            flip(word * 64 + bit);
        }
    }
    hash_page(page, other);
    assert_memory_equal(first, other, sizeof(first));
}

static void test_digest_finds_bursts(void **state)
{
    (void)state;
    u64 first[2], other[2];
    fill_page();
    hash_page(page, first);
    for (u32 bits = 2; bits <= 65; bits++) {
        for (u32 at = 0; at + bits <= PAGE_SIZE * 8; at += 61) {
            for (u32 i = 0; i < bits; i++)
                flip(at + i);
            hash_page(page, other);
            assert_differ(first, other);
            for (u32 i = 0; i < bits; i++)
                flip(at + i);
        }
    }
}

// Data that was torn: it comes from another place from some byte on, as when some is lost.
static void test_digest_finds_shifts(void **state)
{
    (void)state;
    u64 first[2], other[2];
    u8 whole[PAGE_SIZE];
    fill_page();
    memcpy(whole, page, sizeof(whole));
    hash_page(page, first);
    for (u32 by = 1; by <= 64; by++) {
        for (u32 from = 0; from < PAGE_SIZE - by; from += 97) {
            memmove(page + from, whole + from + by, PAGE_SIZE - by - from);
            hash_page(page, other);
            assert_differ(first, other);
            memcpy(page, whole, sizeof(page));
        }
    }
}

static void test_digest_knows_zeros(void **state)
{
    (void)state;
    u64 zeros[2], hash[2];
    memset(page, 0, sizeof(page));
    hash_bytes(page, sizeof(page), zeros);
    assert_true(hash_page(page, hash));
    assert_memory_equal(hash, zeros, sizeof(hash));
    page[PAGE_SIZE - 1] = 1;
    assert_false(hash_page(page, hash));
}

static void test_digest_of_any_length(void **state)
{
    (void)state;
    u64 first[2], other[2];
    hash_bytes("abc", 3, first);
    hash_bytes("abc\0", 4, other);
    assert_differ(first, other);
    hash_bytes("aaaaaaaabbbbbbbb", 16, first); // words that only change places
    hash_bytes("bbbbbbbbaaaaaaaa", 16, other);
    assert_differ(first, other);
    fill_page();
    struct hash h;
    hash_bytes(page, 1003, first); // in pieces as at once
    hash_start(&h);
    hash_add(&h, page, 16);
    hash_add(&h, page + 16, 960);
    hash_add(&h, page + 976, 27);
    hash_finish(&h, other);
    assert_memory_equal(first, other, sizeof(first));
}

// As stream.md writes it: both ends of a move must agree, whatever version of this host they are.
static void test_digest_is_the_specified_one(void **state)
{
    (void)state;
    u64 even = 0x736b696666, odd = 0x6d6f7665, got[2];
    const u64 pairs[][2] = {{0x0807060504030201, 0x100f0e0d0c0b0a09}, {0x11, 0}, {1, 1}, {0, 0}};
    for (u32 i = 0; i < ARRAY_SIZE(pairs); i++) {
        u64 x = (even ^ pairs[i][0]) * 0x9fb21c651e98df25;
        even = (x << 29 | x >> 35) + odd;
        x = (odd ^ pairs[i][1]) * 0xd6e8feb86659fd93 + even;
        odd = x << 31 | x >> 33;
    }
    hash_bytes("\1\2\3\4\5\6\7\10\11\12\13\14\15\16\17\20\21", 17, got);
    assert_true(got[0] == even && got[1] == odd);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, wire_setup, wire_teardown)
    const struct CMUnitTest tests[] = {
        T(test_header),
        T(test_header_refused),
        T(test_versions),
        T(test_records),
        T(test_flipped_bits),
        T(test_lost_record_is_noticed),
        T(test_unknown),
        T(test_sizes),
        T(test_expect),
        T(test_names),
        cmocka_unit_test(test_digest_finds_flips),
        cmocka_unit_test(test_digest_finds_pairs),
        cmocka_unit_test(test_digest_finds_bursts),
        cmocka_unit_test(test_digest_finds_shifts),
        cmocka_unit_test(test_digest_knows_zeros),
        cmocka_unit_test(test_digest_of_any_length),
        cmocka_unit_test(test_digest_is_the_specified_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
