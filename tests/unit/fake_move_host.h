// SPDX-License-Identifier: MIT
// Hosts as processes that take commands over a pipe, and the test's side of that. Included once, by
// a test.

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
#include "kernel/migrate/ledger.h"
#include "kernel/migrate/jobs.h"
#include "kernel/migrate/migrate.h"
#include "kernel/random.h"
#include "net/net.h"
#include "storage/datastore.h"
#include "storage/guest_disk.h"
#include "tests/unit/fake_move.h"

#include "tests/unit/fake_move_os.h"

#include "tests/unit/fake_datastore.h"

#include "tests/unit/fake_move_guest.h"

static const u8 uuid[16] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16};
#define GUEST_MIB 4
#define PORT      7070

// ---- A host's process: takes a line, answers a line ---------------------------------------------

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

static void answer_disks(FILE *out)
{
    struct job_info i, last = {.id = 0};
    for (unsigned n = 0; job_get(n, &i); n++)
        last = i;
    fprintf(out, "%u %llu %llu\n", last.disk_digest_match,
            (unsigned long long)last.disk_blocks_equal,
            (unsigned long long)last.disk_blocks_rewritten);
}

static void obey_move(FILE *out, const char *verb, const char *arg)
{
    char err[300] = "";
    static s64 job;
    if (!strcmp(verb, "begin")) {
        job = migrate_begin("web", arg, true, err, sizeof(err));
        fprintf(out, "%lld %s\n", (long long)job, err);
    } else if (!strcmp(verb, "wait")) {
        job_wait_until((u64)job, 0);
        answer_job(out);
    } else if (!strcmp(verb, "disks")) {
        answer_disks(out);
    } else if (!strcmp(verb, "job")) {
        answer_job(out);
    } else if (!strcmp(verb, "abort")) {
        fprintf(out, "%d %s\n", migrate_abort((u64)job, err, sizeof(err)), err);
    } else if (!strcmp(verb, "check")) {
        report_text[0] = 0;
        int e = migrate_check("web", arg, true, report, NULL, err, sizeof(err));
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
    } else if (!strcmp(verb, "volume")) { // of so many KiB
        fprintf(out, "%d %s\n", volume_create("fast/web", (u64)atoll(arg) * KIB, err, sizeof(err)),
                err);
    } else if (!strcmp(verb, "disk")) { // places that are wrong, while it stands still; writes
        bool built = g->memory.bytes;
        if (built)
            guest_quiesce(g);
        fprintf(out, "%u %llu\n", fake_disk_errors(),
                (unsigned long long)fake_volume_find("fast/web")->written);
        if (built)
            guest_unquiesce(g, 0);
    } else if (!strcmp(verb, "again")) { // as an operator starts it after its host was down
        fake_shared->counter = fake_shared->last_ticks = 0;
        bool ok = ownership_may_start(uuid, err, sizeof(err)) &&
                  guest_start_unasked(g, err, sizeof(err)) == 0;
        fprintf(out, "%d %s\n", ok, err);
    } else if (!strcmp(verb, "volumes")) {
        fprintf(out, "%s\n", fake_volume_find("fast/web") ? "fast/web" : "none");
    } else if (!strcmp(verb, "store_free")) {
        fake_store_free = (u64)atoll(arg) * MIB;
        fprintf(out, "ok\n");
    } else if (!strcmp(verb, "lose_write")) {
        fake_volume_losing = 1;
        fprintf(out, "ok\n");
    } else if (!strcmp(verb, "write_error")) {
        fake_volume_error = atoi(arg);
        fprintf(out, "ok\n");
    } else if (!strcmp(verb, "pause")) {
        guest_quiesce(g);
        g->state = GUEST_PAUSED;
        fprintf(out, "ok\n");
    } else if (!strcmp(verb, "resume")) {
        g->state = GUEST_RUNNING;
        guest_unquiesce(g, 0);
        fprintf(out, "ok\n");
    } else if (!strcmp(verb, "state")) {
        fprintf(out, "%s %llu %s\n", g ? guest_state_name(g->state) : "none",
                (unsigned long long)(g ? g->epoch : 0), g ? g->why : "");
    } else if (!strcmp(verb, "fault")) {
        fprintf(out, "%d %s\n", fault_set(arg, err, sizeof(err)), err);
    } else if (!strcmp(verb, "verify")) {
        config.verify = (u8)atoi(arg); // enum verify_mode
        fprintf(out, "ok\n");
    } else if (!strcmp(verb, "stalled")) {
        fprintf(out, "%d\n", fake_stalled);
    } else if (!strcmp(verb, "late")) {
        fake_frames_late = (u32)atoi(arg);
        fprintf(out, "ok\n");
    } else if (!strcmp(verb, "taken")) {
        fprintf(out, "%u\n", fake_frames_taken);
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
    } else if (!strcmp(verb, "records")) {
        fake_shared->records[fake_host] = (u32)atoi(arg); // enum fake_records
        fprintf(out, "ok\n");
    } else if (!strcmp(verb, "free")) {
        fake_free_bytes = (u64)atoll(arg) * MIB;
        fprintf(out, "ok\n");
    } else if (!strcmp(verb, "no_pages")) { // none of two, as tables of hashes are made of
        fake_no_page_pairs = *arg == '1';
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

// Volumes in memory that all processes share outlive their host, and nobody uses them then.
static struct fake_store *fake_stores; // of the two hosts; NULL: each has its own

static void fake_store_use(u32 number)
{
    if (!fake_stores)
        return;
    fake_store = &fake_stores[number];
    for (u32 i = 0; i < FAKE_VOLUMES; i++)
        fake_volumes[i].dev.used_by[0] = '\0';
}

__attribute__((unused)) static void fake_stores_make(void)
{
    u64 bytes = 2 * (sizeof(struct fake_store) + FAKE_VOLUMES * FAKE_ROOM);
    fake_stores = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    for (u32 i = 0; i < 2; i++)
        fake_stores[i].room = (u8 *)(fake_stores + 2) + i * FAKE_VOLUMES * FAKE_ROOM;
}

static void host_main(u32 number, int in_fd, int out_fd)
{
    char line[200], verb[100], arg[100];
    FILE *in = fdopen(in_fd, "r"), *out = fdopen(out_fd, "w");
    fake_host = number;
    fake_log = getenv("MOVE_LOG") != NULL;
    fake_store_use(number);
    setup_config(number);
    migrate_start(&config);
    ledger_start();
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

// ---- The test's side ----------------------------------------------------------------------------

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

// Before the first test.
static void fake_hosts_make(void)
{
    fake_shared =
        mmap(NULL, sizeof(*fake_shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    signal(SIGPIPE, SIG_IGN);
}

static u32 disk_kib; // of the guest's disk; 0: it has none

static int setup(void **state)
{
    static char dir[64];
    (void)state;
    memset(fake_shared, 0, sizeof(*fake_shared));
    for (u32 i = 0; fake_stores && i < 2; i++)
        memset(fake_stores[i].volume, 0, sizeof(fake_stores[i].volume));
    snprintf(dir, sizeof(dir), "/tmp/skiff-move-XXXXXX");
    fake_dir = mkdtemp(dir);
    power_on(0);
    power_on(1);
    if (disk_kib)
        ask(0, "volume %u", disk_kib);
    ask(0, "start");
    return 0;
}

__attribute__((unused)) static int setup_recorded(void **state)
{
    setup(state);
    ask(0, "records 1");
    ask(1, "records 1");
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
        snprintf(path, sizeof(path), "%s/%u-" RECORD, fake_dir, i);
        unlink(path);
    }
    rmdir(fake_dir);
    return 0;
}

static bool starts(const char *text, const char *with)
{
    return strncmp(text, with, strlen(with)) == 0;
}

// Waits up to 30 s of real time for a host's guest to be in a state.
static void await(u32 n, const char *state)
{
    for (u32 i = 0; i < 3000; i++) {
        if (starts(ask(n, "state"), state))
            return;
        usleep(10000);
    }
    fail_msg("host %u: wanted the guest %s, found %s", n, state, reply);
}

// By the fault that was set there.
static void await_stall(u32 n)
{
    for (u32 i = 0; i < 3000; i++) {
        if (starts(ask(n, "stalled"), "1"))
            return;
        usleep(10000);
    }
    fail_msg("host %u: wanted it stalled", n);
}

static void await_job(u32 n, const char *phase)
{
    for (u32 i = 0; i < 3000; i++) {
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
