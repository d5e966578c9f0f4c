// SPDX-License-Identifier: MIT
// The virtual switch: who gets what, who may send what, and what waits.
// sources: net/switch.c net/uplink.c net/frame.c net/announce.c net/gro.c net/lwip/port.c
// sources: kernel/random.c $(addprefix $(LWIP_SRC)/src/,$(LWIP_FILES))
// cflags: -idirafter $(ROOT)/net/lwip -I$(LWIP_SRC)/src/include
#include "tests/unit/fake_frames.h"

static int send_frame(u32 from, const u8 *to, u32 bytes)
{
    make(to, guest[from].port.mac, 0x88b5, bytes); // IEEE 802: local experiments
    struct nic_frame f = {.pbuf = pbuf_of(frame, bytes), .bytes = bytes};
    int r = switch_from_port(&guest[from].port, &f);
    if (r == E_BUSY)
        pbuf_free(f.pbuf);
    return r;
}

static void receive(const u8 *to, const u8 *from, u32 bytes)
{
    from_wire(frame, make(to, from, 0x88b5, bytes));
}

static void test_unicast_goes_to_its_station_alone(void **state)
{
    (void)state;
    add_guest(0, 0, 1);
    add_guest(1, 0, 1);
    assert_true(promiscuous);
    receive(guest[0].port.mac, outside, 100);
    assert_int_equal(got(0), 1);
    assert_memory_equal(guest[0].in.seen[0]->bytes, frame, 100);
    assert_int_equal(got(1) + wire.count + host.count, 0);
    send_frame(0, guest[1].port.mac, 1514);
    assert_int_equal(got(1), 1);
    assert_memory_equal(guest[1].in.seen[0]->bytes, frame, 1514);
    send_frame(1, outside, 60);
    assert_int_equal(wire.count, 1);
    assert_memory_equal(wire.seen[0]->bytes, frame, 60);
    send_frame(1, host_mac, 60);
    receive(host_mac, outside, 60);
    assert_int_equal(host.count, 2);
    receive(outside, host_mac, 60); // a flooded frame for somebody else
    send_frame(0, guest[0].port.mac, 60);
    assert_int_equal(got(0) + got(1) + wire.count + host.count, 5);
    switch_flush();
    assert_int_equal(guest[0].flushes, 1);
}

static void test_the_host_gets_zeros_behind_a_short_frame(void **state)
{
    (void)state;
    static const u8 zeros[MIN_FRAME - 20];
    add_guest(0, 0, 1);
    send_frame(0, host_mac, 20);
    assert_int_equal(host.seen[0]->frame.bytes, MIN_FRAME);
    assert_memory_equal(host.seen[0]->bytes, frame, 20);
    assert_memory_equal(host.seen[0]->bytes + 20, zeros, sizeof(zeros));
}

static void test_the_hosts_own_frames(void **state)
{
    (void)state;
    add_guest(0, 0, 1);
    add_guest(1, 5, 1);
    const u8 *const to[] = {guest[0].port.mac, outside, broadcast, guest[1].port.mac};
    for (u32 i = 0; i < ARRAY_SIZE(to); i++) {
        struct nic_frame f = {.bytes = make(to[i], host_mac, 0x88b5, 60)};
        f.pbuf = pbuf_of(frame, 60);
        assert_int_equal(switch_from_host(&f), 0);
        pbuf_free(f.pbuf);
    }
    assert_int_equal(got(0), 2);
    assert_int_equal(got(1), 0);
    assert_int_equal(wire.count, 3); // the other VLAN's guest is not here, as far as the host sees
}

