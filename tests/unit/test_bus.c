// SPDX-License-Identifier: MIT
// Devices on the buses of a guest: claims, dispatch, and the calls to all of them.
// sources: kernel/guest/bus.c kernel/guest/device.c
#include "fake_guest.h"
#include "kernel/guest/bus.h"

static char calls[256];
static u64 last_value;

struct state_of_test {
    u32 instance;
};

static void call(struct device *d, const char *what)
{
    char text[32];
    snprintf(text, sizeof(text), "%s%u ", what, d->instance);
    strcat(calls, text);
    if (strcmp(what, "init") && strcmp(what, "fini"))
        assert_non_null(d->lock.owner); // the framework's
}

static int init(struct device *d)
{
    call(d, "init");
    if (d->instance == 9)
        return device_claim_ports(d, 0x100, 4, 0) ? E_EXIST : E_NOMEM; // claims, then fails
    int e = device_claim_ports(d, (u16)(0x100 + d->instance * 8), 8, 7);
    return e ? e : device_claim_mmio(d, 0xe0000000 + d->instance * 0x1000ull, 0x1000, 1);
}
static void fini(struct device *d)
{
    call(d, "fini");
}
static void reset(struct device *d)
{
    call(d, "reset");
}
static u64 rd(struct device *d, u32 region, u64 offset, u32 size)
{
    call(d, "read");
    return 0xffffffff00000000ull | region << 16 | offset << 4 | size;
}
static void wr(struct device *d, u32 region, u64 offset, u32 size, u64 value)
{
    (void)region, (void)offset, (void)size;
    call(d, "write");
    last_value = value;
}
static void pause_(struct device *d)
{
    call(d, "pause");
}
static void resume(struct device *d)
{
    call(d, "resume");
}

static const struct device_ops ops = {
    .name = "test", .priv_size = sizeof(struct state_of_test), .init = init, .fini = fini,
    .reset = reset, .read = rd, .write = wr, .pause = pause_, .resume = resume,
};

static struct guest *const g = &fake_guest;

static int setup(void **state)
{
    (void)state;
    fake_guest_reset();
    calls[0] = 0;
    return bus_create(g);
}

static int teardown(void **state)
{
    (void)state;
    devices_destroy(g);
    bus_destroy(g);
    return 0;
}

static void test_dispatch(void **state)
{
    (void)state;
    assert_non_null(device_add(g, &ops, 0));
    assert_non_null(device_add(g, &ops, 1));
    assert_int_equal(bus_io_read(g, 0x103, 1), (7 << 16 | 3 << 4 | 1) & 0xff);
    assert_int_equal(bus_io_read(g, 0x10c, 4), 7 << 16 | 4 << 4 | 4);
    assert_int_equal(bus_mmio_read(g, 0xe0001010, 4), 1 << 16 | 0x10 << 4 | 4);
    bus_io_write(g, 0x100, 2, 0x12345678);
    assert_int_equal(last_value, 0x5678);
    assert_string_equal(calls, "init0 init1 read0 read1 read1 write0 ");
    assert_ptr_equal(device_find(g, "test", 1), g->devices->next);
    assert_null(device_find(g, "test", 2));
    assert_null(device_find(g, "tent", 1));
}

static void test_unclaimed(void **state)
{
    (void)state;
    device_add(g, &ops, 0);
    assert_int_equal(bus_io_read(g, 0x80, 1), 0xff);
    assert_int_equal(bus_io_read(g, 0x80, 2), 0xffff);
    assert_int_equal(bus_io_read(g, 0xffff, 4) & 0xff, 0xff); // runs over the last port
    assert_int_equal(bus_mmio_read(g, 0xd0000000, 8), ~0ull);
    assert_int_equal(bus_mmio_read(g, ~0ull - 2, 8), ~0ull);
    bus_io_write(g, 0x80, 4, 1);
    bus_mmio_write(g, 0xd0000000, 8, 1);
    assert_string_equal(calls, "init0 ");
}

static void test_over_the_edge_by_bytes(void **state)
{
    (void)state;
    device_add(g, &ops, 0);
    calls[0] = 0;
    u64 v = bus_io_read(g, 0x106, 4); // two bytes of the device, two of nobody
    assert_int_equal(v >> 16, 0xffff);
    assert_string_equal(calls, "read0 read0 ");
    calls[0] = 0;
    bus_mmio_write(g, 0xe0000ffe, 4, 0);
    assert_string_equal(calls, "write0 write0 ");
    calls[0] = 0;
    assert_int_equal(bus_mmio_read(g, 0xdfffffff, 1), 0xff);
    assert_string_equal(calls, "");
}

static void test_claims_do_not_overlap(void **state)
{
    (void)state;
    struct device *d = device_add(g, &ops, 0);
    assert_null(device_add(g, &ops, 0)); // same ports
    assert_int_equal(device_claim_ports(d, 0xff, 2, 0), E_EXIST);
    assert_int_equal(device_claim_mmio(d, 0xdfffffff, 2, 2), E_EXIST);
    assert_int_equal(device_claim_mmio(d, 0xe0000fff, 2, 2), E_EXIST);
    assert_int_equal(device_claim_mmio(d, ~0ull - 5, 100, 2), E_INVAL);
    assert_int_equal(device_claim_mmio(d, 0xc0000000, 0, 2), E_INVAL);
    assert_int_equal(device_claim_mmio(d, 0xe0001000, 16, 2), 0);
}

static void test_a_failed_device_leaves_no_claim(void **state)
{
    (void)state;
    assert_null(device_add(g, &ops, 9));
    assert_null(g->devices);
    assert_int_equal(bus_io_read(g, 0x100, 1), 0xff);
    assert_non_null(device_add(g, &ops, 0)); // the same ports are free
}

static void test_a_bar_moves(void **state)
{
    (void)state;
    struct device *d = device_add(g, &ops, 0);
    for (u64 i = 0; i < 1000; i++) {
        device_release_mmio(d, 1);
        assert_int_equal(bus_mmio_read(g, 0xe0000000 + (i & 1) * MIB, 4), 0xffffffff);
        assert_int_equal(device_claim_mmio(d, 0xe0000000 + (i & 1) * MIB, 0x1000, 1), 0);
        calls[0] = 0;
        bus_mmio_read(g, 0xe0000000 + (i & 1) * MIB, 4);
        assert_string_equal(calls, "read0 ");
    }
}

static void test_all_of_them(void **state)
{
    (void)state;
    device_add(g, &ops, 0);
    device_add(g, &ops, 1);
    calls[0] = 0;
    devices_reset(g);
    devices_pause(g);
    devices_resume(g);
    assert_string_equal(calls, "reset0 reset1 pause0 pause1 resume0 resume1 ");
    calls[0] = 0;
    devices_destroy(g);
    assert_string_equal(calls, "fini1 fini0 ");
    assert_int_equal(bus_io_read(g, 0x100, 1), 0xff);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
        T(test_dispatch),
        T(test_unclaimed),
        T(test_over_the_edge_by_bytes),
        T(test_claims_do_not_overlap),
        T(test_a_failed_device_leaves_no_claim),
        T(test_a_bar_moves),
        T(test_all_of_them),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
