// SPDX-License-Identifier: MIT
// A guest's network card: frames of good and bad drivers, chains of any shape, and its moves.
// sources: arch/x86/platform/*.c kernel/guest/bus.c kernel/guest/device.c
// sources: kernel/guest/state.c kernel/guest/gtimer.c kernel/guest/virtio.c
// sources: kernel/guest/virtio_pci.c kernel/guest/virtio_ring.c kernel/random.c
// sources: net/guest_nic.c net/frame.c net/lwip/port.c $(addprefix $(LWIP_SRC)/src/,$(LWIP_FILES))
// cflags: -idirafter $(ROOT)/net/lwip -I$(LWIP_SRC)/src/include
#include "tests/unit/fake_guest_nic.h"

static void test_config(void **state)
{
    (void)state;
    drv_find(VIRTIO_SLOT_NET);
    for (u32 i = 0; i < 6; i++)
        assert_int_equal(reg_in(0x800 + i, 1), guest.config.mac[i]);
    assert_int_equal(reg_in(0x806, 2), 1); // the link is up
    // TCP segments without sums (5.1.3.1), and announcements without a queue to answer on.
    const u64 bad[] = {HOST_TSO4, GUEST_TSO4, ANNOUNCE};
    for (u32 i = 0; i < ARRAY_SIZE(bad); i++) {
        reg_out(0x14, 1, 0);
        reg_out(0x14, 1, 3);
        drv_choose(bad[i] | VIRTIO_F_VERSION_1);
        reg_out(0x14, 1, 11);
        assert_int_equal(drv_status(), 3);
    }
}

static void test_sends(void **state)
{
    (void)state;
    struct header h = {.flags = 0};
    start(ALL);
    transmit(add_frame(&h, 1514, 1514));
    transmit(add_frame(&h, 60, 7));
    transmit(add_frame(&h, 14, 1));
    transmit(add_frame(&h, 65000, 3000));
    assert_int_equal(sent_count, 4);
    assert_int_equal(sent.bytes, 65000);
    assert_memory_equal(sent_bytes, ram + DATA + 0x1000, 65000);
    assert_int_equal(sent.l4_offset + sent.segment_bytes, 0);
}

static void test_sends_what_is_left_to_do(void **state)
{
    (void)state;
    struct header h = {.flags = 1, .sum_start = 34, .sum_offset = 6};
    start(ALL);
    transmit(add_frame(&h, 100, 100));
    assert_int_equal(sent.l4_offset, 34);
    assert_int_equal(sent.sum_offset, 40);
    struct header lies[] = {
        {.flags = 1, .sum_start = 34, .sum_offset = 65},    // outside
        {.flags = 1, .sum_start = 0xffff, .sum_offset = 2}, // far outside
        {.flags = 1, .sum_start = 2, .sum_offset = 2},
        {.flags = 0, .gso_type = 1, .gso_bytes = 50},
        {.flags = 1, .gso_type = 1, .gso_bytes = 50, .sum_start = 34, .sum_offset = 16}, // no TCP
        {.flags = 1, .gso_type = 3, .gso_bytes = 50, .sum_start = 34, .sum_offset = 6},
    };
    for (u32 i = 0; i < ARRAY_SIZE(lies); i++)
        transmit(add_frame(&lies[i], 100, 100));
    assert_int_equal(sent_count, 1);
    assert_int_equal(port->figures.tx_refused, ARRAY_SIZE(lies));
    transmit(add_frame(&h, 13, 13)); // not a whole Ethernet header
    transmit(drv_add_one(TX, DATA, 5, 0));
    transmit(drv_add_one(TX, DATA, 1514, D_WRITE));
    transmit(add_frame(&h, 65536, 65536));
    assert_int_equal(sent_count, 1);
}

