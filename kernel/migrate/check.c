// SPDX-License-Identifier: MIT
// Judges the description of a guest against this host: CPU, clock, memory, names, devices.
#include "kernel/migrate/check.h"

#include "arch/x86/cpu.h"
#include "kernel/guest/cpuid.h"
#include "kernel/lib.h"
#include "kernel/mem.h"
#include "kernel/migrate/ownership.h"
#include "kernel/migrate/sections.h"

// What a guest needs beside its RAM: page tables with every large page split while it moves on
// (1/512), bitmaps, vCPUs, devices.
#define MEMORY_MARGIN(ram) (4 * MIB + (ram) / 256)

void reason_add(struct reasons *r, const char *fmt, ...)
{
    char line[200];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(line, sizeof(line), fmt, ap);
    va_end(ap);
    r->count++;
    size_t n = strlen(line);
    if (r->used + n + 2 > sizeof(r->text))
        return; // counted; the peer says how many there are
    if (r->used)
        r->text[r->used++] = '\n';
    memcpy(r->text + r->used, line, n + 1);
    r->used += (u32)n;
}

// ---- CPU ---------------------------------------------------------------------------------------

static u32 cpuid_reg(const struct wire_cpuid *e, u32 reg)
{
    return reg == 0 ? e->eax : reg == 1 ? e->ebx : reg == 2 ? e->ecx : e->edx;
}

static void check_word(const struct cpu_feature_word *w, u32 guest, struct reasons *out)
{
    u32 host[4];
    host_cpuid(w->leaf, w->sub, host);
    u32 missing = guest & ~host[w->reg] & w->mask;
    for (u32 bit = 0; bit < 32; bit++) {
        if (!(missing & (1u << bit)))
            continue;
        char number[64];
        const char *name = w->names[bit];
        snprintf(number, sizeof(number), "CPUID %x.%u %s bit %u", w->leaf, w->sub,
                 (const char *[]){"EAX", "EBX", "ECX", "EDX"}[w->reg], bit);
        reason_add(out, "CPU feature %s: the guest has been shown it, and this CPU lacks it",
                   name ? name : number);
    }
}

static void check_features(const struct guest_desc *d, struct reasons *out)
{
    struct cpu_feature_word w;
    for (u32 i = 0; cpu_feature_word(i, &w); i++) {
        const struct wire_cpuid *e = describe_cpuid(d, w.leaf, w.sub);
        if (e)
            check_word(&w, cpuid_reg(e, w.reg), out);
    }
}

static void check_xsave(const struct guest_desc *d, struct reasons *out)
{
    u64 missing = d->g.xcr0_allowed & ~host_features.xcr0_supported;
    for (u32 bit = 0; bit < 64; bit++) {
        if (!(missing & BIT(bit)))
            continue;
        const char *name = xcr0_component_name(bit);
        reason_add(out, "XSAVE component %s (XCR0 bit %u): the guest may use it, this CPU lacks it",
                   name ? name : "without a name", bit);
    }
    if (d->g.xss_allowed & ~host_features.xss_supported)
        reason_add(out, "XSAVE supervisor components 0x%llx: this CPU has 0x%llx",
                   (unsigned long long)d->g.xss_allowed,
                   (unsigned long long)host_features.xss_supported);
    // The area travels in the standard format: its layout must be the same.
    for (u32 i = 2; i < 63; i++) {
        const struct wire_cpuid *e = describe_cpuid(d, 0xd, i);
        u32 host[4];
        if (!(d->g.xcr0_allowed & ~missing & BIT(i)) || !e)
            continue;
        host_cpuid(0xd, i, host);
        if (e->eax != host[0] || e->ebx != host[1])
            reason_add(out, "XSAVE component %u lies at %u (%u bytes), on this CPU at %u (%u)", i,
                       e->ebx, e->eax, host[1], host[0]);
    }
    if (d->g.xsave_size > XSAVE_AREA_MAX)
        reason_add(out, "XSAVE area of %u bytes: this version carries %u at most", d->g.xsave_size,
                   XSAVE_AREA_MAX);
}

static void check_address_width(const struct guest_desc *d, struct reasons *out)
{
    const struct wire_cpuid *e = describe_cpuid(d, 0x80000008, 0);
    u32 host[4];
    host_cpuid(0x80000008, 0, host);
    u32 guest_phys = e ? e->eax & 0xff : 36, guest_lin = e ? e->eax >> 8 & 0xff : 48;
    if (guest_phys > (host[0] & 0xff))
        reason_add(out, "physical addresses: the guest was shown %u bits, this CPU has %u",
                   guest_phys, host[0] & 0xff);
    if (guest_lin > (host[0] >> 8 & 0xff))
        reason_add(out, "linear addresses: the guest was shown %u bits, this CPU has %u", guest_lin,
                   host[0] >> 8 & 0xff);
}

