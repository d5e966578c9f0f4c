// SPDX-License-Identifier: MIT
// Whole moves between two processes over local sockets: the real migration code on both sides.
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

static void test_back_and_forth(void **state)
{
    (void)state;
    assert_runs(0);
    for (u32 i = 0; i < 4; i++)
        assert_moved(i & 1);
    ask(0, "state");
    assert_reply("running 5");
}

// A paused guest arrives paused, and one that stays behind stays paused.
static void test_paused(void **state)
{
    (void)state;
    ask(0, "pause");
    ask(0, "fault drop-link-at-offer");
    move(0);
    assert_reply("failed");
    assert_true(starts(ask(0, "state"), "paused"));
    assert_nowhere();
    move(0);
    assert_reply("done");
    assert_true(starts(ask(1, "state"), "paused"));
    assert_nowhere();
    ask(1, "resume");
    assert_runs(1);
}

// More of them than questions that one connection may ask.
static void test_late_frames_follow(void **state)
{
    (void)state;
    ask(0, "late 100");
    assert_moved(0);
    for (u32 i = 0; i < 200 && !starts(ask(1, "taken"), "100"); i++)
        usleep(10000);
    assert_reply("100");
}

static void verify_both(void (*check)(void))
{
    for (u32 mode = VERIFY_ON; mode <= VERIFY_STRICT; mode++) {
        ask(0, "verify %u", mode);
        check();
        await(1, "none");
    }
    assert_moved(0); // and the next one succeeds
}

static void test_verified(void **state)
{
    (void)state;
    ask(0, "verify %u", VERIFY_ON);
    ask(1, "verify %u", VERIFY_STRICT);
    for (u32 i = 0; i < 2; i++) {
        move(i);
        assert_reply("done 1");
        assert_runs(!i);
    }
}

static void flip_page(void)
{
    ask(0, "fault flip-page");
    move(0);
    assert_reply("failed 2");
    assert_says("page at 0x");
    assert_null(strstr(reply, "more"));
    assert_runs(0);
}

static void test_verify_finds_page(void **state)
{
    (void)state;
    verify_both(flip_page);
}

static void flip_page_at_destination(void)
{
    ask(1, "fault flip-page");
    move(0);
    assert_reply("failed 2");
    assert_says("page at 0x1000 differs");
    assert_null(strstr(reply, "more"));
    assert_runs(0);
}

static void test_verify_finds_page_at_destination(void **state)
{
    (void)state;
    verify_both(flip_page_at_destination);
}

static void change_register(void)
{
    ask(0, "fault change-register");
    move(0);
    assert_reply("failed 2");
    assert_says("vcpu 0: rbx is 0x1003 here and 0x1002 there");
    assert_runs(0);
}

static void test_verify_finds_register(void **state)
{
    (void)state;
    verify_both(change_register);
}

// A write that the dirty log missed: strict sees it while the guest can still stay, on afterwards.
static void test_strict_finds_lost_page(void **state)
{
    (void)state;
    ask(0, "verify %u", VERIFY_STRICT);
    ask(0, "fault lose-page");
    move(0);
    assert_reply("failed 2");
    assert_says("verify: what arrived differs: page at 0x5000 differs");
    assert_null(strstr(reply, "more"));
    assert_runs(0);
}

static void test_audit_finds_lost_page(void **state)
{
    (void)state;
    ask(0, "verify %u", VERIFY_ON);
    ask(0, "fault lose-page");
    move(0);
    assert_reply("done 2");
    assert_says("its memory there is stale, the dirty log missed writes: page at 0x5000 differs");
    assert_null(strstr(reply, "more"));
    ask(0, "state");
    assert_reply("moved"); // the copy is gone once it was read
}

static void test_no_memory_for_hashes(void **state)
{
    (void)state;
    ask(0, "verify %u", VERIFY_ON);
    ask(0, "no_pages 1");
    move(0);
    assert_reply("failed 0");
    assert_says("verification needs 16 KiB for hashes of 1024 pages");
    assert_runs(0);
    ask(0, "no_pages 0");
    ask(1, "no_pages 1");
    ask(0, "check bravo");
    assert_says("memory: verification needs 16 KiB");
    move(0);
    assert_reply("failed 0");
    assert_says("refused by bravo: memory: verification needs 16 KiB");
    assert_runs(0);
    ask(1, "no_pages 0");
    assert_moved(0);
}

static void test_round_limit(void **state)
{
    (void)state;
    ask(0, "max_rounds 3");
    ask(0, "target 0"); // however few pages a busy machine lets the guest write
    ask(0, "write_every 1");
    move(0);
    // It may let it write none at all in a round, which ends pre-copy by itself.
    for (u32 tries = 0; tries < 10 && !strstr(reply, " rounds web runs on bravo"); tries++) {
        assert_reply("done");
        await(1, "running");
        assert_moved(1);
        move(0);
    }
    assert_says(" rounds web runs on bravo");
    assert_says("), 3 rounds");
    assert_runs(1);
}