static void test_nobody_sends_with_anothers_address(void **state)
{
    (void)state;
    add_guest(0, 0, 1);
    const u8 *const sources[] = {guest[1].port.mac, outside, host_mac, broadcast, group};
    for (u32 i = 0; i < ARRAY_SIZE(sources); i++) {
        struct nic_frame f = {.bytes = make(outside, sources[i], 0x88b5, 60)};
        f.pbuf = pbuf_of(frame, 60);
        assert_int_equal(switch_from_port(&guest[0].port, &f), 0);
    }
    assert_int_equal(guest[0].port.figures.wrong_source, ARRAY_SIZE(sources));
    struct nic_frame tagged = {.bytes = make(outside, guest[0].port.mac, ETHERTYPE_VLAN, 64)};
    tagged.pbuf = pbuf_of(frame, 64);
    switch_from_port(&guest[0].port, &tagged);
    assert_int_equal(guest[0].port.figures.wrong_source, ARRAY_SIZE(sources) + 1);
    assert_int_equal(wire.count, 0);
    assert_int_equal(switch_add(&guest[0].port), E_EXIST);
    memcpy(guest[1].port.mac, host_mac, 6);
    guest[1].port.vlan = 0;
    assert_int_equal(switch_add(&guest[1].port), E_EXIST);
}

static void test_vlans_are_apart(void **state)
{
    (void)state;
    add_guest(0, 0, 1);
    add_guest(1, 10, 1);
    add_guest(2, 10, 1);
    send_frame(1, broadcast, 60);
    assert_int_equal(got(2), 1);
    assert_int_equal(got(0) + host.count, 0);
    assert_int_equal(wire.seen[0]->frame.bytes, 64);
    static const u8 tag[] = {0x81, 0, 0, 10, 0x88, 0xb5};
    assert_memory_equal(wire.seen[0]->bytes + 6, guest[1].port.mac, 6);
    assert_memory_equal(wire.seen[0]->bytes + 12, tag, 6);
    send_frame(1, guest[0].port.mac, 60); // on the wire, where VLAN 10 is
    assert_int_equal(got(0), 0);
    assert_int_equal(wire.count, 2);
    empty_all();
    make(broadcast, outside, ETHERTYPE_VLAN, 64);
    memcpy(frame + 12, tag, 6);
    from_wire(frame, 64);
    assert_int_equal(got(1), 1);
    assert_int_equal(got(2), 1);
    assert_int_equal(got(0) + host.count, 0);
    assert_int_equal(guest[1].in.seen[0]->frame.bytes, 60);
    assert_memory_equal(guest[1].in.seen[0]->bytes + 12, tag + 4, 2);
    frame[15] = 0; // a priority and no VLAN
    from_wire(frame, 64);
    assert_int_equal(got(0), 1);
    assert_int_equal(host.count, 1);
    from_wire(frame, 17); // cut off in the tag
    from_wire(frame, 13);
}

static void test_groups_are_flooded_within_bounds(void **state)
{
    (void)state;
    for (u32 i = 0; i < GUESTS; i++)
        add_guest(i, 0, 1);
    send_frame(0, group, 60);
    send_frame(0, broadcast, 60);
    assert_int_equal(got(0), 0);
    for (u32 i = 1; i < GUESTS; i++)
        assert_int_equal(got(i), 2);
    assert_int_equal(wire.count, 2);
    assert_int_equal(host.count, 1); // of which only the broadcast is for the host
    for (u32 i = 0; i < 2 * SWITCH_FLOOD_BURST; i++)
        send_frame(0, broadcast, 60);
    assert_in_range(got(1), SWITCH_FLOOD_BURST / 3, SWITCH_FLOOD_BURST / 3 + 2);
    assert_int_equal(wire.count, 2 + 2 * SWITCH_FLOOD_BURST);
    assert_in_range(guest[0].port.figures.tx_refused, 1, ~0u);
    now_ns += NS_PER_SEC;
    u32 before = got(1);
    send_frame(0, broadcast, 60);
    receive(broadcast, outside, 60);
    assert_int_equal(got(1), before + 2);
}

