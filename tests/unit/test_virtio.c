// SPDX-License-Identifier: MIT
// The virtio core: registers, negotiation, rings of good and bad drivers, moves at any moment.
// sources: arch/x86/platform/*.c kernel/guest/bus.c kernel/guest/device.c
// sources: kernel/guest/state.c kernel/guest/gtimer.c kernel/guest/virtio.c
// sources: kernel/guest/virtio_pci.c kernel/guest/virtio_ring.c
#include "tests/unit/fake_virtio.h"

const struct device_ops vrng_device, vblk_device, vballoon_device;

// A device that gives every chain back at once, what was read written in capitals.
#define ECHO_FEATURE BIT(3)
#define ECHO_NEEDS BIT(4) // needs ECHO_FEATURE
struct echo {
    struct virtio v;
    struct virtio_chain chain;
    u8 config[12];
    bool hold; // chains stay where they are
    u32 kicks, resets, pops;
    u32 last_set;
};
static struct echo *echo;

static void echo_kicked(struct virtio *v, u32 q)
{
    struct echo *e = container_of(v, struct echo, v);
    e->kicks++;
    while (!e->hold && virtio_pop(v, q, &e->chain)) {
        u8 text[64];
        u32 n = virtio_copy_from(v, &e->chain, 0, text, sizeof(text));
        for (u32 i = 0; i < n; i++)
            text[i] &= (u8)~0x20;
        e->pops++;
        virtio_push(v, q, e->chain.head, virtio_copy_to(v, &e->chain, 0, text, n));
    }
    virtio_publish(v, q);
}

static void echo_reset(struct virtio *v)
{
    container_of(v, struct echo, v)->resets++;
}

static void echo_get_config(struct virtio *v, void *config)
{
    memcpy(config, container_of(v, struct echo, v)->config, 12);
}

static void echo_set_config(struct virtio *v, u32 offset, u32 size, u32 value)
{
    struct echo *e = container_of(v, struct echo, v);
    if (offset + size <= sizeof(e->config))
        memcpy(e->config + offset, &value, size);
}

static bool echo_accept(const struct virtio *v, u64 features)
{
    (void)v;
    return !(features & ECHO_NEEDS) || features & ECHO_FEATURE;
}

static const struct virtio_ops echo_ops = {
    .id = 42,
    .class_code = 0xff0000,
    .queues = 2,
    .queue_size = 8,
    .get_config = echo_get_config,
    .config_bytes = 12,
    .set_config = echo_set_config,
    .accept = echo_accept,
    .kicked = echo_kicked,
    .reset = echo_reset,
};

static int echo_init(struct device *d)
{
    echo = d->priv;
    for (u8 i = 0; i < 12; i++)
        echo->config[i] = i;
    return virtio_init(d, &echo_ops, 5, ECHO_FEATURE | ECHO_NEEDS);
}

static bool echo_check(const void *copy, char *err, size_t size)
{
    return virtio_check(&((const struct echo *)copy)->v, err, size);
}

static const struct state_field echo_fields[] = {VIRTIO_FIELDS(struct echo, v), FIELD_LAST};
static const struct state_table echo_state = {.name = "echo",
                                              .version = 1,
                                              .fields = echo_fields,
                                              .check = echo_check,
                                              .struct_size = sizeof(struct echo)};
static const struct device_ops echo_device = {
    .name = "echo",
    .state = &echo_state,
    .priv_size = sizeof(struct echo),
    .init = echo_init,
    .fini = virtio_fini,
    .reset = virtio_reset,
    .read = virtio_read,
    .write = virtio_write,
    .pause = virtio_pause,
    .resume = virtio_resume,
};

static void make_echo(void)
{
    assert_non_null(device_add(&guest, &echo_device, 0));
}

static int set_up(void **state)
{
    pc_one(state);
    memset(ram, 0, sizeof(ram));
    guest_logs = 0;
    make_echo();
    return 0;
}

static void start(u64 features)
{
    drv_start(5, 2, 8, features);
}

static const char *state_text(void)
{
    static char text[128];
    virtio_describe(&echo->v, text, sizeof(text));
    return text;
}

