// SPDX-License-Identifier: MIT
// Sends a guest's disks: all that is allocated, then what was written meanwhile, over and over.
#include "kernel/migrate/disks.h"

#include "kernel/lib.h"
#include "kernel/mem.h"
#include "kernel/migrate/fault.h"
#include "kernel/migrate/source.h"
#include "kernel/thread.h"
#include "kernel/time.h"
#include "storage/guest_disk.h"

#define PIECE         2048u // sectors that are read at a time
#define PASSES        10u   // after which the guest has to wait where it writes too fast
#define KEEP_UP_NS    (20 * NS_PER_MS)
#define ROUND_WAIT_NS (60 * NS_PER_SEC) // the other host's disk may have much to write

// ---- Records -----------------------------------------------------------------------------------

static int send_run(struct move *m, u32 disk, u64 sector, u32 sectors, const void *data)
{
    struct wire_blocks *w = stream_payload(&m->s);
    u32 bytes = data ? sectors * BLOCK_SECTOR : 0;
    *w = (struct wire_blocks){.disk = disk, .sector = sector, .sectors = sectors};
    if (data) {
        memcpy(w + 1, data, bytes);
        hash_bytes(w + 1, bytes, w->hash);
    } else {
        w->flags = BLOCKS_ZERO;
    }
    int e = stream_send_built(&m->s, REC_BLOCKS, (u32)sizeof(*w) + bytes);
    if (e)
        return move_fail(m, e, "%s", m->s.error);
    m->precopy_bytes += sizeof(*w) + bytes;
    m->job->info.disk_bytes_wire += sizeof(*w) + bytes;
    return 0;
}

static bool is_zero(const u8 *data, u32 sectors)
{
    const u64 *word = (const u64 *)data;
    u64 any = 0;
    for (u32 i = 0; i < sectors * BLOCK_SECTOR / 8 && !any; i++)
        any |= word[i];
    return any == 0;
}

// The blocks from `data` on that are alike, up to what a record carries; zeros have no such bound.
static u32 run_length(const u8 *data, u32 left, u32 block, bool zero)
{
    u32 run = MIN(block, left);
    while (run < left && (zero || run + block <= BLOCKS_MAX) &&
           is_zero(data + run * BLOCK_SECTOR, MIN(block, left - run)) == zero)
        run += MIN(block, left - run);
    return run;
}

// What was read, in runs of zeros and of data.
static int send_piece(struct move *m, u32 disk, u64 sector, u32 sectors)
{
    const u8 *data = m->disks.buffer;
    int e = 0;
    for (u32 at = 0, run; at < sectors && e == 0; at += run) {
        const u8 *from = data + at * BLOCK_SECTOR;
        bool zero = is_zero(from, MIN(GUEST_DISK_BLOCK, sectors - at));
        run = run_length(from, sectors - at, GUEST_DISK_BLOCK, zero);
        e = send_run(m, disk, sector + at, run, zero ? NULL : from);
        thread_yield_if_needed();
    }
    return e;
}

static int read_and_send(struct move *m, u32 disk, u64 sector, u32 sectors)
{
    struct block_device *b = &m->disks.disk[disk].disk->block;
    int e = block_read(b, sector, sectors, m->disks.buffer);
    if (e)
        return move_fail(m, e, "disk %s cannot be read at sector %llu", b->name,
                         (unsigned long long)sector);
    return send_piece(m, disk, sector, sectors);
}

// Ends a pass: what comes after it may name the same blocks again.
static int send_round(struct move *m, u32 flags)
{
    struct wire_disk_round w = {++m->disks.round, flags};
    int e = stream_send(&m->s, REC_DISK_ROUND, &w, sizeof(w));
    return e ? move_fail(m, e, "%s", m->s.error) : 0;
}

int disks_out_wait(struct move *m)
{
    struct record r;
    u64 timeout = m->s.timeout_ns;
    if (!m->disks.count)
        return 0;
    m->s.timeout_ns = ROUND_WAIT_NS;
    int e = stream_expect(&m->s, REC_DISK_DONE, &r);
    m->s.timeout_ns = timeout;
    const struct wire_disk_round *w = r.payload;
    if (e)
        return move_fail(m, e, "%s", m->s.error);
    if (w->round != m->disks.round)
        return move_fail(m, E_PROTO, "%s has done round %u of the disks, not %u", m->peer.name,
                         w->round, m->disks.round);
    return 0;
}

// ---- Passes ------------------------------------------------------------------------------------

static int between_pieces(struct move *m)
{
    precopy_throttle(m);
    fault_stall(FAULT_DISK);
    if (fault_drop_link(&m->s, FAULT_DISK))
        return move_fail(m, E_IO, "the connection to %s was lost (cut by a fault)", m->peer.name);
    precopy_show_progress(m, m->job->info.disk_bytes_left);
    return move_check(m);
}

// All of a disk but its holes, which the new volume has as well.
static int send_all(struct move *m, u32 disk)
{
    struct guest_disk *d = m->disks.disk[disk].disk;
    u64 run;
    int e = 0;
    for (u64 at = 0; at < d->block.sectors && e == 0; at += run) {
        bool data = guest_disk_allocated(d, at, &run);
        run = MIN(data ? MIN(run, PIECE) : run, d->block.sectors - at);
        if (data)
            e = read_and_send(m, disk, at, (u32)run);
        if (e == 0)
            e = between_pieces(m);
        m->job->info.disk_bytes_left -= MIN(run * BLOCK_SECTOR, m->job->info.disk_bytes_left);
    }
    return e;
}

