// SPDX-License-Identifier: MIT
// Commands on moves: begin, check, watch, abort, resolve, and the peers they go to.
#include "kernel/console/command.h"
#include "kernel/console/find.h"
#include "kernel/console/keys.h"
#include "kernel/console/screen.h"
#include "kernel/lib.h"
#include "kernel/migrate/fault.h"
#include "kernel/migrate/migrate.h"
#include "kernel/time.h"

#define WHY               256
#define POLL_NS           (100 * NS_PER_MS)
#define LINK_TEST_MIB_MAX 1048576u

static const char *digest_name(u8 d)
{
    static const char *const names[] = {"none", "match", "differ"};
    return d < ARRAY_SIZE(names) ? names[d] : "?";
}

static void job_json(struct out *o, const struct job_info *j)
{
    out_begin(o);
    out_u64(o, "id", j->id);
    out_str(o, "guest", j->guest);
    out_str(o, "peer", j->peer);
    out_bool(o, "incoming", j->incoming);
    out_str(o, "phase", job_phase_name(j->phase));
    out_u64(o, "round", j->round);
    out_u64(o, "bytes_wire", j->bytes_wire);
    out_u64(o, "disk_bytes_wire", j->disk_bytes_wire);
    out_u64(o, "disk_bytes_left", j->disk_bytes_left);
    out_u64(o, "pages_sent", j->pages_sent);
    out_u64(o, "pages_zero", j->pages_zero);
    out_u64(o, "pages_free", j->pages_free); // left out
    out_u64(o, "pages_touched", j->pages_touched);
    out_u64(o, "dirty_pages_last_round", j->dirty_pages_last_round);
    out_u64(o, "rate_bytes_s", j->rate_bytes_s);
    out_u64(o, "dirty_rate_pages_s", j->dirty_rate_pages_s);
    out_u64(o, "eta_ms", j->eta_ms);
    out_u64(o, "predicted_blackout_us", j->predicted_blackout_us);
    out_u64(o, "measured_blackout_us", j->measured_blackout_us);
    out_u64(o, "clock_error_us", j->clock_error_us);
    for (unsigned p = 0; p < BLACKOUT_PARTS; p++) {
        char key[32];
        snprintf(key, sizeof(key), "predicted_%s_us", blackout_part_name(p));
        out_u64(o, key, j->predicted_us[p]);
        snprintf(key, sizeof(key), "blackout_%s_us", blackout_part_name(p));
        out_u64(o, key, j->blackout_us[p]);
    }
    out_u64(o, "started_ns", j->started_ns);
    out_u64(o, "running_ns", j->running_ns);
    out_u64(o, "ended_ns", j->ended_ns);
    out_u64(o, "enable_ticks", j->enable_ticks);
    out_u64(o, "collect_ticks", j->collect_ticks);
    out_u64(o, "collect_pages", j->collect_pages);
    out_u64(o, "send_page_ticks", j->send_page_ticks);
    out_str(o, "dirty_tracking", j->dirty_tracking);
    out_str(o, "stop_reason", j->stop_reason);
    out_str(o, "digest", digest_name(j->digest_match));
    out_str(o, "disk_digest", digest_name(j->disk_digest_match));
    out_u64(o, "disk_blocks_equal", j->disk_blocks_equal);
    out_u64(o, "disk_blocks_rewritten", j->disk_blocks_rewritten);
    out_str(o, "result", j->result);
    out_end(o);
}

// In one piece, for the log's lines come between pieces. What is not known yet is left out.
static void job_text(struct out *o, const struct job_info *j)
{
    char sent[24], rate[24], blackout[24], eta[24];
    char what[120], round[24] = "", speed[80] = "", forecast[96] = "";
    if (j->round)
        snprintf(round, sizeof(round), ", round %u", j->round);
    bool sends = j->phase == JOB_DISK || j->phase == JOB_PRECOPY;
    if (sends && j->rate_bytes_s && j->eta_ms)
        snprintf(speed, sizeof(speed), ", %s/s, %s to go", format_bytes(rate, j->rate_bytes_s),
                 format_ns(eta, j->eta_ms * NS_PER_MS));
    else if (sends && j->rate_bytes_s)
        snprintf(speed, sizeof(speed), ", %s/s", format_bytes(rate, j->rate_bytes_s));
    if (j->predicted_blackout_us)
        snprintf(forecast, sizeof(forecast), ", dirties %llu pages/s, predicted blackout %s",
                 (unsigned long long)j->dirty_rate_pages_s,
                 format_ns(blackout, j->predicted_blackout_us * NS_PER_US));
    snprintf(what, sizeof(what), "job %llu: %s %s %s: %s", (unsigned long long)j->id, j->guest,
             j->incoming ? "from" : "to", j->peer, job_phase_name(j->phase));
    if (job_phase_ended(j->phase))
        out_printf(o, "%s, %s\n", what, j->result);
    else
        out_printf(o, "%s%s, %s sent%s%s\n", what, round, format_bytes(sent, j->bytes_wire), speed,
                   forecast);
}

