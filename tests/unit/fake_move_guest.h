// SPDX-License-Identifier: MIT
// fake_move.h's guests: memory, dirty log, clock, one device, local APICs, and vCPUs that are
// threads. Included once by a test.
#include "net/departed.h"
#include "net/guest_nic.h"

#define FAKE_TICKS_PER_NS 1
#define COUNTER_PAGE      5
#define PATTERN_PAGES     200 // pages the guest writes, from page 256 on

struct fake_shared *fake_shared;
u32 fake_host;
const char *fake_dir;
u32 fake_missing_ebx7;
u32 fake_device_version = 1;
u32 fake_write_every_us = 500;
u32 fake_builds;

struct host_features host_features = {
    .vendor = "GenuineIntel", .xcr0_supported = 7, .xsave_size = 832};
char backend_missing[160];
static const struct backend_ops fake_backend = {.name = "fake"};
const struct backend_ops *backend = &fake_backend;

void host_cpuid(u32 leaf, u32 sub, u32 out[4])
{
    (void)sub;
    memset(out, 0, 16);
    if (leaf == 7)
        out[1] = BIT(16) & ~fake_missing_ebx7;
    if (leaf == 0x80000008)
        out[0] = 48 << 8 | 39;
}

// ---- State --------------------------------------------------------------------------------------

struct fake_lapic {
    u32 irr[8];
    u64 deadline;
};
static const struct state_field lapic_fields[] = {
    FIELD_ARRAY(1, FIELD_COPY, struct fake_lapic, irr, 1),
    FIELD(2, FIELD_COPY, struct fake_lapic, deadline, 1, 0, 0), FIELD_LAST};
const struct state_table lapic_state = {.name = "lapic",
                                        .version = 1,
                                        .fields = lapic_fields,
                                        .struct_size = sizeof(struct fake_lapic)};

struct fake_device {
    u8 reg[4];
    u32 line;
};
static const struct state_field device_fields[] = {
    FIELD_ARRAY(1, FIELD_BYTES, struct fake_device, reg, 1),
    FIELD(2, FIELD_COPY, struct fake_device, line, 1, 0, 23), FIELD_LAST};
static struct state_table device_table = {.name = "toy",
                                          .version = 1,
                                          .fields = device_fields,
                                          .struct_size = sizeof(struct fake_device)};
static const struct device_ops device_ops_ = {.name = "toy", .state = &device_table};

// ---- Table --------------------------------------------------------------------------------------

struct mutex guests_lock;
static struct guest *table;

const char *guest_state_name(enum guest_state s)
{
    static const char *const n[] = {"off",    "running",  "paused", "crashed", "incoming",
                                    "frozen", "in-doubt", "moved",  "gone"};
    return n[s];
}

struct guest *guest_first(void)
{
    return table;
}

struct guest *guest_find(const char *name)
{
    struct guest *g = table;
    while (g && strcmp(g->name, name))
        g = g->next;
    return g;
}

struct guest *guest_find_uuid(const u8 uuid[16])
{
    struct guest *g = table;
    while (g && memcmp(g->uuid, uuid, 16))
        g = g->next;
    return g;
}

struct guest *guest_add(const struct guest_config *cfg, char *err, size_t size)
{
    (void)err, (void)size;
    struct guest *g = kzalloc(sizeof(*g));
    g->config = *cfg;
    strlcpy(g->name, cfg->name, sizeof(g->name));
    memcpy(g->uuid, cfg->uuid, 16);
    g->references = 1;
    mutex_lock(&guests_lock);
    g->next = table;
    table = g;
    mutex_unlock(&guests_lock);
    return g;
}

void guest_remove(struct guest *g)
{
    mutex_lock(&guests_lock);
    struct guest **at = &table;
    while (*at != g)
        at = &(*at)->next;
    *at = g->next;
    mutex_unlock(&guests_lock);
    guest_teardown(g);
    g->state = GUEST_GONE;
    guest_put(g);
}

// ---- Memory and dirty log -----------------------------------------------------------------------

static u8 *ram(const struct guest *g)
{
    return (u8 *)g->memory.region[0].host;
}

