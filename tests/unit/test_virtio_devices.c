// SPDX-License-Identifier: MIT
// The guest's small virtio devices: the source of entropy, and the balloon's hints to a move.
// sources: arch/x86/platform/*.c kernel/guest/bus.c kernel/guest/device.c
// sources: kernel/guest/state.c kernel/guest/gtimer.c kernel/guest/virtio.c
// sources: kernel/guest/virtio_pci.c kernel/guest/virtio_ring.c kernel/guest/virtio_rng.c
// sources: kernel/guest/virtio_balloon.c kernel/guest/dirty_bitmap.c kernel/random.c
#include "tests/unit/fake_virtio.h"

#include "boot/boot_info.h"
#include "kernel/guest/virtio_balloon.h"
#include "kernel/host.h"

const struct device_ops vblk_device;
static struct boot_info boot;
const struct boot_info *host_boot = &boot;

void *kmalloc(size_t size)
{
    return malloc(size);
}

void *guest_page(struct guest *g, u64 gpa)
{
    return guest_is_ram(g, gpa, PAGE_SIZE) ? ram + ALIGN_DOWN(gpa, PAGE_SIZE) : NULL;
}

u64 guest_page_index(const struct guest *g, u64 gpa)
{
    return guest_is_ram(g, gpa, 1) ? gpa / PAGE_SIZE : ~0ull;
}

static u64 now;
u64 time_ns(void)
{
    return now;
}

// Whoever waits lets the guest's driver go on, and then has waited long enough.
static void (*driver)(void);
static u32 waits;

bool waitq_commit(struct waitq *q, u64 deadline_ns)
{
    (void)q;
    assert_int_equal(deadline_ns, now + 500 * NS_PER_MS);
    now = deadline_ns;
    waits++;
    if (driver)
        driver();
    return false;
}

void waitq_set_and_wake(struct waitq *q, volatile bool *flag)
{
    (void)q;
    *flag = true;
}

#define FIRST     0x200000
#define OTHER     0x210000
#define LAST_PAGE (RAM_BYTES / PAGE_SIZE - 1)
static struct dirty_bitmap todo;

static int set_up(void **state)
{
    pc_one(state);
    memset(ram, 0x5a, sizeof(ram));
    waits = 0;
    driver = NULL;
    assert_int_equal(dirty_bitmap_init(&todo, RAM_BYTES / PAGE_SIZE), 0);
    dirty_bitmap_fill(&todo);
    assert_non_null(device_add(&guest, &vrng_device, 0));
    assert_non_null(device_add(&guest, &vballoon_device, 0));
    return 0;
}

static int tear_down(void **state)
{
    dirty_bitmap_free(&todo);
    return pc_destroy(state);
}

// ---- The source of entropy ---------------------------------------------------------------------

static void random_numbers(void **state)
{
    (void)state;
    drv_start(VIRTIO_SLOT_RNG, 1, 8, VIRTIO_F_EVENT_IDX);
    struct drv_desc d[] = {{FIRST, 16, D_WRITE, 0}, {OTHER, 9000, D_WRITE, 0}};
    drv_add(0, d, 2);
    drv_kick_watched(0);
    u32 written, same = 0;
    assert_int_equal(drv_take(0, &written), 0);
    assert_int_equal(written, 4096);
    for (u32 i = 0; i < 4080; i++)
        same += ram[OTHER + i] == 0x5a;
    assert_in_range(same, 1, 64);
    assert_int_equal(ram[OTHER + 4080], 0x5a);
    drv_add_one(0, FIRST, 16, 0); // nothing to write to: given back empty
    drv_kick(0);
    assert_int_equal(drv_take(0, &written), 2);
    assert_int_equal(written, 0);
}

// ---- The balloon -------------------------------------------------------------------------------

#define HINTS          3u
#define FREE_PAGE_HINT BIT(3)

static void send_command(u32 id)
{
    memcpy(ram + FIRST, &id, 4);
    drv_add_one(HINTS, FIRST, 4, 0);
    drv_kick(HINTS);
}

static void send_pages(u64 gpa, u32 bytes)
{
    drv_add_one(HINTS, gpa, bytes, D_WRITE);
    drv_kick(HINTS);
}

static u32 asked(void)
{
    return reg_in(0x808, 4);
}

static void start(void)
{
    drv_start(VIRTIO_SLOT_BALLOON, 4, 16, FREE_PAGE_HINT | BIT(1));
}

static bool configuration_changed(void)
{
    bool changed = false;
    for (int vector; (vector = drv_interrupt()) >= 0;)
        changed |= vector == 0x40;
    return changed;
}

static void good_driver(void)
{
    assert_true(configuration_changed());
    send_pages(OTHER, 4096); // before the command: counts for nothing
    send_command(asked());
    send_pages(OTHER + 100, 3 * 4096); // two whole pages
    send_pages(RAM_BYTES - 4096, 4096);
    send_pages(OTHER + 4096, 4096); // once more
    send_command(0);
    send_pages(OTHER + 0x8000, 4096); // after the end
}

