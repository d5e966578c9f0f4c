// SPDX-License-Identifier: MIT
// Whole moves between two processes over local sockets: the real migration code on both sides, with
// links cut and hosts killed at every step. Never may two of them run the guest.
// sources: kernel/migrate/check.c kernel/migrate/clock_sync.c kernel/migrate/cpu_features.c
// sources: kernel/migrate/describe.c kernel/migrate/dest.c kernel/migrate/dest_check.c
// sources: kernel/migrate/dest_pages.c kernel/migrate/doubt.c kernel/migrate/fault.c
// sources: kernel/migrate/handover.c kernel/migrate/hash.c kernel/migrate/jobs.c
// sources: kernel/migrate/migrate.c kernel/migrate/ownership.c kernel/migrate/peers.c
// sources: kernel/migrate/policy.c kernel/migrate/precopy.c kernel/migrate/section_diff.c
// sources: kernel/migrate/sections.c kernel/migrate/serve.c kernel/migrate/settle.c
// sources: kernel/migrate/source.c kernel/migrate/source_stop.c kernel/migrate/stream.c
// sources: kernel/migrate/vcpu_fields.c kernel/migrate/verify.c kernel/migrate/verify_ask.c
// sources: kernel/guest/state.c kernel/guest/dirty_bitmap.c kernel/crc32c.c kernel/ip.c
// kernel/number.c libs: -lpthread
#include "tests/unit/unit.h"

#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "arch/x86/cpu.h"
#include "kernel/lib.h"
#include "kernel/log.h"
#include "kernel/mem.h"
#include "kernel/migrate/check.h"
#include "kernel/migrate/fault.h"
#include "kernel/migrate/migrate.h"
#include "kernel/random.h"
#include "net/net.h"
#include "tests/unit/fake_move.h"

#include "tests/unit/fake_move_os.h"

#include "tests/unit/fake_move_guest.h"

static const u8 uuid[16] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16};
#define GUEST_MIB 4
#define PORT      7070

// ---- A host's process: takes a line, answers a line
// ----------------------------------------------

static struct host_config config;

static void setup_config(u32 number)
{
    static const char *const names[] = {"alpha", "bravo", "charlie"};
    config.port = (u16)(PORT + number);
    config.blackout_target_ms = 300;
    config.max_rounds = 30;
    config.autostart_wait = true;
    strlcpy(config.name, names[number], sizeof(config.name));
    for (u32 i = 0; i < 2; i++) {
        if (i == number)
            continue;
        struct peer_config *p = &config.peers[config.peer_count++];
        strlcpy(p->name, names[i], sizeof(p->name));
        p->address.family = 4;
        p->port = (u16)(PORT + i);
    }
}

static char report_text[2000];
static void report(void *arg, const char *line)
{
    (void)arg;
    size_t n = strlen(report_text);
    snprintf(report_text + n, sizeof(report_text) - n, "%s|", line);
}

static void answer_job(FILE *out)
{
    struct job_info i, last = {.id = 0};
    for (unsigned n = 0; job_get(n, &i); n++)
        last = i;
    fprintf(out, "%s %u %llu %llu %s %s\n", job_phase_name(last.phase), last.digest_match,
            (unsigned long long)last.predicted_blackout_us,
            (unsigned long long)last.measured_blackout_us, last.stop_reason, last.result);
}

static void obey_move(FILE *out, const char *verb, const char *arg)
{
    char err[300] = "";
    static s64 job;
    if (!strcmp(verb, "begin")) {
        job = migrate_begin("web", arg, err, sizeof(err));
        fprintf(out, "%lld %s\n", (long long)job, err);
    } else if (!strcmp(verb, "wait")) {
        migrate_wait((u64)job, NULL, NULL);
        answer_job(out);
    } else if (!strcmp(verb, "job")) {
        answer_job(out);
    } else if (!strcmp(verb, "abort")) {
        fprintf(out, "%d %s\n", migrate_abort((u64)job, err, sizeof(err)), err);
    } else if (!strcmp(verb, "check")) {
        report_text[0] = 0;
        int e = migrate_check("web", arg, report, NULL, err, sizeof(err));
        fprintf(out, "%d %s %s\n", e, err, report_text);
    } else if (!strcmp(verb, "resolve")) {
        int e = migrate_resolve("web", !strcmp(arg, "keep"), err, sizeof(err));
        fprintf(out, "%d %s\n", e, err);
    } else {
        fprintf(out, "? %s\n", verb);
    }
}

