// SPDX-License-Identifier: MIT
// The source's side of a move, from the connection to the end: one thread a move.
#include "arch/x86/cpu.h"
#include "kernel/migrate/source.h"

#include "kernel/lib.h"
#include "kernel/log.h"
#include "kernel/mem.h"
#include "kernel/migrate/fault.h"
#include "kernel/migrate/forward.h"
#include "kernel/migrate/sections.h"
#include "kernel/migrate/verify.h"
#include "kernel/random.h"
#include "kernel/thread.h"
#include "kernel/time.h"

int move_fail(struct move *m, int error, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(m->error, sizeof(m->error), fmt, ap);
    va_end(ap);
    return error;
}

int move_check(struct move *m)
{
    const struct guest *g = m->guest;
    if (m->job->abort_wanted)
        return move_fail(m, E_ABORT, "aborted by the operator; %s goes on here", g->name);
    if (g->reset_wanted)
        return move_fail(m, E_BUSY, "guest %s resets itself; move it again after that", g->name);
    if (g->poweroff_wanted ||
        (g->state != GUEST_RUNNING && g->state != GUEST_PAUSED && g->state != GUEST_FROZEN))
        return move_fail(m, E_BUSY, "guest %s ended during its move (%s)", g->name,
                         g->poweroff_wanted ? "powered off" : guest_state_name(g->state));
    return 0;
}

static void leave_connection(struct move *m)
{
    job_set_conn(m->job, NULL); // no abort may touch it from here on
    if (m->s.conn)
        m->job->info.bytes_wire = m->s.conn->bytes_out + m->s.conn->bytes_in;
}

static void end_connection(struct move *m, bool orderly)
{
    leave_connection(m);
    stream_close(&m->s, orderly);
}

// ---- Before the first page ---------------------------------------------------------------------

static void make_ident(struct move *m)
{
    memcpy(m->id.uuid, m->guest->uuid, 16);
    m->id.epoch = m->guest->epoch + 1;
    m->id.move_id = random_u64();
    m->id.source_boot_id = host_boot_id;
}

// Says every reason in the log, the first in the job's result.
static int refused(struct move *m, const struct record *r)
{
    char *text = kmalloc(r->bytes + 1), *line = text;
    u32 count = 0;
    if (!text)
        return move_fail(m, E_NOSUP, "refused by %s; no memory to read why", m->peer.name);
    stream_text(r, text, r->bytes + 1);
    while (line && *line) {
        char *next = strchr(line, '\n');
        if (next)
            *next++ = '\0';
        log_warn("migrate", "%s refuses guest %s: %s", m->peer.name, m->guest->name, line);
        count++;
        line = next;
    }
    if (count > 1)
        move_fail(m, E_NOSUP, "refused by %s: %.110s (and %u more; see migrate --check)",
                  m->peer.name, text, count - 1);
    else
        move_fail(m, E_NOSUP, "refused by %s: %.150s", m->peer.name, text);
    kfree(text);
    return E_NOSUP;
}

static int open_and_describe(struct move *m)
{
    int e = describe_guest(m->guest, &m->desc, m->error, sizeof(m->error));
    if (e)
        return e;
    e = peer_open(&m->s, m->peer.name, &m->peer.address, peer_port(m->peer.port), &m->id,
                  verify_flags(m->verify), CONNECT_TIMEOUT_NS, m->error, sizeof(m->error));
    if (e)
        return e;
    job_set_conn(m->job, m->s.conn);
    m->id.dest_boot_id = m->s.peer.sender_boot_id;
    if (m->id.dest_boot_id == host_boot_id)
        return move_fail(m, E_INVAL, "%s is this host itself", m->peer.name);
    job_phase(m->job, JOB_CHECK);
    return 0;
}