#define IN 0x200000
#define OUT 0x210000

static u16 add_echo(u32 q, const char *text)
{
    struct drv_desc d[] = {{IN, (u32)strlen(text), 0, 0}, {OUT, 64, D_WRITE, 0}};
    strcpy((char *)ram + IN, text);
    memset(ram + OUT, 0, 64);
    return drv_add(q, d, 2);
}

static void assert_broken(const char *word)
{
    if (!strstr(echo->v.why, word))
        fail_msg("wanted \"%s\" in \"%s\"", word, echo->v.why);
    assert_true(echo->v.broken);
    assert_int_equal(drv_status(), 0x4f);
    assert_int_equal(drv_interrupt(), 0x40); // the configuration changed
    assert_int_equal(guest_logs, 1);
    u16 used = drv_used_index(0);
    drv_kick(0);
    assert_int_equal(drv_used_index(0), used);
    reg_out(0x14, 1, 0); // the driver tries again
    start(0);
    assert_string_equal(state_text(), "running");
    add_echo(0, "again");
    drv_kick(0);
    assert_string_equal((char *)ram + OUT, "AGAIN");
    assert_int_equal(drv_interrupt(), 0x50);
}

// ---- Registers ---------------------------------------------------------------------------------

static void pci_identity(void **state)
{
    (void)state;
    drv_slot = 5;
    assert_int_equal(pci_in(0, 4), 0x106a1af4);
    assert_int_equal(pci_in(8, 4), 0xff000001);
    u32 types = 0, bytes = 0;
    for (u32 cap = pci_in(0x34, 1); cap; cap = pci_in(cap + 1, 1)) {
        if (pci_in(cap, 1) != 9)
            continue;
        types |= 1u << pci_in(cap + 3, 1);
        bytes += pci_in(cap + 2, 1);
        assert_int_equal(pci_in(cap + 4, 1), 0);
        if (pci_in(cap + 3, 1) == 4)
            assert_int_equal(pci_in(cap + 12, 4), 12);
    }
    assert_int_equal(types, 0x3e);
    assert_int_equal(bytes, 3 * 16 + 2 * 20);
}

static void negotiation(void **state)
{
    (void)state;
    drv_find(5);
    assert_int_equal(drv_offered(),
                     ECHO_FEATURE | ECHO_NEEDS | BIT(28) | BIT(29) | VIRTIO_F_VERSION_1);
    reg_out(0, 4, 2);
    assert_int_equal(reg_in(4, 4), 0);
    static const u64 refused[] = {0, ECHO_FEATURE, VIRTIO_F_VERSION_1 | BIT(9),
                                  VIRTIO_F_VERSION_1 | ECHO_NEEDS};
    for (u32 i = 0; i < ARRAY_SIZE(refused); i++) {
        drv_choose(refused[i]);
        reg_out(0x14, 1, 15);
        assert_int_equal(drv_status(), 3);
    }
    reg_out(0x14, 1, 7); // DRIVER_OK before FEATURES_OK
    assert_int_equal(drv_status(), 3);
    drv_negotiate(VIRTIO_F_VERSION_1 | ECHO_NEEDS | ECHO_FEATURE);
    drv_choose(VIRTIO_F_VERSION_1); // too late
    assert_true(virtio_has(&echo->v, ECHO_NEEDS));
    reg_out(0x14, 1, 0x4f); // NEEDS_RESET is the device's
    assert_int_equal(drv_status(), 15);
    reg_out(0x14, 1, 1); // bits are not taken back
    assert_int_equal(drv_status(), 15);
    assert_int_equal(echo->resets, 1);
    reg_out(0x14, 1, 0);
    assert_int_equal(echo->resets, 2);
    assert_int_equal(drv_status(), 0);
    assert_false(virtio_has(&echo->v, ECHO_FEATURE));
}