u64 guest_page_count(const struct guest *g)
{
    return g->memory.bytes / PAGE_SIZE;
}

u64 guest_page_gpa(const struct guest *g, u64 index)
{
    (void)g;
    return index * PAGE_SIZE;
}

void *guest_page(struct guest *g, u64 gpa)
{
    return ram(g) + gpa;
}

static pthread_mutex_t ram_lock = PTHREAD_MUTEX_INITIALIZER;
static struct dirty_bitmap live;
static bool logging;

int dirty_log_start(struct guest *g, unsigned mode)
{
    (void)mode;
    assert(!logging);
    dirty_bitmap_init(&live, guest_page_count(g));
    logging = true;
    return 0;
}

u64 balloon_leave_out_free(struct guest *g, struct dirty_bitmap *todo, u64 most_ns)
{
    (void)g, (void)todo, (void)most_ns;
    return 0;
}

s64 dirty_log_collect(struct guest *g, struct dirty_bitmap *out)
{
    (void)g;
    s64 n = 0;
    pthread_mutex_lock(&ram_lock);
    for (u64 i = 0; (i = dirty_bitmap_take_next(&live, i)) != ~0ull; i++)
        n += dirty_bitmap_set(out, i);
    pthread_mutex_unlock(&ram_lock);
    return n;
}

void dirty_log_stop(struct guest *g)
{
    (void)g;
    if (!logging)
        return;
    pthread_mutex_lock(&ram_lock);
    logging = false;
    dirty_bitmap_free(&live);
    pthread_mutex_unlock(&ram_lock);
}

void dirty_log_leave_out_shootdown(struct guest *g)
{
    (void)g; // no TLBs here
}

bool dirty_log_active(const struct guest *g)
{
    (void)g;
    return logging;
}

const char *dirty_log_backend_name(const struct guest *g)
{
    (void)g;
    return "fake";
}

u64 dirty_log_pending(const struct guest *g)
{
    (void)g;
    return live.count;
}

// ---- Clock --------------------------------------------------------------------------------------

u64 guest_clock_now(struct guest *g)
{
    return g->clock.frozen ? g->clock.frozen_at : time_ns() + g->clock.offset;
}

u64 guest_ticks_to_ns(const struct guest *g, u64 ticks)
{
    (void)g;
    return ticks;
}

u64 guest_ns_to_ticks(const struct guest *g, u64 ns)
{
    (void)g;
    return ns;
}

// ---- Life ---------------------------------------------------------------------------------------

static void mark(u64 page)
{
    if (logging)
        dirty_bitmap_set(&live, page);
}

// One step of the guest: counts, and writes the count into a page picked by it.
static void guest_step(struct guest *g, u64 *count)
{
    pthread_mutex_lock(&ram_lock);
    u64 *counter = (u64 *)(ram(g) + COUNTER_PAGE * PAGE_SIZE);
    u64 page = 256 + *counter * 7 % PATTERN_PAGES;
    u64 *word = (u64 *)(ram(g) + page * PAGE_SIZE);
    *count = ++*counter;
    word[*counter % 512] = *counter;
    mark(COUNTER_PAGE);
    mark(page);
    pthread_mutex_unlock(&ram_lock);
}

// Writes the count to a place on the disk, or clears it, and says outside when that is done.
static void disk_step(struct guest *g, u64 count)
{
    static u64 data[2 * BLOCK_SECTOR / 8];
    u64 place = count * 31 % DISK_PLACES, sector = place * DISK_STRIDE;
    struct block_device *b = &g->disk[0]->block;
    u64 value = count % 5 && count % 7 ? count : 0;
    for (u32 i = 0; i < ARRAY_SIZE(data); i++)
        data[i] = value;
    fake_shared->disk_wanted[place] = value;
    assert((count % 7 ? block_write(b, sector, 2, data)
                      : block_clear(b, BLOCK_DISCARD, sector, 2)) == 0);
    fake_shared->disk_told[place] = value;
}

