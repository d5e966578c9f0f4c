// SPDX-License-Identifier: MIT
// The destination's side of a move: receives into a parked guest, loads its state, hands over.
#include "kernel/migrate/dest.h"

#include "kernel/lib.h"
#include "kernel/log.h"
#include "kernel/mem.h"
#include "kernel/migrate/busy.h"
#include "kernel/migrate/clock_sync.h"
#include "kernel/migrate/fault.h"
#include "kernel/thread.h"
#include "kernel/time.h"

#define IDLE_TIMEOUT_NS   (60 * NS_PER_SEC) // a source under max_rate may be slow
#define COMMIT_TIMEOUT_NS (10 * NS_PER_SEC)

int incoming_fail(struct incoming *in, int error, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(in->error, sizeof(in->error), fmt, ap);
    va_end(ap);
    return error;
}

static int stream_failed(struct incoming *in, int error)
{
    return incoming_fail(in, error, "%s", in->s->error);
}

// ---- Description -------------------------------------------------------------------------------

static void make_ident(struct incoming *in)
{
    const struct stream_header *h = &in->s->peer;
    memcpy(in->id.uuid, h->uuid, 16);
    in->id.epoch = h->epoch;
    in->id.move_id = h->move_id;
    in->id.source_boot_id = h->sender_boot_id;
    in->id.dest_boot_id = host_boot_id;
    in->verify = !(h->flags & HEADER_VERIFY) ? VERIFY_OFF
                 : h->flags & HEADER_REREAD  ? VERIFY_STRICT
                                             : VERIFY_ON;
}

static int receive_description(struct incoming *in, const struct record *first)
{
    struct record r = *first;
    while (r.type == REC_GUEST || r.type == REC_CPUID || r.type == REC_DEVICES ||
           r.type == REC_DISKS) {
        int e = describe_take(&in->desc, &r, in->error, sizeof(in->error));
        if (e)
            return e;
        e = stream_receive(in->s, &r);
        if (e)
            return stream_failed(in, e);
    }
    if (r.type != REC_CHECK || !describe_complete(&in->desc))
        return incoming_fail(in, E_PROTO, "%s came before the guest was fully described",
                             record_name(r.type));
    const struct wire_check *w = r.payload;
    if (w->mode > CHECK_MOVE)
        return incoming_fail(in, E_PROTO, "CHECK has unknown mode %u", w->mode);
    in->mode = w->mode;
    return 0;
}

// ---- Pre-copy and state ------------------------------------------------------------------------

static void take_round(struct incoming *in, const struct record *r)
{
    const struct wire_round *w = r->payload;
    in->job->info.dirty_pages_last_round = w->pages;
    if (w->final) {
        fault_stall(FAULT_STOP);
        in->final_ns = time_ns();
        job_phase(in->job, JOB_STOP);
    }
}

// Puts page 1 once more, with a bit that differs and the hash of that (fault flip-page here).
static int flip_received(struct incoming *in)
{
    if (!fault_take_flip_page())
        return 0;
    u8 *copy = kmalloc(PAGE_SIZE);
    if (!copy)
        return incoming_fail(in, E_NOMEM, "no memory for the fault flip-page");
    memcpy(copy, guest_page(in->guest, guest_page_gpa(in->guest, 1)), PAGE_SIZE);
    copy[1234] ^= 1;
    u64 hash[2];
    hash_page(copy, hash);
    int e = incoming_put(in, 1, copy, hash);
    kfree(copy);
    return e;
}

static int take_state(struct incoming *in, const struct record *r)
{
    if (!in->final_ns)
        return incoming_fail(in, E_PROTO, "STATE came before the final ROUND");
    in->load.guest = in->guest;
    return load_check(&in->load, r->payload, r->bytes, in->error, sizeof(in->error));
}

static int take_disk(struct incoming *in, const struct record *r)
{
    char err[160];
    if (!in->disks)
        return incoming_fail(in, E_PROTO, "%s came for a guest without disks",
                             record_name(r->type));
    fault_stall(FAULT_DISK);
    if (fault_drop_link(in->s, FAULT_DISK))
        return incoming_fail(in, E_IO, "the connection was lost (cut by a fault)");
    int e = r->type == REC_BLOCKS ? disks_in_blocks(in->disks, r, err, sizeof(err))
                                  : disks_in_round(in->disks, in->s, r, err, sizeof(err));
    return e ? incoming_fail(in, e, "%s", err) : 0;
}