static void queue_registers(void **state)
{
    (void)state;
    drv_find(5);
    assert_int_equal(reg_in(0x12, 2), 2);
    assert_int_equal(reg_in(0x18, 2), 8);
    static const u32 bad[] = {0, 3, 16, 0xffff};
    for (u32 i = 0; i < ARRAY_SIZE(bad); i++)
        reg_out(0x18, 2, bad[i]);
    assert_int_equal(reg_in(0x18, 2), 8);
    assert_int_equal(reg_in(0x1a, 2), 0xffff);
    reg_out(0x1a, 2, 3); // three vectors: 0 to 2
    assert_int_equal(reg_in(0x1a, 2), 0xffff);
    reg_out(0x1a, 2, 2);
    assert_int_equal(reg_in(0x1a, 2), 2);
    reg_out64(0x28, 0x123456789abcdef0);
    assert_int_equal(reg_in(0x28, 4), 0x9abcdef0);
    assert_int_equal(reg_in(0x2c, 4), 0x12345678);
    reg_out(0x1c, 2, 2); // only 1 enables
    assert_int_equal(reg_in(0x1c, 2), 0);
    reg_out(0x1c, 2, 1);
    reg_out(0x18, 2, 4); // fixed now
    reg_out64(0x28, 0);
    assert_int_equal(reg_in(0x18, 2), 8);
    assert_int_equal(reg_in(0x28, 4), 0x9abcdef0);
    reg_out(0x16, 2, 1);
    assert_int_equal(reg_in(0x1e, 2), 1);
    reg_out(0x16, 2, 2); // no such queue
    reg_out(0x18, 2, 4);
    reg_out(0x1c, 2, 1);
    for (u32 at = 0x18; at < 0x38; at += 4)
        assert_int_equal(reg_in(at, 4), 0);
}

static void misaligned_rings(void **state)
{
    (void)state;
    static const u32 at[] = {0x20, 0x28, 0x30};
    for (u32 i = 0; i < 3; i++) {
        drv_find(5);
        reg_out64(at[i], 0x1001);
        reg_out(0x1c, 2, 1);
        assert_int_equal(reg_in(0x1c, 2), 0);
        assert_string_equal(state_text(), "broken: queue 0: its rings are not aligned");
    }
}

static void configuration(void **state)
{
    (void)state;
    start(0);
    assert_int_equal(reg_in(0x804, 4), 0x07060504);
    assert_int_equal(reg_in(0x809, 1), 9);
    assert_int_equal(reg_in(0x80a, 4), 0x0b0a); // its end
    assert_int_equal(reg_in(0x8ff, 8), 0);
    reg_out(0x801, 1, 0x77);
    assert_int_equal(reg_in(0x800, 4), 0x03027700);
    assert_int_equal(reg_in(0x15, 1), 0);
    virtio_config_changed(&echo->v);
    assert_int_equal(reg_in(0x15, 1), 1);
    assert_int_equal(drv_interrupt(), 0x40);
}

static void window(void **state)
{
    (void)state;
    drv_find(5);
    u32 cap = pci_in(0x34, 1);
    while (pci_in(cap, 1) != 9 || pci_in(cap + 3, 1) != 5)
        cap = pci_in(cap + 1, 1);
    pci_out(PCI_COMMAND, 2, 0); // the BAR is not needed
    pci_out(cap + 8, 4, 0x14);
    pci_out(cap + 12, 4, 1);
    assert_int_equal(pci_in(cap + 16, 4) & 0xff, 3);
    pci_out(cap + 16, 4, 11 | 0x700);
    assert_int_equal(drv_status(), 0xff);
    assert_int_equal(echo->v.status, 3); // without VERSION_1 not accepted
    pci_out(cap + 8, 4, 0x804);
    pci_out(cap + 12, 4, 4);
    assert_int_equal(pci_in(cap + 16, 4), 0x07060504);
    pci_out(cap + 16, 4, 0x11223344);
    assert_int_equal(echo->config[5], 0x33);
    static const u32 nowhere[][3] = {{1, 0, 4}, {0, 2, 4}, {0, 0x4000, 4}, {0, 0, 3}, {0, 0, 0},
                                     {0, 0xfffffffc, 4}};
    for (u32 i = 0; i < ARRAY_SIZE(nowhere); i++) {
        pci_out(cap + 4, 1, nowhere[i][0]);
        pci_out(cap + 8, 4, nowhere[i][1]);
        pci_out(cap + 12, 4, nowhere[i][2]);
        pci_out(cap + 16, 4, 0);
        pci_in(cap + 16, 4);
    }
    assert_int_equal(echo->v.status, 3);
}