void check_cpu(const struct guest_desc *d, const char *from, struct reasons *out)
{
    if (!backend) {
        reason_add(out, "this host runs no guests: %s", backend_missing);
        return;
    }
    // A guest on a level sees the same vendor everywhere.
    if (d->g.cpu == CPU_HOST && strcmp(d->g.cpu_vendor, host_features.vendor) != 0)
        reason_add(out, "CPU vendor: %s has %s, this host %s, and the guest's cpu = host", from,
                   d->g.cpu_vendor, host_features.vendor);
    check_features(d, out);
    check_xsave(d, out);
    check_address_width(d, out);
}

// ---- Memory, names, devices --------------------------------------------------------------------

void check_memory(const struct guest_desc *d, u64 beside, struct reasons *out)
{
    struct mem_stats m;
    mem_get_stats(&m);
    u64 wanted = d->g.memory_bytes + MEMORY_MARGIN(d->g.memory_bytes) + beside;
    if (m.free_bytes < wanted)
        reason_add(out,
                   "memory: the guest needs %llu MiB (%llu MiB of RAM and its tables), %llu "
                   "MiB are free here",
                   (unsigned long long)((wanted + MIB - 1) / MIB),
                   (unsigned long long)(d->g.memory_bytes / MIB),
                   (unsigned long long)(m.free_bytes / MIB));
}

void check_identity(const struct guest_desc *d, const u8 uuid[16], const char *from,
                    struct guest **existing, struct reasons *out)
{
    mutex_lock(&guests_lock);
    struct guest *g = guest_find_uuid(uuid), *named = guest_find(d->g.name);
    *existing = guest_hold(g);
    u8 state = g ? g->state : GUEST_OFF;
    char name[CONFIG_NAME] = "", other[CONFIG_NAME] = "";
    if (g)
        strlcpy(name, g->name, sizeof(name));
    if (named && named != g)
        strlcpy(other, named->name, sizeof(other));
    mutex_unlock(&guests_lock);

    if (other[0])
        reason_add(out, "name: another guest here is called %s already", other);
    if (!g)
        return;
    bool free_entry = state == GUEST_OFF || state == GUEST_CRASHED || state == GUEST_MOVED ||
                      (state == GUEST_IN_DOUBT && !ownership_in_doubt(uuid));
    if (state == GUEST_FROZEN)
        reason_add(out, "UUID: a move of guest %s from here has not ended yet; see `jobs`", name);
    else if (!free_entry)
        reason_add(out, "UUID: guest %s here has the same one and is %s; %s wants to send another",
                   name, guest_state_name(state), from);
    else if (strcmp(name, d->g.name) != 0)
        reason_add(out, "name: the guest with this UUID is called %s here and %s at %s", name,
                   d->g.name, from);
}

static void check_regions(const struct guest_desc *d, const struct guest *g, struct reasons *out)
{
    bool same = g->memory.region_count == d->g.region_count;
    for (u32 i = 0; same && i < d->g.region_count; i++)
        same = g->memory.region[i].gpa == d->g.region[i].gpa &&
               g->memory.region[i].bytes == d->g.region[i].bytes;
    if (!same)
        reason_add(out, "memory layout: this version lays out %llu MiB differently",
                   (unsigned long long)(d->g.memory_bytes / MIB));
}

static const struct wire_device *desc_device(const struct guest_desc *d, const struct section *sec)
{
    for (u32 i = 0; i < d->g.device_count; i++)
        if (d->devices[i].kind == sec->kind && d->devices[i].instance == sec->instance &&
            strcmp(d->devices[i].name, sec->name) == 0)
            return &d->devices[i];
    return NULL;
}

static void check_sections(const struct guest_desc *d, const struct guest *g, const char *from,
                           struct reasons *out)
{
    struct section_iter it = {.guest = g};
    struct section sec;
    while (section_next(&it, &sec)) {
        const struct wire_device *w = desc_device(d, &sec);
        if (!w)
            reason_add(out, "device %s %u: this host's PC has it, the guest at %s does not",
                       sec.name, sec.instance, from);
        else if (w->version > sec.table->version)
            reason_add(out,
                       "device %s %u: %s has state version %u, this host knows up to %u; "
                       "update this host first",
                       sec.name, sec.instance, from, w->version, sec.table->version);
    }
}

void check_built(const struct guest_desc *d, const struct guest *g, const char *from,
                 struct reasons *out)
{
    check_regions(d, g, out);
    check_sections(d, g, from, out);
    for (u32 i = 0; i < d->g.device_count; i++) {
        const struct wire_device *w = &d->devices[i];
        struct wire_section key = {.kind = w->kind, .instance = w->instance};
        struct section sec;
        strlcpy(key.name, w->name, sizeof(key.name));
        if (!section_find(g, &key, &sec))
            reason_add(out, "device %s %u: the guest at %s has it, this host does not know it",
                       w->name, w->instance, from);
    }
}