// One record of the part before OFFER. 1 when it was the OFFER.
static int take_record(struct incoming *in, const struct record *r)
{
    int e;
    switch (r->type) {
    case REC_PAGES:
        if (in->load.count)
            return incoming_fail(in, E_PROTO, "PAGES came after STATE");
        fault_stall(FAULT_PRECOPY);
        return incoming_pages(in, r);
    case REC_ROUND:
        take_round(in, r);
        return 0;
    case REC_PING:
        e = clock_answer(in->s, r, busy_ns(), in->state_ns);
        return e ? stream_failed(in, e) : 0;
    case REC_BLOCKS:
    case REC_DISK_ROUND:
        return take_disk(in, r);
    case REC_STATE:
        return take_state(in, r);
    case REC_OFFER:
        return 1;
    case REC_ABORT: {
        char text[120];
        stream_text(r, text, sizeof(text));
        return incoming_fail(in, E_ABORT, "%s ended the move: %s", in->s->peer.host, text);
    }
    case REC_END:
        return incoming_fail(in, E_ABORT, "%s ended the stream", in->s->peer.host);
    default:
        return incoming_fail(in, E_PROTO, "%s does not belong into pre-copy", record_name(r->type));
    }
}

// ---- Hand-over ---------------------------------------------------------------------------------

static int check_offer(struct incoming *in, const struct wire_offer *w)
{
    u64 digest[2];
    hash_finish(&in->s->digest_before, digest);
    if (!ident_equal(&w->id, &in->id))
        return incoming_fail(in, E_PROTO, "OFFER is for another move than this stream");
    if (memcmp(digest, w->digest, sizeof(digest)) != 0)
        return incoming_fail(in, E_PROTO,
                             "the digest of the stream differs: %s sent %016llx%016llx, here came "
                             "%016llx%016llx",
                             in->s->peer.host, (unsigned long long)w->digest[1],
                             (unsigned long long)w->digest[0], (unsigned long long)digest[1],
                             (unsigned long long)digest[0]);
    if (w->sections != in->load.count)
        return incoming_fail(in, E_PROTO, "OFFER speaks of %u sections, %u came", w->sections,
                             in->load.count);
    if (!disks_in_complete(in->disks))
        return incoming_fail(in, E_PROTO, "OFFER came before the last round of the disks");
    if (w->guest_ticks >> 62)
        return incoming_fail(in, E_PROTO, "OFFER has an impossible guest time");
    return 0;
}

// A clock that a peer gives wrong must not throw the guest's time far: the blackout that follows
// from it is bounded by the time since the last record of pre-copy at most a few minutes ago.
static u64 frozen_here(const struct wire_offer *w)
{
    u64 now = time_ns(), frozen = w->frozen_ns + (u64)w->clock_offset_ns;
    u64 oldest = now > 10 * 60 * NS_PER_SEC ? now - 10 * 60 * NS_PER_SEC : 0;
    return frozen > now ? now : MAX(frozen, oldest);
}

static int load_offered(struct incoming *in, const struct wire_offer *w)
{
    struct guest *g = in->guest;
    int e = load_complete(&in->load, in->error, sizeof(in->error));
    if (e)
        return e;
    // Built devices may have timers going; what they would do is replaced by what came.
    devices_pause(g);
    for (u32 i = 0; i < g->vcpu_count; i++)
        platform_vcpu_pause(g->vcpu[i]);
    g->clock.frozen_at = w->guest_ticks;
    g->clock.floor = w->guest_ticks;
    e = load_apply(&in->load, in->error, sizeof(in->error));
    load_free(&in->load);
    if (in->verify)
        disks_answer_begin(g);
    return e ? e : flip_received(in);
}