static void test_a_full_wire_loses_nothing(void **state)
{
    (void)state;
    struct header h = {.flags = 0};
    start(ALL);
    wire_full = true;
    u16 head = add_frame(&h, 200, 200);
    add_frame(&h, 201, 201);
    drv_kick(TX);
    run_net();
    assert_int_equal(drv_take(TX, NULL), head); // it is ours now
    assert_int_equal(drv_take(TX, NULL), -1);   // and this one waits in its queue
    assert_false(drv_asked(TX, 1));             // without a kick
    wire_full = false;
    port->ops->send(port);
    run_net();
    assert_true(drv_asked(TX, 1));
    assert_int_equal(sent_count, 2);
    assert_true(drv_take(TX, NULL) >= 0);
    assert_int_equal(sent.bytes, 201);
    wire_full = true;
    add_frame(&h, 202, 202);
    drv_kick(TX);
    run_net();
    struct device *d = dev("virtio-net"); // it leaves: the frame does not come after it
    d->ops->pause(d);
    wire_full = false;
    port->ops->send(port);
    assert_int_equal(sent_count, 2);
    d->ops->resume(d);
}

static struct header plain;

static void test_no_kicks_while_it_is_awake(void **state)
{
    (void)state;
    static const u64 features[] = {0, VIRTIO_F_EVENT_IDX};
    for (u32 f = 0; f < ARRAY_SIZE(features); f++) {
        start(ALL | features[f]);
        post(1, 2048);
        u16 *index = ram16(drv_avail_at(TX) + 2);
        sent_count = 0;
        assert_true((add_frame(&plain, 60, 60), drv_asked(TX, 0)));
        drv_kick(TX);
        posted->fn(posted);
        posted = NULL;
        for (u32 i = 1; i < 10; i++) { // it looks again and again, and has found it empty each time
            assert_false((add_frame(&plain, 60, 60), drv_asked(TX, (u16)(*index - 1))));
            port->ops->send(port);
            assert_int_equal(sent_count, 1 + i);
        }
        add_frame(&plain, 60, 60); // and this one it finds as it goes to sleep
        run_net();
        assert_int_equal(sent_count, 11);
        assert_true((add_frame(&plain, 60, 60), drv_asked(TX, (u16)(*index - 1))));
        drv_kick(TX);
        run_net();
        assert_int_equal(sent_count, 12);
        assert_int_equal(deliver((struct nic_frame){.pbuf = NULL}, 60), 0);
        assert_false((add_frame(&plain, 60, 60), drv_asked(TX, (u16)(*index - 1)))); // the answer
        run_net();
        assert_int_equal(sent_count, 13);
        while (drv_interrupt() >= 0)
            ;
        reg_out(0x14, 1, 0);
    }
}

static u32 looks_left;
static bool kick_follows; // as soon as the device is not locked

static void add_at_a_look(void)
{
    u16 old = *ram16(drv_avail_at(TX) + 2);
    if (!looks_left || --looks_left)
        return;
    add_frame(&plain, 60, 60);
    kick_follows = drv_asked(TX, old);
}

// A frame that the driver adds at any moment, and kicks for if it is asked to, is sent.
static void test_no_frame_is_left_behind(void **state)
{
    (void)state;
    static const u64 features[] = {0, VIRTIO_F_EVENT_IDX};
    for (u32 f = 0; f < ARRAY_SIZE(features); f++)
        for (u32 when = 1;; when++) {
            start(ALL | features[f]);
            sent_count = 0;
            add_frame(&plain, 60, 60);
            drv_kick(TX);
            looks_left = when;
            kick_follows = false;
            ram_meanwhile = add_at_a_look;
            run_net();
            ram_meanwhile = NULL;
            if (kick_follows)
                drv_kick(TX);
            run_net();
            bool done = looks_left; // it slept before that
            assert_int_equal(sent_count, done ? 1 : 2);
            while (drv_interrupt() >= 0)
                ;
            reg_out(0x14, 1, 0);
            if (!done)
                continue;
            assert_true(when > 5);
            break;
        }
}

