// SPDX-License-Identifier: MIT
// Anything a peer may send: raw bytes, or well framed records of which any byte may be wrong, so
// that the checks behind CRCs and hashes are reached as well. The host must stay up and keep
// nothing.
// sources: kernel/migrate/busy.c kernel/migrate/check.c kernel/migrate/clock_sync.c
// sources: kernel/migrate/cpu_features.c kernel/mac.c
// sources: kernel/migrate/describe.c kernel/migrate/dest.c kernel/migrate/dest_check.c
// sources: kernel/migrate/dest_pages.c kernel/migrate/doubt.c kernel/migrate/fault.c kernel/migrate/forward.c
// sources: kernel/migrate/handover.c kernel/migrate/hash.c kernel/migrate/jobs.c
// sources: kernel/migrate/migrate.c kernel/migrate/ownership.c kernel/migrate/peers.c
// sources: kernel/migrate/page_hashes.c kernel/migrate/policy.c kernel/migrate/precopy.c
// sources: kernel/migrate/section_diff.c kernel/migrate/link_test.c
// sources: kernel/migrate/sections.c kernel/migrate/serve.c kernel/migrate/settle.c
// sources: kernel/migrate/source.c kernel/migrate/source_stop.c kernel/migrate/stream.c
// sources: kernel/migrate/vcpu_fields.c kernel/migrate/verify.c kernel/migrate/verify_ask.c
// sources: kernel/guest/reference.c kernel/guest/state.c kernel/guest/dirty_bitmap.c kernel/crc32c.c kernel/ip.c
// sources: kernel/number.c kernel/migrate/source_disks.c kernel/migrate/dest_disks.c kernel/migrate/verify_disks.c
// sources: storage/block.c storage/guest_disk.c
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "arch/x86/cpu.h"
#include "kernel/lib.h"
#include "kernel/log.h"
#include "kernel/mem.h"
#include "kernel/migrate/check.h"
#include "kernel/migrate/internal.h"
#include "kernel/migrate/ledger.h"
#include "kernel/migrate/sections.h"
#include "kernel/random.h"
#include "kernel/time.h"
#include "storage/guest_disk.h"
#include "tests/unit/fake_move.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

// ---- No datastore -------------------------------------------------------------------------------

int ledger_write(const struct claim *c, enum handover_state state)
{
    (void)c, (void)state;
    return 0;
}

void ledger_wait(void)
{
}

// ---- The kernel below: one thread, a clock that ticks when it is read ---------------------------

u64 host_tsc_hz = NS_PER_SEC;
static u64 clock_ns;
static s64 allocations;

u64 time_ns(void)
{
    return clock_ns += 100000;
}

void thread_sleep_ns(u64 ns)
{
    clock_ns += ns;
}

void thread_yield(void)
{
}

u64 thread_cpu_ns(void)
{
    return time_ns();
}

u64 thread_contended_ns(void)
{
    return 0;
}

bool thread_get_info(unsigned i, struct thread_info *out)
{
    (void)i, (void)out;
    return false;
}

struct thread *thread_create(const char *name, void (*fn)(void *arg), void *arg, unsigned flags)
{
    (void)name, (void)fn, (void)arg, (void)flags;
    return NULL;
}

void mutex_lock(struct mutex *m)
{
    assert(!m->owner);
    m->owner = (struct thread *)1;
}

void mutex_unlock(struct mutex *m)
{
    assert(m->owner);
    m->owner = NULL;
}

bool mutex_held(const struct mutex *m)
{
    return m->owner;
}

void waitq_set_and_wake(struct waitq *q, volatile bool *flag)
{
    (void)q;
    *flag = true;
}

bool waitq_commit(struct waitq *q, u64 deadline_ns)
{
    (void)q;
    clock_ns = MAX(clock_ns, deadline_ns);
    return false;
}

void waitq_wake_all(struct waitq *q)
{
    (void)q;
}