static int send_ready(struct incoming *in, const struct wire_offer *w)
{
    struct wire_ready ready = {.id = in->id};
    memcpy(ready.digest, w->digest, sizeof(ready.digest));
    mutex_lock(&claims_lock);
    in->claim->frozen_ns = frozen_here(w);
    in->claim->clock_error_ns = w->clock_error_ns;
    in->claim->paused = w->flags & OFFER_PAUSED;
    claim_step(in->claim, HO_EV_OFFER);
    mutex_unlock(&claims_lock);
    in->job->info.clock_error_us = (w->clock_error_ns + 999) / NS_PER_US;
    in->job->part_ns = frozen_here(w);
    job_part(in->job, BLACKOUT_PAGES, in->final_ns);
    job_part(in->job, BLACKOUT_STATE, in->offer_ns);
    if (fault_drop_link(in->s, FAULT_READY))
        return incoming_fail(in, E_IO, "the connection was lost (cut by a fault)");
    int e = stream_send(in->s, REC_READY, &ready, sizeof(ready));
    if (e) { // a record that is not whole is nothing to the source
        mutex_lock(&claims_lock);
        settle(in->claim, claim_step(in->claim, HO_EV_UNSENT), "");
        mutex_unlock(&claims_lock);
        return stream_failed(in, e);
    }
    job_part(in->job, BLACKOUT_READY, time_ns());
    fault_stall(FAULT_READY);
    return 0;
}

static int committed(struct incoming *in, const struct record *r)
{
    const struct wire_commit *w = r->payload;
    struct wire_running run = {.id = in->id};
    if (!ident_equal(&w->id, &in->id))
        return incoming_fail(in, E_PROTO, "COMMIT is for another move");
    job_part(in->job, BLACKOUT_VERIFY, time_ns());
    fault_stall(FAULT_COMMIT);
    if (fault_drop_link(in->s, FAULT_COMMIT))
        return incoming_fail(in, E_IO, "the connection was lost (cut by a fault)");
    mutex_lock(&claims_lock);
    unsigned actions = claim_step(in->claim, HO_EV_COMMIT);
    settle(in->claim, actions, "");
    run.blackout_ns = in->claim->blackout_ns;
    run.error_ns = in->claim->clock_error_ns;
    job_part(in->job, BLACKOUT_COMMIT, in->claim->frozen_ns + run.blackout_ns);
    mutex_unlock(&claims_lock);
    if (!(actions & HO_SEND_RUNNING)) {
        struct wire_not_started no = {.id = in->id, .certain = 1};
        stream_send(in->s, REC_NOT_STARTED, &no, sizeof(no));
        return incoming_fail(in, E_ABORT, "COMMIT came after the copy was discarded");
    }
    fault_stall(FAULT_RECORD);
    if (fault_drop_link(in->s, FAULT_RUNNING))
        return 0; // it runs; only the source does not know
    stream_send(in->s, REC_RUNNING, &run, sizeof(run));
    fault_stall(FAULT_RUNNING);
    return 0;
}

// Waits for COMMIT, answering what the source wants to verify.
static int wait_commit(struct incoming *in)
{
    struct record r;
    in->s->timeout_ns = in->verify ? VERIFY_TIMEOUT_NS : COMMIT_TIMEOUT_NS;
    for (;;) {
        int e = stream_receive(in->s, &r);
        if (e)
            return stream_failed(in, e);
        if (r.type == REC_COMMIT)
            return committed(in, &r);
        if (r.type == REC_ABORT) {
            char text[120];
            stream_text(&r, text, sizeof(text));
            mutex_lock(&claims_lock);
            settle(in->claim, claim_step(in->claim, HO_EV_ABORTED), "");
            mutex_unlock(&claims_lock);
            return incoming_fail(in, E_ABORT, "%s ended the move: %s", in->s->peer.host, text);
        }
        bool disks = disks_is_question(r.type);
        if (!disks && !verify_is_question(r.type))
            return incoming_fail(in, E_PROTO, "%s came where COMMIT was wanted",
                                 record_name(r.type));
        job_phase(in->job, JOB_VERIFY);
        in->compared = true;
        e = disks ? disks_answer(&in->seen, in->guest, in->job, in->s, &r)
                  : verify_answer(in->s, in->guest, &in->hashes, in->verify == VERIFY_STRICT,
                                  &in->id, &r);
        if (e)
            return stream_failed(in, e);
    }
}