static void obey(FILE *out, const char *verb, const char *arg)
{
    char err[300] = "";
    struct guest *g = guest_find("web");
    struct peer_info p;
    if (!strcmp(verb, "start")) {
        fake_guest_start("web", uuid, GUEST_MIB);
        fprintf(out, "ok\n");
    } else if (!strcmp(verb, "state")) {
        fprintf(out, "%s %llu %s\n", g ? guest_state_name(g->state) : "none",
                (unsigned long long)(g ? g->epoch : 0), g ? g->why : "");
    } else if (!strcmp(verb, "fault")) {
        fprintf(out, "%d %s\n", fault_set(arg, err, sizeof(err)), err);
    } else if (!strcmp(verb, "verify")) {
        config.verify = *arg == '1';
        fprintf(out, "ok\n");
    } else if (!strcmp(verb, "max_rate")) {
        config.max_rate = (u64)atoll(arg);
        fprintf(out, "ok\n");
    } else if (!strcmp(verb, "max_rounds")) {
        config.max_rounds = (u32)atoi(arg);
        fprintf(out, "ok\n");
    } else if (!strcmp(verb, "target")) {
        config.blackout_target_ms = (u32)atoi(arg);
        fprintf(out, "ok\n");
    } else if (!strcmp(verb, "write_every")) {
        fake_write_every_us = (u32)atoi(arg);
        fprintf(out, "ok\n");
    } else if (!strcmp(verb, "free")) {
        fake_free_bytes = (u64)atoll(arg) * MIB;
        fprintf(out, "ok\n");
    } else if (!strcmp(verb, "lack")) {
        fake_missing_ebx7 = (u32)BIT(16);
        fprintf(out, "ok\n");
    } else if (!strcmp(verb, "device_version")) {
        fake_device_version = (u32)atoi(arg);
        fprintf(out, "ok\n");
    } else if (!strcmp(verb, "other")) { // another guest with the same name
        static const u8 other[16] = {9};
        struct guest_config c = {.memory_mib = GUEST_MIB, .vcpus = 1, .name = "web"};
        memcpy(c.uuid, other, 16);
        fprintf(out, "%p\n", (void *)guest_add(&c, err, sizeof(err)));
    } else if (!strcmp(verb, "peer")) {
        peer_query(0, &p);
        fprintf(out, "%d %u %s %s\n", p.reachable, p.guests, p.version, p.error);
    } else if (!strcmp(verb, "may")) {
        bool ok = ownership_may_start(uuid, err, sizeof(err));
        fprintf(out, "%d %s\n", ok, err);
    } else {
        obey_move(out, verb, arg);
    }
}

static void host_main(u32 number, int in_fd, int out_fd)
{
    char line[200], verb[100], arg[100];
    FILE *in = fdopen(in_fd, "r"), *out = fdopen(out_fd, "w");
    fake_host = number;
    fake_log = getenv("MOVE_LOG") != NULL;
    setup_config(number);
    migrate_start(&config);
    fprintf(out, "up\n");
    fflush(out);
    while (fgets(line, sizeof(line), in)) {
        arg[0] = 0;
        if (sscanf(line, "%99s %99s", verb, arg) >= 1)
            obey(out, verb, arg);
        fflush(out);
    }
    _exit(0);
}

// ---- The test's side
// -----------------------------------------------------------------------------

static struct host {
    pid_t pid;
    FILE *in, *out;
} hosts[2];
static char reply[2600];

static const char *ask(u32 n, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vfprintf(hosts[n].out, fmt, ap);
    va_end(ap);
    fputc('\n', hosts[n].out);
    fflush(hosts[n].out);
    if (!fgets(reply, sizeof(reply), hosts[n].in))
        fail_msg("host %u is gone", n);
    reply[strcspn(reply, "\n")] = 0;
    return reply;
}

static void power_on(u32 n)
{
    int to[2], from[2];
    assert_int_equal(pipe(to) | pipe(from), 0);
    hosts[n].pid = fork();
    if (hosts[n].pid == 0) {
        close(to[1]);
        close(from[0]);
        for (u32 i = 0; i < 2; i++) {
            if (i != n && hosts[i].pid > 0) {
                close(fileno(hosts[i].in));
                close(fileno(hosts[i].out));
            }
        }
        host_main(n, to[0], from[1]);
    }
    close(to[0]);
    close(from[1]);
    hosts[n].out = fdopen(to[1], "w");
    hosts[n].in = fdopen(from[0], "r");
    assert_non_null(fgets(reply, sizeof(reply), hosts[n].in));
}