// ---- Rings -------------------------------------------------------------------------------------

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

// ---- Bad drivers -------------------------------------------------------------------------------

static void bad_index(void **state)
{
    (void)state;
    start(0);
    *ram16(drv_avail_at(0) + 2) = 9;
    drv_kick(0);
    assert_broken("9 chains are available, it has 8");
}

static void bad_head(void **state)
{
    (void)state;
    start(0);
    drv_make_available(0, 8);
    drv_kick(0);
    assert_broken("descriptor 8 of a table of 8");
}

static void bad_next(void **state)
{
    (void)state;
    start(0);
    *drv_desc(0, 0) = (struct drv_desc){IN, 1, D_NEXT, 0xffff};
    drv_make_available(0, 0);
    drv_kick(0);
    assert_broken("descriptor 65535 of a table of 8");
}

static void chain_loops(void **state)
{
    (void)state;
    start(0);
    *drv_desc(0, 0) = (struct drv_desc){IN, 1, D_NEXT, 1};
    *drv_desc(0, 1) = (struct drv_desc){IN, 1, D_NEXT, 0};
    drv_make_available(0, 0);
    drv_kick(0);
    assert_broken("more than 8 descriptors");
}

static void order(void **state)
{
    (void)state;
    start(0);
    struct drv_desc d[] = {{OUT, 1, D_WRITE, 0}, {IN, 1, 0, 0}};
    drv_add(0, d, 2);
    drv_kick(0);
    assert_broken("readable descriptor after a writable");
}

static void bad_buffers(void **state)
{
    (void)state;
    static const struct drv_desc bad[] = {{RAM_BYTES, 1, 0, 0},
                                          {RAM_BYTES - 1, 2, 0, 0},
                                          {0, 0xffffffff, 0, 0},
                                          {~0ull, 2, 0, 0},
                                          {~0ull - 4095, 8192, D_WRITE, 0}};
    for (u32 i = 0; i < ARRAY_SIZE(bad); i++) {
        start(0);
        guest_logs = 0;
        drv_add(0, &bad[i], 1);
        drv_kick(0);
        assert_broken("outside of RAM");
    }
}

static void bad_tables(void **state)
{
    (void)state;
    struct drv_desc *t = (struct drv_desc *)(ram + 0x220000);
    const struct {
        struct drv_desc d, first;
        const char *word;
    } bad[] = {
        {{0x220000, 15, D_INDIRECT, 0}, {0}, "15 bytes"},
        {{0x220000, 0, D_INDIRECT, 0}, {0}, "table of 0"},
        {{0x220000, 16, D_INDIRECT | D_NEXT, 0}, {0}, "where none may be"},
        {{0x220000, 16, D_INDIRECT, 0}, {0x220000, 16, D_INDIRECT, 0}, "where none may be"},
        {{0x220000, 16, D_INDIRECT, 0}, {IN, 1, D_NEXT, 1}, "descriptor 1 of a table of 1"},
        {{RAM_BYTES - 8, 16, D_INDIRECT, 0}, {0}, "outside of RAM"},
        {{~0ull - 7, 0xfffffff0, D_INDIRECT, 0}, {0}, "outside of RAM"},
    };
    for (u32 i = 0; i < ARRAY_SIZE(bad); i++) {
        start(VIRTIO_F_INDIRECT_DESC);
        guest_logs = 0;
        t[0] = bad[i].first;
        drv_add(0, &bad[i].d, 1);
        drv_kick(0);
        assert_broken(bad[i].word);
    }
    start(0); // not negotiated
    guest_logs = 0;
    drv_add(0, &(struct drv_desc){0x220000, 16, D_INDIRECT, 0}, 1);
    drv_kick(0);
    assert_broken("where none may be");
}

