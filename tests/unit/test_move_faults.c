// SPDX-License-Identifier: MIT
// Moves between two processes, as in test_move.c, with links cut and hosts killed at every step.
// Never may two of them run the guest.
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

// A link cut at any point, by either host: in the end exactly one runs it.
static void cut(u32 host, const char *point, u32 runs_at)
{
    ask(host, "fault drop-link-at-%s", point);
    move(0);
    await(runs_at, "running");
    assert_runs(runs_at);
    ask(0, "fault none");
    ask(1, "fault none");
}

static void test_cut_early(void **state)
{
    (void)state;
    cut(0, "precopy", 0);
    cut(0, "offer", 0);
    cut(1, "offer", 0);
    cut(1, "ready", 0);
    cut(0, "ready", 0);
    await(1, "none");
    assert_moved(0);
}

static void test_cut_at_commit_by_source(void **state)
{
    (void)state;
    cut(0, "commit", 1); // it was decided: asked again, it starts there
    await_job(0, "done");
    ask(0, "state");
    assert_reply("moved");
}

static void test_cut_at_commit_by_destination(void **state)
{
    (void)state;
    cut(1, "commit", 1);
    await_job(0, "done");
}

static void test_cut_at_running(void **state)
{
    (void)state;
    cut(1, "running", 1);
    await(0, "moved");
    assert_moved(1);
    assert_runs(0);
    cut(0, "running", 1);
    await(0, "moved");
}

// One host dies at a point of the move. The other goes on, or knows that it can't know.
static void stall_and_kill(u32 stalls, const char *point, u32 dies)
{
    ask(stalls, "fault stall-at-%s", point);
    ask(0, "begin bravo");
    await_stall(stalls);
    power_off(dies);
    if (stalls != dies)
        ask(stalls, "fault none");
}

static void test_destination_dies_early(void **state)
{
    static const char *const points[] = {"precopy", "offer", "ready"};
    (void)state;
    for (u32 i = 0; i < ARRAY_SIZE(points); i++) {
        stall_and_kill(1, points[i], 1);
        ask(0, "wait");
        if (i < 2) { // after READY the source has committed at once
            assert_reply("failed");
            assert_runs(0);
            power_on(1);
        }
    }
    assert_reply("in-doubt");
    assert_nowhere();
}

// What host n says of the guest, as soon as it has heard of the other's restart.
static void await_says(u32 n, const char *what)
{
    for (u32 i = 0; i < 3000; i++) {
        if (strstr(ask(n, "state"), what))
            return;
        usleep(10000);
    }
    fail_msg("host %u: wanted \"%s\" in \"%s\"", n, what, reply);
}

static void test_destination_dies_after_commit(void **state)
{
    (void)state;
    stall_and_kill(1, "commit", 1);
    ask(0, "wait");
    assert_reply("in-doubt");
    await(0, "in-doubt");
    assert_nowhere();
    power_on(1);
    await_says(0, "bravo has restarted since COMMIT was sent");
    assert_says("resolve web keep");
    assert_nowhere();
    ask(0, "may");
    assert_reply("0 its last move is not settled");
    ask(1, "may");
    assert_reply("0"); // bravo knows nothing, and may not start what alpha holds
    ask(0, "resolve keep");
    assert_reply("0");
    assert_runs(0);
    assert_moved(0);
}

static void test_resolve_drop(void **state)
{
    (void)state;
    stall_and_kill(1, "commit", 1);
    ask(0, "wait");
    await(0, "in-doubt");
    ask(0, "resolve drop");
    assert_reply("0");
    ask(0, "state");
    assert_reply("moved");
    assert_nowhere();
    ask(0, "resolve keep");
    assert_reply("-5");
}

static void test_source_dies(void **state)
{
    static const char *const points[] = {"precopy", "offer"};
    (void)state;
    for (u32 i = 0; i < ARRAY_SIZE(points); i++) {
        stall_and_kill(1, points[i], 0);
        await(1, "none"); // what it got is dropped, for READY did not leave it
        assert_nowhere();
        power_on(0);
        fake_shared->counter = fake_shared->last_ticks = 0;
        ask(0, "start");
    }
    ask(0, "fault stall-at-ready"); // READY was received, COMMIT not sent
    ask(0, "begin bravo");
    await_stall(0);
    power_off(0);
    await(1, "in-doubt");
    assert_nowhere();
    power_on(0);
    await_says(1, "alpha has restarted since");
    ask(0, "may");
    assert_reply("0 bravo holds a copy");
    ask(1, "resolve keep");
    assert_reply("0");
    assert_runs(1);
}

