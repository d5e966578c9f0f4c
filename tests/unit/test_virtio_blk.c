// SPDX-License-Identifier: MIT
// The guest's disk: requests of good and bad drivers over a disk that is slow, fails, lacks things.
// sources: arch/x86/platform/*.c kernel/guest/bus.c kernel/guest/device.c
// sources: kernel/guest/state.c kernel/guest/gtimer.c kernel/guest/virtio.c
// sources: kernel/guest/virtio_pci.c kernel/guest/virtio_ring.c storage/virtio_blk.c storage/block.c
#include "tests/unit/fake_virtio.h"

#include "tests/unit/fake_disk_thread.h"

const struct device_ops vrng_device, vballoon_device;

static void make_disk(void)
{
    assert_non_null(device_add(&guest, &vblk_device, 0));
}

static int set_up(void **state)
{
    pc_one(state);
    memset(ram, 0, sizeof(ram));
    disk_new();
    guest_logs = 0;
    memcpy(guest.uuid, "\x12\x34\xab\xcd", 4);
    make_disk();
    return 0;
}

// ---- The driver --------------------------------------------------------------------------------

#define SEG_MAX BIT(2)
#define FLUSH BIT(9)
#define DATA 0x200000u
#define HEADERS 0x1f0000u
#define STATUSES 0x1f8000u
enum { IN, OUT, FLUSH_OP = 4, GET_ID = 8, DISCARD = 11, ZEROES = 13 };

static void start(u64 features)
{
    drv_start(VIRTIO_SLOT_BLOCK, 1, 128, features);
}

static u32 requests;

// Returns the request's head; its status is found by it.
static u16 add(u32 type, u64 sector, u64 gpa, u32 bytes)
{
    u32 slot = requests++ % 128;
    u32 *header = (u32 *)(ram + HEADERS + slot * 16);
    header[0] = type;
    header[1] = 0;
    memcpy(&header[2], &sector, 8);
    struct drv_desc d[] = {
        {HEADERS + slot * 16, 16, 0, 0},
        {gpa, bytes, type == IN || type == GET_ID ? D_WRITE : 0, 0},
        {STATUSES + slot, 1, D_WRITE, 0},
    };
    ram[STATUSES + slot] = 0xee;
    if (bytes)
        return drv_add(0, d, 3);
    d[1] = d[2];
    return drv_add(0, d, 2);
}

static u8 last_status(void)
{
    return ram[STATUSES + (requests - 1) % 128];
}

// One request, by itself.
static u8 request(u32 type, u64 sector, u64 gpa, u32 bytes)
{
    u32 written;
    u16 head = add(type, sector, gpa, bytes);
    ram_watch();
    drv_kick(0);
    settle();
    ram_watched();
    assert_int_equal(drv_take(0, &written), head);
    assert_int_equal(drv_take(0, NULL), -1);
    assert_int_equal(drv_interrupt(), 0x50);
    if (last_status() == 0)
        assert_int_equal(written, type == IN || type == GET_ID ? bytes + 1 : 1);
    return last_status();
}

static void fill(u8 *at, u32 bytes, u32 seed)
{
    for (u32 i = 0; i < bytes; i++)
        at[i] = (u8)(i * 7 + i / 512 + seed);
}

static u8 clear(u32 type, u64 sector, u32 sectors, u32 flags)
{
    u32 *segment = (u32 *)(ram + DATA);
    memcpy(segment, &sector, 8);
    segment[2] = sectors;
    segment[3] = flags;
    return request(type, 0, DATA, 16);
}

// ---- Tests -------------------------------------------------------------------------------------

static void configuration(void **state)
{
    (void)state;
    drv_find(VIRTIO_SLOT_BLOCK);
    assert_int_equal(pci_in(0, 4), 0x10421af4);
    assert_int_equal(drv_offered() & 0xffffff, BIT(2) | BIT(6) | BIT(9) | BIT(10) | BIT(13) | BIT(14));
    assert_int_equal(reg_in(0x800, 4), SECTORS);
    assert_int_equal(reg_in(0x80c, 4), 126);
    assert_int_equal(reg_in(0x814, 4), 512);
    assert_int_equal(reg_in(0x818, 1), 3); // 4096 bytes
    assert_int_equal(reg_in(0x824, 4), 1 << 22);
    assert_int_equal(reg_in(0x828, 4), 1);
    assert_int_equal(reg_in(0x838, 1), 1);
}