u64 fake_free_bytes = 64 * MIB;

void *kmalloc(size_t n)
{
    allocations++;
    return malloc(n);
}

void *kzalloc(size_t n)
{
    allocations++;
    return calloc(1, n);
}

void kfree(void *p)
{
    allocations -= p != NULL;
    free(p);
}

u64 pages_alloc(u64 count)
{
    allocations++;
    return (u64)(uintptr_t)aligned_alloc(PAGE_SIZE, count * PAGE_SIZE);
}

void pages_free(u64 pa, u64 count)
{
    (void)count;
    allocations--;
    free((void *)(uintptr_t)pa);
}

void mem_get_stats(struct mem_stats *out)
{
    *out = (struct mem_stats){.free_bytes = fake_free_bytes};
}

void log_write(enum log_level level, const char *area, const char *fmt, ...)
{
    char text[300];
    va_list ap;
    (void)level;
    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    if (getenv("MOVE_LOG"))
        fprintf(stderr, "%s: %s\n", area, text);
}

u64 random_u64(void)
{
    return 0x1234567;
}

struct conn *net_connect(const struct ip_address *to, u16 port, u64 timeout_ns, char *err,
                         size_t size)
{
    (void)to, (void)port, (void)timeout_ns;
    snprintf(err, size, "nobody there");
    return NULL;
}

int net_listen(u16 port, void (*fn)(struct conn *c))
{
    (void)port, (void)fn;
    return 0;
}

#include "tests/unit/fake_datastore.h"

#include "tests/unit/fake_move_guest.h"

// ---- What the peer sends ------------------------------------------------------------------------

static struct peer {
    struct conn base;
    u8 data[1 << 20];
    size_t bytes, at;
    u32 seq;
    struct hash digest;
    bool open;
} peer;

static s64 peer_read(struct conn *c, void *buf, u64 size)
{
    (void)c;
    u64 n = MIN(size, peer.bytes - peer.at);
    memcpy(buf, peer.data + peer.at, n);
    peer.at += n;
    return (s64)n;
}

static s64 peer_write(struct conn *c, const void *buf, u64 size)
{
    (void)c;
    assert(buf && size);
    return (s64)size;
}

static int peer_flush(struct conn *c)
{
    (void)c;
    return 0;
}

static void peer_close(struct conn *c)
{
    (void)c;
    peer.open = false;
}

static void peer_abort(struct conn *c)
{
    (void)c;
}

static void peer_deadline(struct conn *c, u64 ns)
{
    (void)c, (void)ns;
}

static const struct conn_ops peer_ops = {peer_read,  peer_write, peer_flush,
                                         peer_close, peer_abort, peer_deadline};

int conn_read_full(struct conn *c, void *buf, u64 size)
{
    return conn_read(c, buf, size) == (s64)size ? 0 : E_IO;
}

static void put(const void *p, size_t n)
{
    if (peer.bytes + n <= sizeof(peer.data)) {
        memcpy(peer.data + peer.bytes, p, n);
        peer.bytes += n;
    }
}

static void put_record(u32 type, const void *payload, u32 bytes)
{
    static const u8 zeros[8];
    struct record_header h = {type, bytes, peer.seq++, 0};
    u32 summed = stream_under_crc(type, payload, bytes);
    h.crc = crc32c(crc32c(0, &h, offsetof(struct record_header, crc)), payload, summed);
    hash_add(&peer.digest, &h, sizeof(h));
    put(&h, sizeof(h));
    put(payload, bytes);
    put(zeros, ALIGN_UP(bytes, 8u) - bytes);
}

// ---- Well-formed payloads, to be spoiled ----------------------------------------------------

static const u8 uuid[16] = {7};
static struct move_ident ident;
static struct host_config config;