static void test_bridges_keep_what_is_theirs(void **state)
{
    (void)state;
    static const u8 stp[6] = {0x01, 0x80, 0xc2, 0, 0, 0}, pause[6] = {0x01, 0x80, 0xc2, 0, 0, 1};
    add_guest(0, 0, 1);
    send_frame(0, stp, 60);
    send_frame(0, pause, 60);
    receive(stp, outside, 60);
    assert_int_equal(wire.count + got(0) + host.count, 0);
    assert_int_equal(guest[0].port.figures.tx_refused, 2);
}

static void test_frames_wait_for_a_guest_within_bounds(void **state)
{
    (void)state;
    add_guest(0, 0, 1);
    add_guest(1, 0, 1);
    guest[0].busy = true;
    for (u32 i = 0; i < SWITCH_QUEUE + 10; i++)
        receive(guest[0].port.mac, outside, 60 + i);
    assert_int_equal(guest[0].port.figures.rx_dropped, 10);
    guest[0].busy = false;
    receive(guest[0].port.mac, outside, 60); // behind those that wait
    assert_int_equal(got(0), 0);
    switch_port_ready(&guest[0].port);
    assert_int_equal(got(0), SWITCH_QUEUE);
    for (u32 i = 0; i < SWITCH_QUEUE; i++)
        assert_int_equal(guest[0].in.seen[i]->frame.bytes, 60 + i);
    empty_all();
    guest[0].busy = true;
    receive(guest[0].port.mac, outside, 60);
    now_ns += SWITCH_QUEUE_NS + 1;
    receive(guest[0].port.mac, outside, 61);
    guest[0].busy = false;
    switch_port_ready(&guest[0].port);
    assert_int_equal(got(0), 1); // the other one is too old to be of use
    assert_int_equal(guest[0].in.seen[0]->frame.bytes, 61);
}

static void test_what_waits_for_one_guest_leaves_room_for_another(void **state)
{
    (void)state;
    add_guest(0, 0, 1);
    add_guest(1, 0, 1);
    guest[0].busy = guest[1].busy = true;
    for (u32 i = 0; i < SWITCH_QUEUE_PBUFS; i++)
        receive(guest[0].port.mac, outside, 9000); // three pieces
    assert_int_equal(guest[0].port.queued, SWITCH_QUEUE_PBUFS / 3);
    receive(guest[1].port.mac, outside, 9000);
    assert_int_equal(guest[1].port.queued, 0);
    now_ns += SWITCH_QUEUE_NS + 1;
    receive(guest[1].port.mac, outside, 9000);
    assert_int_equal(guest[1].port.queued, 1);
}

static int host_sends(u32 bytes)
{
    struct nic_frame f = {.bytes = make(outside, host_mac, 0x88b5, bytes)};
    f.pbuf = pbuf_of(frame, bytes);
    int r = switch_from_host(&f);
    pbuf_free(f.pbuf);
    return r;
}

static u32 turns, sends_before;
static int host_got;
static void hosts_turn(void)
{
    turns++;
    sends_before = guest[0].sends;
    host_got = host_sends(1000);
}

// A move that sends all it can must not keep a guest off the wire, nor the other way round.
static void test_guest_and_host_share_a_full_wire(void **state)
{
    (void)state;
    add_guest(0, 0, 1);
    wire_full = true;
    assert_int_equal(send_frame(0, outside, 60), E_BUSY);
    wire_full = false; // an acknowledgement has come, and has made room
    assert_int_equal(host_sends(1000), E_BUSY);
    assert_int_equal(host_sends(60), 0); // an acknowledgement of its own
    assert_true(uplink_was_refused());
    u32 first = 0;
    for (u32 i = 0; i < 4; i++) {
        u32 sends = guest[0].sends;
        turns = 0;
        switch_retry(hosts_turn);
        assert_int_equal(turns, 1);
        assert_int_equal(host_got, 0);
        assert_int_equal(guest[0].sends, sends + 1);
        first += sends_before == sends;
        wire_full = true; // and it has more
        assert_int_equal(send_frame(0, outside, 60), E_BUSY);
        wire_full = false;
    }
    assert_int_equal(first, 2); // who is first changes
}

