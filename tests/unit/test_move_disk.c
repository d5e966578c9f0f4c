// SPDX-License-Identifier: MIT
// Moves of a guest with its disk between two processes: whatever it was told is on the disk is
// there afterwards, wherever it runs.

// sources: kernel/migrate/busy.c kernel/migrate/check.c kernel/migrate/clock_sync.c
// sources: kernel/migrate/cpu_features.c kernel/mac.c
// sources: kernel/migrate/describe.c kernel/migrate/dest.c kernel/migrate/dest_check.c
// sources: kernel/migrate/dest_disks.c kernel/migrate/verify_disks.c kernel/migrate/source_disks.c storage/block.c
// sources: storage/guest_disk.c
// sources: kernel/migrate/dest_pages.c kernel/migrate/doubt.c kernel/migrate/fault.c kernel/migrate/forward.c
// sources: kernel/migrate/handover.c kernel/migrate/hash.c kernel/migrate/jobs.c
// sources: kernel/migrate/migrate.c kernel/migrate/ownership.c kernel/migrate/peers.c
// sources: kernel/migrate/page_hashes.c kernel/migrate/policy.c kernel/migrate/precopy.c
// sources: kernel/migrate/section_diff.c kernel/migrate/link_test.c kernel/migrate/ledger.c
// sources: kernel/migrate/sections.c kernel/migrate/serve.c kernel/migrate/settle.c
// sources: kernel/migrate/source.c kernel/migrate/source_stop.c kernel/migrate/stream.c
// sources: kernel/migrate/vcpu_fields.c kernel/migrate/verify.c kernel/migrate/verify_ask.c
// sources: kernel/guest/reference.c kernel/guest/state.c kernel/guest/dirty_bitmap.c
// sources: kernel/crc32c.c kernel/ip.c kernel/uuid.c

// libs: -lpthread
#include "tests/unit/fake_move_host.h"

// ---- Tests --------------------------------------------------------------------------------------

// Everything that the guest was told is on its disk is there.
static void assert_disk(u32 n)
{
    ask(n, "disk");
    assert_reply("0 ");
    ask(n, "volumes");
    assert_reply("fast/web");
}

static void assert_moved_with_disk(u32 from)
{
    assert_moved(from);
    assert_disk(!from);
    ask(from, "volumes");
    assert_reply("none"); // and the guest can come back
}

static void test_back_and_forth_with_disk(void **state)
{
    (void)state;
    assert_runs(0);
    for (u32 i = 0; i < 4; i++)
        assert_moved_with_disk(i & 1);
}

// It writes faster than a round takes, all the time.
static void test_a_busy_disk(void **state)
{
    (void)state;
    ask(0, "write_every 0");
    ask(1, "write_every 0");
    for (u32 i = 0; i < 4; i++)
        assert_moved_with_disk(i & 1);
}

static void test_holes_are_not_sent(void **state)
{
    (void)state;
    assert_runs(0);
    ask(0, "pause");
    ask(0, "disk");
    u64 at_source = strtoull(reply + 2, NULL, 10);
    move(0);
    assert_reply("done");
    ask(1, "disk");
    assert_reply("0 ");
    u64 there = strtoull(reply + 2, NULL, 10);
    assert_true(there > 0);
    assert_true(there <= at_source); // not one for each block of the volume
    ask(1, "state");
    assert_reply("paused");
    assert_nowhere();
}

static void test_a_broken_disk_there(void **state)
{
    (void)state;
    ask(1, "write_error -6");
    move(0);
    assert_reply("failed");
    assert_says("writing to fast/web failed: see the log of this host");
    assert_runs(0);
    assert_disk(0);
    await(1, "none");
    ask(1, "volumes");
    assert_reply("none");
    ask(1, "write_error -2");
    move(0);
    assert_says("its datastore is full");
    await(1, "none");
    ask(1, "write_error 0");
    assert_moved_with_disk(0);
}

static void test_no_room_there(void **state)
{
    (void)state;
    assert_runs(0);
    ask(1, "store_free 0");
    ask(0, "check bravo");
    assert_says("the datastore here has 0 MiB left");
    move(0);
    assert_reply("failed");
    assert_says("refused by bravo: disk fast/web: it holds");
    ask(1, "store_free 100");
    ask(1, "volume 8");
    move(0);
    assert_says("there is a volume of that name here already");
    assert_runs(0);
    assert_disk(0);
}