// The next blocks to send that lie side by side. False when none are left.
static bool take_blocks(struct disk_out *o, u64 *from, u64 *sector, u32 *sectors)
{
    u32 block = o->disk->block_sectors, count = 1;
    u64 first = dirty_bitmap_take_next(&o->todo, *from);
    if (first == ~0ull)
        return false;
    while ((count + 1) * block <= PIECE && dirty_bitmap_test(&o->todo, first + count))
        dirty_bitmap_take_next(&o->todo, first + count++);
    *from = first + count;
    *sector = first * block;
    *sectors = (u32)MIN((u64)count * block, o->disk->block.sectors - *sector);
    return true;
}

static int send_written(struct move *m, u32 disk)
{
    u64 from = 0, sector;
    u32 sectors;
    int e = 0;
    while (e == 0 && take_blocks(&m->disks.disk[disk], &from, &sector, &sectors))
        for (u32 at = 0; e == 0 && at < sectors; at += PIECE) // a block may be longer
            e = read_and_send(m, disk, sector + at, MIN(PIECE, sectors - at));
    return e;
}

static void collect(struct move *m)
{
    for (u32 i = 0; i < m->disks.count; i++)
        guest_disk_collect(m->disks.disk[i].disk, &m->disks.disk[i].todo);
    m->disks.kept_up_ns = time_ns();
}

static int pass(struct move *m, u32 flags)
{
    int e = 0;
    collect(m);
    for (u32 i = 0; e == 0 && i < m->disks.count; i++)
        e = send_written(m, i);
    return e ? e : send_round(m, flags);
}

u64 disks_out_pending(const struct move *m)
{
    u64 bytes = 0;
    for (u32 i = 0; i < m->disks.count; i++) {
        const struct guest_disk *d = m->disks.disk[i].disk;
        bytes += d->log.count * d->block_sectors * BLOCK_SECTOR;
    }
    return bytes;
}

// Passes while they get shorter; from then on the guest's writes wait for the copy.
static int catch_up(struct move *m)
{
    u64 before = ~0ull;
    int e = 0;
    for (u32 i = 0; e == 0 && i < PASSES; i++) {
        u64 pending = disks_out_pending(m);
        m->job->info.disk_bytes_left = pending;
        if (pending <= DISK_LAG_BYTES || pending >= before)
            break;
        before = pending;
        e = pass(m, DISK_ROUND_ANSWER);
        if (e == 0)
            e = disks_out_wait(m);
        if (e == 0)
            e = between_pieces(m);
    }
    for (u32 i = 0; i < m->disks.count; i++) {
        struct guest_disk *d = m->disks.disk[i].disk;
        guest_disk_limit(d, DISK_LAG_BYTES / (d->block_sectors * BLOCK_SECTOR) + 1);
    }
    return e;
}

int disks_out_copy(struct move *m)
{
    int e = 0;
    if (!m->disks.count)
        return 0;
    job_phase(m->job, JOB_DISK);
    m->started_ns = time_ns();
    m->precopy_bytes = 0;
    for (u32 i = 0; e == 0 && i < m->disks.count; i++)
        e = send_all(m, i);
    if (e == 0)
        e = send_round(m, DISK_ROUND_ANSWER | DISK_ROUND_FLUSH);
    if (e == 0)
        e = disks_out_wait(m);
    if (e == 0)
        e = catch_up(m);
    // A flush with little to write is short, and so will be the one while the guest stands still.
    if (e == 0)
        e = pass(m, DISK_ROUND_ANSWER | DISK_ROUND_FLUSH);
    return e ? e : disks_out_wait(m);
}

int disks_out_keep_up(struct move *m)
{
    if (!m->disks.count || time_ns() - m->disks.kept_up_ns < KEEP_UP_NS || !disks_out_pending(m))
        return 0;
    return pass(m, 0);
}

void disks_out_release(struct move *m)
{
    for (u32 i = 0; i < m->disks.count; i++)
        guest_disk_limit(m->disks.disk[i].disk, 0);
}

int disks_out_last(struct move *m)
{
    return m->disks.count ? pass(m, DISK_ROUND_ANSWER | DISK_ROUND_FLUSH | DISK_ROUND_LAST) : 0;
}

// ---- Begin and end -----------------------------------------------------------------------------

int disks_out_start(struct move *m)
{
    struct guest *g = m->guest;
    u64 pa = g->config.disk_count ? pages_alloc(PIECE * BLOCK_SECTOR / PAGE_SIZE) : 0;
    if (!g->config.disk_count)
        return 0;
    m->disks.buffer = pa ? phys_ptr(pa) : NULL;
    for (u32 i = 0; pa && i < g->config.disk_count; i++) {
        struct disk_out *o = &m->disks.disk[i];
        o->disk = g->disk[i];
        if (dirty_bitmap_init(&o->todo, guest_disk_blocks(o->disk)) ||
            guest_disk_log_start(o->disk, false))
            pa = 0;
        m->disks.count++;
        m->job->info.disk_bytes_left += m->desc.disks[i].allocated_bytes;
    }
    return pa ? 0 : move_fail(m, E_NOMEM, "no memory to follow what the guest writes to its disks");
}

void disks_out_end(struct move *m)
{
    for (u32 i = 0; i < m->disks.count; i++) {
        guest_disk_log_stop(m->disks.disk[i].disk);
        dirty_bitmap_free(&m->disks.disk[i].todo);
    }
    m->disks.count = 0;
    if (m->disks.buffer)
        pages_free(ptr_phys(m->disks.buffer), PIECE * BLOCK_SECTOR / PAGE_SIZE);
    m->disks.buffer = NULL;
}
