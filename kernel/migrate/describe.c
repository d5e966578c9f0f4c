// SPDX-License-Identifier: MIT
// Writes and reads the description of a guest: configuration, memory, CPUID, devices, clock rate.
#include "kernel/migrate/describe.h"

#include "arch/x86/cpu.h"
#include "kernel/lib.h"
#include "kernel/migrate/sections.h"
#include "storage/datastore.h"
#include "storage/guest_disk.h"

#define MEMORY_MAX (64ull << 40)

void describe_config_save(const struct guest *g, struct wire_guest *w)
{
    strlcpy(w->name, g->name, sizeof(w->name));
    w->memory_mib = g->config.memory_mib;
    w->vcpus = g->config.vcpus;
    w->dirty = g->config.dirty;
    w->cpu = g->config.cpu;
    w->clock = g->config.clock;
    w->devices = (g->config.rng ? WIRE_HAS_RNG : 0) | (g->config.balloon ? WIRE_HAS_BALLOON : 0);
    w->module_count = MIN(g->config.module_count, (u32)CONFIG_MAX_MODULES);
    strlcpy(w->kernel, g->config.kernel, sizeof(w->kernel));
    for (u32 i = 0; i < w->module_count; i++)
        strlcpy(w->modules[i], g->config.modules[i], sizeof(w->modules[i]));
    strlcpy(w->cmdline, g->config.cmdline, sizeof(w->cmdline));
    if (!g->config.network)
        return;
    memcpy(w->mac, g->config.mac, sizeof(w->mac));
    w->vlan = g->config.vlan;
    w->macs = g->config.macs;
}

static void describe_cpu(const struct guest *g, struct guest_desc *d)
{
    struct wire_guest *w = &d->g;
    for (u32 i = 0; i < g->cpuid_count; i++) {
        const struct cpuid_entry *e = &g->cpuid[i];
        d->cpuid[i] =
            (struct wire_cpuid){e->leaf, e->sub, e->flags, e->eax, e->ebx, e->ecx, e->edx, 0};
    }
    w->cpuid_count = g->cpuid_count;
    const struct wire_cpuid *x = describe_cpuid(d, 0xd, 0), *xs = describe_cpuid(d, 0xd, 1);
    w->xcr0_allowed = x ? (u64)x->edx << 32 | x->eax : 3;
    w->xss_allowed = xs ? (u64)xs->edx << 32 | xs->ecx : 0;
    w->xsave_size = host_features.xsave_size;
    strlcpy(w->cpu_vendor, host_features.vendor, sizeof(w->cpu_vendor));
    strlcpy(w->backend, backend->name, sizeof(w->backend));
}

static int describe_devices(const struct guest *g, struct guest_desc *d)
{
    u32 n = 0;
    struct section_iter it = {.guest = g};
    struct section sec;
    while (section_next(&it, &sec)) {
        if (n == WIRE_MAX_DEVICES)
            return E_NOSUP;
        struct wire_device *w = &d->devices[n++];
        strlcpy(w->name, sec.name, sizeof(w->name));
        strlcpy(w->table, sec.table->name, sizeof(w->table));
        w->instance = sec.instance;
        w->version = sec.table->version;
        w->kind = (u16)sec.kind;
    }
    d->g.device_count = n;
    return 0;
}

static void describe_disks(const struct guest *g, struct guest_desc *d)
{
    struct volume_info v;
    d->disk_count = g->config.disk_count;
    for (u32 i = 0; i < d->disk_count; i++) {
        struct wire_disk *w = &d->disks[i];
        strlcpy(w->path, g->config.disks[i], sizeof(w->path));
        w->sectors = g->disk[i]->block.sectors;
        for (u32 n = 0; volume_get_info(n, &v); n++)
            if (!strcmp(v.path, w->path))
                w->allocated_bytes = v.allocated_bytes;
    }
}

