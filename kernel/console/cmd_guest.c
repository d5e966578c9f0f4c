// SPDX-License-Identifier: MIT
// Commands on one guest, and the list of them.
#include "kernel/console/command.h"
#include "kernel/console/find.h"
#include "kernel/guest/cpu_level.h"
#include "kernel/guest/virtio.h"
#include "kernel/lib.h"
#include "kernel/time.h"

#define WHY 256

static void info_memory(struct out *o, const struct guest_memory *m)
{
    if (!m->bytes)
        return;
    out_u64(o, "large_pages", m->bytes / LARGE_PAGE_SIZE - m->split_pages);
    out_u64(o, "split_pages", m->split_pages); // 2 MiB each as well, while a move watches writes
}

static bool has_run_time(const struct guest *g)
{
    return g->state == GUEST_RUNNING || g->state == GUEST_PAUSED;
}

static void list_row(struct out *o, const struct guest *g)
{
    const char *state = guest_state_name(g->state);
    out_printf(o, "%-20s %-9s %8u %6u  %s\n", g->name, state, g->config.memory_mib, g->config.vcpus,
               g->why);
    if (!o->json)
        return;
    out_begin(o);
    out_str(o, "name", g->name);
    out_str(o, "state", state);
    out_u64(o, "memory_mib", g->config.memory_mib);
    out_u64(o, "vcpus", g->config.vcpus);
    out_u64(o, "epoch", g->epoch);
    if (g->why[0])
        out_str(o, "why", g->why);
    out_end(o);
}

static void run_list(struct call *c)
{
    mutex_lock(&guests_lock);
    if (guest_first())
        out_printf(c->out, "%-20s %-9s %8s %6s\n", "NAME", "STATE", "MEMORY", "VCPUS");
    else
        out_printf(c->out, "no guests; a [guest NAME] section in host.cfg describes one\n");
    for (struct guest *g = guest_first(); g; g = g->next)
        list_row(c->out, g);
    mutex_unlock(&guests_lock);
}

static void info_network(struct out *o, const struct guest_config *cfg)
{
    char mac[18];
    mac_format(cfg->mac, mac);
    out_str(o, "mac", mac);
    if (cfg->vlan)
        out_u64(o, "vlan", cfg->vlan);
    if (cfg->macs > 1)
        out_u64(o, "macs", cfg->macs);
}

static void info_config(struct out *o, const struct guest_config *cfg)
{
    static const char *const dirty[] = {"auto", "pml", "wp"};
    out_u64(o, "memory_mib", cfg->memory_mib);
    out_u64(o, "vcpus", cfg->vcpus);
    out_str(o, "cpu", cpu_level_name(cfg->cpu));
    out_str(o, "clock", cfg->clock == CLOCK_KVM ? "kvm" : "tsc");
    out_str(o, "kernel", cfg->kernel);
    out_list_begin(o, "modules");
    for (u32 i = 0; i < cfg->module_count; i++)
        out_list_str(o, cfg->modules[i]);
    out_list_end(o);
    out_str(o, "cmdline", cfg->cmdline);
    out_bool(o, "network", cfg->network);
    if (cfg->network)
        info_network(o, cfg);
    out_bool(o, "autostart", cfg->autostart);
    out_str(o, "dirty", cfg->dirty < ARRAY_SIZE(dirty) ? dirty[cfg->dirty] : "?");
}

// What the guest's virtio devices do. The lock keeps it from being taken apart meanwhile.
static void info_devices(struct out *o, struct guest *g)
{
    char text[VIRTIO_DESCRIPTION + 48], state[VIRTIO_DESCRIPTION];
    mutex_lock(&g->lock);
    out_list_begin(o, "virtio");
    for (struct device *d = g->devices; d; d = d->next) {
        if (!virtio_of(d))
            continue;
        virtio_describe(virtio_of(d), state, sizeof(state));
        snprintf(text, sizeof(text), "%s %u: %s", d->ops->name, d->instance, state);
        out_list_str(o, text);
    }
    out_list_end(o);
    mutex_unlock(&g->lock);
}

static void run_info(struct call *c)
{
    struct guest *g = find_guest(c, c->arg[0]);
    if (!g)
        return;
    struct out *o = c->out;
    out_begin(o);
    out_str(o, "name", g->name);
    out_uuid(o, "uuid", g->uuid);
    out_str(o, "state", guest_state_name(g->state));
    if (g->why[0])
        out_str(o, "why", g->why);
    out_u64(o, "epoch", g->epoch);
    info_config(o, &g->config);
    out_bool(o, "from_config", g->from_config);
    out_u64(o, "boots", g->boot_count);
    info_memory(o, &g->memory);
    if (has_run_time(g)) {
        out_u64(o, "running_ns", time_ns() - g->started_ns);
        out_u64(o, "guest_clock_ns", guest_clock_ns(g));
        out_u64(o, "tsc_hz", g->clock.tsc_hz);
        out_str(o, "tsc", guest_clock_tsc_mode(g));
        info_devices(o, g);
    }
    out_end(o);
}

// One shape for all of them: do it, or say why not; then say what the guest is now.
static void act(struct call *c, int (*action)(struct guest *g, char *err, size_t size),
                const char *done)
{
    char err[WHY] = "";
    struct guest *g = find_guest(c, c->arg[0]);
    if (!g)
        return;
    if (action(g, err, sizeof(err))) {
        out_error(c->out, "%s", err[0] ? err : "it failed without a reason; see log");
        return;
    }
    out_printf(c->out, "%s %s\n", g->name, done);
    if (!c->out->json)
        return;
    out_begin(c->out);
    out_str(c->out, "guest", g->name);
    out_str(c->out, "state", guest_state_name(g->state));
    out_end(c->out);
}

static void run_start(struct call *c)
{
    if (!backend && find_guest(c, c->arg[0]))
        out_error(c->out, "no guest can run on this host: %s", backend_missing);
    else if (backend)
        act(c, guest_start, "is started");
}

static void run_shutdown(struct call *c)
{
    act(c, guest_shutdown, "was asked to shut down (ACPI power button)");
}

static void run_destroy(struct call *c)
{
    act(c, guest_destroy, "is off");
}

static void run_reboot(struct call *c)
{
    act(c, guest_reboot, "is reset");
}

static void run_pause(struct call *c)
{
    act(c, guest_pause, "is paused");
}

static void run_resume(struct call *c)
{
    act(c, guest_resume, "runs on");
}

const struct command guest_commands[] = {
    {"list", "", "", "the guests and their states", NULL, run_list},
    {"info", "NAME", "", "all about one guest", NULL, run_info},
    {"start", "NAME", "", "starts a guest that is off",
     "  With autostart_wait, every peer is asked first: a guest that runs or is held elsewhere is\n"
     "  not started, and listed in doubt where a peer does not answer.",
     run_start},
    {"shutdown", "NAME", "", "asks a guest to shut down (ACPI power button)",
     "  The guest decides: one that does not listen stays on. destroy switches it off.",
     run_shutdown},
    {"destroy", "NAME", "", "switches a guest off at once; what it had not saved is lost", NULL,
     run_destroy},
    {"reboot", "NAME", "", "resets a guest at once", NULL, run_reboot},
    {"pause", "NAME", "", "stops a guest's CPUs and its clock", NULL, run_pause},
    {"resume", "NAME", "", "lets a paused guest run on", NULL, run_resume},
    {NULL, NULL, NULL, NULL, NULL, NULL},
};