static void test_refusals(void **state)
{
    (void)state;
    ask(1, "free 1");
    ask(1, "lack");
    ask(1, "other");
    ask(0, "check bravo");
    assert_reply("-1 ");
    assert_says("CPU feature avx512f");
    assert_says("memory: the guest needs");
    assert_says("name: another guest here is called web");
    move(0);
    assert_reply("failed");
    assert_says("refused by bravo: CPU feature avx512f");
    assert_runs(0);
    ask(0, "check charlie");
    assert_reply("-1 no peer");
}

static void test_older_device_refused(void **state)
{
    (void)state;
    power_off(0);
    power_on(0);
    ask(0, "device_version 2");
    fake_shared->counter = fake_shared->last_ticks = 0;
    ask(0, "start");
    ask(0, "check bravo");
    assert_says("device toy 0: alpha has state version 2");
    ask(1, "state");
    assert_reply("none");
    ask(1, "device_version 2");
    ask(0, "check bravo");
    assert_reply("0 ");
    assert_says(" it cannot be rebooted on bravo, which has no \\skiff\\toy|");
    ask(1, "state");
    assert_reply("none");
    assert_moved(0);
}

static void test_abort_then_again(void **state)
{
    (void)state;
    ask(0, "max_rate 100000");
    ask(0, "begin bravo");
    await_job(0, "precopy");
    ask(0, "abort");
    assert_reply("0");
    ask(0, "wait");
    assert_reply("aborted");
    assert_runs(0);
    await(1, "none");
    ask(0, "max_rate 0");
    assert_moved(0);
}

static void test_second_move_refused(void **state)
{
    (void)state;
    ask(0, "fault stall-at-precopy");
    ask(0, "begin bravo");
    ask(0, "begin bravo");
    assert_reply("-1 guest web is being moved already");
    ask(0, "fault none");
    await(1, "running");
    assert_runs(1);
}

static void test_paused_by_stall(void **state)
{
    (void)state;
    ask(0, "fault stall-at-offer"); // longer than the destination's patience is not: it just waits
    ask(0, "begin bravo");
    await_stall(0);
    usleep(300000); // the time that is to do no harm
    assert_nowhere();
    ask(0, "fault none");
    ask(0, "wait");
    assert_reply("done");
    assert_runs(1);
}

static void test_peers(void **state)
{
    (void)state;
    ask(1, "peer");
    assert_reply("1 1 test");
    ask(1, "may");
    assert_reply("0 it runs on alpha");
    power_off(0);
    ask(1, "peer");
    assert_reply("0 0");
    ask(1, "may");
    assert_reply("0 alpha cannot be reached");
    power_on(0);
    ask(1, "may");
    assert_reply("1");
    ask(0, "may");
    assert_reply("0 another host has asked to start it"); // alpha has promised to wait
}

static void send_garbage(u32 n, const void *data, size_t bytes)
{
    char err[100];
    struct ip_address to = {.family = 4};
    struct conn *c = net_connect(&to, (u16)(PORT + n), NS_PER_SEC, err, sizeof(err));
    assert_non_null(c);
    conn_write(c, data, bytes);
    conn_close(c);
}

static void test_garbage(void **state)
{
    (void)state;
    u8 junk[700];
    for (u32 seed = 0; seed < 200; seed++) {
        for (u32 i = 0; i < sizeof(junk); i++)
            junk[i] = (u8)rand();
        if (seed & 1) {
            struct stream_header h;
            stream_header_fill(&h, "alpha", 77, PORT);
            stream_header_seal(&h);
            memcpy(junk, &h, sizeof(h));
        }
        send_garbage(1, junk, (size_t)(seed * 3));
    }
    usleep(200000); // until the last ones' connections have ended
    assert_moved(0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_back_and_forth, setup, teardown),
        cmocka_unit_test_setup_teardown(test_paused, setup, teardown),
        cmocka_unit_test_setup_teardown(test_late_frames_follow, setup, teardown),
        cmocka_unit_test_setup_teardown(test_verified, setup, teardown),
        cmocka_unit_test_setup_teardown(test_verify_finds_page, setup, teardown),
        cmocka_unit_test_setup_teardown(test_verify_finds_page_at_destination, setup, teardown),
        cmocka_unit_test_setup_teardown(test_verify_finds_register, setup, teardown),
        cmocka_unit_test_setup_teardown(test_strict_finds_lost_page, setup, teardown),
        cmocka_unit_test_setup_teardown(test_audit_finds_lost_page, setup, teardown),
        cmocka_unit_test_setup_teardown(test_no_memory_for_hashes, setup, teardown),
        cmocka_unit_test_setup_teardown(test_round_limit, setup, teardown),
        cmocka_unit_test_setup_teardown(test_refusals, setup, teardown),
        cmocka_unit_test_setup_teardown(test_older_device_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(test_abort_then_again, setup, teardown),
        cmocka_unit_test_setup_teardown(test_second_move_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(test_paused_by_stall, setup, teardown),
        cmocka_unit_test_setup_teardown(test_peers, setup, teardown),
        cmocka_unit_test_setup_teardown(test_garbage, setup, teardown),
    };
    fake_hosts_make();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