static u32 make_guest(u8 *out)
{
    struct wire_guest *w = (struct wire_guest *)out;
    memset(w, 0, sizeof(*w));
    strcpy(w->name, "web");
    w->memory_mib = 1;
    w->memory_bytes = MIB;
    w->vcpus = 1;
    w->region_count = 1;
    w->region[0].bytes = MIB;
    w->tsc_hz = NS_PER_SEC;
    w->xcr0_allowed = 7;
    w->xsave_size = 832;
    w->cpuid_count = 1;
    w->device_count = 3;
    strcpy(w->cpu_vendor, host_features.vendor);
    strcpy(w->kernel, "\\vmlinuz");
    return sizeof(*w);
}

static u32 make_cpuid(u8 *out)
{
    *(struct wire_cpuid *)out = (struct wire_cpuid){7, 0, 1, 0, 1 << 16, 0, 0, 0};
    return sizeof(struct wire_cpuid);
}

static u32 make_devices(u8 *out)
{
    struct wire_device *w = (struct wire_device *)out;
    memset(w, 0, 3 * sizeof(*w));
    w[0] = (struct wire_device){"lapic", "lapic", 0, 1, SECTION_LAPIC};
    w[1] = (struct wire_device){"toy", "toy", 0, 1, SECTION_DEVICE};
    w[2] = (struct wire_device){"vcpu", "vcpu", 0, 1, SECTION_VCPU};
    return 3 * sizeof(*w);
}

#define DISK_SECTORS 803u

static u32 make_disks(u8 *out)
{
    struct wire_disk *w = (struct wire_disk *)out;
    *w = (struct wire_disk){"fast/web", DISK_SECTORS, 4096};
    return sizeof(*w);
}

static u32 make_blocks(u8 *out, u8 how)
{
    struct wire_blocks *w = (struct wire_blocks *)out;
    *w = (struct wire_blocks){
        .flags = how & 1 ? BLOCKS_ZERO : 0, .sector = how * 8u, .sectors = 8};
    memset(w + 1, how, 8 * BLOCK_SECTOR);
    hash_bytes(w + 1, 8 * BLOCK_SECTOR, w->hash);
    return (u32)sizeof(*w) + (how & 1 ? 0 : 8 * BLOCK_SECTOR);
}

static u32 make_disk_hashes(u8 *out)
{
    struct wire_disk_hashes *w = (struct wire_disk_hashes *)out;
    *w = (struct wire_disk_hashes){0, 2, 16};
    memset(w + 1, 1, 32);
    return sizeof(*w) + 32;
}

static u32 make_disk_round(u8 *out, u8 how)
{
    *(struct wire_disk_round *)out = (struct wire_disk_round){how, how};
    return sizeof(struct wire_disk_round);
}

static u32 make_pages(u8 *out, u8 how)
{
    struct wire_pages *w = (struct wire_pages *)out;
    struct wire_page *entry = (struct wire_page *)(w + 1);
    u8 *data = (u8 *)(entry + 2);
    *w = (struct wire_pages){2, 1};
    entry[0].index = how;
    entry[1].index = 255 | PAGE_ZERO;
    memset(data, 0, PAGE_SIZE);
    hash_page(data, entry[1].hash);
    memset(data, how, PAGE_SIZE);
    hash_page(data, entry[0].hash);
    return (u32)(sizeof(*w) + 2 * sizeof(*entry) + PAGE_SIZE);
}

static u32 make_state(u8 *out, u8 how)
{
    struct wire_section *w = (struct wire_section *)out;
    static struct vcpu_state vcpu = {.xcr0 = 7, .rflags = 2};
    static struct fake_lapic lapic;
    static struct fake_device toy;
    static const struct state_table *const tables[] = {&lapic_state, &device_table, &vcpu_table};
    static const void *const objects[] = {&lapic, &toy, &vcpu};
    static const u32 kinds[] = {SECTION_LAPIC, SECTION_DEVICE, SECTION_VCPU};
    u32 i = how % 3;
    memset(w, 0, sizeof(*w));
    w->kind = kinds[i];
    strlcpy(w->name, tables[i]->name, sizeof(w->name));
    w->bytes = (u32)state_save(tables[i], objects[i], w + 1, SECTION_DATA_MAX);
    return (u32)sizeof(*w) + w->bytes;
}