static void test_a_check_leaves_nothing(void **state)
{
    (void)state;
    ask(0, "check bravo");
    assert_reply("0 ");
    ask(1, "volumes");
    assert_reply("none");
    assert_moved_with_disk(0);
}

static void cut_with_disk(u32 host, const char *point, u32 runs_at)
{
    ask(host, "fault drop-link-at-%s", point);
    move(0);
    await(runs_at, "running");
    assert_runs(runs_at);
    assert_disk(runs_at);
    ask(0, "fault none");
    ask(1, "fault none");
    if (runs_at == 0)
        await(1, "none");
}

static void test_cut_with_disk(void **state)
{
    (void)state;
    cut_with_disk(0, "disk", 0);
    cut_with_disk(1, "disk", 0);
    cut_with_disk(0, "precopy", 0);
    cut_with_disk(0, "offer", 0);
    cut_with_disk(1, "offer", 0);
    cut_with_disk(1, "ready", 0);
    cut_with_disk(0, "ready", 0);
    await(1, "none");
    ask(1, "volumes");
    assert_reply("none"); // all seven copies are gone
    cut_with_disk(0, "commit", 1);
    await_job(0, "done");
    ask(0, "volumes");
    assert_reply("none");
}

static void test_abort_with_disk(void **state)
{
    (void)state;
    assert_runs(0);
    ask(0, "max_rate 100000");
    ask(0, "begin bravo");
    await_job(0, "precopy");
    ask(0, "abort");
    assert_reply("0");
    ask(0, "wait");
    assert_reply("aborted");
    assert_runs(0);
    assert_disk(0);
    await(1, "none");
    ask(1, "volumes");
    assert_reply("none");
    ask(0, "max_rate 0");
    assert_moved_with_disk(0);
}

// The disks are compared once the guest runs there; what it has written since is left out.
static void test_verified_disk(void **state)
{
    (void)state;
    assert_runs(0);
    for (u32 i = 0; i < 4; i++) {
        ask(i & 1, "verify %u", i < 2 ? VERIFY_ON : VERIFY_STRICT);
        assert_moved_with_disk(i & 1);
        ask(i & 1, "disks");
        assert_reply("1 ");
        assert_true(atoi(reply + 2) > 0);
    }
}

static void test_a_lost_write_is_found(void **state)
{
    (void)state;
    assert_runs(0);
    ask(0, "pause");
    ask(0, "verify %u", VERIFY_STRICT);
    ask(1, "lose_write");
    move(0);
    assert_reply("failed");
    assert_says("what arrived differs: disk fast/web at sector");
    await(1, "none");
    ask(0, "disk");
    assert_reply("0 ");
    ask(0, "verify %u", VERIFY_ON);
    ask(1, "lose_write");
    move(0);
    assert_reply("done");
    assert_says("but what arrived differs: disk fast/web at sector");
    ask(0, "disks");
    assert_reply("2 ");
}

// ---- Hosts that end at every step, with records and disks that outlive them ---------------------

static bool owns(u32 n)
{
    ask(n, "state");
    return starts(reply, "running") || starts(reply, "off");
}

static bool has_nothing(u32 n)
{
    ask(n, "state");
    bool gone = starts(reply, "moved") || starts(reply, "none");
    ask(n, "volumes");
    return gone && starts(reply, "none");
}

// One of them has the guest in the end, with all it was told is on its disk, and can run it.
static void assert_one_copy(void)
{
    u32 n = 2;
    for (u32 i = 0; i < 3000 && n == 2; i++, usleep(10000))
        n = owns(0) && has_nothing(1) ? 0 : owns(1) && has_nothing(0) ? 1 : 2;
    if (n == 2) {
        char one[200];
        strlcpy(one, ask(0, "state"), sizeof(one));
        fail_msg("no one of them has it: %s, and %s", one, ask(1, "state"));
    }
    assert_disk(n);
    if (starts(ask(n, "state"), "off")) {
        ask(n, "again");
        assert_reply("1");
    }
    assert_runs(n);
    assert_disk(n);
}