static void test_a_full_wire_makes_the_guest_wait(void **state)
{
    (void)state;
    add_guest(0, 0, 1);
    add_guest(1, 0, 1);
    wire_full = true;
    assert_int_equal(send_frame(0, outside, 60), E_BUSY);
    assert_int_equal(send_frame(0, broadcast, 60), E_BUSY);
    assert_int_equal(got(1) + host.count, 0); // it comes again: nobody has it twice
    assert_int_equal(send_frame(0, guest[1].port.mac, 60), 0);
    assert_true(uplink_was_refused());
    wire_full = false;
    switch_retry(hosts_turn);
    assert_int_equal(guest[0].sends, 1);
    assert_int_equal(guest[1].sends, 0);
    switch_retry(hosts_turn);
    assert_int_equal(guest[0].sends, 1);
    assert_int_equal(send_frame(0, outside, 1515), 0); // longer than the link takes
    assert_int_equal(wire.count, 2); // the host's, in its two turns
    assert_int_equal(guest[0].port.figures.tx_refused, 1);
}

static int send_as(u32 from, const u8 *source)
{
    struct nic_frame f = {.bytes = make(outside, source, 0x88b5, 60)};
    f.pbuf = pbuf_of(frame, 60);
    u32 before = wire.count;
    switch_from_port(&guest[from].port, &f);
    return (int)(wire.count - before);
}

static void test_stations_behind_a_guest_are_learned(void **state)
{
    (void)state;
    u8 a[6] = {2, 9, 0, 0, 0, 1}, b[6] = {2, 9, 0, 0, 0, 2}, c[6] = {2, 9, 0, 0, 0, 3};
    add_guest(0, 0, 3);
    add_guest(1, 0, 2);
    assert_int_equal(send_as(0, a), 1);
    assert_int_equal(send_as(0, b), 1);
    assert_int_equal(send_as(0, c), 0); // one too many
    assert_int_equal(send_as(1, a), 0); // another's
    assert_int_equal(send_as(1, guest[0].port.mac), 0);
    assert_int_equal(send_as(1, host_mac), 0);
    assert_int_equal(send_as(1, group), 0);
    receive(a, outside, 60);
    send_frame(1, b, 60);
    assert_int_equal(got(0), 2);
    now_ns += SWITCH_STATION_NS; // nothing was heard of them
    receive(a, outside, 60);
    assert_int_equal(got(0), 2);
    assert_int_equal(send_as(1, a), 1);
    assert_int_equal(send_as(0, c), 1);
    receive(a, outside, 60);
    assert_int_equal(got(1), 1);
}

// ---- A guest that leaves and arrives -----------------------------------------------------------

static void test_frames_for_a_guest_that_left(void **state)
{
    (void)state;
    add_guest(0, 0, 1);
    add_guest(1, 0, 1);
    guest[0].port.departed = true;
    receive(guest[0].port.mac, outside, 60);
    send_frame(1, guest[0].port.mac, 60);
    assert_int_equal(got(0), 2);
    receive(broadcast, outside, 60); // reaches it where it is now
    assert_int_equal(got(0), 2);
    receive(broadcast, guest[0].port.mac, 60);
    send_frame(1, guest[0].port.mac, 60);
    assert_int_equal(wire.count, 1);
    receive(guest[0].port.mac, outside, 60); // was under way
    assert_int_equal(got(0), 3);
    memcpy(guest[2].port.mac, guest[0].port.mac, 6);
    guest[2].port.vlan = 0;
    guest[2].port.ops = &guest_ops;
    assert_int_equal(switch_add(&guest[2].port), 0); // it came back
    assert_false(guest[0].port.departed);
    receive(guest[0].port.mac, outside, 60);
    assert_int_equal(got(2), 1);
}

