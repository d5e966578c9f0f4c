// SPDX-License-Identifier: MIT
// The source's side of verification: compares digests and names what differs.
#include "kernel/lib.h"
#include "kernel/mem.h"
#include "kernel/migrate/sections.h"
#include "kernel/migrate/verify.h"

#define NAMED_PAGES 4
#define STATE_PAGES ((SECTION_DATA_MAX + PAGE_SIZE - 1) / PAGE_SIZE)

struct differences {
    struct guest *guest;
    char *report;
    size_t size, used;
    u64 pages; // that differ
};

static void say(struct differences *d, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void say(struct differences *d, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(d->report + d->used, d->size - d->used, fmt, ap);
    va_end(ap);
    d->used = MIN(d->used + (size_t)MAX(n, 0), d->size - 1);
}

// Asks for count hashes from first on. The answer's hashes, or NULL with *error set.
static const u64 (*ask_hashes(struct stream *s, u32 level, u64 first, u32 count, int *error))[2]
{
    struct wire_hash_ask ask = {.level = level, .first = first, .count = count};
    struct record r;
    *error = stream_send(s, REC_HASH_ASK, &ask, sizeof(ask));
    if (*error == 0)
        *error = stream_expect(s, REC_HASHES, &r);
    if (*error)
        return NULL;
    const struct wire_hashes *w = r.payload;
    if (w->level != level || w->first != first || w->count != count ||
        r.bytes != sizeof(*w) + count * 16ull) {
        *error = stream_fail(s, E_PROTO, "HASHES do not fit the question");
        return NULL;
    }
    return (const u64(*)[2])(w + 1);
}

static void name_page(struct differences *d, u64 index)
{
    if (d->pages++ < NAMED_PAGES)
        say(d, "%spage at 0x%llx differs", d->used ? ", " : "",
            (unsigned long long)guest_page_gpa(d->guest, index));
}

static void count_unnamed(struct differences *d)
{
    if (d->pages > NAMED_PAGES)
        say(d, " and %llu more", (unsigned long long)(d->pages - NAMED_PAGES));
}

static int name_pages(struct stream *s, struct differences *d, const struct page_hashes *h,
                      u64 chunk)
{
    u64 first = chunk * PAGE_HASHES_CHUNK;
    u32 count = (u32)MIN((u64)PAGE_HASHES_CHUNK, h->pages - first);
    int e;
    const u64(*theirs)[2] = ask_hashes(s, HASH_PAGES, first, count, &e);
    for (u32 i = 0; theirs && i < count; i++)
        if (memcmp(page_hashes_get(h, first + i), theirs[i], sizeof(theirs[i])) != 0)
            name_page(d, first + i);
    return e;
}

static int compare_ram(struct stream *s, struct differences *d, const struct page_hashes *h)
{
    u64 bad[NAMED_PAGES], n = 0;
    for (u64 first = 0; first < h->chunks && n < NAMED_PAGES; first += HASHES_MAX) {
        u32 count = (u32)MIN((u64)HASHES_MAX, h->chunks - first);
        int e;
        const u64(*theirs)[2] = ask_hashes(s, HASH_CHUNKS, first, count, &e);
        if (!theirs)
            return e;
        for (u32 i = 0; i < count && n < NAMED_PAGES; i++) {
            u64 ours[2];
            page_hashes_of_chunk(h, first + i, ours);
            if (memcmp(ours, theirs[i], sizeof(ours)) != 0)
                bad[n++] = first + i;
        }
    }
    for (u64 i = 0; i < n; i++) {
        int e = name_pages(s, d, h, bad[i]);
        if (e)
            return e;
    }
    count_unnamed(d);
    return 0;
}

static int compare_section(struct differences *d, const struct section *sec, void *ours,
                           const struct record *r, struct stream *s)
{
    const struct wire_section *w = r->payload;
    char what[160];
    if (w->kind != sec->kind || w->instance != sec->instance || w->bytes != r->bytes - sizeof(*w))
        return stream_fail(s, E_PROTO, "STATE does not fit the question");
    s64 n = section_save(sec, ours, SECTION_DATA_MAX);
    if (n < 0)
        return stream_fail(s, (int)n, "state of \"%s\" cannot be encoded", sec->name);
    if (section_difference(sec->table, ours, (u64)n, w + 1, w->bytes, what, sizeof(what)))
        say(d, "%s%s %u: %s", d->used ? ", " : "", sec->name, sec->instance, what);
    return 0;
}

static int compare_state(struct stream *s, struct differences *d)
{
    struct section_iter it = {.guest = d->guest};
    struct section sec;
    u64 buf = pages_alloc(STATE_PAGES);
    if (!buf)
        return stream_fail(s, E_NOMEM, "no memory to compare the state");
    int e = stream_send(s, REC_STATE_ASK, NULL, 0);
    while (e == 0 && section_next(&it, &sec)) {
        struct record r;
        e = stream_expect(s, REC_STATE, &r);
        if (e == 0)
            e = compare_section(d, &sec, phys_ptr(buf), &r, s);
    }
    pages_free(buf, STATE_PAGES);
    return e;
}

static int compare(struct stream *s, struct differences *d, const struct page_hashes *h,
                   const struct verify_digest *v, const struct wire_summary *w)
{
    bool ram = memcmp(w->ram, v->ram, sizeof(w->ram)) == 0;
    bool state = memcmp(w->state, v->state, sizeof(w->state)) == 0;
    int e = 0;
    if (w->pages != h->pages) {
        say(d, "%llu pages there, %llu here", (unsigned long long)w->pages,
            (unsigned long long)h->pages);
        return E_INVAL;
    }
    if (!ram)
        e = compare_ram(s, d, h);
    if (e == 0 && !state)
        e = compare_state(s, d);
    if (e)
        return e;
    if (!(ram && state) && !d->used)
        say(d, "the digests differ and no page or field does");
    return ram && state ? 0 : E_INVAL;
}

int verify_ask(struct stream *s, struct guest *g, struct page_hashes *h, bool strict,
               const struct move_ident *id, char *report, size_t size)
{
    struct verify_digest v;
    struct differences d = {.guest = g, .report = report, .size = size};
    struct wire_verify w = {.id = *id};
    struct record r;

    report[0] = '\0';
    int e = stream_send(s, REC_VERIFY, &w, sizeof(w)); // both hosts compute at the same time
    if (e == 0 && strict)
        page_hashes_read(h, g);
    if (e == 0 && verify_digest(g, h, &v) != 0)
        e = stream_fail(s, E_NOMEM, "no memory to digest the state");
    if (e == 0)
        e = stream_expect(s, REC_SUMMARY, &r);
    if (e)
        return e;
    struct wire_summary summary = *(const struct wire_summary *)r.payload;
    return compare(s, &d, h, &v, &summary);
}

u64 verify_audit(struct guest *g, const struct page_hashes *h, char *report, size_t size)
{
    struct differences d = {.guest = g, .report = report, .size = size};
    report[0] = '\0';
    for (u64 i = 0; i < h->pages; i++) {
        u64 now[2];
        hash_page(guest_page(g, guest_page_gpa(g, i)), now);
        if (memcmp(page_hashes_get(h, i), now, sizeof(now)) != 0)
            name_page(&d, i);
        thread_yield_if_needed();
    }
    count_unnamed(&d);
    return d.pages;
}