int describe_guest(const struct guest *g, struct guest_desc *d, char *err, size_t size)
{
    memset(d, 0, sizeof(*d));
    if (g->memory.region_count > WIRE_REGIONS || g->cpuid_count > WIRE_MAX_CPUID) {
        snprintf(err, size,
                 "guest %s has %u memory regions and %u CPUID entries, the stream "
                 "carries %u and %u",
                 g->name, g->memory.region_count, g->cpuid_count, WIRE_REGIONS, WIRE_MAX_CPUID);
        return E_NOSUP;
    }
    describe_config_save(g, &d->g);
    d->g.vcpus = g->vcpu_count;
    d->g.memory_bytes = g->memory.bytes;
    d->g.region_count = g->memory.region_count;
    for (u32 i = 0; i < g->memory.region_count; i++)
        d->g.region[i] = (struct wire_region){g->memory.region[i].gpa, g->memory.region[i].bytes};
    d->g.tsc_hz = g->clock.tsc_hz;
    d->g.boot_count = g->boot_count;
    describe_cpu(g, d);
    describe_disks(g, d);
    if (describe_devices(g, d) != 0) {
        snprintf(err, size,
                 "guest %s has more than %u devices and vCPUs, the stream carries no "
                 "more",
                 g->name, WIRE_MAX_DEVICES);
        return E_NOSUP;
    }
    d->have_guest = d->have_cpuid = d->have_devices = true;
    return 0;
}

int describe_send(struct stream *s, const struct guest_desc *d)
{
    int e = stream_send(s, REC_GUEST, &d->g, sizeof(d->g));
    if (e == 0)
        e = stream_send(s, REC_CPUID, d->cpuid, d->g.cpuid_count * sizeof(d->cpuid[0]));
    if (e == 0)
        e = stream_send(s, REC_DEVICES, d->devices, d->g.device_count * sizeof(d->devices[0]));
    if (e == 0 && d->disk_count)
        e = stream_send(s, REC_DISKS, d->disks, d->disk_count * sizeof(d->disks[0]));
    return e;
}

// ---- Reading -----------------------------------------------------------------------------------

static bool texts_ok(const struct wire_guest *w)
{
    for (u32 i = 0; i < CONFIG_MAX_MODULES; i++)
        if (!wire_text_ok(w->modules[i], sizeof(w->modules[i])))
            return false;
    return wire_name_ok(w->name, sizeof(w->name)) &&
           wire_text_ok(w->cpu_vendor, sizeof(w->cpu_vendor)) &&
           wire_text_ok(w->backend, sizeof(w->backend)) &&
           wire_text_ok(w->kernel, sizeof(w->kernel)) &&
           wire_text_ok(w->cmdline, sizeof(w->cmdline));
}

bool describe_config_valid(const struct wire_guest *w)
{
    return texts_ok(w) && w->vcpus >= 1 && w->vcpus <= GUEST_MAX_VCPUS && w->memory_mib &&
           w->module_count <= CONFIG_MAX_MODULES && w->dirty <= DIRTY_WP && w->cpu <= CPU_V4 &&
           w->clock <= CLOCK_KVM && !(w->devices & ~WIRE_HAS_ALL);
}

static bool memory_ok(const struct wire_guest *w)
{
    u64 sum = 0, end = 0;
    if (w->region_count == 0 || w->region_count > WIRE_REGIONS || w->memory_bytes > MEMORY_MAX)
        return false;
    for (u32 i = 0; i < w->region_count; i++) {
        const struct wire_region *r = &w->region[i];
        if (r->gpa % PAGE_SIZE || r->bytes % PAGE_SIZE || r->bytes == 0 || r->gpa < end ||
            r->bytes > w->memory_bytes || r->gpa > MEMORY_MAX)
            return false;
        end = r->gpa + r->bytes;
        sum += r->bytes;
    }
    return sum == w->memory_bytes && (u64)w->memory_mib * MIB == w->memory_bytes;
}

static bool network_ok(const struct wire_guest *w)
{
    static const u8 none[6];
    return memcmp(w->mac, none, 6) == 0 ||
           (mac_valid(w->mac) && w->vlan <= 4094 && w->macs && w->macs <= 16);
}

static int take_guest(struct guest_desc *d, const struct record *r, char *err, size_t size)
{
    const struct wire_guest *w = r->payload;
    const char *wrong = NULL;
    if (!texts_ok(w))
        wrong = "a text in it is not printable or not terminated";
    else if (!memory_ok(w))
        wrong = "its memory regions do not add up";
    else if (w->vcpus == 0 || w->vcpus > GUEST_MAX_VCPUS)
        wrong = "its number of vCPUs is out of range";
    else if (w->cpuid_count > WIRE_MAX_CPUID || w->device_count > WIRE_MAX_DEVICES ||
             w->module_count > CONFIG_MAX_MODULES)
        wrong = "a count in it is out of range";
    else if (w->tsc_hz < 1000000 || w->tsc_hz > 100000000000ull)
        wrong = "its TSC rate is not between 1 MHz and 100 GHz";
    else if (w->dirty > DIRTY_WP)
        wrong = "its dirty tracking mode is unknown";
    else if (w->cpu > CPU_V4)
        wrong = "its CPU level is unknown";
    else if (!network_ok(w))
        wrong = "its network card's address or VLAN is none";
    else if (w->clock > CLOCK_KVM)
        wrong = "its kind of clock is unknown";
    else if (w->devices & ~WIRE_HAS_ALL)
        wrong = "it has a device that is unknown";
    if (wrong) {
        snprintf(err, size, "malformed GUEST record: %s", wrong);
        return E_PROTO;
    }
    d->g = *w;
    d->have_guest = true;
    return 0;
}