static int ask_acceptance(struct move *m)
{
    struct wire_check check = {.mode = CHECK_MOVE};
    struct record r;
    int e = describe_send(&m->s, &m->desc);
    if (e == 0)
        e = stream_send(&m->s, REC_CHECK, &check, sizeof(check));
    m->s.timeout_ns = CHECK_TIMEOUT_NS;
    if (e == 0)
        e = stream_receive(&m->s, &r);
    if (e)
        return move_fail(m, e, "%s", m->s.error);
    if (r.type == REC_REFUSE)
        return refused(m, &r);
    if (r.type != REC_ACCEPT)
        return move_fail(m, E_PROTO, "%s answered CHECK with %s", m->peer.name,
                         record_name(r.type));
    fault_stall(FAULT_ACCEPT);
    char notes[200];
    stream_text(&r, notes, sizeof(notes));
    if (notes[0])
        log_warn("migrate", "guest %s to %s: %s", m->guest->name, m->peer.name, notes);
    m->s.timeout_ns = PRECOPY_TIMEOUT_NS;
    return 0;
}

static int make_claim(struct move *m)
{
    m->claim = claim_new(true, &m->id, m->guest->name, m->peer.name, m->error, sizeof(m->error));
    if (!m->claim)
        return E_BUSY;
    mutex_lock(&claims_lock);
    m->claim->address = m->peer.address;
    m->claim->port = peer_port(m->peer.port);
    m->claim->job = m->job->info.id;
    m->claim->disk_count = m->guest->config.disk_count;
    memcpy(m->claim->disks, m->guest->config.disks, sizeof(m->claim->disks));
    disks_identify(m->claim->disks, m->claim->disk_count, m->claim->disk_id);
    mutex_unlock(&claims_lock);
    int e = claim_record(m->claim);
    return e ? move_fail(m, e, "the move cannot be recorded in this host's datastore") : 0;
}

static u64 count_state_bytes(struct guest *g)
{
    struct section_iter it = {.guest = g};
    struct section sec;
    u64 bytes = 0;
    while (section_next(&it, &sec)) {
        s64 n = state_save(sec.table, NULL, NULL, 0);
        bytes += (n > 0 ? (u64)n : 0) + sizeof(struct wire_section) + sizeof(struct record_header);
    }
    return bytes;
}

static int make_hashes(struct move *m)
{
    u64 pages = guest_page_count(m->guest);
    if (!m->verify || page_hashes_create(&m->hashes, pages) == 0)
        return 0;
    return move_fail(m, E_NOMEM,
                     "verification needs %llu KiB for hashes of %llu pages, which are not free; "
                     "free memory or set verify = off",
                     (unsigned long long)(page_hashes_bytes(pages) / KIB),
                     (unsigned long long)pages);
}

static int start_log(struct move *m)
{
    struct guest *g = m->guest;
    if (dirty_bitmap_init(&m->todo, guest_page_count(g)) != 0 ||
        dirty_bitmap_init(&m->touched, guest_page_count(g)) != 0)
        return move_fail(m, E_NOMEM, "no memory for a bitmap of %llu pages",
                         (unsigned long long)guest_page_count(g));
    u64 start = rdtsc();
    int e = dirty_log_start(g, g->config.dirty);
    m->job->info.enable_ticks = rdtsc() - start;
    if (e)
        return move_fail(m, e, "dirty tracking cannot be started (%s)",
                         e == E_NOMEM  ? "no memory"
                         : e == E_BUSY ? "it runs already"
                                       : "this CPU lacks what the configuration asks for");
    if (fault_take_no_shootdown())
        dirty_log_leave_out_shootdown(g);
    strlcpy(m->job->info.dirty_tracking, dirty_log_backend_name(g),
            sizeof(m->job->info.dirty_tracking));
    m->state_bytes = count_state_bytes(g);
    return 0;
}

// ---- Hand-over ---------------------------------------------------------------------------------