static const char *point;
static u32 victim;

static void test_a_host_ends_and_comes_back(void **state)
{
    (void)state;
    assert_runs(0);
    ask(0, "verify %u", VERIFY_ON); // so that the disks are compared, which "release" is about
    ask(victim, "fault stall-at-%s", point);
    ask(0, "begin bravo");
    await_stall(victim);
    power_off(victim);
    power_on(victim);
    assert_one_copy();
}

// A volume that took the name of one that the move had made is nobody's to delete.
static void test_another_volume_of_that_name_stays(void **state)
{
    char err[160];
    (void)state;
    assert_runs(0);
    ask(1, "fault stall-at-disk");
    ask(0, "begin bravo");
    await_stall(1);
    power_off(1);
    fake_store = &fake_stores[1];
    fake_volume_find("fast/web")->dev.used_by[0] = '\0';
    assert_int_equal(volume_delete("fast/web", err, sizeof(err)), 0);
    assert_int_equal(volume_create("fast/web", 64 * KIB, err, sizeof(err)), 0);
    power_on(1);
    ask(0, "wait");
    assert_reply("failed");
    ask(1, "volumes");
    assert_reply("fast/web");
    move(0);
    assert_says("there is a volume of that name here already");
    assert_runs(0);
    assert_disk(0);
}

// When the host has taken up its records.
static void assert_volumes(u32 n, const char *what)
{
    ask(n, "may");
    ask(n, "volumes");
    assert_reply(what);
}

// What was made when the power failed goes, once: then whoever makes an empty one keeps it.
static void test_volumes_that_were_just_made_go_once(void **state)
{
    char err[160];
    (void)state;
    ask(1, "fault stall-at-volumes");
    ask(0, "begin bravo");
    await_stall(1);
    ask(1, "volumes");
    assert_reply("fast/web");
    power_off(1);
    power_on(1);
    assert_volumes(1, "none");
    power_off(1);
    fake_store = &fake_stores[1];
    assert_int_equal(volume_create("fast/web", 64 * KIB, err, sizeof(err)), 0);
    power_on(1);
    assert_volumes(1, "fast/web");
    ask(0, "wait");
    assert_reply("failed");
    assert_runs(0);
}

static int test_every_end(void)
{
    static const char *const points[] = {"volumes", "accept", "disk",   "precopy", "stop",   "offer",
                                         "ready",   "record", "commit", "running", "release"};
    const struct CMUnitTest ends =
        cmocka_unit_test_setup_teardown(test_a_host_ends_and_comes_back, setup_recorded, teardown);
    int failed = 0;
    for (victim = 0; victim < 2; victim++) {
        // The source makes no volumes, and at ACCEPT nothing is on record there, where only its
        // configuration lists the guest.
        for (u32 i = victim == 0 ? 2 : 0; i < ARRAY_SIZE(points); i++) {
            point = points[i];
            print_message("host %u ends at %s\n", victim, point);
            failed += _cmocka_run_group_tests(point, &ends, 1, NULL, NULL);
        }
    }
    return failed;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_back_and_forth_with_disk, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_busy_disk, setup, teardown),
        cmocka_unit_test_setup_teardown(test_holes_are_not_sent, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_broken_disk_there, setup, teardown),
        cmocka_unit_test_setup_teardown(test_no_room_there, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_check_leaves_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(test_cut_with_disk, setup, teardown),
        cmocka_unit_test_setup_teardown(test_abort_with_disk, setup, teardown),
        cmocka_unit_test_setup_teardown(test_verified_disk, setup_recorded, teardown),
        cmocka_unit_test_setup_teardown(test_a_lost_write_is_found, setup, teardown),
        cmocka_unit_test_setup_teardown(test_another_volume_of_that_name_stays, setup_recorded,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_volumes_that_were_just_made_go_once, setup_recorded,
                                        teardown),
    };
    disk_kib = 8200; // the last block is not whole, at 64 KiB
    fake_hosts_make();
    fake_stores_make();
    return cmocka_run_group_tests(tests, NULL, NULL) + test_every_end();
}
