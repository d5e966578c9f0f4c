// SPDX-License-Identifier: MIT
// The virtual switch: sums and segments that it makes in software for who cannot.
// sources: net/switch.c net/uplink.c net/frame.c net/announce.c net/gro.c net/lwip/port.c
// sources: kernel/random.c $(addprefix $(LWIP_SRC)/src/,$(LWIP_FILES))
// cflags: -idirafter $(ROOT)/net/lwip -I$(LWIP_SRC)/src/include
#include "tests/unit/fake_frames.h"

#include "lwip/inet_chksum.h"

// A TCP segment of `data` bytes with its sum left out; returns its length.
static u32 make_segment(bool ip6, const u8 *to, const u8 *from, u32 data)
{
    u32 header = ip6 ? 14 + 40 + 32 : 14 + 20 + 32, l4 = header - 32, bytes = header + data;
    make(to, from, ip6 ? 0x86dd : 0x800, bytes);
    for (u32 i = 0; i < data; i++)
        frame[header + i] = (u8)(i * 7 + i / 256);
    memset(frame + 14, 0, header - 14);
    frame[14] = ip6 ? 0x60 : 0x45;
    if (ip6) {
        frame[18] = (u8)((bytes - 54) >> 8);
        frame[19] = (u8)(bytes - 54);
        frame[20] = 6;
        memset(frame + 22, 0xfd, 32);
    } else {
        frame[16] = (u8)((bytes - 14) >> 8);
        frame[17] = (u8)(bytes - 14);
        frame[19] = 0xff; // identification
        frame[23] = 6;
        memcpy(frame + 26, "\x0a\0\0\x01\x0a\0\0\x02", 8);
    }
    frame[l4 + 4] = 0xff; // sequence number: it wraps
    frame[l4 + 5] = frame[l4 + 6] = 0xff;
    frame[l4 + 12] = 0x80;
    frame[l4 + 13] = 0x99; // CWR, ACK, PSH, FIN
    return bytes;
}

static struct nic_frame segment_frame(bool ip6, u32 from, const u8 *to, u32 data, u32 cut)
{
    u32 bytes = make_segment(ip6, to, guest[from].port.mac, data);
    struct nic_frame f = {.pbuf = pbuf_of(frame, bytes), .bytes = bytes};
    frame_leave_sum_out(&f);
    assert_int_equal(f.l4_offset, bytes - data - 32);
    f.segment_bytes = cut;
    assert_true(frame_can_cut(&f));
    return f;
}

// The sum over pseudo header and segment is zero, and so is the IPv4 header's.
static void check_sums(const struct seen *s)
{
    u32 l4 = s->bytes[14] >> 4 == 6 ? 54 : 34, bytes = s->frame.bytes - l4;
    u8 all[2048] = {0};
    u32 n = l4 == 54 ? 32 : 8;
    memcpy(all, s->bytes + (l4 == 54 ? 22 : 26), n);
    all[n] = (u8)(bytes >> 8);
    all[n + 1] = (u8)bytes;
    all[n + 3] = 6;
    memcpy(all + n + 4, s->bytes + l4, bytes);
    assert_int_equal(inet_chksum(all, (u16)(n + 4 + bytes)), 0);
    if (l4 == 34)
        assert_int_equal(inet_chksum(s->bytes + 14, 20), 0);
}

static void check_segments(const struct inbox *in, bool ip6, u32 data, u32 cut, bool sums)
{
    u32 header = ip6 ? 86 : 66, l4 = header - 32, at = 0;
    assert_int_equal(in->count, (data + cut - 1) / cut);
    for (u32 i = 0; i < in->count; i++) {
        const u8 *b = in->seen[i]->bytes;
        u32 n = MIN(cut, data - at), sequence = 0xffffff00u + at;
        u32 flags = 0x10 | (i == 0 ? 0x80 : 0) | (at + n == data ? 0x09 : 0);
        assert_int_equal(in->seen[i]->frame.bytes, header + n);
        assert_int_equal(b[l4 + 13], flags);
        assert_int_equal((u32)b[l4 + 4] << 24 | b[l4 + 5] << 16 | b[l4 + 6] << 8 | b[l4 + 7],
                         sequence);
        assert_memory_equal(b + header, frame + header + at, n);
        if (ip6)
            assert_int_equal(b[18] << 8 | b[19], header + n - 54);
        else
            assert_int_equal(b[18] << 8 | b[19], 0xff + i);
        if (sums)
            check_sums(in->seen[i]);
        at += n;
    }
}

