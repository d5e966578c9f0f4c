// SPDX-License-Identifier: MIT
// The destination judges a guest that a peer wants to send, and makes room for it.
#include "kernel/lib.h"
#include "kernel/log.h"
#include "kernel/mem.h"
#include "kernel/migrate/check.h"
#include "kernel/migrate/dest.h"
#include "kernel/migrate/fault.h"

// Finds or makes the guest's entry and gives it the description's configuration.
static void take_entry(struct incoming *in, struct guest *existing, struct reasons *why)
{
    struct guest_config cfg;
    char err[160];
    describe_config(&in->desc.g, in->id.uuid, &cfg);
    cfg.disk_count = in->desc.disk_count;
    for (u32 i = 0; i < cfg.disk_count; i++)
        strlcpy(cfg.disks[i], in->desc.disks[i].path, sizeof(cfg.disks[i]));
    // The move that had brought it may have been settled, and the entry removed, since it was
    // found.
    if (existing && existing->state != GUEST_GONE) {
        in->saved = existing->config;
        in->saved_state = existing->state;
        in->saved_pending = existing->autostart_pending;
        strlcpy(in->saved_why, existing->why, sizeof(in->saved_why));
        existing->config = cfg;
        in->guest = guest_hold(existing);
    } else {
        in->guest = guest_hold(guest_add(&cfg, err, sizeof(err)));
        if (!in->guest) {
            reason_add(why, "guest: %s", err);
            return;
        }
        in->guest->from_config = false;
        in->added = true;
    }
    memcpy(in->guest->uuid, in->id.uuid, 16);
    guest_teardown(in->guest); // what a crash left to look at
    in->guest->state = GUEST_INCOMING;
    in->guest->autostart_pending = false;
    in->guest->why[0] = '\0';
}

// The guest keeps the CPU it was shown and the clock rate it was told; guest_build takes both.
static void take_cpu(struct incoming *in)
{
    struct guest *g = in->guest;
    for (u32 i = 0; i < in->desc.g.cpuid_count; i++) {
        const struct wire_cpuid *w = &in->desc.cpuid[i];
        g->cpuid[i] =
            (struct cpuid_entry){w->leaf, w->sub, w->flags, w->eax, w->ebx, w->ecx, w->edx};
    }
    g->cpuid_count = in->desc.g.cpuid_count;
    g->clock.tsc_hz = in->desc.g.tsc_hz;
    g->boot_count = in->desc.g.boot_count;
}

static bool record(struct incoming *in, struct reasons *why)
{
    if (!in->claim)
        return true;
    mutex_lock(&claims_lock);
    memcpy(in->claim->disk_id, in->disk_id, sizeof(in->disk_id));
    mutex_unlock(&claims_lock);
    int e = claim_record(in->claim);
    if (e)
        reason_add(why, "datastore: the move cannot be recorded there (%d)", e);
    return !e;
}

// The claim is on record with the volumes that were made, so that they go where a restart ends it,
// and before that without them, so that no moment of their making is left out.
static bool take_disks(struct incoming *in, struct reasons *why)
{
    const struct guest_config *cfg = &in->guest->config;
    char err[160];
    if (in->desc.disk_count && !record(in, why))
        return false;
    if (disks_make(&in->desc, err, sizeof(err))) {
        reason_add(why, "building the guest failed: %s", err);
        return false;
    }
    fault_stall(FAULT_VOLUMES);
    disks_identify(cfg->disks, cfg->disk_count, in->disk_id);
    return record(in, why);
}

static void build(struct incoming *in, struct reasons *why)
{
    char err[160] = "";
    take_cpu(in);
    if (!take_disks(in, why))
        return;
    if (guest_build(in->guest, err, sizeof(err))) {
        reason_add(why, "building the guest failed: %s", err);
        return;
    }
    in->built = true;
    check_built(&in->desc, in->guest, in->s->peer.host, why);
    u64 pages = guest_page_count(in->guest);
    if (in->verify && page_hashes_create(&in->hashes, pages) != 0)
        reason_add(why, "memory: verification needs %llu KiB for hashes of %llu pages",
                   (unsigned long long)(page_hashes_bytes(pages) / KIB), (unsigned long long)pages);
}