static u32 make_offer(u8 *out)
{
    struct wire_offer *w = (struct wire_offer *)out;
    *w = (struct wire_offer){.id = ident, .frozen_ns = clock_ns, .guest_ticks = 5, .sections = 3};
    hash_finish(&peer.digest, w->digest);
    return sizeof(*w);
}

static u32 make_ident(u8 *out, u32 bytes)
{
    memset(out, 0, bytes);
    memcpy(out, &ident, sizeof(ident));
    return bytes;
}

static u32 make_small(u32 type, u8 *out, u8 how)
{
    static const struct {
        u8 type;
        u32 bytes;
    } with_ident[] = {
        {REC_COMMIT, sizeof(struct wire_commit)},   {REC_QUERY, sizeof(struct move_ident)},
        {REC_VERIFY, sizeof(struct wire_verify)},   {REC_RUNNING, sizeof(struct wire_running)},
        {REC_ANSWER, sizeof(struct wire_answer)},   {REC_READY, sizeof(struct wire_ready)},
        {REC_SUMMARY, sizeof(struct wire_summary)}, {REC_NOT_STARTED, 56},
    };
    for (size_t i = 0; i < ARRAY_SIZE(with_ident); i++)
        if (with_ident[i].type == type)
            return make_ident(out, with_ident[i].bytes);
    memset(out, 0, 256);
    out[0] = how;
    return type == REC_ROUND || type == REC_PING || type == REC_HASH_ASK ? 16
           : type == REC_CHECK || type == REC_TEST                       ? 8
           : type == REC_OWNER_ASK ? sizeof(struct wire_owner_ask)
                                   : how;
}

static u32 make(u32 type, u8 *out, u8 how)
{
    switch (type) {
    case REC_GUEST:
        return make_guest(out);
    case REC_CPUID:
        return make_cpuid(out);
    case REC_DEVICES:
        return make_devices(out);
    case REC_DISKS:
        return make_disks(out);
    case REC_BLOCKS:
        return make_blocks(out, how);
    case REC_DISK_HASHES:
        return make_disk_hashes(out);
    case REC_DISK_ASK:
        return 0;
    case REC_DISK_ROUND:
        return make_disk_round(out, how);
    case REC_PAGES:
        return make_pages(out, how);
    case REC_STATE:
        return make_state(out, how);
    case REC_OFFER:
        return make_offer(out);
    default:
        return make_small(type, out, how);
    }
}

static void put_header(u32 flags)
{
    struct stream_header h;
    stream_header_fill(&h, "alpha", 77, 7070);
    memcpy(h.uuid, uuid, 16);
    h.epoch = ident.epoch;
    h.move_id = ident.move_id;
    h.flags = flags;
    stream_header_seal(&h);
    put(&h, sizeof(h));
}

// The road of a good move, up to a step that the input chooses.
static const struct step {
    u8 type, how;
} road[] = {
    {REC_GUEST, 0},  {REC_CPUID, 0}, {REC_DEVICES, 0}, {REC_DISKS, 0},    {REC_CHECK, 1},
    {REC_BLOCKS, 2}, {REC_BLOCKS, 3}, {REC_DISK_ROUND, 1}, {REC_BLOCKS, 2}, {REC_DISK_ROUND, 7},
    {REC_PAGES, 3},
    {REC_ROUND, 1},  {REC_PING, 1},  {REC_ROUND, 2},   {REC_STATE, 0},    {REC_STATE, 1},
    {REC_STATE, 2},  {REC_OFFER, 0}, {REC_VERIFY, 0},  {REC_HASH_ASK, 0}, {REC_STATE_ASK, 0},
    {REC_COMMIT, 0}, {REC_DISK_HASHES, 0}, {REC_DISK_ASK, 0}, {REC_END, 0},
};