static void written_and_read(void **state)
{
    (void)state;
    start(FLUSH | SEG_MAX);
    static const u32 sizes[] = {512, 4096, 131072, 131072 + 512, 300 * 1024};
    for (u32 i = 0; i < ARRAY_SIZE(sizes); i++) {
        fill(ram + DATA, sizes[i], i);
        assert_int_equal(request(OUT, 77, DATA, sizes[i]), 0);
        assert_memory_equal(disk + 77 * 512, ram + DATA, sizes[i]);
        memset(ram + DATA + MIB, 0, sizes[i]);
        assert_int_equal(request(IN, 77, DATA + MIB, sizes[i]), 0);
        assert_memory_equal(ram + DATA + MIB, ram + DATA, sizes[i]);
    }
    assert_int_equal(disk[76 * 512 + 511] | disk[77 * 512 + 300 * 1024], 0);
    assert_int_equal(request(IN, SECTORS - 1, DATA, 512), 0);
}

// Descriptors may be cut anywhere (2.7.4.1): header, data and status share and split them.
static void any_layout(void **state)
{
    (void)state;
    start(FLUSH);
    u8 *m = ram + DATA;
    fill(disk, 1024, 3);
    memset(m, 0, 16);
    struct drv_desc in[] = {{DATA, 3, 0, 0},
                            {DATA + 3, 13, 0, 0},
                            {DATA + 0x1000, 700, D_WRITE, 0},
                            {DATA + 0x2000, 325, D_WRITE, 0}};
    m[0x2000 + 324] = 0xee;
    drv_add(0, in, 4);
    drv_kick(0);
    settle();
    assert_memory_equal(m + 0x1000, disk, 700);
    assert_memory_equal(m + 0x2000, disk + 700, 324);
    assert_int_equal(m[0x2000 + 324], 0);
    fill(m + 16, 512, 9);
    m[0] = OUT;
    m[8] = 5;
    struct drv_desc out[] = {{DATA, 16 + 512, 0, 0}, {DATA + 0x3000, 1, D_WRITE, 0}};
    m[0x3000] = 0xee;
    drv_add(0, out, 2);
    drv_kick(0);
    settle();
    assert_int_equal(m[0x3000], 0);
    assert_memory_equal(disk + 5 * 512, m + 16, 512);
}

static void flushes(void **state)
{
    (void)state;
    start(FLUSH);
    fill(ram + DATA, 512, 1);
    assert_int_equal(request(OUT, 3, DATA, 512), 0);
    assert_int_equal(durable[3 * 512 + 1], 0);
    assert_int_equal(request(FLUSH_OP, 0, 0, 0), 0);
    assert_memory_equal(durable + 3 * 512, ram + DATA, 512);
    reg_out(0x14, 1, 0);
    start(0); // a driver that never flushes
    fill(ram + DATA, 512, 2);
    assert_int_equal(request(OUT, 3, DATA, 512), 0);
    assert_memory_equal(durable + 3 * 512, ram + DATA, 512);
    ram[DATA] = 0x42;
    add(OUT, 4, DATA, 512);
    drv_kick(0);
    assert_true(disk_complete(0));
    run_worker();
    assert_int_equal(drv_take(0, NULL), -1); // the flush is under way
    assert_int_equal(pending_count, 1);
    settle();
    assert_int_equal(last_status(), 0);
    assert_int_equal(durable[4 * 512], 0x42);
}

static void the_id(void **state)
{
    (void)state;
    start(FLUSH);
    assert_int_equal(request(GET_ID, 0, DATA, 20), 0);
    assert_string_equal((char *)ram + DATA, "1234abcd-disk0");
    memset(ram + DATA, 0x55, 20);
    assert_int_equal(request(GET_ID, 0, DATA, 4), 0); // what fits
    assert_memory_equal(ram + DATA, "1234\x55", 5);
    assert_int_equal(submitted, 0);
}

static void clearing(void **state)
{
    (void)state;
    for (u32 can = 0; can < 2; can++) {
        guest_disk.block.can_discard = guest_disk.block.can_write_zeroes = can;
        memset(disk, 0xff, sizeof(disk));
        start(FLUSH);
        assert_int_equal(clear(DISCARD, 100, 2500, 0), 0); // in pieces
        assert_int_equal(disk[100 * 512], can ? 0xdd : 0xff);
        assert_int_equal(disk[2600 * 512 - 1], can ? 0xdd : 0xff);
        assert_int_equal(clear(ZEROES, 101, 700, 1), 0);
        assert_int_equal(disk[101 * 512] | disk[801 * 512 - 1], 0);
        assert_int_equal(disk[801 * 512], can ? 0xdd : 0xff);
        assert_int_equal(clear(DISCARD, 0, 1, 1), 2); // flags that are reserved (5.2.6.2)
        assert_int_equal(clear(ZEROES, 0, 1, 2), 2);
        assert_int_equal(clear(ZEROES, SECTORS - 1, 2, 0), 1);
        assert_int_equal(clear(DISCARD, ~0ull, 1, 0), 1);
        assert_int_equal(clear(DISCARD, 0, (1 << 22) + 1, 0), 1);
        assert_int_equal(request(ZEROES, 0, DATA, 15), 1);
        assert_int_equal(request(ZEROES, 0, DATA, 32), 1); // two segments
        assert_int_equal(clear(ZEROES, 5, 0, 0), 0);
        reg_out(0x14, 1, 0);
    }
}