static void test_ports_are_attended_to_until_it_rests(void **state)
{
    (void)state;
    add_guest(0, 0, 1);
    add_guest(1, 0, 1);
    switch_attended();
    switch_rest();
    assert_int_equal(guest[0].sends + guest[0].rests, 0);
    switch_attend(&guest[0].port);
    switch_attended();
    switch_attended();
    assert_int_equal(guest[0].sends, 2);
    switch_rest();
    switch_rest();
    switch_attended();
    assert_int_equal(guest[0].sends, 2);
    assert_int_equal(guest[0].rests, 1);
    switch_attend(&guest[0].port);
    wire_full = true;
    assert_int_equal(send_frame(0, outside, 60), E_BUSY);
    switch_attended(); // it is called when there is room
    assert_int_equal(guest[0].sends, 2);
    switch_rest();
    assert_int_equal(guest[0].rests, 2);
    wire_full = false;
    switch_retry(hosts_turn);
    assert_int_equal(guest[0].sends, 3);
    switch_attended(); // it never rested
    assert_int_equal(guest[0].sends, 4);
    switch_rest();
    switch_rest();
    assert_int_equal(guest[0].rests, 3);
    assert_int_equal(guest[1].sends + guest[1].rests, 0);
}

static void test_what_moved_is_counted(void **state)
{
    (void)state;
    add_guest(0, 0, 1);
    add_guest(1, 0, 1);
    switch_moved();
    assert_int_equal(send_frame(0, outside, 1000), 0);
    assert_int_equal(switch_moved(), 1000 + SWITCH_FRAME_BYTES);
    assert_int_equal(send_frame(0, guest[1].port.mac, 60), 0); // to it as well
    assert_int_equal(switch_moved(), 2 * (60 + SWITCH_FRAME_BYTES));
    assert_int_equal(switch_moved(), 0);
}

static void run_for(u64 ms)
{
    for (u64 i = 0; i < ms; i++) {
        now_ns += NS_PER_MS;
        sys_check_timeouts();
    }
}

static void test_a_guest_is_announced_again_and_again(void **state)
{
    (void)state;
    static const u8 rarp[] = {0x80, 0x35, 0, 1, 8, 0, 6, 4, 0, 3};
    add_guest(0, 0, 1);
    add_guest(1, 3, 1);
    switch_announce(&guest[0].port);
    assert_int_equal(wire.count, 1); // at once
    const u8 *b = wire.seen[0]->bytes;
    assert_int_equal(wire.seen[0]->frame.bytes, 60);
    assert_memory_equal(b, broadcast, 6);
    assert_memory_equal(b + 6, guest[0].port.mac, 6);
    assert_memory_equal(b + 12, rarp, sizeof(rarp));
    assert_memory_equal(b + 22, guest[0].port.mac, 6);
    assert_memory_equal(b + 32, guest[0].port.mac, 6);
    run_for(160);
    assert_int_equal(wire.count, 3);
    run_for(10000);
    assert_int_equal(wire.count, 7);
    switch_announce(&guest[1].port);
    assert_int_equal(wire.seen[7]->bytes[15], 3);
    switch_remove(&guest[1].port);
    run_for(3000);
    assert_int_equal(wire.count, 8);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(test_##name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(unicast_goes_to_its_station_alone),
        TEST(the_host_gets_zeros_behind_a_short_frame),
        TEST(the_hosts_own_frames),
        TEST(nobody_sends_with_anothers_address),
        TEST(vlans_are_apart),
        TEST(groups_are_flooded_within_bounds),
        TEST(bridges_keep_what_is_theirs),
        TEST(frames_wait_for_a_guest_within_bounds),
        TEST(what_waits_for_one_guest_leaves_room_for_another),
        TEST(guest_and_host_share_a_full_wire),
        TEST(a_full_wire_makes_the_guest_wait),
        TEST(ports_are_attended_to_until_it_rests),
        TEST(what_moved_is_counted),
        TEST(stations_behind_a_guest_are_learned),
        TEST(frames_for_a_guest_that_left),
        TEST(a_guest_is_announced_again_and_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