static void rings_outside_of_ram(void **state)
{
    (void)state;
    for (u32 ring = 0; ring < 3; ring++) {
        drv_find(5);
        drv_msix_on(3);
        drv_negotiate(VIRTIO_F_VERSION_1);
        drv_make_queue(1, 8, 0);
        reg_out(0x16, 2, 0);
        reg_out(0x1a, 2, 1);
        reg_out64(0x20, ring == 0 ? RAM_BYTES : drv_desc_at(0));
        reg_out64(0x28, ring == 1 ? ~0ull - 3 : drv_avail_at(0));
        reg_out64(0x30, ring == 2 ? RAM_BYTES : drv_used_at(0));
        reg_out(0x1c, 2, 1);
        drv_ready();
        drv[0] = (struct drv_queue){.size = 8};
        memset(ram + drv_desc_at(0), 0, 0x10000);
        guest_logs = 0;
        add_echo(0, "a");
        drv_kick(0);
        assert_broken("outside of RAM");
    }
}

static void breaking_is_logged_so_often(void **state)
{
    (void)state;
    for (u32 i = 0; i < 100; i++) {
        start(0);
        drv_make_available(0, 8);
        drv_kick(0);
        assert_true(echo->v.broken);
    }
    assert_in_range(guest_logs, 1, 10);
}

// ---- Moves -------------------------------------------------------------------------------------

// The whole of a driver's work, with a move before each step (migration-tests 20).
static void moved_at_every_step(void **state)
{
    (void)state;
    for (u32 when = 0; when < 12; when++) {
        struct device *d = dev("echo");
        u32 step = 0;
#define STEP(what)                                                                                 \
    do {                                                                                           \
        if (step++ == when)                                                                        \
            d = drv_move(d, make_echo);                                                            \
        what;                                                                                      \
    } while (0)
        u64 features = VIRTIO_F_VERSION_1 | VIRTIO_F_EVENT_IDX | ECHO_FEATURE;
        STEP(drv_find(5));
        STEP(drv_msix_on(3));
        STEP(reg_out(8, 4, 0));
        STEP(reg_out(0xc, 4, (u32)features));
        STEP(reg_out(8, 4, 1));
        STEP(reg_out(0xc, 4, features >> 32));
        STEP(reg_out(0x14, 1, 11));
        STEP(drv_make_queue(1, 4, features));
        STEP(drv_make_queue(0, 8, features));
        STEP(drv_ready());
        add_echo(0, "here");
        STEP(drv_kick(0));
        assert_int_equal(drv_take(0, NULL), 0);
        assert_int_equal(drv_interrupt(), 0x50);
        assert_string_equal((char *)ram + OUT, "HERE");
        add_echo(1, "there");
        STEP(drv_kick(1));
        assert_int_equal(drv_take(1, NULL), 0);
        assert_int_equal(drv_interrupt(), 0x60);
        assert_true(virtio_has(&echo->v, ECHO_FEATURE));
        reg_out(0x14, 1, 0);
#undef STEP
    }
}

// Masked and pending vectors, and the pin's level, arrive as they were (migration-tests 19).
static void interrupts_move(void **state)
{
    (void)state;
    start(0);
    reg_out(0x101c, 4, 1); // vector 1 is masked
    add_echo(0, "a");
    drv_kick(0);
    drv_move(dev("echo"), make_echo);
    assert_int_equal(drv_interrupt(), -1);
    assert_int_equal(reg_in(0x1800, 8), 2);
    assert_int_equal(reg_in(0x1018, 4), 0x50);
    reg_out(0x101c, 4, 0);
    assert_int_equal(drv_interrupt(), 0x50);
    reg_out(0x14, 1, 0);
    pci_out(echo->v.pci.msix.cap + 2, 2, 0); // the pin
    ioapic_route(pci_intx_gsi(5, 0), 0x8000 | 0x51);
    drv_find(5);
    drv_negotiate(VIRTIO_F_VERSION_1);
    drv_make_queue(0, 8, 0);
    drv_ready();
    add_echo(0, "a");
    drv_kick(0);
    assert_int_equal(take(0), 0x51);
    drv_move(dev("echo"), make_echo);
    apic_set(0xb0, 0);
    assert_int_equal(take(0), 0x51); // still up
    assert_int_equal(reg_in(0x400, 1), 1);
    apic_set(0xb0, 0);
    assert_int_equal(take(0), -1);
}

