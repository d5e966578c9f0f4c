// SPDX-License-Identifier: MIT
// The virtio core's rings: chains, kicks and interrupts, with both kinds of suppression.
// sources: arch/x86/platform/*.c kernel/guest/bus.c kernel/guest/device.c
// sources: kernel/guest/state.c kernel/guest/gtimer.c kernel/guest/virtio.c
// sources: kernel/guest/virtio_pci.c kernel/guest/virtio_ring.c
#include "tests/unit/echo_device.h"

static void chains_come_back(void **state)
{
    (void)state;
    static const u64 features[] = {0, VIRTIO_F_EVENT_IDX, VIRTIO_F_INDIRECT_DESC};
    for (u32 f = 0; f < ARRAY_SIZE(features); f++) {
        start(features[f]);
        for (u32 i = 0; i < 100000; i += 1 + i / 16) { // over every wrap
            u32 written;
            u16 head = add_echo(i & 1, "hello");
            drv_kick_watched(i & 1);
            assert_int_equal(drv_take(i & 1, &written), head);
            assert_int_equal(written, 5);
            assert_string_equal((char *)ram + OUT, "HELLO");
            assert_int_equal(drv_interrupt(), i & 1 ? 0x60 : 0x50);
        }
        for (u32 i = 0; i < 70000; i++) {
            drv_add_one(0, OUT, 1, D_WRITE);
            drv_kick(0);
            assert_true(drv_take(0, NULL) >= 0);
        }
        assert_string_equal(state_text(), "running");
        drv_interrupt();
        reg_out(0x14, 1, 0);
    }
}

static void indirect_chain(void **state)
{
    (void)state;
    start(VIRTIO_F_INDIRECT_DESC);
    struct drv_desc *t = (struct drv_desc *)(ram + 0x220000);
    t[0] = (struct drv_desc){IN, 2, D_NEXT, 3};
    t[3] = (struct drv_desc){IN + 8, 3, D_NEXT, 1};
    t[1] = (struct drv_desc){OUT, 4, D_WRITE | D_NEXT, 2};
    t[2] = (struct drv_desc){OUT + 16, 4, D_WRITE, 0};
    memcpy(ram + IN, "ab      cde", 11);
    u16 head = drv_add_one(0, 0x220000, 64, D_INDIRECT | D_WRITE); // WRITE means nothing there
    drv_kick(0);
    u32 written;
    assert_int_equal(drv_take(0, &written), head);
    assert_int_equal(written, 5);
    assert_memory_equal(ram + OUT, "ABCD", 4);
    assert_memory_equal(ram + OUT + 16, "E", 1);
    // Descriptors of the queue, then an indirect one (2.7.5.3.2).
    struct drv_desc mixed[] = {{IN, 2, 0, 0}, {0x220010, 16, D_INDIRECT, 0}};
    t[1].flags = D_WRITE;
    head = drv_add(0, mixed, 2);
    drv_kick_watched(0);
    assert_int_equal(drv_take(0, &written), head);
    assert_int_equal(written, 2);
}

static void events(void **state)
{
    (void)state;
    start(VIRTIO_F_EVENT_IDX);
    u16 *used_event = ram16(drv_avail_at(0) + 4 + 16), *avail_event = ram16(drv_used_at(0) + 68);
    add_echo(0, "a");
    *used_event = 2; // not before the third
    drv_kick(0);
    assert_int_equal(*avail_event, 1); // what would be the next one
    add_echo(0, "b");
    drv_kick(0);
    assert_int_equal(drv_interrupt(), -1);
    add_echo(0, "c");
    drv_kick(0);
    assert_int_equal(drv_interrupt(), 0x50);
    echo->hold = true; // several at once, with the event among them
    *used_event = 4;
    for (u32 i = 0; i < 3; i++)
        drv_add_one(0, OUT, 1, D_WRITE);
    echo->hold = false;
    drv_kick(0);
    assert_int_equal(drv_interrupt(), 0x50);
    assert_int_equal(*avail_event, 6);
}

static void flags(void **state)
{
    (void)state;
    start(0);
    *ram16(drv_avail_at(0)) = 1; // no interrupts
    add_echo(0, "a");
    drv_kick(0);
    assert_int_equal(drv_interrupt(), -1);
}

static const u64 kick_variants[] = {0, VIRTIO_F_EVENT_IDX};

static bool asks_after_one_more(void)
{
    u16 old = *ram16(drv_avail_at(0) + 2);
    drv_add_one(0, OUT, 1, D_WRITE);
    return drv_asked(0, old);
}