static void test_source_dies_after_commit(void **state)
{
    (void)state;
    stall_and_kill(0, "commit", 0);
    await(1, "running");
    assert_runs(1);
}

// ---- With records that outlive a restart --------------------------------------------------------

static void test_recorded_destination_restarts_after_commit(void **state)
{
    (void)state;
    stall_and_kill(1, "commit", 1);
    await(0, "in-doubt");
    power_on(1); // it knows that it had not started it
    await(0, "running");
    assert_runs(0);
    assert_moved(0);
}

static void test_recorded_source_restarts_before_commit(void **state)
{
    (void)state;
    stall_and_kill(0, "ready", 0);
    await(1, "in-doubt");
    power_on(0); // it knows that COMMIT had not been sent
    await(1, "none");
    await(0, "off 1");
    ask(0, "may");
    assert_reply("1");
}

static void test_recorded_source_restarts_after_commit(void **state)
{
    (void)state;
    stall_and_kill(0, "commit", 0);
    await(1, "running");
    power_on(0);
    await(0, "moved");
    ask(0, "may");
    assert_reply("0 it runs on bravo");
    assert_runs(1);
}

static void test_recorded_both_restart(void **state)
{
    (void)state;
    stall_and_kill(0, "commit", 0);
    await(1, "running");
    power_off(1);
    power_on(0);
    await(0, "in-doubt 1");
    ask(0, "may");
    assert_reply("0 its last move is not settled");
    power_on(1);
    await(1, "off 2");
    await(0, "moved 2");
    ask(1, "may");
    assert_reply("1");
    assert_nowhere();
}

static void test_recorded_operators_word_after_restart(void **state)
{
    (void)state;
    stall_and_kill(1, "commit", 1);
    await(0, "in-doubt");
    power_off(0);
    power_on(0);
    await(0, "in-doubt");
    ask(0, "resolve drop");
    assert_reply("0");
    ask(0, "state");
    assert_reply("moved");
    power_off(0);
    power_on(0);
    await(0, "none"); // it is somebody else's for good
}

// A datastore that fails in the middle of a move.
static void test_unrecorded(void **state)
{
    (void)state;
    ask(0, "records 2");
    move(0);
    assert_says("the move cannot be recorded");
    assert_runs(0);
    await(1, "none");
    ask(0, "records 1");
    ask(1, "records 2");
    move(0);
    assert_says("refused by bravo: datastore: the move cannot be recorded");
    assert_runs(0);
    await(1, "none");
    ask(1, "records 1");

    ask(0, "fault stall-at-offer");
    ask(0, "begin bravo");
    await_stall(0);
    ask(0, "records 2");
    ask(0, "fault none");
    ask(0, "wait");
    assert_says("COMMIT cannot be recorded");
    assert_runs(0);
    await(1, "none");
    ask(0, "records 1");

    ask(1, "fault stall-at-commit");
    ask(0, "begin bravo");
    await_stall(1);
    ask(1, "records 2");
    ask(1, "fault none");
    ask(0, "wait");
    assert_says("bravo discarded its copy before it ran");
    assert_runs(0);
    await(1, "none");
    ask(1, "records 1");
    assert_moved(0);
}

int main(void)
{
#define R(name) cmocka_unit_test_setup_teardown(name, setup_recorded, teardown)
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_cut_early, setup, teardown),
        cmocka_unit_test_setup_teardown(test_cut_at_commit_by_source, setup, teardown),
        cmocka_unit_test_setup_teardown(test_cut_at_commit_by_destination, setup, teardown),
        cmocka_unit_test_setup_teardown(test_cut_at_running, setup, teardown),
        cmocka_unit_test_setup_teardown(test_destination_dies_early, setup, teardown),
        cmocka_unit_test_setup_teardown(test_destination_dies_after_commit, setup, teardown),
        cmocka_unit_test_setup_teardown(test_resolve_drop, setup, teardown),
        cmocka_unit_test_setup_teardown(test_source_dies, setup, teardown),
        cmocka_unit_test_setup_teardown(test_source_dies_after_commit, setup, teardown),
        R(test_recorded_destination_restarts_after_commit),
        R(test_recorded_source_restarts_before_commit),
        R(test_recorded_source_restarts_after_commit),
        R(test_recorded_both_restart),
        R(test_recorded_operators_word_after_restart),
        R(test_unrecorded),
    };
    fake_hosts_make();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