static void show_job(struct out *o, const struct job_info *j)
{
    if (o->json)
        job_json(o, j);
    else
        job_text(o, j);
}

static bool find_job(u64 id, struct job_info *j)
{
    for (unsigned i = 0; job_get(i, j); i++)
        if (j->id == id)
            return true;
    return false;
}

static void run_jobs(struct call *c)
{
    struct job_info j;
    u64 id;
    if (c->arg[0]) {
        if (!find_number(c, "JOB", c->arg[0], &id))
            return;
        if (find_job(id, &j))
            show_job(c->out, &j);
        else
            out_error(c->out, "there is no job %llu; jobs lists them", (unsigned long long)id);
        return;
    }
    for (unsigned i = 0; job_get(i, &j); i++)
        show_job(c->out, &j);
    if (!job_get(0, &j))
        out_printf(c->out, "no moves yet; migrate NAME PEER begins one\n");
}

static void run_job_abort(struct call *c)
{
    u64 id;
    char err[WHY] = "";
    struct job_info j;
    if (!find_number(c, "JOB", c->arg[0], &id))
        return;
    if (!find_job(id, &j)) {
        out_error(c->out, "there is no job %llu; jobs lists them", (unsigned long long)id);
        return;
    }
    if (migrate_abort(id, err, sizeof(err))) {
        out_error(c->out, "%s", err);
        return;
    }
    out_printf(c->out, "job %llu is being aborted; %s stays here\n", (unsigned long long)id,
               j.guest);
    if (c->out->json) {
        out_begin(c->out);
        out_u64(c->out, "job", id);
        out_end(c->out);
    }
}

struct reasons {
    char line[48][160]; // a CPU of another generation lacks dozens of features
    unsigned count;
};

static void add_reason(void *arg, const char *line)
{
    struct reasons *r = arg;
    if (r->count < ARRAY_SIZE(r->line))
        strlcpy(r->line[r->count++], line, sizeof(r->line[0]));
    else
        strlcpy(r->line[r->count - 1], "and more", sizeof(r->line[0]));
}

static void join(const struct reasons *r, char *buf, size_t size)
{
    buf[0] = 0;
    for (unsigned i = 0; i < r->count; i++) {
        size_t n = strlen(buf);
        snprintf(buf + n, size - n, "%s%s", i ? "; " : "", r->line[i]);
    }
}

static void list_reasons(struct out *o, const char *key, const struct reasons *r)
{
    out_list_begin(o, key);
    for (unsigned i = 0; i < r->count; i++)
        out_list_str(o, r->line[i]);
    out_list_end(o);
}

// It could move; the lines are notes.
static void possible(struct call *c, const struct reasons *r)
{
    struct out *o = c->out;
    out_printf(o, "%s could move to %s now\n", c->arg[0], c->arg[1]);
    for (unsigned i = 0; i < r->count; i++)
        out_printf(o, "  but %s\n", r->line[i]);
    if (!o->json)
        return;
    out_begin(o);
    out_str(o, "guest", c->arg[0]);
    out_str(o, "peer", c->arg[1]);
    out_bool(o, "possible", true);
    list_reasons(o, "notes", r);
    out_end(o);
}

static void refused(struct call *c, const struct reasons *r)
{
    struct out *o = c->out;
    if (!o->json) {
        out_error(o, "%s would refuse %s, for %u reason%s:", c->arg[1], c->arg[0], r->count,
                  r->count == 1 ? "" : "s");
        for (unsigned i = 0; i < r->count; i++)
            out_printf(o, "  %s\n", r->line[i]);
        return;
    }
    char all[640];
    join(r, all, sizeof(all));
    out_begin(o);
    out_str(o, "error", all);
    list_reasons(o, "reasons", r);
    out_end(o);
}