static void power_off(u32 n)
{
    if (hosts[n].pid <= 0)
        return;
    kill(hosts[n].pid, SIGKILL);
    waitpid(hosts[n].pid, NULL, 0);
    fclose(hosts[n].in);
    fclose(hosts[n].out);
    hosts[n].pid = 0;
    fake_shared->running[n] = 0;
}

static int setup(void **state)
{
    static char dir[64];
    (void)state;
    memset(fake_shared, 0, sizeof(*fake_shared));
    snprintf(dir, sizeof(dir), "/tmp/skiff-move-XXXXXX");
    fake_dir = mkdtemp(dir);
    power_on(0);
    power_on(1);
    ask(0, "start");
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    char path[128];
    for (u32 i = 0; i < 2; i++) {
        power_off(i);
        snprintf(path, sizeof(path), "%s/%u", fake_dir, PORT + i);
        unlink(path);
    }
    rmdir(fake_dir);
    return 0;
}

static bool starts(const char *text, const char *with)
{
    return strncmp(text, with, strlen(with)) == 0;
}

// Waits up to 8 s of real time for a host's guest to be in a state.
static void await(u32 n, const char *state)
{
    for (u32 i = 0; i < 800; i++) {
        if (starts(ask(n, "state"), state))
            return;
        usleep(10000);
    }
    fail_msg("host %u: wanted the guest %s, found %s", n, state, reply);
}

static void await_job(u32 n, const char *phase)
{
    for (u32 i = 0; i < 800; i++) {
        if (starts(ask(n, "job"), phase))
            return;
        usleep(10000);
    }
    fail_msg("host %u: wanted the job %s, found %s", n, phase, reply);
}

#define assert_reply(with)                                                                         \
    do {                                                                                           \
        if (!starts(reply, with))                                                                  \
            fail_msg("wanted \"%s\", found \"%s\"", with, reply);                                  \
    } while (0)
#define assert_says(what)                                                                          \
    do {                                                                                           \
        if (!strstr(reply, what))                                                                  \
            fail_msg("wanted \"%s\" in \"%s\"", what, reply);                                      \
    } while (0)

// The guest gets on with its work, on host n alone.
static void assert_runs(u32 n)
{
    u64 before = fake_shared->counter;
    for (u32 i = 0; i < 500 && fake_shared->counter < before + 20; i++)
        usleep(10000);
    assert_true(fake_shared->counter >= before + 20);
    assert_int_equal(fake_shared->running[n], 1);
    assert_int_equal(fake_shared->running[!n], 0);
    assert_int_equal(fake_shared->two_runners, 0);
    assert_int_equal(fake_shared->went_back, 0);
}

static void assert_nowhere(void)
{
    u64 before = fake_shared->counter;
    usleep(100000);
    assert_int_equal(fake_shared->counter, before);
    assert_int_equal(fake_shared->two_runners, 0);
}

static void move(u32 from)
{
    ask(from, "begin %s", from ? "alpha" : "bravo");
    assert_true(atoi(reply) > 0);
    ask(from, "wait");
}

static void assert_moved(u32 from)
{
    move(from);
    if (!starts(reply, "done"))
        fail_msg("the move failed: %s", reply);
    await(!from, "running");
    assert_runs(!from);
    ask(from, "state");
    assert_reply("moved");
}

// ---- Tests
// ---------------------------------------------------------------------------------------

static void test_back_and_forth(void **state)
{
    (void)state;
    assert_runs(0);
    for (u32 i = 0; i < 4; i++)
        assert_moved(i & 1);
    ask(0, "state");
    assert_reply("running 5");
}

static void test_verified(void **state)
{
    (void)state;
    ask(0, "verify 1");
    move(0);
    assert_reply("done 1");
    assert_runs(1);
}

static void test_verify_finds_page(void **state)
{
    (void)state;
    ask(0, "verify 1");
    ask(0, "fault flip-page");
    move(0);
    assert_reply("failed 2");
    assert_says("page at 0x");
    assert_null(strstr(reply, "more"));
    assert_runs(0);
    await(1, "none");
    assert_moved(0); // and the next one succeeds
}