static void test_segments_are_cut_for_who_cannot(void **state)
{
    for (u32 i = 0; i < 2; i++) {
        bool ip6 = i;
        setup(state);
        add_guest(0, 0, 1);
        add_guest(1, 0, 1);
        struct nic_frame f = segment_frame(ip6, 0, outside, 20000, 1400);
        assert_int_equal(switch_from_port(&guest[0].port, &f), 0);
        check_segments(&wire, ip6, 20000, 1400, true);
        f = segment_frame(ip6, 0, guest[1].port.mac, 5000, 1000);
        assert_int_equal(switch_from_port(&guest[0].port, &f), 0);
        check_segments(&guest[1].in, ip6, 5000, 1000, true);
        empty_all();
        guest[1].port.can_sum = true;
        f = segment_frame(ip6, 0, guest[1].port.mac, 5000, 1000);
        assert_int_equal(switch_from_port(&guest[0].port, &f), 0);
        check_segments(&guest[1].in, ip6, 5000, 1000, false);
        empty_all();
        guest[1].port.can_cut4 = guest[1].port.can_cut6 = true;
        f = segment_frame(ip6, 0, guest[1].port.mac, 60000, 1448);
        assert_int_equal(switch_from_port(&guest[0].port, &f), 0);
        assert_int_equal(got(1), 1);
        assert_int_equal(guest[1].in.seen[0]->frame.segment_bytes, 1448);
        nic.can_sum = nic.can_segment = true;
        f = segment_frame(ip6, 0, outside, 20000, 1400);
        assert_int_equal(switch_from_port(&guest[0].port, &f), 0);
        assert_int_equal(wire.count, ip6 ? 15 : 1);
        teardown(state);
    }
}

static void test_a_tagged_segment_is_cut_and_summed(void **state)
{
    (void)state;
    nic.can_sum = nic.can_segment = true;
    add_guest(0, 7, 1);
    struct nic_frame f = segment_frame(false, 0, outside, 3000, 1400);
    assert_int_equal(switch_from_port(&guest[0].port, &f), 0);
    assert_int_equal(wire.count, 3);
    for (u32 i = 0; i < 3; i++) {
        struct seen *s = wire.seen[i];
        assert_int_equal(s->frame.l4_offset, 0);
        assert_int_equal(s->bytes[15], 7);
        memmove(s->bytes + 4, s->bytes, 12);
        memmove(s->bytes, s->bytes + 4, s->frame.bytes - 4);
        s->frame.bytes -= 4;
        check_sums(s);
    }
}

static void test_a_sum_that_no_nic_knows_is_made_here(void **state)
{
    (void)state;
    nic.can_sum = true;
    add_guest(0, 0, 1);
    struct nic_frame f = {.bytes = make(outside, guest[0].port.mac, 0x88b5, 101)};
    memset(frame + 20, 0, 2);
    f.pbuf = pbuf_of(frame, 101);
    f.l4_offset = 14;
    f.sum_offset = 20;
    assert_int_equal(switch_from_port(&guest[0].port, &f), 0);
    assert_int_equal(wire.seen[0]->frame.l4_offset, 0);
    assert_int_equal(inet_chksum(wire.seen[0]->bytes + 14, 87), 0);
}

static void test_segments_that_lie_are_not_cut(void **state)
{
    (void)state;
    add_guest(0, 0, 1);
    struct {
        u32 at;
        u8 value;
    } lies[] = {{23, 17}, {14, 0x4f}, {14, 0x41}, {46, 0x40}, {46, 0xf0}, {20, 0x20}, {12, 0x09}};
    for (u32 i = 0; i < ARRAY_SIZE(lies); i++) {
        struct nic_frame f = segment_frame(false, 0, outside, 10, 5);
        ((u8 *)f.pbuf->payload)[lies[i].at] = lies[i].value;
        assert_false(frame_can_cut(&f));
        pbuf_free(f.pbuf);
    }
    struct nic_frame f = segment_frame(false, 0, outside, 60000, 1448);
    f.segment_bytes = 200; // too many of them
    assert_false(frame_can_cut(&f));
    f.segment_bytes = 0;
    assert_false(frame_can_cut(&f));
    pbuf_free(f.pbuf);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(test_##name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(segments_are_cut_for_who_cannot),
        TEST(a_tagged_segment_is_cut_and_summed),
        TEST(a_sum_that_no_nic_knows_is_made_here),
        TEST(segments_that_lie_are_not_cut),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