static void no_kicks_while_the_queue_is_served(void **state)
{
    (void)state;
    for (u32 f = 0; f < ARRAY_SIZE(kick_variants); f++) {
        start(kick_variants[f]);
        echo->hold = true;
        assert_true(asks_after_one_more());
        asks_after_one_more();
        assert_true(virtio_pop(&echo->v, 0, &echo->chain));
        assert_false(asks_after_one_more()); // two wait
        for (u32 i = 0; i < 2; i++)
            assert_true(virtio_pop(&echo->v, 0, &echo->chain));
        assert_false(asks_after_one_more()); // it has not been found empty
        assert_true(virtio_pop(&echo->v, 0, &echo->chain));
        assert_false(virtio_pop(&echo->v, 0, &echo->chain));
        assert_true(asks_after_one_more());
        echo->hold = false;
        reg_out(0x14, 1, 0);
    }
}

static void a_muted_queue_asks_for_no_kicks(void **state)
{
    (void)state;
    for (u32 f = 0; f < ARRAY_SIZE(kick_variants); f++) {
        start(kick_variants[f]);
        echo->hold = true;
        for (u32 i = 0; i < 70000; i++) { // over every wrap
            virtio_mute(&echo->v, 0);
            assert_false(asks_after_one_more());
            assert_true(virtio_pop(&echo->v, 0, &echo->chain));
            virtio_push(&echo->v, 0, echo->chain.head, 0);
            virtio_publish(&echo->v, 0);
            assert_false(virtio_pop(&echo->v, 0, &echo->chain)); // empty, and still none
            if (i % 3 == 0)
                assert_false(virtio_unmute(&echo->v, 0));
        }
        assert_false(virtio_unmute(&echo->v, 0));
        assert_true(asks_after_one_more());
        virtio_mute(&echo->v, 0);
        assert_true(virtio_unmute(&echo->v, 0)); // that one waits, and kicks tell of it no more
        assert_true(virtio_pop(&echo->v, 0, &echo->chain));
        echo->hold = false;
        reg_out(0x14, 1, 0);
    }
}

// What waits while a queue is muted goes with a move, and kicks are on where nobody looks at it.
static void a_muted_queue_moves(void **state)
{
    (void)state;
    for (u32 f = 0; f < ARRAY_SIZE(kick_variants); f++) {
        start(kick_variants[f]);
        virtio_mute(&echo->v, 0);
        add_echo(0, "here");
        drv_move(dev("echo"), make_echo);
        assert_int_equal(drv_take(0, NULL), 0);
        drv_interrupt();
        add_echo(0, "there");
        assert_true(drv_asked(0, 1));
        reg_out(0x14, 1, 0);
    }
}

static u32 looks_left;
static u32 added;
static bool kicks_for_it;

static void add_at_a_look(void)
{
    if (!looks_left || --looks_left)
        return;
    added = 1;
    kicks_for_it = asks_after_one_more();
}

static u32 drain(void)
{
    u32 count = 0;
    for (; virtio_pop(&echo->v, 0, &echo->chain); count++)
        virtio_push(&echo->v, 0, echo->chain.head, 0);
    virtio_publish(&echo->v, 0);
    return count;
}

// A chain that the driver adds at any moment, between any two looks of the device's into memory, is
// found by the device or told of by a kick.
static void no_kick_is_lost(void **state)
{
    (void)state;
    for (u32 f = 0; f < ARRAY_SIZE(kick_variants); f++) {
        for (u32 muted = 0; muted < 2; muted++) {
            u32 when = 1;
            do {
                start(kick_variants[f]);
                echo->hold = true;
                drv_add_one(0, OUT, 1, D_WRITE);
                added = 0;
                kicks_for_it = false;
                looks_left = when;
                ram_meanwhile = add_at_a_look;
                if (muted)
                    virtio_mute(&echo->v, 0);
                u32 found = drain();
                if (muted && virtio_unmute(&echo->v, 0))
                    found += drain();
                ram_meanwhile = NULL;
                assert_true(found == 1 + added || kicks_for_it);
                if (found == 1 + added) // it waits for the next one, and does not miss that either
                    assert_true(asks_after_one_more());
                echo->hold = false;
                reg_out(0x14, 1, 0);
                when++;
            } while (added);
            assert_true(when > 4);
        }
    }
}

