// SPDX-License-Identifier: MIT
// Digests over a stopped guest, and the destination's side of comparing them.
#include "kernel/migrate/verify.h"

#include "kernel/lib.h"
#include "kernel/mem.h"
#include "kernel/migrate/sections.h"
#include "kernel/thread.h"
#include "kernel/time.h"

#define STATE_PAGES  ((SECTION_DATA_MAX + PAGE_SIZE - 1) / PAGE_SIZE)
#define SAMPLE_PAGES 64

static void page_hash(struct guest *g, u64 index, u64 out[2])
{
    hash_page(guest_page(g, guest_page_gpa(g, index)), out);
    thread_yield_if_needed();
}

static void digest_ram(struct guest *g, struct verify_digest *d)
{
    struct hash all;
    hash_start(&all);
    for (u64 c = 0; c < d->chunk_count; c++) {
        struct hash chunk;
        u64 first = c * VERIFY_CHUNK_PAGES, end = MIN(first + VERIFY_CHUNK_PAGES, d->pages);
        hash_start(&chunk);
        for (u64 i = first; i < end; i++) {
            u64 h[2];
            page_hash(g, i, h);
            hash_add(&chunk, h, sizeof(h));
        }
        hash_finish(&chunk, d->chunks[c]);
        hash_add(&all, d->chunks[c], sizeof(d->chunks[c]));
    }
    hash_finish(&all, d->ram);
}

static int digest_state(struct guest *g, struct verify_digest *d)
{
    u64 buf = pages_alloc(STATE_PAGES);
    struct section_iter it = {.guest = g};
    struct section sec;
    struct hash all;
    s64 n = 0;

    if (!buf)
        return E_NOMEM;
    hash_start(&all);
    while (n >= 0 && section_next(&it, &sec)) {
        u64 head[2] = {(u64)sec.kind << 32 | sec.instance, sec.table->version};
        n = section_save(&sec, phys_ptr(buf), SECTION_DATA_MAX);
        if (n < 0)
            break;
        hash_add(&all, head, sizeof(head));
        // Encodings are multiples of 8: pad to the digest's 16.
        memset((u8 *)phys_ptr(buf) + n, 0, ALIGN_UP((u64)n, 16) - (u64)n);
        hash_add(&all, phys_ptr(buf), ALIGN_UP((u64)n, 16));
        thread_yield_if_needed();
    }
    pages_free(buf, STATE_PAGES);
    hash_finish(&all, d->state);
    return n < 0 ? (int)n : 0;
}

int verify_digest(struct guest *g, struct verify_digest *d)
{
    d->pages = guest_page_count(g);
    d->chunk_count = (d->pages + VERIFY_CHUNK_PAGES - 1) / VERIFY_CHUNK_PAGES;
    d->chunks = kmalloc(d->chunk_count * sizeof(d->chunks[0]));
    if (!d->chunks)
        return E_NOMEM;
    digest_ram(g, d);
    return digest_state(g, d);
}

void verify_digest_free(struct verify_digest *d)
{
    kfree(d->chunks);
    d->chunks = NULL;
}

u64 verify_page_ns(struct guest *g)
{
    u64 pages = MIN(guest_page_count(g), (u64)SAMPLE_PAGES), h[2], spent = 0;
    for (u64 i = 0; i < pages; i++) {
        u64 t = time_ns();
        hash_page(guest_page(g, guest_page_gpa(g, i)), h);
        spent += time_ns() - t;
        thread_yield_if_needed();
    }
    return pages ? spent / pages : 0;
}

// ---- Destination -------------------------------------------------------------------------------

bool verify_is_question(u32 type)
{
    return type == REC_VERIFY || type == REC_HASH_ASK || type == REC_STATE_ASK;
}

static int answer_summary(struct stream *s, struct guest *g, struct verify_digest *d,
                          const struct move_ident *id)
{
    struct wire_summary w = {.id = *id};
    verify_digest_free(d);
    if (verify_digest(g, d) != 0)
        return stream_fail(s, E_NOMEM, "no memory for the digests");
    w.pages = d->pages;
    memcpy(w.ram, d->ram, sizeof(w.ram));
    memcpy(w.state, d->state, sizeof(w.state));
    return stream_send(s, REC_SUMMARY, &w, sizeof(w));
}

static int answer_hashes(struct stream *s, struct guest *g, const struct verify_digest *d,
                         const struct wire_hash_ask *ask)
{
    struct wire_hashes head = {.level = ask->level, .count = ask->count, .first = ask->first};
    u64 limit = ask->level == HASH_CHUNKS ? d->chunk_count : guest_page_count(g);
    if (!d->chunks || ask->level > HASH_PAGES || ask->count > HASHES_MAX || ask->first > limit ||
        ask->count > limit - ask->first)
        return stream_fail(s, E_PROTO, "HASH_ASK for %u hashes from %llu on, there are %llu",
                           ask->count, (unsigned long long)ask->first, (unsigned long long)limit);
    struct wire_hashes *out = stream_payload(s);
    u64(*h)[2] = (void *)(out + 1);
    *out = head;
    for (u32 i = 0; i < head.count; i++) {
        if (head.level == HASH_CHUNKS)
            memcpy(h[i], d->chunks[head.first + i], sizeof(h[i]));
        else
            page_hash(g, head.first + i, h[i]);
    }
    return stream_send_built(s, REC_HASHES, (u32)(sizeof(head) + head.count * sizeof(h[0])));
}

static int answer_state(struct stream *s, struct guest *g)
{
    struct section_iter it = {.guest = g};
    struct section sec;
    while (section_next(&it, &sec)) {
        struct wire_section *w = stream_payload(s);
        memset(w, 0, sizeof(*w));
        s64 n = section_save(&sec, w + 1, SECTION_DATA_MAX);
        if (n < 0)
            return stream_fail(s, (int)n, "state of \"%s\" cannot be encoded", sec.name);
        w->kind = sec.kind;
        w->instance = sec.instance;
        w->bytes = (u32)n;
        strlcpy(w->name, sec.name, sizeof(w->name));
        int e = stream_send_built(s, REC_STATE, (u32)(sizeof(*w) + (u64)n));
        if (e)
            return e;
    }
    return 0;
}

int verify_answer(struct stream *s, struct guest *g, struct verify_digest *d,
                  const struct move_ident *id, const struct record *r)
{
    if (r->type == REC_VERIFY)
        return answer_summary(s, g, d, id);
    if (r->type == REC_HASH_ASK)
        return answer_hashes(s, g, d, r->payload);
    return answer_state(s, g);
}