static int wait_ready(struct move *m)
{
    struct record r;
    int e = disks_out_wait(m);
    if (e)
        return e;
    e = stream_expect(&m->s, REC_READY, &r);
    if (e)
        return move_fail(m, e, "%s", m->s.error);
    const struct wire_ready *w = r.payload;
    if (!ident_equal(&w->id, &m->id))
        return move_fail(m, E_PROTO, "READY from %s is for another move", m->peer.name);
    job_part(m->job, BLACKOUT_READY, time_ns());
    fault_stall(FAULT_READY);
    if (fault_drop_link(&m->s, FAULT_READY))
        return move_fail(m, E_IO, "the connection to %s was lost (cut by a fault)", m->peer.name);
    return 0;
}

static int verify(struct move *m)
{
    char report[120];
    if (!m->verify)
        return 0;
    job_phase(m->job, JOB_VERIFY);
    m->s.timeout_ns = VERIFY_TIMEOUT_NS;
    int e = verify_ask(&m->s, m->guest, &m->hashes, m->verify == VERIFY_STRICT, &m->id, report,
                       sizeof(report));
    m->s.timeout_ns = HANDOVER_TIMEOUT_NS;
    job_part(m->job, BLACKOUT_VERIFY, time_ns());
    if (e == E_INVAL) {
        m->job->info.digest_match = 2;
        return move_fail(m, e, "verify: what arrived differs: %s", report);
    }
    if (e == 0 && m->verify == VERIFY_STRICT && m->guest->config.disk_count)
        e = disks_out_compare(m, &m->s, report, sizeof(report));
    if (e == E_INVAL)
        return move_fail(m, e, "verify: what arrived differs: %s", report);
    if (e)
        return move_fail(m, e, "verify: %s", m->s.error);
    if (m->verify == VERIFY_STRICT) // else the audit has the last word
        m->job->info.digest_match = 1;
    return 0;
}

// From here on the guest never goes on here without the destination's or the operator's word.
static int commit(struct move *m)
{
    struct wire_commit w = {.id = m->id};
    int e = move_check(m);
    if (e)
        return e;
    if (!job_point_of_no_return(m->job))
        return move_fail(m, E_ABORT, "aborted by the operator; %s goes on here", m->guest->name);
    disks_out_end(m); // from here on others may take the guest apart
    mutex_lock(&claims_lock);
    unsigned actions = claim_step(m->claim, HO_EV_READY);
    mutex_unlock(&claims_lock);
    if (actions & HO_REFUSED)
        return move_fail(m, E_IO,
                         "COMMIT cannot be recorded in this host's datastore; %s goes on here",
                         m->guest->name);
    fault_stall(FAULT_RECORD);
    if (fault_drop_link(&m->s, FAULT_COMMIT))
        return move_fail(m, E_IO, "the connection to %s was lost (cut by a fault)", m->peer.name);
    e = stream_send(&m->s, REC_COMMIT, &w, sizeof(w));
    if (e)
        return move_fail(m, e, "%s", m->s.error);
    fault_stall(FAULT_COMMIT);
    return 0;
}

static void audit(struct move *m)
{
    struct job_info *i = &m->job->info;
    char pages[120];
    job_phase(m->job, JOB_AUDIT);
    i->digest_match = verify_audit(m->guest, &m->hashes, pages, sizeof(pages)) ? 2 : 1;
    if (i->digest_match == 1)
        return;
    move_fail(m, E_INVAL, "its memory there is stale, the dirty log missed writes: %s", pages);
    log_error("migrate", "guest %s runs on %s, but %s", i->guest, i->peer, m->error);
}

// On a connection of its own, for frames may follow the guest on the other one.
static int compare_disks_anew(struct move *m, char *report, size_t size)
{
    struct stream *s = kzalloc(sizeof(*s));
    if (!s)
        return move_fail(m, E_NOMEM, "no memory for a connection");
    int e = peer_open(s, m->peer.name, &m->peer.address, peer_port(m->peer.port), &m->id, 0,
                      CONNECT_TIMEOUT_NS, m->error, sizeof(m->error));
    if (e == 0) {
        e = disks_out_compare(m, s, report, size);
        if (e && e != E_INVAL)
            move_fail(m, e, "%s", s->error);
        stream_close(s, e == 0 || e == E_INVAL);
    }
    kfree(s);
    return e;
}

