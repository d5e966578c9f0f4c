// SPDX-License-Identifier: MIT
// The virtio core: registers, negotiation, bad drivers, moves at any moment.
// sources: arch/x86/platform/*.c kernel/guest/bus.c kernel/guest/device.c
// sources: kernel/guest/state.c kernel/guest/gtimer.c kernel/guest/virtio.c
// sources: kernel/guest/virtio_pci.c kernel/guest/virtio_ring.c
#include "tests/unit/echo_device.h"

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

// ---- Bad drivers -------------------------------------------------------------------------------

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