static void chains_wait_through_a_move(void **state)
{
    (void)state;
    start(VIRTIO_F_EVENT_IDX);
    echo->hold = true;
    add_echo(0, "late");
    drv_kick(0);
    assert_int_equal(drv_take(0, NULL), -1);
    drv_move(dev("echo"), make_echo); // and the new one does not hold
    assert_int_equal(drv_take(0, NULL), 0);
    assert_string_equal((char *)ram + OUT, "LATE");
    assert_int_equal(drv_interrupt(), 0x50);
}

static void a_broken_device_stays_broken(void **state)
{
    (void)state;
    start(0);
    drv_make_available(0, 8);
    drv_kick(0);
    drv_move(dev("echo"), make_echo);
    assert_broken("descriptor 8 of a table of 8");
}

static void impossible_states(void **state)
{
    (void)state;
    start(0);
    struct echo *e = malloc(sizeof(*e));
    const struct {
        u32 offset;
        u8 value;
        const char *word;
    } bad[] = {
        {offsetof(struct echo, v.pci.config[0]), 1, "PCI function"},
        {offsetof(struct echo, v.pci.msix.entry[1].control), 2, "PCI function"},
        {offsetof(struct echo, v.pci.msix.pending), 8, "PCI function"},
        {offsetof(struct echo, v.pci.intx), 1, "PCI function"},
        {offsetof(struct echo, v.offered), 1, "offers other features"},
        {offsetof(struct echo, v.offered) + 4, 0, "offers other features"},
        {offsetof(struct echo, v.features), 1, "status"},
        {offsetof(struct echo, v.features) + 4, 0, "status"},
        {offsetof(struct echo, v.status), 4, "status"},
        {offsetof(struct echo, v.isr), 4, "isr"},
        {offsetof(struct echo, v.broken), 2, "broken"},
        {offsetof(struct echo, v.why), 7, "text"},
        {offsetof(struct echo, v.size), 3, "queue"},
        {offsetof(struct echo, v.size), 0, "queue"},
        {offsetof(struct echo, v.size) + 1, 1, "queue"},
        {offsetof(struct echo, v.size[2]), 1, "queue"},
        {offsetof(struct echo, v.enabled), 2, "queue"},
        {offsetof(struct echo, v.enabled[7]), 1, "queue"},
        {offsetof(struct echo, v.muted), 2, "queue"},
        {offsetof(struct echo, v.desc), 8, "queue"},
        {offsetof(struct echo, v.driver), 1, "queue"},
        {offsetof(struct echo, v.device), 2, "queue"},
    };
    for (u32 i = 0; i < ARRAY_SIZE(bad); i++) {
        memcpy(e, echo, sizeof(*e));
        ((u8 *)e)[bad[i].offset] = bad[i].value;
        assert_refused(&echo_state, e, bad[i].word);
    }
    memcpy(e, echo, sizeof(*e));
    memset(e->v.why, 'x', sizeof(e->v.why));
    assert_refused(&echo_state, e, "text");
    free(e);
}

static void guest_reset(void **state)
{
    (void)state;
    start(0);
    devices_reset(&guest);
    assert_int_equal(echo->v.status, 0);
    assert_int_equal(echo->v.enabled[0], 0);
    assert_int_equal(bus_mmio_read(&guest, BAR_AT + 0x14, 1), 0xff);
    assert_string_equal(state_text(), "without a driver");
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, set_up, pc_destroy)
    const struct CMUnitTest tests[] = {
        T(pci_identity),
        T(negotiation),
        T(queue_registers),
        T(misaligned_rings),
        T(configuration),
        T(window),
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
        T(bad_index),
        T(bad_head),
        T(bad_next),
        T(chain_loops),
        T(order),
        T(bad_buffers),
        T(bad_tables),
        T(rings_outside_of_ram),
        T(breaking_is_logged_so_often),
        T(moved_at_every_step),
        T(interrupts_move),
        T(chains_wait_through_a_move),
        T(a_broken_device_stays_broken),
        T(impossible_states),
        T(guest_reset),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