static void compare_disks(struct move *m)
{
    char where[120];
    if (m->verify != VERIFY_ON || !m->guest->config.disk_count)
        return;
    job_phase(m->job, JOB_AUDIT);
    int e = compare_disks_anew(m, where, sizeof(where));
    if (e == E_INVAL)
        move_fail(m, e, "what arrived differs: %s", where);
    if (e)
        log_error("migrate", "guest %s runs on %s, but its disks were not found equal: %s",
                  m->guest->name, m->peer.name, m->error);
}

// The connection has done its work. The copy here stands still until it has been audited.
static void taken_over(struct move *m, unsigned actions)
{
    char why[80];
    struct guest *g = m->guest;
    m->job->info.running_ns = time_ns();
    mutex_lock(&g->lock);
    snprintf(g->why, sizeof(g->why), "runs on %s; the copy here is being audited", m->peer.name);
    mutex_unlock(&g->lock);
    leave_connection(m);
    if (!forward_begin(g, &m->s))
        stream_close(&m->s, true);
    thread_set_background(true); // no guest waits for what is left, and others run here
    compare_disks(m);
    if (m->verify == VERIFY_ON)
        audit(m);
    thread_set_background(false);
    fault_stall(FAULT_RELEASE);
    snprintf(why, sizeof(why), "runs on %s", m->peer.name);
    mutex_lock(&claims_lock);
    settle(m->claim, actions, why);
    mutex_unlock(&claims_lock);
}

static int wait_running(struct move *m)
{
    struct record r;
    int e = stream_receive(&m->s, &r);
    if (e)
        return move_fail(m, e, "%s", m->s.error);
    const struct move_ident *id = r.payload;
    bool ours = r.bytes >= sizeof(*id) && ident_equal(id, &m->id);
    if (ours && r.type == REC_RUNNING) {
        const struct wire_running *w = r.payload;
        fault_stall(FAULT_RUNNING);
        if (fault_drop_link(&m->s, FAULT_RUNNING))
            return move_fail(m, E_IO, "the connection to %s was lost (cut by a fault)",
                             m->peer.name);
        mutex_lock(&claims_lock);
        m->claim->blackout_ns = w->blackout_ns;
        // By the destination's clock, so that the parts add up: these are two clocks.
        job_part(m->job, BLACKOUT_COMMIT, m->claim->frozen_ns + w->blackout_ns);
        unsigned actions = claim_step(m->claim, HO_EV_RUNNING);
        mutex_unlock(&claims_lock);
        taken_over(m, actions);
        return 0;
    }
    const struct wire_not_started *n = r.payload;
    if (ours && r.type == REC_NOT_STARTED && n->certain) {
        mutex_lock(&claims_lock);
        settle(m->claim, claim_step(m->claim, HO_EV_NOT_STARTED), "");
        mutex_unlock(&claims_lock);
        return move_fail(m, E_ABORT, "%s discarded its copy before it ran; %s goes on here",
                         m->peer.name, m->guest->name);
    }
    return move_fail(m, E_PROTO, "%s answered COMMIT with %s", m->peer.name, record_name(r.type));
}

// ---- The end -----------------------------------------------------------------------------------

static void end_moved(struct move *m)
{
    struct job_info *i = &m->job->info;
    i->measured_blackout_us = m->claim->blackout_ns / NS_PER_US;
    if (i->digest_match == 2 || i->disk_digest_match == 2)
        job_end(m->job, JOB_DONE, "%s runs on %s, but %s", i->guest, i->peer, m->error);
    else
        job_end(m->job, JOB_DONE, "%s runs on %s; blackout %llu.%llu ms (+- %llu us), %u rounds",
                i->guest, i->peer, (unsigned long long)i->measured_blackout_us / 1000,
                (unsigned long long)i->measured_blackout_us % 1000 / 100,
                (unsigned long long)i->clock_error_us, i->round);
}