static void bad_requests(void **state)
{
    (void)state;
    start(FLUSH);
    assert_int_equal(request(IN, SECTORS, DATA, 512), 1);
    assert_int_equal(request(IN, SECTORS - 1, DATA, 1024), 1);
    assert_int_equal(request(OUT, ~0ull, DATA, 512), 1);
    assert_int_equal(request(OUT, 0, DATA, 511), 1);
    assert_int_equal(request(IN, 0, DATA, 513), 1);
    assert_int_equal(request(99, 0, DATA, 512), 2);
    assert_int_equal(submitted, 0);
    assert_int_equal(request(IN, 0, DATA, 512), 0);
    static const struct drv_desc bad[][2] = {
        {{DATA, 15, 0, 0}, {DATA + 0x1000, 1, D_WRITE, 0}},
        {{DATA, 16, 0, 0}, {DATA + 0x1000, 0, D_WRITE, 0}},
        {{DATA, 16, 0, 0}, {DATA + 0x1000, 1, 0, 0}},
    };
    for (u32 i = 0; i < ARRAY_SIZE(bad); i++) {
        reg_out(0x14, 1, 0);
        start(FLUSH);
        drv_add(0, bad[i], 2);
        drv_kick(0);
        assert_int_equal(drv_status(), 0x4f);
        assert_int_equal(drv_used_index(0), 0);
    }
}

static void describe(char *text, size_t size)
{
    struct device *d = guest.devices;
    while (!virtio_of(d))
        d = d->next;
    virtio_describe(virtio_of(d), text, size);
}

static void the_disk_fails(void **state)
{
    (void)state;
    start(FLUSH);
    static const int errors[] = {E_IO, E_NOMEM, E_NOSUP};
    static const char *const said[] = {
        "running; I/O error 1: read of 1 sectors at 5: the disk says so",
        "running; I/O error 2: write of 1 sectors at 5: no room left in its datastore",
        "running; I/O error 3: write of 1 sectors at 5: the disk cannot do that"};
    char text[VIRTIO_DESCRIPTION];
    for (u32 i = 0; i < ARRAY_SIZE(errors); i++) {
        fail_next = errors[i];
        assert_int_equal(request(i ? OUT : IN, 5, DATA, 512), 1);
        assert_int_equal(guest_logs, i + 1);
        describe(text, sizeof(text));
        assert_string_equal(text, said[i]);
    }
    fail_next = E_IO;
    assert_int_equal(request(FLUSH_OP, 0, 0, 0), 1);
    describe(text, sizeof(text));
    assert_string_equal(text, "running; I/O error 4: flush: the disk says so");
    assert_int_equal(request(IN, 0, DATA, 512), 0);
    reg_out(0x14, 1, 0);
    start(0);
    add(OUT, 0, DATA, 512); // written, and then the flush fails
    drv_kick(0);
    assert_true(disk_complete(0));
    run_worker();
    fail_next = E_IO;
    settle();
    assert_int_equal(last_status(), 1);
}

static void read_only(void **state)
{
    (void)state;
    guest_disk.block.read_only = true;
    devices_destroy(&guest);
    platform_destroy(&guest);
    assert_int_equal(platform_create(&guest), 0);
    make_disk();
    drv_find(VIRTIO_SLOT_BLOCK);
    assert_true(drv_offered() & BIT(5));
    start(FLUSH | BIT(5));
    assert_int_equal(request(OUT, 0, DATA, 512), 1);
    assert_int_equal(clear(ZEROES, 0, 1, 0), 1);
    assert_int_equal(request(IN, 0, DATA, 512), 0);
}

// More than there are slots for, in any order.
static void many_at_once(void **state)
{
    (void)state;
    start(FLUSH | VIRTIO_F_EVENT_IDX);
    u32 done = 0, seed = 1;
    for (u32 i = 0; i < 42; i++) {
        fill(ram + DATA + i * 4096, 4096, i);
        add(OUT, i * 8, DATA + i * 4096, 4096);
        drv_kick(0);
    }
    while (done < 42) {
        seed = seed * 1103515245 + 12345;
        if (pending_count)
            disk_complete((seed >> 16) % pending_count);
        if (seed >> 28 & 1)
            run_worker();
        while (drv_take(0, NULL) >= 0)
            done++;
    }
    assert_int_equal(most_pending, 32);
    for (u32 i = 0; i < 42; i++) {
        assert_int_equal(ram[STATUSES + (requests - 1 - i) % 128], 0);
        assert_memory_equal(disk + i * 4096, ram + DATA + i * 4096, 4096);
    }
}

