// SPDX-License-Identifier: MIT
// A guest's parts put together and taken apart, and all of them stopped and continued as one.
#include "arch/x86/cpu.h"
#include "kernel/guest/bus.h"
#include "kernel/guest/cpu_level.h"
#include "kernel/guest/dirty.h"
#include "kernel/guest/vcpu.h"
#include "kernel/lib.h"
#include "storage/guest_disk.h"

static int fail(int error, char *err, size_t size, const struct guest *g, const char *what)
{
    snprintf(err, size, "guest %s: no memory for %s", g->name, what);
    return error;
}

static int check_config(const struct guest *g, char *err, size_t size)
{
    if (!backend) {
        snprintf(err, size, "this host cannot run guests: %s", backend_missing);
        return E_NOSUP;
    }
    if (!g->config.vcpus || g->config.vcpus > GUEST_MAX_VCPUS) {
        snprintf(err, size, "guest %s: %u vCPUs, wanted 1 to %u", g->name, g->config.vcpus,
                 GUEST_MAX_VCPUS);
        return E_INVAL;
    }
    return cpu_level_check(&g->config, host_cpuid, host_features.xcr0_supported, err, size);
}

// A move has filled in rate and CPUID before; a guest that starts here gets this host's.
static void make_clock_and_cpuid(struct guest *g)
{
    guest_clock_init(g, g->clock.tsc_hz ? g->clock.tsc_hz : cpuid_guest_tsc_hz(host_tsc_hz));
    if (!g->cpuid_count)
        cpuid_build(g, host_cpuid, host_features.xcr0_supported);
    cpuid_index(g);
}

static int make_vcpus(struct guest *g)
{
    int error = 0;
    for (u32 i = 0; i < g->config.vcpus && !error; i++)
        error = vcpu_create(g, i);
    return error;
}

static bool all_parked(const struct guest *g)
{
    for (u32 i = 0; i < g->vcpu_count; i++)
        if (!g->vcpu[i]->parked && !g->vcpu[i]->exited)
            return false;
    return true;
}

static int reset_vcpus(struct guest *g)
{
    int error = 0;
    for (u32 i = 0; i < g->vcpu_count && !error; i++)
        error = vcpu_reset(g->vcpu[i]);
    return error;
}

static int open_disks(struct guest *g, char *err, size_t size)
{
    char user[CONFIG_NAME + 8], why[160];
    int error = 0;
    snprintf(user, sizeof(user), "guest %s", g->name);
    for (u32 i = 0; i < g->config.disk_count && !error; i++)
        error = guest_disk_open(g->config.disks[i], user, &g->disk[i], why, sizeof(why));
    if (error)
        snprintf(err, size, "guest %s: %s", g->name, why);
    return error;
}

static void close_disks(struct guest *g)
{
    for (u32 i = 0; i < CONFIG_MAX_DISKS; i++) {
        guest_disk_close(g->disk[i]);
        g->disk[i] = NULL;
    }
}

static int build_parts(struct guest *g, char *err, size_t size)
{
    g->pause_count = 1;
    g->stopping = false;
    g->reset_wanted = g->poweroff_wanted = false;
    if (backend->guest_create(g))
        return fail(E_NOMEM, err, size, g, "its page tables");
    if (guest_memory_create(g, g->config.memory_mib * MIB)) {
        snprintf(err, size, "guest %s: %u MiB of memory are wanted, the host has less left",
                 g->name, g->config.memory_mib);
        return E_NOMEM;
    }
    int error = open_disks(g, err, size);
    if (error)
        return error;
    make_clock_and_cpuid(g);
    if (bus_create(g))
        return fail(E_NOMEM, err, size, g, "its bus");
    // The vCPUs first: devices reach local APICs from their first reset on.
    if (make_vcpus(g))
        return fail(E_NOMEM, err, size, g, "its vCPUs");
    wait_event(&g->pause_wait, all_parked(g));
    if (platform_create(g))
        return fail(E_NOMEM, err, size, g, "its devices");
    if (reset_vcpus(g))
        return fail(E_NOMEM, err, size, g, "the state of its vCPUs");
    return 0;
}

int guest_build(struct guest *g, char *err, size_t size)
{
    int error = check_config(g, err, size);
    if (error)
        return error;
    error = build_parts(g, err, size);
    if (error)
        guest_teardown(g);
    return error;
}

static bool all_exited(const struct guest *g)
{
    for (u32 i = 0; i < g->vcpu_count; i++)
        if (!g->vcpu[i]->exited)
            return false;
    return true;
}

static void forget(struct guest *g)
{
    g->vcpu_count = 0;
    memset(g->vcpu, 0, sizeof(g->vcpu));
    g->cpuid_count = 0;
    g->clock.tsc_hz = 0;
    g->clock.timers = NULL;
    g->pause_count = 0;
    g->msr_logged_count = 0;
    g->reset_wanted = g->poweroff_wanted = false;
}

void guest_teardown(struct guest *g)
{
    g->stopping = true;
    guest_kick(g);
    wait_event(&g->pause_wait, all_exited(g));
    dirty_log_stop(g);
    devices_destroy(g);
    platform_destroy(g);
    close_disks(g);
    for (u32 i = 0; i < g->vcpu_count; i++)
        vcpu_destroy(g->vcpu[i]);
    if (g->bus)
        bus_destroy(g);
    guest_memory_destroy(g);
    if (g->backend)
        backend->guest_destroy(g);
    forget(g);
    g->stopping = false;
}

void guest_quiesce(struct guest *g)
{
    assert(!thread_get_vcpu() || thread_get_vcpu()->guest != g); // it would wait for itself
    mutex_lock(&g->pause_lock);
    if (g->pause_count++ == 0) {
        guest_kick(g);
        wait_event(&g->pause_wait, all_parked(g));
        // One instant for everything: the clock stops before the devices write their times down.
        guest_clock_freeze(g);
        devices_pause(g);
        for (u32 i = 0; i < g->vcpu_count; i++)
            platform_vcpu_pause(g->vcpu[i]);
    }
    mutex_unlock(&g->pause_lock);
}

void guest_unquiesce(struct guest *g, u64 added_ticks)
{
    mutex_lock(&g->pause_lock);
    assert(g->pause_count);
    if (g->pause_count == 1) {
        cpuid_index(g);
        guest_clock_thaw(g, added_ticks);
        // Local APICs before anything that may raise an interrupt.
        for (u32 i = 0; i < g->vcpu_count; i++)
            platform_vcpu_resume(g->vcpu[i]);
        devices_resume(g);
    }
    g->pause_count--;
    mutex_unlock(&g->pause_lock);
    guest_kick(g);
}