// A device that was no bus master could not ask for kicks.
static void becomes_bus_master_again(void **state)
{
    (void)state;
    for (u32 f = 0; f < ARRAY_SIZE(kick_variants); f++) {
        start(kick_variants[f]);
        virtio_mute(&echo->v, 0);
        pci_out(PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
        assert_false(virtio_unmute(&echo->v, 0));
        add_echo(0, "late");
        pci_out(PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
        assert_int_equal(drv_take(0, NULL), 0);
        assert_true(asks_after_one_more());
        drv_interrupt();
        reg_out(0x14, 1, 0);
    }
}

static void signalled_later(void **state)
{
    (void)state;
    start(VIRTIO_F_EVENT_IDX);
    echo->hold = true;
    add_echo(0, "a");
    assert_true(virtio_pop(&echo->v, 0, &echo->chain));
    virtio_push(&echo->v, 0, echo->chain.head, 0);
    virtio_publish_quietly(&echo->v, 0);
    assert_int_equal(drv_used_index(0), 1);
    assert_int_equal(drv_interrupt(), -1);
    virtio_signal(&echo->v, 0);
    assert_int_equal(drv_interrupt(), 0x50);
    virtio_signal(&echo->v, 0);
    assert_int_equal(drv_interrupt(), -1); // it has been told
    add_echo(0, "b");
    assert_true(virtio_pop(&echo->v, 0, &echo->chain));
    virtio_push(&echo->v, 0, echo->chain.head, 0);
    virtio_publish_quietly(&echo->v, 0);
    drv_take(0, NULL);
    drv_take(0, NULL); // the driver has seen both by itself
    virtio_signal(&echo->v, 0);
    assert_int_equal(drv_interrupt(), -1);
}

static void put_back(void **state)
{
    (void)state;
    start(0);
    echo->hold = true;
    u16 first = add_echo(0, "a"), second = add_echo(0, "b");
    assert_true(virtio_pop(&echo->v, 0, &echo->chain));
    assert_true(virtio_pop(&echo->v, 0, &echo->chain));
    assert_int_equal(echo->chain.head, second);
    assert_false(virtio_pop(&echo->v, 0, &echo->chain));
    virtio_unpop(&echo->v, 0, 2);
    echo->hold = false;
    drv_kick(0);
    assert_int_equal(drv_take(0, NULL), first);
    assert_int_equal(drv_take(0, NULL), second);
}

static void published_together(void **state)
{
    (void)state;
    start(0);
    echo->hold = true;
    add_echo(0, "a");
    add_echo(0, "b");
    for (u32 i = 0; i < 2; i++) {
        assert_true(virtio_pop(&echo->v, 0, &echo->chain));
        virtio_push(&echo->v, 0, echo->chain.head, 0);
        assert_int_equal(drv_used_index(0), 0);
    }
    virtio_publish(&echo->v, 0);
    assert_int_equal(drv_used_index(0), 2);
}

static void the_pin(void **state)
{
    (void)state;
    drv_find(5);
    ioapic_route(pci_intx_gsi(5, 0), 0x8000 | 0x51);
    drv_negotiate(VIRTIO_F_VERSION_1);
    drv_make_queue(0, 8, 0);
    drv_ready();
    add_echo(0, "a");
    drv_kick(0);
    assert_true(pci_in(PCI_STATUS, 2) & PCI_STATUS_INTX);
    assert_int_equal(take(0), 0x51);
    assert_int_equal(reg_in(0x400, 1), 1); // reading acknowledges
    assert_int_equal(reg_in(0x400, 1), 0);
    assert_false(pci_in(PCI_STATUS, 2) & PCI_STATUS_INTX);
    apic_set(0xb0, 0);
    assert_int_equal(take(0), -1);
    virtio_config_changed(&echo->v);
    assert_int_equal(take(0), 0x51);
    drv_msix_on(3); // messages switched on: the pin falls
    apic_set(0xb0, 0);
    assert_int_equal(take(0), -1);
    assert_int_equal(reg_in(0x400, 1), 2);
}

static void not_running(void **state)
{
    (void)state;
    drv_find(5);
    drv_msix_on(3);
    drv_negotiate(VIRTIO_F_VERSION_1);
    drv_make_queue(0, 8, 0);
    add_echo(0, "a");
    drv_kick(0); // DRIVER_OK is not set
    assert_int_equal(drv_used_index(0), 0);
    drv_ready();
    pci_out(PCI_COMMAND, 2, PCI_COMMAND_MEMORY); // no bus master
    drv_kick(0);
    assert_int_equal(drv_used_index(0), 0);
    assert_int_equal(echo->kicks, 0);
    pci_out(PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    assert_int_equal(drv_used_index(0), 1);
    assert_int_equal(echo->kicks, 1);
    drv_kick(1); // not enabled
    drv_kick(5); // no such queue
    assert_int_equal(echo->kicks, 1);
    add_echo(0, "b");
    guest.pause_count = 1; // the vCPU is asked to stop
    drv_kick(0);
    assert_int_equal(drv_used_index(0), 1);
    guest.pause_count = 0;
    drv_kick(0);
    assert_int_equal(drv_used_index(0), 2);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, set_up, pc_destroy)
    const struct CMUnitTest tests[] = {
        T(chains_come_back),
        T(indirect_chain),
        T(events),
        T(flags),
        T(no_kicks_while_the_queue_is_served),
        T(a_muted_queue_asks_for_no_kicks),
        T(a_muted_queue_moves),
        T(no_kick_is_lost),
        T(becomes_bus_master_again),
        T(signalled_later),
        T(put_back),
        T(published_together),
        T(the_pin),
        T(not_running),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
