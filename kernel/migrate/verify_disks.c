// SPDX-License-Identifier: MIT
// Verification of disks (stream.md, "Verification"): the source hashes what its volumes hold, the
// destination compares with its own.
#include "kernel/lib.h"
#include "kernel/mem.h"
#include "kernel/migrate/disks.h"
#include "kernel/migrate/fault.h"
#include "kernel/migrate/source.h"
#include "kernel/thread.h"
#include "storage/guest_disk.h"

#define BLOCK        8u // sectors under one hash
#define BLOCK_BYTES  (BLOCK * BLOCK_SECTOR)
#define PIECE        (DISK_HASHES_MAX * BLOCK)
#define BUFFER_PAGES (PIECE * BLOCK_SECTOR / PAGE_SIZE)

static u8 *buffer_alloc(void)
{
    u64 pa = pages_alloc(BUFFER_PAGES);
    return pa ? phys_ptr(pa) : NULL;
}

static void buffer_free(u8 *buffer)
{
    if (buffer)
        pages_free(ptr_phys(buffer), BUFFER_PAGES);
}

// Reads blocks, the last of which may not be whole on the disk: zeros follow then.
static int read_blocks(struct guest_disk *d, u64 sector, u32 count, u8 *buffer)
{
    u64 sectors = MIN((u64)count * BLOCK, d->block.sectors - sector);
    memset(buffer + (count - 1) * BLOCK_BYTES, 0, BLOCK_BYTES);
    return block_read(&d->block, sector, sectors, buffer);
}

// ---- The source --------------------------------------------------------------------------------

static int send_hashes(struct move *m, struct stream *s, u32 disk, u64 sector, u32 count,
                       u8 *buffer)
{
    struct wire_disk_hashes *w = stream_payload(s);
    u64(*hash)[2] = (u64(*)[2])(w + 1);
    struct guest_disk *d = m->guest->disk[disk];
    int e = read_blocks(d, sector, count, buffer);
    if (e)
        return stream_fail(s, e, "disk %s cannot be read at sector %llu", d->block.name,
                           (unsigned long long)sector);
    *w = (struct wire_disk_hashes){disk, count, sector};
    for (u32 i = 0; i < count; i++) {
        hash_page(buffer + i * BLOCK_BYTES, hash[i]);
        thread_yield_if_needed();
    }
    return stream_send_built(s, REC_DISK_HASHES, (u32)sizeof(*w) + count * 16);
}

static int send_disk(struct move *m, struct stream *s, u32 disk, u8 *buffer)
{
    const struct guest_disk *d = m->guest->disk[disk];
    int e = 0;
    for (u64 at = 0, run; at < d->block.sectors && e == 0; at += run) {
        bool data = guest_disk_allocated(d, at, &run);
        u32 count = (u32)MIN((run + BLOCK - 1) / BLOCK, DISK_HASHES_MAX);
        if (!data)
            run = MAX(ALIGN_DOWN(run, BLOCK), BLOCK);
        else if ((e = send_hashes(m, s, disk, at, count, buffer)) == 0)
            run = (u64)count * BLOCK;
    }
    return e;
}

static int ask(struct move *m, struct stream *s, char *report, size_t size)
{
    struct record r;
    int e = stream_send(s, REC_DISK_ASK, NULL, 0);
    if (e == 0)
        e = stream_expect(s, REC_DISK_SUMMARY, &r);
    if (e)
        return e;
    const struct wire_disk_summary *w = r.payload;
    u32 disk = MIN(w->first_disk, CONFIG_MAX_DISKS - 1u);
    m->job->info.disk_blocks_equal = w->equal;
    m->job->info.disk_blocks_rewritten = w->rewritten;
    if (w->differing)
        snprintf(report, size, "disk %s at sector %llu%s", m->guest->config.disks[disk],
                 (unsigned long long)w->first_sector, w->differing > 1 ? " and others" : "");
    return w->differing ? E_INVAL : 0;
}

int disks_out_compare(struct move *m, struct stream *s, char *report, size_t size)
{
    u8 *buffer = buffer_alloc();
    int e = buffer ? 0 : stream_fail(s, E_NOMEM, "no memory to compare the disks");
    s->timeout_ns = VERIFY_TIMEOUT_NS;
    for (u32 i = 0; e == 0 && i < m->guest->config.disk_count; i++)
        e = send_disk(m, s, i, buffer);
    buffer_free(buffer);
    if (e == 0)
        e = ask(m, s, report, size);
    m->job->info.disk_digest_match = e == 0 ? 1 : e == E_INVAL ? 2 : 0;
    return e;
}