static void test_verify_finds_page_at_destination(void **state)
{
    (void)state;
    ask(0, "verify 1");
    ask(1, "fault flip-page");
    move(0);
    assert_reply("failed 2");
    assert_says("page at 0x1000 differs");
    assert_runs(0);
}

static void test_verify_finds_register(void **state)
{
    (void)state;
    ask(0, "verify 1");
    ask(0, "fault change-register");
    move(0);
    assert_reply("failed 2");
    assert_says("vcpu 0: rbx is 0x1003 here and 0x1002 there");
    assert_runs(0);
}

static void test_round_limit(void **state)
{
    (void)state;
    ask(0, "max_rounds 3");
    ask(0, "target 1");
    ask(0, "write_every 1");
    move(0);
    assert_reply("done");
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
    fake_shared->counter = 0;
    ask(0, "start");
    ask(0, "check bravo");
    assert_says("device toy 0: alpha has state version 2");
    ask(1, "state");
    assert_reply("none");
    ask(1, "device_version 2");
    ask(0, "check bravo");
    assert_reply("0 ");
    ask(1, "state");
    assert_reply("none");
    assert_moved(0);
}

static void test_abort_then_again(void **state)
{
    (void)state;
    ask(0, "max_rate 100000");
    ask(0, "begin bravo");
    usleep(200000);
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
    usleep(250000);
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

static void test_destination_dies_after_commit(void **state)
{
    (void)state;
    stall_and_kill(1, "commit", 1);
    ask(0, "wait");
    assert_reply("in-doubt");
    await(0, "in doubt");
    assert_nowhere();
    power_on(1);
    usleep(800000);
    ask(0, "state");
    assert_says("bravo has restarted since COMMIT was sent");
    assert_says("resolve web keep");
    assert_nowhere();
    ask(0, "may");
    assert_reply("1"); // bravo itself knows nothing...
    ask(1, "may");
    assert_reply("0"); // ...and may not start what alpha holds
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
    await(0, "in doubt");
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
        fake_shared->counter = 0;
        fake_shared->last_ticks = 0;
        ask(0, "start");
    }
    ask(0, "fault stall-at-ready"); // READY was received, COMMIT not sent
    ask(0, "begin bravo");
    usleep(250000);
    power_off(0);
    await(1, "in doubt");
    assert_nowhere();
    power_on(0);
    usleep(800000);
    ask(1, "state");
    assert_says("alpha has restarted since");
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

static void test_paused_by_stall(void **state)
{
    (void)state;
    ask(0, "fault stall-at-offer"); // longer than the destination's patience is not: it just waits
    ask(0, "begin bravo");
    usleep(300000);
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
        cmocka_unit_test_setup_teardown(test_verified, setup, teardown),
        cmocka_unit_test_setup_teardown(test_verify_finds_page, setup, teardown),
        cmocka_unit_test_setup_teardown(test_verify_finds_page_at_destination, setup, teardown),
        cmocka_unit_test_setup_teardown(test_verify_finds_register, setup, teardown),
        cmocka_unit_test_setup_teardown(test_round_limit, setup, teardown),
        cmocka_unit_test_setup_teardown(test_refusals, setup, teardown),
        cmocka_unit_test_setup_teardown(test_older_device_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(test_abort_then_again, setup, teardown),
        cmocka_unit_test_setup_teardown(test_second_move_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(test_cut_early, setup, teardown),
        cmocka_unit_test_setup_teardown(test_cut_at_commit_by_source, setup, teardown),
        cmocka_unit_test_setup_teardown(test_cut_at_commit_by_destination, setup, teardown),
        cmocka_unit_test_setup_teardown(test_cut_at_running, setup, teardown),
        cmocka_unit_test_setup_teardown(test_destination_dies_early, setup, teardown),
        cmocka_unit_test_setup_teardown(test_destination_dies_after_commit, setup, teardown),
        cmocka_unit_test_setup_teardown(test_resolve_drop, setup, teardown),
        cmocka_unit_test_setup_teardown(test_source_dies, setup, teardown),
        cmocka_unit_test_setup_teardown(test_source_dies_after_commit, setup, teardown),
        cmocka_unit_test_setup_teardown(test_paused_by_stall, setup, teardown),
        cmocka_unit_test_setup_teardown(test_peers, setup, teardown),
        cmocka_unit_test_setup_teardown(test_garbage, setup, teardown),
    };
    fake_shared =
        mmap(NULL, sizeof(*fake_shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