struct input {
    const u8 *p;
    size_t left;
};

static u8 take_byte(struct input *in)
{
    if (!in->left)
        return 0;
    in->left--;
    return *in->p++;
}

// Writes one record, with up to three of its bytes changed as the input says.
static void put_spoiled(u32 type, u8 how, struct input *in, u8 changes)
{
    static u8 payload[STREAM_MAX_PAYLOAD + 256] __attribute__((aligned(8)));
    u32 bytes = make(type, payload, how);
    if (type == REC_ROUND && how == 2)
        payload[4] = 1; // final
    for (u8 i = 0; i < (changes & 3) && bytes; i++) {
        u32 at = (u32)take_byte(in) << 8 | take_byte(in);
        payload[at % bytes] = take_byte(in);
    }
    if (changes & 4)
        bytes = MIN(bytes, (u32)take_byte(in) * 8);
    put_record(type, payload, bytes);
}

static void put_road(struct input *in)
{
    u8 good = take_byte(in);
    put_header(take_byte(in) & 1);
    for (u32 i = 0; i < ARRAY_SIZE(road); i++) {
        u8 changes = i < good % (ARRAY_SIZE(road) + 1) ? 0 : take_byte(in);
        if (changes & 0x40) // another record in between
            put_spoiled(take_byte(in) % 54, take_byte(in), in, take_byte(in));
        if (!(changes & 0x80))
            put_spoiled(road[i].type, road[i].how, in, changes);
    }
}

// ---- One input ----------------------------------------------------------------------------------

static void start_peer(void)
{
    memset(&peer, 0, offsetof(struct peer, data));
    peer.base.ops = &peer_ops;
    peer.base.peer.family = 4;
    peer.bytes = peer.at = peer.seq = 0;
    peer.open = true;
    hash_start(&peer.digest);
}

// Nothing that runs may be left without a settled claim, nothing without an owner may hold memory.
static void check_and_clean(void)
{
    bool kept = false;
    for (struct guest *g = guest_first(), *next; g; g = next) {
        next = g->next;
        assert(g->state == GUEST_RUNNING || g->state == GUEST_PAUSED || g->state == GUEST_IN_DOUBT);
        assert(g->memory.bytes);
        kept = true;
        guest_teardown(g);
        guest_remove(g);
    }
    for (u32 i = 0; i < FAKE_VOLUMES; i++) {
        struct fake_volume *v = &fake_volumes[i];
        assert(!v->data || kept); // of what was given up nothing stays
        fake_volume_free(v);
    }
    assert(fake_builds == 0 && allocations == 0 && !peer.open);
    mutex_lock(&claims_lock);
    for (u32 i = 0; claim_get(i); i++) {
        struct claim *c = claim_get(i);
        assert(!c->used || (!c->linked && c->state != HO_RECEIVING));
        memset(c, 0, sizeof(*c));
    }
    mutex_unlock(&claims_lock);
    start_attempts_forget();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct fake_shared shared;
    struct input in = {data, size};
    if (!migrate_cfg) {
        fake_shared = &shared;
        strcpy(config.name, "bravo");
        config.autostart_wait = true;
        migrate_start(&config);
    }
    memcpy(ident.uuid, uuid, 16);
    ident.epoch = 2;
    ident.move_id = 99;
    ident.source_boot_id = 77;
    ident.dest_boot_id = host_boot_id;
    start_peer();
    u8 mode = take_byte(&in);
    if (mode & 1)
        put_road(&in);
    else if (mode & 2)
        put_header(0);
    if (!(mode & 4))
        put(in.p, in.left);
    serve_connection(&peer.base);
    check_and_clean();
    return 0;
}