static void done_at_once(void **state)
{
    (void)state;
    at_once = true;
    start(FLUSH);
    fill(ram + DATA, 300 * 1024, 5);
    assert_int_equal(request(OUT, 0, DATA, 300 * 1024), 0);
    assert_memory_equal(disk, ram + DATA, 300 * 1024);
}

// What was under way is done when the guest stands still.
static void a_pause_drains(void **state)
{
    (void)state;
    start(FLUSH);
    for (u32 i = 0; i < 40; i++) {
        fill(ram + DATA + i * 4096, 4096, i);
        add(i & 1 ? OUT : IN, i * 8, DATA + i * 4096, 4096);
    }
    add(OUT, 1000, DATA, 300 * 1024); // waits with eight others for a slot
    ram_watch();
    drv_kick(0);
    assert_int_equal(pending_count, 32);
    pause_all();
    ram_watched();
    assert_int_equal(pending_count, 0);
    assert_int_equal(drv_used_index(0), 32);
    u32 before = submitted;
    run_worker(); // wakes and finds nothing to do
    assert_int_equal(submitted, before);
    resume_all();
    assert_int_equal(pending_count, 9);
    settle();
    assert_int_equal(drv_used_index(0), 41);
    assert_memory_equal(disk + 1000 * 512, ram + DATA, 300 * 1024);
}

static void moved_with_requests_waiting(void **state)
{
    (void)state;
    start(FLUSH | VIRTIO_F_EVENT_IDX);
    for (u32 i = 0; i < 40; i++)
        add(OUT, i, DATA + i * 512, 512);
    fill(ram + DATA, 40 * 512, 8);
    drv_kick(0);
    drv_move(dev("virtio-blk"), make_disk);
    settle();
    for (u32 i = 0; i < 40; i++)
        assert_true(drv_take(0, NULL) >= 0);
    assert_memory_equal(disk, ram + DATA, 40 * 512);
    while (drv_interrupt() >= 0)
        ;
    assert_int_equal(request(IN, 0, DATA + MIB, 40 * 512), 0);
}

static void another_size_is_refused(void **state)
{
    (void)state;
    const struct state_table *t = vblk_device.state;
    static u8 buf[16384];
    char err[200] = "";
    s64 bytes = state_save(t, dev("virtio-blk")->priv, buf, sizeof(buf));
    guest_disk.block.sectors--;
    devices_destroy(&guest);
    platform_destroy(&guest);
    assert_int_equal(platform_create(&guest), 0);
    make_disk();
    void *scratch = calloc(1, t->struct_size);
    assert_int_equal(state_check(t, dev("virtio-blk")->priv, buf, (u64)bytes, scratch, err, sizeof(err)),
                     E_INVAL);
    assert_non_null(strstr(err, "sectors is 0x1000, this host has 0xfff"));
    free(scratch);
}

// The driver may use the memory for something else as soon as it reads status 0.
static void a_reset_forgets(void **state)
{
    (void)state;
    start(FLUSH);
    for (u32 i = 0; i < 8; i++)
        add(IN, 0, DATA, 300 * 1024);
    memset(disk, 0x77, sizeof(disk));
    drv_kick(0);
    reg_out(0x14, 1, 0);
    assert_int_equal(pending_count, 0);
    ram_watch();
    run_worker();
    assert_int_equal(drv_used_index(0), 0);
    for (u32 i = 0; i < 300 * 1024; i++)
        assert_int_equal(ram[DATA + i], 0);
    start(FLUSH);
    assert_int_equal(request(IN, 0, DATA, 512), 0);
    assert_int_equal(ram[DATA], 0x77);
}

static void taken_apart_with_requests_under_way(void **state)
{
    (void)state;
    start(FLUSH);
    for (u32 i = 0; i < 8; i++)
        add(OUT, 0, DATA, 4096);
    drv_kick(0);
    devices_destroy(&guest);
    assert_int_equal(pending_count, 0);
    assert_true(worker_ended);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, set_up, pc_destroy)
    const struct CMUnitTest tests[] = {
        T(configuration),
        T(written_and_read),
        T(any_layout),
        T(flushes),
        T(the_id),
        T(clearing),
        T(bad_requests),
        T(the_disk_fails),
        T(read_only),
        T(many_at_once),
        T(done_at_once),
        T(a_pause_drains),
        T(moved_with_requests_waiting),
        T(another_size_is_refused),
        T(a_reset_forgets),
        T(taken_apart_with_requests_under_way),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