static void free_pages_are_left_out(void **state)
{
    (void)state;
    start();
    driver = good_driver;
    memset(ram_dirty, 0, sizeof(ram_dirty));
    assert_int_equal(balloon_leave_out_free(&guest, &todo, 10 * NS_PER_SEC), 3);
    assert_int_equal(todo.count, RAM_BYTES / PAGE_SIZE - 3);
    static const u64 out[] = {OTHER / PAGE_SIZE + 1, OTHER / PAGE_SIZE + 2, LAST_PAGE};
    for (u32 i = 0; i < ARRAY_SIZE(out); i++) {
        assert_false(dirty_bitmap_test(&todo, out[i]));
        assert_false(ram_dirty[out[i]]);
        for (u32 at = 0; at < PAGE_SIZE; at++)
            assert_int_equal(ram[out[i] * PAGE_SIZE + at], 0);
    }
    assert_int_equal(ram[OTHER], 0x5a);
    assert_int_equal(ram[OTHER + 3 * 4096], 0x5a);
    assert_int_equal(ram[OTHER + 0x8000], 0x5a);
    assert_int_equal(asked(), 1); // done: the driver has its pages back
    assert_true(configuration_changed());
    u32 used = drv_used_index(HINTS);
    assert_int_equal(used, 7);
    send_pages(OTHER, 4096); // without a move
    assert_int_equal(ram[OTHER], 0x5a);
    driver = good_driver; // and again, by another number
    dirty_bitmap_fill(&todo);
    assert_int_equal(balloon_leave_out_free(&guest, &todo, 10 * NS_PER_SEC), 3);
}

static void make_balloon(void)
{
    assert_non_null(device_add(&guest, &vballoon_device, 0));
}

static u32 answered_id;
static void remembering_driver(void)
{
    assert_int_not_equal(asked(), answered_id);
    answered_id = asked();
    send_command(answered_id);
    send_command(0);
}

// A driver takes a number that it knows for the command it has carried out.
static void every_host_asks_by_another_number(void **state)
{
    (void)state;
    start();
    driver = remembering_driver;
    for (u32 i = 0; i < 3; i++) {
        balloon_leave_out_free(&guest, &todo, 10 * NS_PER_SEC);
        drv_move(dev("virtio-balloon"), make_balloon);
    }
    assert_int_equal(waits, 3);
}

static void slow_driver(void)
{
    send_command(asked());
    send_pages((600 + waits) * PAGE_SIZE, PAGE_SIZE);
}

// It is waited for as long as there is more, but not for ever.
static void a_driver_that_takes_its_time(void **state)
{
    (void)state;
    start();
    driver = slow_driver;
    assert_int_equal(balloon_leave_out_free(&guest, &todo, 10 * NS_PER_SEC), 20);
    assert_int_equal(waits, 20);
}

static void a_driver_that_does_not_answer(void **state)
{
    (void)state;
    assert_int_equal(balloon_leave_out_free(&guest, &todo, 10 * NS_PER_SEC), 0); // there is none
    drv_start(VIRTIO_SLOT_BALLOON, 3, 16, BIT(1));
    assert_int_equal(balloon_leave_out_free(&guest, &todo, 10 * NS_PER_SEC), 0); // without hints
    reg_out(0x14, 1, 0);
    start();
    guest.pause_count = 1;
    assert_int_equal(balloon_leave_out_free(&guest, &todo, 10 * NS_PER_SEC),
                     0); // the guest stands still
    guest.pause_count = 0;
    assert_int_equal(waits, 0);
    assert_int_equal(balloon_leave_out_free(&guest, &todo, 10 * NS_PER_SEC), 0);
    assert_int_equal(waits, 1);
    assert_int_equal(asked(), 1);
    assert_int_equal(todo.count, RAM_BYTES / PAGE_SIZE);
}

static void resetting_driver(void)
{
    send_command(asked());
    send_pages(OTHER, 4096);
    reg_out(0x14, 1, 0);
}

static void a_driver_that_resets_the_device(void **state)
{
    (void)state;
    start();
    driver = resetting_driver;
    assert_int_equal(balloon_leave_out_free(&guest, &todo, 10 * NS_PER_SEC), 1);
}

// The other queues give everything back; statistics stay where they are.
static void the_other_queues(void **state)
{
    (void)state;
    start();
    for (u32 q = 0; q < 3; q++) {
        drv_add_one(q, FIRST, 16, 0);
        drv_kick(q);
        assert_int_equal(drv_take(q, NULL), q == 2 ? -1 : 0);
    }
    reg_out(0x804, 4, 7);
    assert_int_equal(reg_in(0x804, 4), 7);
    reg_out(0x808, 4, 7); // the device's
    assert_int_equal(asked(), 0);
    assert_int_equal(reg_in(0x800, 4), 0);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        T(random_numbers),
        T(free_pages_are_left_out),
        T(every_host_asks_by_another_number),
        T(a_driver_that_takes_its_time),
        T(a_driver_that_does_not_answer),
        T(a_driver_that_resets_the_device),
        T(the_other_queues),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