// How many words are not as the guest was told. What it was not told yet may have happened or not.
__attribute__((unused)) static u32 fake_disk_errors(void)
{
    u32 errors = 0;
    for (u64 place = 0; place < DISK_PLACES; place++) {
        u64 *data =
            (u64 *)(fake_volume_find("fast/web")->data + place * DISK_STRIDE * BLOCK_SECTOR);
        for (u32 i = 0; i < 2 * BLOCK_SECTOR / 8; i++)
            errors += data[i] != fake_shared->disk_told[place] &&
                      data[i] != fake_shared->disk_wanted[place];
    }
    return errors;
}

static void tell_outside(struct guest *g, u64 count)
{
    u64 ticks = guest_clock_now(g);
    fake_shared->running[fake_host] = 1;
    for (u32 i = 0; i < ARRAY_SIZE(fake_shared->running); i++)
        if (i != fake_host && fake_shared->running[i])
            fake_shared->two_runners = 1;
    if (count <= fake_shared->counter || ticks < fake_shared->last_ticks)
        fake_shared->went_back = 1;
    fake_shared->counter = count;
    fake_shared->last_ticks = ticks;
}

static void vcpu_body(void *arg)
{
    struct vcpu *v = arg;
    struct guest *g = v->guest;
    bool runs = false;
    u64 count;
    while (!g->stopping) {
        if (g->pause_count) {
            if (runs) { // up to the last moment: there is always a page for the last round
                guest_step(g, &count);
                tell_outside(g, count);
            }
            runs = false;
            if (!v->parked)
                fake_shared->running[fake_host] = 0;
            v->parked = true;
            usleep(100);
            continue;
        }
        if (v->parked)
            v->left_gate_ns = time_ns();
        v->parked = false;
        runs = true;
        guest_step(g, &count);
        if (g->disk[0])
            disk_step(g, count);
        tell_outside(g, count);
        usleep(fake_write_every_us);
    }
    fake_shared->running[fake_host] = 0;
    v->exited = true;
}

int guest_build(struct guest *g, char *err, size_t size)
{
    if ((u64)g->config.memory_mib * MIB > fake_free_bytes) {
        snprintf(err, size, "no memory");
        return E_NOMEM;
    }
    for (u32 i = 0; i < g->config.disk_count; i++)
        if (guest_disk_open(g->config.disks[i], g->name, &g->disk[i], err, size))
            return E_NOENT;
    g->memory.bytes = g->config.memory_mib * MIB;
    g->memory.region_count = 1;
    g->memory.region[0] = (struct guest_region){0, g->memory.bytes, calloc(1, g->memory.bytes)};
    g->clock.frozen = true;
    g->clock.tsc_hz = g->clock.tsc_hz ? g->clock.tsc_hz : NS_PER_SEC;
    if (!g->cpuid_count)
        g->cpuid[g->cpuid_count++] = (struct cpuid_entry){7, 0, 1, 0, BIT(16), 0, 0};
    device_table.version = (u16)fake_device_version;
    struct device *d = calloc(1, sizeof(*d));
    d->ops = &device_ops_;
    d->guest = g;
    d->priv = calloc(1, sizeof(struct fake_device));
    g->devices = d;
    g->pause_count = 1;
    g->stopping = false;
    struct vcpu *v = calloc(1, sizeof(*v));
    v->guest = g;
    v->lapic = calloc(1, sizeof(struct fake_lapic));
    v->backend = calloc(1, sizeof(struct vcpu_state));
    ((struct vcpu_state *)v->backend)->xcr0 = 7;
    ((struct vcpu_state *)v->backend)->rflags = 2;
    g->vcpu[0] = v;
    g->vcpu_count = 1;
    fake_builds++;
    v->parked = true;
    v->exited = !thread_create("vcpu", vcpu_body, v, 0); // a test without threads has no runners
    return 0;
}

void guest_teardown(struct guest *g)
{
    dirty_log_stop(g);
    if (!g->memory.bytes)
        return;
    g->stopping = true;
    while (!g->vcpu[0]->exited)
        usleep(100);
    for (u32 i = 0; i < g->config.disk_count; i++) {
        guest_disk_close(g->disk[i]);
        g->disk[i] = NULL;
    }
    free(g->memory.region[0].host);
    free(g->devices->priv);
    free(g->devices);
    g->devices = NULL;
    free(g->vcpu[0]->lapic);
    free(g->vcpu[0]->backend);
    free(g->vcpu[0]);
    fake_builds--;
    g->vcpu_count = 0;
    g->cpuid_count = 0;
    g->clock.tsc_hz = 0;
    g->pause_count = 0;
    memset(&g->memory, 0, sizeof(g->memory));
}