// The driver is told once of frames sent, on the look after, unless it has seen that by itself.
static void test_says_later_what_is_sent(void **state)
{
    (void)state;
    start(ALL | VIRTIO_F_EVENT_IDX);
    post(1, 2048);
    add_frame(&plain, 60, 60);
    drv_kick(TX);
    posted->fn(posted);
    posted = NULL;
    assert_int_equal(drv_used_index(TX), 1);
    assert_int_equal(drv_interrupt(), -1);
    port->ops->send(port);
    assert_int_equal(drv_interrupt(), TX_INTERRUPT);
    assert_true(drv_take(TX, NULL) >= 0);
    add_frame(&plain, 60, 60);
    port->ops->send(port);
    assert_int_equal(deliver((struct nic_frame){.pbuf = NULL}, 60), 0);
    assert_int_equal(drv_interrupt(), RX_INTERRUPT);
    assert_true(drv_take(TX, NULL) >= 0); // as Linux does when it receives
    run_net();
    assert_int_equal(drv_interrupt(), -1);
    add_frame(&plain, 60, 60); // when it sleeps all is told
    drv_kick(TX);
    run_net();
    assert_int_equal(drv_interrupt(), TX_INTERRUPT);
}

// A move in the middle of a stream: each frame is sent once, here or there.
static void test_moves_while_it_sends(void **state)
{
    (void)state;
    static const u64 features[] = {0, VIRTIO_F_EVENT_IDX};
    for (u32 f = 0; f < ARRAY_SIZE(features); f++) {
        start(ALL | features[f]);
        sent_count = 0;
        add_frame(&plain, 60, 60);
        drv_kick(TX);
        posted->fn(posted); // and it is not told yet
        posted = NULL;
        add_frame(&plain, 61, 61); // without a kick
        struct device *d = dev("virtio-net");
        d->ops->pause(d);
        assert_int_equal(drv_interrupt(), TX_INTERRUPT);
        port->ops->send(port); // awake still, but what is left goes where the guest goes
        run_net();
        assert_int_equal(sent_count, 1);
        d->ops->resume(d);
        drv_move(d, make_nic);
        attended = false;
        run_net();
        assert_int_equal(sent_count, 2);
        assert_int_equal(sent.bytes, 61);
        assert_true((add_frame(&plain, 60, 60), drv_asked(TX, 2)));
        while (drv_interrupt() >= 0)
            ;
        reg_out(0x14, 1, 0);
    }
}

// ---- Reception ---------------------------------------------------------------------------------

static const struct header *received(void)
{
    return (const struct header *)(ram + DATA);
}

static void test_receives_into_many_buffers(void **state)
{
    (void)state;
    start(ALL);
    post(4, 512);
    assert_int_equal(deliver((struct nic_frame){.pbuf = NULL}, 1514), 0);
    u32 at = 0, written;
    for (u32 i = 0; i < 3; i++) {
        u32 from = i ? 0 : 12;
        assert_true(drv_take(RX, &written) >= 0);
        assert_int_equal(written, i < 2 ? 512 : 12 + 1514 - 1024);
        for (u32 k = from; k < written; k++, at++)
            assert_int_equal(ram[DATA + i * 0x1000 + k], at == 14 ? 0x45 : (u8)(at * 5 + at / 256));
    }
    assert_int_equal(at, 1514);
    assert_int_equal(received()->buffers, 3);
    assert_int_equal(drv_take(RX, NULL), -1);
    assert_int_equal(drv_interrupt(), RX_INTERRUPT);
    assert_int_equal(deliver((struct nic_frame){.pbuf = NULL}, 1000), E_BUSY); // one is left
    assert_int_equal(drv_take(RX, NULL), -1);
    assert_int_equal(deliver((struct nic_frame){.pbuf = NULL}, 500), 0);
    assert_true(drv_take(RX, &written) >= 0);
    assert_int_equal(written, 512);
}

static void test_receives_into_one_buffer_alone(void **state)
{
    (void)state;
    start(GUEST_CSUM);
    post(2, 1526);
    assert_int_equal(deliver((struct nic_frame){.pbuf = NULL}, 1515), E_INVAL);
    assert_int_equal(deliver((struct nic_frame){.pbuf = NULL}, 1514), 0);
    assert_int_equal(received()->buffers, 1);
    struct nic_frame cut = {.l4_offset = 34, .sum_offset = 50, .segment_bytes = 500};
    assert_int_equal(deliver(cut, 1000), E_IO); // it was not asked for
}