// ---- The destination ---------------------------------------------------------------------------

// Without memory for a log nothing will be known.
void disks_answer_begin(struct guest *g)
{
    for (u32 i = 0; i < g->config.disk_count; i++)
        guest_disk_log_start(g->disk[i], true);
}

bool disks_is_question(u32 type)
{
    return type == REC_DISK_HASHES || type == REC_DISK_ASK;
}

// What was read first and is not in the log afterwards is as the source left it.
static void judge(struct disks_seen *seen, struct guest_disk *d, const struct wire_disk_hashes *w)
{
    const u64(*hash)[2] = (const u64(*)[2])(w + 1);
    for (u32 i = 0; i < w->count; i++, thread_yield_if_needed()) {
        u64 mine[2], sector = w->sector + i * BLOCK;
        hash_page(seen->buffer + i * BLOCK_BYTES, mine);
        if (!memcmp(mine, hash[i], sizeof(mine))) {
            seen->sum.equal++;
        } else if (guest_disk_logged(d, sector / d->block_sectors)) {
            seen->sum.rewritten++;
        } else if (seen->sum.differing++ == 0) {
            seen->sum.first_disk = w->disk;
            seen->sum.first_sector = sector;
        }
    }
}

// Once the guest runs it may be taken apart, or moved on, at any time: then nothing is known.
static int compare(struct disks_seen *seen, struct guest *g, const void *job, struct stream *s,
                   const struct record *r)
{
    const struct wire_disk_hashes *w = r->payload;
    int e = 0;
    mutex_lock(&g->lock);
    struct guest_disk *d = w->disk < CONFIG_MAX_DISKS ? g->disk[w->disk] : NULL;
    if (!d || (g->job && g->job != job))
        seen->sum.rewritten += w->count;
    else if (w->sector % BLOCK || w->sector >= d->block.sectors || w->count == 0 ||
             w->count > (d->block.sectors - w->sector + BLOCK - 1) / BLOCK)
        e = stream_fail(s, E_PROTO, "DISK_HASHES of %u blocks at sector %llu, beyond the disk",
                        w->count, (unsigned long long)w->sector);
    else if (read_blocks(d, w->sector, w->count, seen->buffer) != 0)
        e = stream_fail(s, E_NOSUP, "disk %s cannot be read", d->block.name);
    else
        judge(seen, d, w);
    mutex_unlock(&g->lock);
    return e;
}

int disks_answer(struct disks_seen *seen, struct guest *g, const void *job, struct stream *s,
                 const struct record *r)
{
    const struct wire_disk_hashes *w = r->payload;
    if (r->type == REC_DISK_ASK)
        return stream_send(s, REC_DISK_SUMMARY, &seen->sum, sizeof(seen->sum));
    if (w->count > DISK_HASHES_MAX || r->bytes != sizeof(*w) + w->count * 16ull)
        return stream_fail(s, E_PROTO, "DISK_HASHES has %u bytes for %u blocks", r->bytes,
                           w->count);
    if (!seen->buffer && !(seen->buffer = buffer_alloc()))
        return stream_fail(s, E_NOMEM, "no memory to compare the disks");
    return compare(seen, g, job, s, r);
}

void disks_answer_end(struct disks_seen *seen, struct guest *g)
{
    buffer_free(seen->buffer);
    seen->buffer = NULL;
    if (!g)
        return;
    mutex_lock(&g->lock);
    for (u32 i = 0; i < CONFIG_MAX_DISKS && !g->job; i++)
        if (g->disk[i])
            guest_disk_log_stop(g->disk[i]);
    mutex_unlock(&g->lock);
}

int disks_serve(struct stream *s, const struct record *first)
{
    struct guest *g = guest_get_uuid(s->peer.uuid);
    struct disks_seen seen = {.buffer = NULL};
    struct record r = *first;
    thread_set_background(true); // the guest has just got here and has much to catch up with
    fault_stall(FAULT_RELEASE);
    int e =
        g && g->epoch == s->peer.epoch
            ? disks_answer(&seen, g, NULL, s, &r)
            : stream_fail(s, E_PROTO, "%s is for a guest that is not here", record_name(r.type));
    while (e == 0 && r.type != REC_DISK_ASK) {
        e = stream_receive(s, &r);
        if (e == 0 && !disks_is_question(r.type))
            e = stream_fail(s, E_PROTO, "%s came where the disks were to be compared",
                            record_name(r.type));
        else if (e == 0)
            e = disks_answer(&seen, g, NULL, s, &r);
    }
    disks_answer_end(&seen, e == 0 ? g : NULL);
    guest_put(g);
    thread_set_background(false);
    return e;
}