static int take_list(const struct guest_desc *d, const struct record *r, void *out, u32 count,
                     u32 entry, char *err, size_t size)
{
    if (!d->have_guest || r->bytes != count * entry) {
        snprintf(err, size, "malformed %s record: %u bytes, wanted %u entries of %u",
                 record_name(r->type), r->bytes, d->have_guest ? count : 0, entry);
        return E_PROTO;
    }
    memcpy(out, r->payload, r->bytes);
    return 0;
}

static int take_devices(struct guest_desc *d, const struct record *r, char *err, size_t size)
{
    int e = take_list(d, r, d->devices, d->g.device_count, sizeof(d->devices[0]), err, size);
    for (u32 i = 0; e == 0 && i < d->g.device_count; i++) {
        const struct wire_device *w = &d->devices[i];
        if (!wire_name_ok(w->name, sizeof(w->name)) || !wire_name_ok(w->table, sizeof(w->table))) {
            snprintf(err, size, "malformed DEVICES record: the name of device %u is not one", i);
            e = E_PROTO;
        }
    }
    d->have_devices = e == 0;
    return e;
}

static int take_disks(struct guest_desc *d, const struct record *r, char *err, size_t size)
{
    u32 count = r->bytes / sizeof(d->disks[0]);
    int e = take_list(d, r, d->disks, count, sizeof(d->disks[0]), err, size);
    for (u32 i = 0; e == 0 && i < count; i++) {
        const struct wire_disk *w = &d->disks[i];
        if (!wire_text_ok(w->path, sizeof(w->path)) || !w->path[0] || w->sectors == 0 ||
            w->sectors > VOLUME_MAX_SECTORS) {
            snprintf(err, size, "malformed DISKS record: disk %u has no path or no size", i);
            e = E_PROTO;
        }
    }
    d->disk_count = e == 0 ? count : 0;
    return e;
}

int describe_take(struct guest_desc *d, const struct record *r, char *err, size_t size)
{
    if (r->type == REC_GUEST)
        return take_guest(d, r, err, size);
    if (r->type == REC_DEVICES)
        return take_devices(d, r, err, size);
    if (r->type == REC_DISKS)
        return take_disks(d, r, err, size);
    int e = take_list(d, r, d->cpuid, d->g.cpuid_count, sizeof(d->cpuid[0]), err, size);
    d->have_cpuid = e == 0;
    return e;
}

bool describe_complete(const struct guest_desc *d)
{
    return d->have_guest && d->have_cpuid && d->have_devices;
}

void describe_config(const struct wire_guest *w, const u8 uuid[16], struct guest_config *out)
{
    memset(out, 0, sizeof(*out));
    strlcpy(out->name, w->name, sizeof(out->name));
    memcpy(out->uuid, uuid, 16);
    out->uuid_set = true;
    out->memory_mib = w->memory_mib;
    out->vcpus = w->vcpus;
    out->dirty = w->dirty;
    out->cpu = w->cpu;
    out->clock = w->clock;
    out->rng = w->devices & WIRE_HAS_RNG;
    out->balloon = w->devices & WIRE_HAS_BALLOON;
    strlcpy(out->kernel, w->kernel, sizeof(out->kernel));
    out->module_count = w->module_count;
    for (u32 i = 0; i < w->module_count; i++)
        strlcpy(out->modules[i], w->modules[i], sizeof(out->modules[i]));
    strlcpy(out->cmdline, w->cmdline, sizeof(out->cmdline));
    memcpy(out->mac, w->mac, sizeof(out->mac));
    out->network = mac_valid(out->mac);
    out->vlan = w->vlan;
    out->macs = w->macs;
}

const struct wire_cpuid *describe_cpuid(const struct guest_desc *d, u32 leaf, u32 sub)
{
    for (u32 i = 0; i < d->g.cpuid_count; i++)
        if (d->cpuid[i].leaf == leaf && (!(d->cpuid[i].flags & 1) || d->cpuid[i].sub == sub))
            return &d->cpuid[i];
    return NULL;
}