static int take_offer(struct incoming *in, const struct record *r)
{
    struct wire_offer w = *(const struct wire_offer *)r->payload;
    in->offer_ns = time_ns();
    job_phase(in->job, JOB_HANDOVER);
    fault_stall(FAULT_OFFER);
    if (fault_drop_link(in->s, FAULT_OFFER))
        return incoming_fail(in, E_IO, "the connection was lost (cut by a fault)");
    int e = check_offer(in, &w);
    if (e == 0)
        e = load_offered(in, &w);
    if (e == 0)
        e = send_ready(in, &w);
    return e ? e : wait_commit(in);
}

static int receive(struct incoming *in)
{
    struct record r;
    int e;
    job_phase(in->job, JOB_PRECOPY);
    in->s->timeout_ns = IDLE_TIMEOUT_NS;
    in->state_ns = verify_state_ns(in->guest);
    in->disks = in->desc.disk_count ? disks_in_open(in->guest) : NULL;
    if (in->desc.disk_count && !in->disks)
        return incoming_fail(in, E_NOMEM, "no memory to receive the guest's disks");
    fault_stall(FAULT_ACCEPT);
    do {
        e = stream_receive(in->s, &r);
        if (e)
            return stream_failed(in, e);
        e = take_record(in, &r);
    } while (e == 0);
    return e == 1 ? take_offer(in, &r) : e;
}

// ---- The end -----------------------------------------------------------------------------------

static void end_started(struct incoming *in)
{
    struct job_info *i = &in->job->info;
    i->measured_blackout_us = in->claim->blackout_ns / NS_PER_US;
    if (in->compared) // the source compares, and commits to what is equal only
        i->digest_match = 1;
    job_end(in->job, JOB_DONE, "%s runs here; blackout %llu.%llu ms (+- %llu us)", i->guest,
            (unsigned long long)i->measured_blackout_us / 1000,
            (unsigned long long)i->measured_blackout_us % 1000 / 100,
            (unsigned long long)i->clock_error_us);
}

static void end_move(struct incoming *in, int error)
{
    struct claim *c = in->claim;
    mutex_lock(&claims_lock);
    if (error)
        settle(c, claim_step(c, HO_EV_FAILED), "");
    if (c->state == HO_STARTED) {
        end_started(in);
    } else if (c->state == HO_READY) {
        settle_doubt(c, in->error);
        job_end(in->job, JOB_IN_DOUBT, "READY, and COMMIT did not come: %.110s; asking again",
                in->error);
    } else {
        job_end(in->job, JOB_FAILED, "%s", in->error);
    }
    c->next_ask_ns = 0;
    c->linked = false;
    mutex_unlock(&claims_lock);
}

// Refused or only checked: nothing was sent yet, so the claim ends here as well.
static void end_check(struct incoming *in)
{
    incoming_undo(in);
    if (in->job)
        job_end(in->job, JOB_FAILED, "%s", in->error);
    if (!in->claim)
        return;
    mutex_lock(&claims_lock);
    claim_step(in->claim, HO_EV_FAILED);
    in->claim->linked = false;
    mutex_unlock(&claims_lock);
}

static int receive_move(struct incoming *in, const struct record *first)
{
    make_ident(in);
    int e = receive_description(in, first);
    if (e)
        return e;
    e = incoming_accept(in);
    if (e || in->mode == CHECK_ONLY) {
        end_check(in);
        return e == E_NOSUP ? 0 : e; // a refusal is an answer, the connection is sound
    }
    e = receive(in);
    disks_in_close(in->disks);
    end_move(in, e);
    disks_answer_end(&in->seen, in->verify == VERIFY_STRICT ? in->guest : NULL);
    return e;
}

int dest_receive(struct stream *s, const struct record *first)
{
    struct incoming *in = kzalloc(sizeof(*in));
    if (!in)
        return stream_fail(s, E_NOMEM, "no memory to receive a guest");
    in->s = s;
    int e = receive_move(in, first);
    load_free(&in->load);
    page_hashes_free(&in->hashes);
    guest_put(in->guest);
    if (e)
        stream_fail(s, e, "%s", in->error);
    kfree(in);
    return e;
}