static void test_tells_what_is_left_to_do(void **state)
{
    (void)state;
    start(ALL);
    post(3, 4096);
    assert_true(port->can_sum && port->can_cut4 && !port->can_cut6);
    struct nic_frame f = {.l4_offset = 34, .sum_offset = 50, .segment_bytes = 500, .header_bytes = 54};
    assert_int_equal(deliver(f, 3000), 0);
    struct header wanted = {1, 1, 54, 500, 34, 16, 1};
    assert_memory_equal(received(), &wanted, sizeof(wanted));
    assert_int_equal(deliver((struct nic_frame){.sum_ok = true}, 60), 0);
    assert_int_equal(((const struct header *)(ram + DATA + 0x1000))->flags, 2);
    reg_out(0x14, 1, 0);
    assert_false(port->can_sum || port->can_cut4);
    assert_int_equal(deliver((struct nic_frame){.pbuf = NULL}, 60), E_IO);
}

static void test_small_buffers_do_no_harm(void **state)
{
    (void)state;
    start(ALL);
    post(30, 1);
    assert_int_equal(deliver((struct nic_frame){.pbuf = NULL}, 60), E_INVAL);
    drv_add_one(RX, DATA, 0x1000, 0); // readable: no room at all
    assert_int_equal(deliver((struct nic_frame){.pbuf = NULL}, 60), E_INVAL);
}

// ---- Announcements and moves -------------------------------------------------------------------

static u8 control(u8 class, u8 command)
{
    ram[DATA] = class;
    ram[DATA + 1] = command;
    ram[DATA + 16] = 0xee;
    struct drv_desc d[] = {{DATA, 2, 0, 0}, {DATA + 16, 1, D_WRITE, 0}};
    u16 head = drv_add(CONTROL, d, 2);
    drv_kick_watched(CONTROL);
    u32 written;
    assert_int_equal(drv_take(CONTROL, &written), head);
    assert_int_equal(written, 1);
    return ram[DATA + 16];
}

static void test_moves(void **state)
{
    (void)state;
    start(ALL);
    post(8, 2048);
    assert_int_equal(announced, 0);
    struct device *d = drv_move(dev("virtio-net"), make_nic);
    run_net();
    assert_int_equal(announced, 1);
    assert_int_equal(reg_in(0x806, 2), 3); // the driver is asked as well
    assert_int_equal(drv_interrupt(), 0x40);
    assert_int_equal(control(0, 0), 1); // not what was offered
    assert_int_equal(control(3, 0), 0);
    assert_int_equal(reg_in(0x806, 2), 1);
    assert_int_equal(deliver((struct nic_frame){.sum_ok = true}, 1000), 0);
    assert_true(drv_take(RX, NULL) >= 0);
    d->ops->pause(d);
    assert_int_equal(deliver((struct nic_frame){.pbuf = NULL}, 60), E_BUSY); // until it goes on
    d->ops->resume(d);
    assert_int_equal(deliver((struct nic_frame){.pbuf = NULL}, 60), 0);
}

static void test_without_a_network_the_link_is_down(void **state)
{
    network = false;
    (void)state;
    devices_destroy(&guest);
    posted = NULL;
    pc_one(state);
    make_nic();
    start(ALL);
    assert_int_equal(reg_in(0x806, 2), 0);
    struct header h = {.flags = 0};
    add_frame(&h, 60, 60);
    drv_kick(TX);
    assert_null(posted);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(test_##name, set_up, pc_destroy)
    const struct CMUnitTest tests[] = {
        TEST(config),
        TEST(sends),
        TEST(sends_what_is_left_to_do),
        TEST(a_full_wire_loses_nothing),
        TEST(no_kicks_while_it_is_awake),
        TEST(no_frame_is_left_behind),
        TEST(says_later_what_is_sent),
        TEST(moves_while_it_sends),
        TEST(receives_into_many_buffers),
        TEST(receives_into_one_buffer_alone),
        TEST(tells_what_is_left_to_do),
        TEST(small_buffers_do_no_harm),
        TEST(moves),
        TEST(without_a_network_the_link_is_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
