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

static void digest_ram(const struct page_hashes *h, u64 out[2])
{
    struct hash all;
    hash_start(&all);
    for (u64 c = 0; c < h->chunks; c++) {
        u64 chunk[2];
        page_hashes_of_chunk(h, c, chunk);
        hash_add(&all, chunk, sizeof(chunk));
        thread_yield_if_needed();
    }
    hash_finish(&all, out);
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

int verify_digest(struct guest *g, const struct page_hashes *h, struct verify_digest *d)
{
    digest_ram(h, d->ram);
    return digest_state(g, d);
}

u64 verify_page_ns(struct guest *g)
{
    u64 total = guest_page_count(g), pages = MIN(total, (u64)SAMPLE_PAGES), h[2], spent = 0;
    for (u64 i = 0; i < pages; i++) {
        u64 t = time_ns();
        hash_page(guest_page(g, guest_page_gpa(g, i * (total / pages))), h);
        spent += time_ns() - t;
        thread_yield_if_needed();
    }
    return pages ? spent / pages : 0;
}

u64 verify_table_ns(const struct page_hashes *h)
{
    u64 out[2], start = time_ns();
    if (!h->chunks)
        return 0;
    page_hashes_of_chunk(h, 0, out);
    return (time_ns() - start) * h->chunks;
}

u64 verify_state_ns(struct guest *g)
{
    struct verify_digest d;
    u64 start = time_ns();
    digest_state(g, &d);
    return time_ns() - start;
}

// ---- Destination -------------------------------------------------------------------------------

bool verify_is_question(u32 type)
{
    return type == REC_VERIFY || type == REC_HASH_ASK || type == REC_STATE_ASK;
}

static int answer_summary(struct stream *s, struct guest *g, struct page_hashes *h, bool strict,
                          const struct move_ident *id)
{
    struct wire_summary w = {.id = *id, .pages = h->pages};
    struct verify_digest d;
    if (strict)
        page_hashes_read(h, g);
    if (verify_digest(g, h, &d) != 0)
        return stream_fail(s, E_NOMEM, "no memory to digest the state");
    memcpy(w.ram, d.ram, sizeof(w.ram));
    memcpy(w.state, d.state, sizeof(w.state));
    return stream_send(s, REC_SUMMARY, &w, sizeof(w));
}

static int answer_hashes(struct stream *s, const struct page_hashes *h,
                         const struct wire_hash_ask *ask)
{
    u64 limit = ask->level == HASH_CHUNKS ? h->chunks : h->pages;
    u32 level = ask->level, count = ask->count;
    u64 first = ask->first;
    if (level > HASH_PAGES || count > HASHES_MAX || first > limit || count > limit - first)
        return stream_fail(s, E_PROTO, "HASH_ASK for %u hashes from %llu on, there are %llu", count,
                           (unsigned long long)first, (unsigned long long)limit);
    struct wire_hashes *out = stream_payload(s);
    u64(*to)[2] = (void *)(out + 1);
    *out = (struct wire_hashes){.level = level, .count = count, .first = first};
    for (u32 i = 0; i < count; i++) {
        if (level == HASH_CHUNKS)
            page_hashes_of_chunk(h, first + i, to[i]);
        else
            memcpy(to[i], page_hashes_get(h, first + i), sizeof(to[i]));
    }
    return stream_send_built(s, REC_HASHES, (u32)(sizeof(*out) + count * sizeof(to[0])));
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

int verify_answer(struct stream *s, struct guest *g, struct page_hashes *h, bool strict,
                  const struct move_ident *id, const struct record *r)
{
    if (!h->pages)
        return stream_fail(s, E_PROTO, "%s on a connection whose header did not announce it",
                           record_name(r->type));
    if (r->type == REC_VERIFY)
        return answer_summary(s, g, h, strict, id);
    if (r->type == REC_HASH_ASK)
        return answer_hashes(s, h, r->payload);
    return answer_state(s, g);
}