static void end_in_doubt(struct move *m)
{
    settle_doubt(m->claim, m->error);
    job_end(m->job, JOB_IN_DOUBT, "COMMIT was sent to %s and not answered: %.100s; asking again",
            m->job->info.peer, m->error);
}

static void end_without_guest(struct move *m)
{
    bool aborted = m->job->abort_wanted;
    if (aborted)
        move_fail(m, E_ABORT, "aborted by the operator; %s goes on here", m->guest->name);
    job_end(m->job, aborted ? JOB_ABORTED : JOB_FAILED, "%s", m->error);
}

// What a failure leaves depends on how far the hand-over had come, which another connection may
// have brought further meanwhile. True when the guest goes on here.
static bool end_failed(struct move *m)
{
    settle(m->claim, claim_step(m->claim, HO_EV_FAILED), "");
    if (m->claim->state == HO_MOVED)
        end_moved(m);
    else if (m->claim->state == HO_COMMITTED)
        end_in_doubt(m);
    else
        end_without_guest(m);
    return m->claim->state == HO_ABORTED;
}

// A destination that gives up says why before it closes; a write may fail before that was read.
static void read_reason(struct move *m)
{
    struct record r;
    m->s.timeout_ns = NS_PER_SEC / 5;
    for (u32 i = 0; i < 4 && stream_receive(&m->s, &r) == 0; i++) {
        char text[120];
        if (r.type != REC_ABORT)
            continue;
        stream_text(&r, text, sizeof(text));
        move_fail(m, E_ABORT, "%s ended the move: %s", m->peer.name, text);
        return;
    }
}

// The guest goes on first, then the peer is told and things are freed. The job's slot may be
// another's once it has ended, and so may the claim's once it isn't linked.
static void finish(struct move *m, int error)
{
    bool tell = error != 0;
    disks_out_end(m);
    job_set_conn(m->job, NULL); // no abort may touch the connection from here on
    if (error == E_IO && m->s.conn && m->claim && !m->claim->frozen_ns)
        read_reason(m);
    if (!m->claim) {
        settle_end_log(m->guest);
        m->guest->job = NULL;
        end_without_guest(m);
    } else {
        mutex_lock(&claims_lock);
        if (error)
            tell = end_failed(m);
        else
            end_moved(m);
        m->claim->next_ask_ns = 0;
        m->claim->linked = false;
        mutex_unlock(&claims_lock);
    }
    if (tell && m->s.conn) {
        m->s.timeout_ns = NS_PER_SEC;
        stream_send_text(&m->s, REC_ABORT, m->error);
    }
    end_connection(m, !error);
    page_hashes_free(&m->hashes);
    dirty_bitmap_free(&m->todo);
    dirty_bitmap_free(&m->touched);
}

static int run(struct move *m)
{
    make_ident(m);
    int e = make_hashes(m);
    if (e == 0)
        e = open_and_describe(m);
    if (e == 0)
        e = ask_acceptance(m);
    if (e == 0)
        e = make_claim(m);
    if (e == 0)
        e = disks_out_start(m);
    if (e == 0)
        e = disks_out_copy(m);
    if (e == 0)
        e = start_log(m);
    if (e)
        return e;
    job_phase(m->job, JOB_PRECOPY);
    e = precopy_run(m);
    if (e)
        return e;
    job_phase(m->job, JOB_STOP);
    e = source_stop_and_offer(m);
    if (e == 0)
        e = wait_ready(m);
    if (e == 0)
        e = verify(m);
    if (e == 0)
        e = commit(m);
    return e ? e : wait_running(m);
}

void source_thread(void *arg)
{
    struct move *m = arg;
    finish(m, run(m));
    guest_put(m->guest);
    kfree(m);
}