static void check(struct call *c)
{
    static struct reasons r; // too big for the stack; one command runs at a time
    char err[WHY] = "";
    r.count = 0;
    int rc = migrate_check(c->arg[0], c->arg[1], option_given(c, "--disk"), add_reason, &r, err,
                           sizeof(err));
    if (rc && r.count)
        refused(c, &r);
    else if (rc)
        out_error(c->out, "%s", err);
    else
        possible(c, &r);
}

static void set_mode(enum screen_mode m)
{
    screen_lock();
    screen_set_mode(m);
    screen_unlock();
}

static void summary(struct out *o, const struct job_info *j)
{
    char blackout[24], total[24], sent[24];
    if (o->json) {
        job_json(o, j);
        return;
    }
    if (j->phase != JOB_DONE) {
        out_error(o, "%s", j->result);
        return;
    }
    out_printf(o, "%s moved to %s in %s: blackout %s, %s sent in %u rounds, digests: %s\n",
               j->guest, j->peer, format_ns(total, j->ended_ns - j->started_ns),
               format_ns(blackout, j->measured_blackout_us * NS_PER_US),
               format_bytes(sent, j->bytes_wire), j->round, digest_name(j->digest_match));
}

// About a line a second until it has ended or Ctrl-C, which leaves the move going.
static void watch(struct call *c, u64 id)
{
    struct job_info j = {.id = 0};
    u64 next = time_ns();
    set_mode(c->out->json ? SCREEN_RUNNING : SCREEN_WATCHING);
    while (find_job(id, &j) && !job_phase_ended(j.phase)) {
        if (time_ns() >= next) {
            show_job(c->out, &j);
            out_flush(c->out);
            next += NS_PER_SEC;
        }
        if (key_wait(time_ns() + POLL_NS) == KEY_CTRL_C) {
            out_printf(c->out, "job %llu goes on; jobs shows it, job-abort %llu ends it\n",
                       (unsigned long long)id, (unsigned long long)id);
            break;
        }
    }
    set_mode(SCREEN_RUNNING);
    if (job_phase_ended(j.phase))
        summary(c->out, &j);
}

static void run_migrate(struct call *c)
{
    char err[WHY] = "";
    if (!find_guest(c, c->arg[0]) || !find_peer(c, c->arg[1]))
        return;
    if (option_given(c, "--check")) {
        check(c);
        return;
    }
    s64 id = migrate_begin(c->arg[0], c->arg[1], option_given(c, "--disk"), err, sizeof(err));
    if (id <= 0) {
        out_error(c->out, "%s", err);
        return;
    }
    if (!option_given(c, "--detach")) {
        watch(c, (u64)id);
        return;
    }
    out_printf(c->out, "job %llu moves %s to %s; jobs shows how far it is\n",
               (unsigned long long)id, c->arg[0], c->arg[1]);
    if (c->out->json) {
        out_begin(c->out);
        out_u64(c->out, "job", (u64)id);
        out_end(c->out);
    }
}

static void run_resolve(struct call *c)
{
    char err[WHY] = "";
    bool keep = !strcmp(c->arg[1], "keep");
    if (!find_guest(c, c->arg[0]))
        return;
    if (migrate_resolve(c->arg[0], keep, err, sizeof(err))) {
        out_error(c->out, "%s", err);
        return;
    }
    out_printf(c->out, "%s is %s\n", c->arg[0], keep ? "kept: it runs here" : "given up here");
    if (c->out->json) {
        out_begin(c->out);
        out_str(c->out, "guest", c->arg[0]);
        out_str(c->out, "resolved", c->arg[1]);
        out_end(c->out);
    }
}

static void peer_text(struct out *o, const struct peer_info *p)
{
    char address[64], rtt[24], memory[24];
    ip_format(&p->address, address, sizeof(address));
    if (p->reachable)
        out_printf(o, "%-16s %-24s Skiff %s, %u guest%s, %s free, answers in %s\n", p->name,
                   address, p->version, p->guests, p->guests == 1 ? "" : "s",
                   format_bytes(memory, p->free_bytes), format_ns(rtt, p->rtt_us * NS_PER_US));
    else
        out_printf(o, "%-16s %-24s %s\n", p->name, address, p->error);
}