void guest_quiesce(struct guest *g)
{
    if (g->pause_count++ == 0) {
        while (!g->vcpu[0]->parked)
            usleep(50);
        g->clock.frozen_at = guest_clock_now(g);
        g->clock.frozen = true;
    }
}

void guest_unquiesce(struct guest *g, u64 added)
{
    assert(g->pause_count);
    if (g->pause_count == 1) {
        g->clock.offset = g->clock.frozen_at + added - time_ns();
        g->clock.frozen = false;
    }
    g->pause_count--;
}

void devices_pause(struct guest *g)
{
    (void)g;
}

void platform_vcpu_pause(struct vcpu *v)
{
    (void)v;
}

void vcpu_save_state(struct vcpu *v, struct vcpu_state *s)
{
    memcpy(s, v->backend, sizeof(*s));
}

int vcpu_check_state(struct vcpu *v, const struct vcpu_state *s, char *err, size_t size)
{
    (void)v;
    if (s->rip != ~0ull)
        return 0;
    snprintf(err, size, "RIP");
    return E_INVAL;
}

int vcpu_load_state(struct vcpu *v, const struct vcpu_state *s)
{
    memcpy(v->backend, s, sizeof(*s));
    return 0;
}

const struct boot_file *boot_file_find(const char *path)
{
    (void)path;
    return NULL;
}

int guest_start_unasked(struct guest *g, char *err, size_t size)
{
    int e = guest_build(g, err, size);
    if (e)
        return e;
    struct vcpu_state *s = g->vcpu[0]->backend;
    for (u32 i = 0; i < GPR_COUNT; i++)
        s->gpr[i] = 0x1000 + i;
    s->seg[SEG_CS].selector = 0x10;
    ((struct fake_device *)g->devices->priv)->line = 4;
    for (u64 i = 256 * PAGE_SIZE; i < g->memory.bytes; i += 64)
        ram(g)[i] = (u8)(i / PAGE_SIZE) | 1; // three quarters of it are not zero
    g->state = GUEST_RUNNING;
    g->epoch = 1;
    guest_unquiesce(g, 0);
    return 0;
}

struct guest *fake_guest_start(const char *name, const u8 uuid[16], u32 memory_mib)
{
    struct guest_config cfg = {.memory_mib = memory_mib, .vcpus = 1, .kernel = "\\skiff\\toy"};
    char err[100];
    if (fake_volume_find("fast/web")) {
        strlcpy(cfg.disks[0], "fast/web", sizeof(cfg.disks[0]));
        cfg.disk_count = 1;
    }
    strlcpy(cfg.name, name, sizeof(cfg.name));
    memcpy(cfg.uuid, uuid, 16);
    struct guest *g = guest_add(&cfg, err, sizeof(err));
    g->from_config = true;
    guest_start_unasked(g, err, sizeof(err));
    return g;
}

// ---- Frames for a guest that has left -----------------------------------------------------------

u32 fake_frames_late, fake_frames_taken;

struct departed *departed_begin(struct guest *g)
{
    return fake_frames_late ? (struct departed *)g : NULL;
}

s64 departed_take(struct departed *d, void *buf, u32 size, u64 deadline_ns)
{
    (void)d, (void)deadline_ns;
    if (!fake_frames_late)
        return E_TIMEOUT;
    memset(buf, (int)fake_frames_late, MIN(size, 1514u));
    return 1514 - --fake_frames_late;
}

void departed_end(struct departed *d)
{
    (void)d;
}

void guest_nic_receive(struct guest *g, const void *frame, u32 bytes)
{
    const u8 *f = frame; // as departed_take() makes them, or anything that a fuzzer sends
    assert(mutex_held(&g->lock) && bytes >= 1 && bytes <= 1514);
    fake_frames_taken += f[0] == (u8)(1515 - bytes) && f[bytes - 1] == f[0];
}