static void make_claim(struct incoming *in, struct reasons *why)
{
    char text[160];
    in->claim = claim_new(false, &in->id, in->desc.g.name, in->s->peer.host, text, sizeof(text));
    if (!in->claim) {
        reason_add(why, "%s", text);
        return;
    }
    in->job = job_new(in->desc.g.name, in->s->peer.host, true);
    if (!in->job) {
        reason_add(why, "all %u job slots are taken", JOBS_KEPT);
        return;
    }
    job_phase(in->job, JOB_CHECK);
    mutex_lock(&claims_lock);
    in->claim->address = in->s->conn->peer;
    in->claim->port = peer_port(in->s->peer.port);
    in->claim->job = in->job->info.id;
    in->claim->disk_count = in->desc.disk_count;
    for (u32 i = 0; i < in->desc.disk_count; i++)
        strlcpy(in->claim->disks[i], in->desc.disks[i].path, CONFIG_DISK);
    mutex_unlock(&claims_lock);
}

// A guest that runs needs its files no more, until it is started again.
static void note_file(const char *path, struct reasons *notes)
{
    if (path[0] && !boot_file_find(path))
        reason_add(notes, "it cannot be rebooted on %s, which has no %s", migrate_cfg->name, path);
}

// What works but is worth knowing.
static void note_files(const struct guest_desc *d, struct reasons *notes)
{
    note_file(d->g.kernel, notes);
    for (u32 i = 0; i < d->g.module_count; i++)
        note_file(d->g.modules[i], notes);
}

static void make_room(struct incoming *in, struct guest *existing, struct reasons *why)
{
    if (in->mode == CHECK_MOVE && why->count == 0)
        make_claim(in, why);
    // A check takes no crashed guest apart, for somebody may still want to look at it.
    bool in_the_way = in->mode == CHECK_ONLY && existing && existing->memory.bytes;
    if (why->count || in_the_way)
        return;
    take_entry(in, existing, why);
    if (why->count == 0)
        build(in, why);
    if (in->guest)
        in->guest->job = in->job;
}

// Every reason that can be known without memory, then those that building shows.
static void judge(struct incoming *in, struct reasons *why)
{
    struct guest *existing = NULL;
    const char *from = in->s->peer.host;
    check_cpu(&in->desc, from, why);
    u64 pages = in->desc.g.memory_bytes / PAGE_SIZE;
    disks_check(&in->desc, from, why);
    check_memory(&in->desc, in->verify ? page_hashes_bytes(pages) : 0, why);
    check_identity(&in->desc, in->id.uuid, from, &existing, why);
    make_room(in, existing, why);
    guest_put(existing);
}

// The entry as it was, or gone.
void incoming_undo(struct incoming *in)
{
    struct guest *g = in->guest;
    if (!g)
        return;
    if (in->added)
        guest_remove(g);
    else if (in->built)
        guest_teardown(g);
    disks_delete(g->config.disks, g->config.disk_count, in->disk_id);
    if (!in->added) {
        g->job = NULL;
        g->state = in->saved_state;
        g->config = in->saved;
        g->autostart_pending = in->saved_pending;
        strlcpy(g->why, in->saved_why, sizeof(g->why));
    }
    guest_put(g);
    in->guest = NULL;
    in->built = false;
}

static int send_answer(struct incoming *in, u32 type, const struct reasons *text)
{
    int e = stream_send_text(in->s, type, text->text);
    return e ? incoming_fail(in, e, "%s", in->s->error) : 0;
}

int incoming_accept(struct incoming *in)
{
    struct reasons *why = kzalloc(sizeof(*why));
    int e;
    if (!why)
        return incoming_fail(in, E_NOMEM, "no memory to check the guest");
    judge(in, why);
    bool refused = why->count != 0;
    if (refused || in->mode == CHECK_ONLY)
        incoming_undo(in); // before the answer, so that whoever gets it finds nothing left
    if (refused) {
        log_warn("migrate", "guest %s from %s is refused: %.120s", in->desc.g.name,
                 in->s->peer.host, why->text);
        incoming_fail(in, E_NOSUP, "refused: %.150s", why->text);
        e = send_answer(in, REC_REFUSE, why);
        e = e ? e : E_NOSUP;
    } else {
        note_files(&in->desc, why);
        e = send_answer(in, REC_ACCEPT, why);
    }
    kfree(why);
    return e;
}