static void peer_json(struct out *o, const struct peer_info *p)
{
    char id[24];
    out_begin(o);
    out_str(o, "name", p->name);
    out_ip(o, "address", &p->address);
    out_u64(o, "port", p->port);
    out_bool(o, "reachable", p->reachable);
    if (p->reachable) {
        snprintf(id, sizeof(id), "%016llx", (unsigned long long)p->boot_id);
        out_str(o, "version", p->version);
        out_str(o, "boot_id", id);
        out_u64(o, "rtt_us", p->rtt_us);
        out_u64(o, "guests", p->guests);
        out_u64(o, "free_bytes", p->free_bytes);
    } else {
        out_str(o, "why", p->error);
    }
    out_end(o);
}

static void run_peers(struct call *c)
{
    struct peer_info p;
    unsigned i = 0;
    for (; peer_query(i, &p); i++) {
        if (c->out->json)
            peer_json(c->out, &p);
        else
            peer_text(c->out, &p);
        out_flush(c->out);
    }
    if (!i)
        out_printf(c->out, "no peers; a [peer NAME] section in host.cfg describes one\n");
}

static void run_net_test(struct call *c)
{
    char err[WHY] = "", rate[24], sent[24];
    u64 mib = 256, ns;
    if (!find_peer(c, c->arg[0]) || (c->arg[1] && !find_number(c, "MIB", c->arg[1], &mib)))
        return;
    if (mib == 0 || mib > LINK_TEST_MIB_MAX) {
        out_error(c->out, "MIB wants 1 to %u, found %s", LINK_TEST_MIB_MAX, c->arg[1]);
        return;
    }
    if (link_test(c->arg[0], mib * MIB, &ns, err, sizeof(err))) {
        out_error(c->out, "%s", err);
        return;
    }
    u64 rate_bytes_s = mib * MIB * 1000 / MAX(ns / NS_PER_MS, 1ull);
    out_printf(c->out, "%s to %s, %s/s\n", format_bytes(sent, mib * MIB), c->arg[0],
               format_bytes(rate, rate_bytes_s));
    if (!c->out->json)
        return;
    out_begin(c->out);
    out_str(c->out, "peer", c->arg[0]);
    out_u64(c->out, "bytes", mib * MIB);
    out_u64(c->out, "took_ns", ns);
    out_u64(c->out, "rate_bytes_s", rate_bytes_s);
    out_end(c->out);
}

static void run_fault(struct call *c)
{
    char err[WHY] = "";
    if (fault_set(c->arg[0], err, sizeof(err))) {
        out_error(c->out, "%s", err);
        return;
    }
    out_printf(c->out, "fault %s is set\n", c->arg[0]);
    if (c->out->json) {
        out_begin(c->out);
        out_str(c->out, "fault", c->arg[0]);
        out_end(c->out);
    }
}

const struct command move_commands[] = {
    {"migrate", "NAME PEER", "--disk --check --detach", "moves a running guest to a peer",
     "  --disk moves its volumes as well: they are copied while it writes, and deleted here when "
     "it\n"
     "  runs there.\n"
     "  --check only asks whether it could, and names every reason why not.\n"
     "  --detach returns at once with the job's id; otherwise progress is shown until it has "
     "ended,\n"
     "  and Ctrl-C leaves it going.",
     run_migrate},
    {"jobs", "[JOB]", "", "moves under way and the last ones that ended", NULL, run_jobs},
    {"job-abort", "JOB", "", "aborts a move; the guest goes on here",
     "  Possible until the hand-over is committed.", run_job_abort},
    {"resolve", "NAME keep|drop", "", "decides about a guest in doubt",
     "  keep runs the copy of this host, drop gives it up. Look at the peer first: a guest kept "
     "on\n"
     "  both hosts runs twice, one dropped on both is lost.",
     run_resolve},
    {"peers", "", "", "asks every peer how it is", NULL, run_peers},
    {"net-test", "PEER [MIB]", "", "measures the link to a peer with a transfer of 256 MiB or MIB",
     "  The peer throws the bytes away. It slows down whatever else uses the link.", run_net_test},
    {"fault", "FAULT", "", "for tests: makes the next move go wrong in a chosen way",
     "  fault none ends it. The choices are listed by an unknown one.", run_fault},
    {NULL, NULL, NULL, NULL, NULL, NULL},
};
