// SPDX-License-Identifier: MIT
// Puts received pages into the new guest's memory; every count and index is checked first.
#include "kernel/lib.h"
#include "kernel/migrate/dest.h"
#include "kernel/migrate/fault.h"
#include "kernel/thread.h"
#include "kernel/time.h"

static int check_batch(struct incoming *in, const struct record *r, const struct wire_page *entries,
                       u32 count)
{
    u64 data = 0, total = guest_page_count(in->guest);
    for (u32 i = 0; i < count; i++) {
        u64 index = entries[i].index;
        if (index & ~(PAGE_INDEX | PAGE_ZERO) || (index & PAGE_INDEX) >= total)
            return incoming_fail(in, E_PROTO, "PAGES names page 0x%llx, the guest has 0x%llx",
                                 (unsigned long long)index, (unsigned long long)total);
        if (!(index & PAGE_ZERO))
            data += PAGE_SIZE;
    }
    u64 wanted = sizeof(struct wire_pages) + count * (u64)sizeof(*entries) + data;
    if (r->bytes != wanted)
        return incoming_fail(in, E_PROTO, "PAGES has %u bytes, wanted %llu for its %u pages",
                             r->bytes, (unsigned long long)wanted, count);
    return 0;
}

static void show_progress(struct incoming *in, u32 round)
{
    struct job_info *i = &in->job->info;
    u64 ms = (time_ns() - i->started_ns) / NS_PER_MS;
    i->round = round;
    i->pages_sent = in->pages_in;
    i->pages_zero = in->pages_zero;
    i->bytes_wire = in->s->conn->bytes_in + in->s->conn->bytes_out;
    i->rate_bytes_s = ms ? in->s->conn->bytes_in * 1000 / ms : 0;
}

// The hash is over the page as it lies in the guest's RAM: it shows what went wrong on the way here
// and in the last copy, and is what verification has to compare.
int incoming_put(struct incoming *in, u64 index, const void *data, const u64 hash[2])
{
    u64 gpa = guest_page_gpa(in->guest, index), now[2];
    u8 *page = guest_page(in->guest, gpa);
    if (data)
        memcpy(page, data, PAGE_SIZE);
    else
        memset(page, 0, PAGE_SIZE);
    hash_page(page, now);
    page_hashes_set(&in->hashes, index, now);
    if (memcmp(now, hash, sizeof(now)) != 0)
        return incoming_fail(in, E_PROTO,
                             "the page at 0x%llx is damaged: its hash is %016llx%016llx, wanted "
                             "%016llx%016llx",
                             (unsigned long long)gpa, (unsigned long long)now[1],
                             (unsigned long long)now[0], (unsigned long long)hash[1],
                             (unsigned long long)hash[0]);
    return 0;
}

int incoming_pages(struct incoming *in, const struct record *r)
{
    const struct wire_pages *w = r->payload;
    const struct wire_page *entries = (const struct wire_page *)(w + 1);
    if (w->count == 0 || w->count > PAGES_MAX ||
        r->bytes < sizeof(*w) + w->count * (u64)sizeof(*entries))
        return incoming_fail(in, E_PROTO, "PAGES holds %u pages in %u bytes", w->count, r->bytes);
    int e = check_batch(in, r, entries, w->count);
    const u8 *data = (const u8 *)(entries + w->count);
    for (u32 i = 0; e == 0 && i < w->count; i++) {
        bool zero = entries[i].index & PAGE_ZERO;
        e = incoming_put(in, entries[i].index & PAGE_INDEX, zero ? NULL : data, entries[i].hash);
        if (zero) {
            in->pages_zero++;
        } else {
            data += PAGE_SIZE;
            in->pages_in++;
        }
        thread_yield_if_needed();
    }
    show_progress(in, w->round);
    return e;
}
