// SPDX-License-Identifier: MIT
// Puts the PC together: creates its devices in order, and what does not belong to one of them.
#include "arch/x86/platform/platform.h"

#include "kernel/guest/kvmclock.h"
#include "kernel/guest/virtio_devices.h"
#include "kernel/lib.h"
#include "kernel/log.h"
#include "kernel/mem.h"
#include "net/guest_nic.h"

// Interrupt controllers first: the others drive their lines from init on.
static const struct device_ops *const devices[] = {
    &vpic_device,  &vioapic_device, &vlapic_device, &vpit_device, &vrtc_device,
    &vuart_device, &vpm_device,     &vpci_device,   &vkbd_device, &vmisc_device,
};

static bool add_device(struct guest *g, const struct device_ops *ops, u32 instance)
{
    bool ok = device_add(g, ops, instance) != NULL;
    if (!ok)
        log_error("platform", "guest %s: device %s could not be created", g->name, ops->name);
    return ok;
}

static bool add_virtio(struct guest *g)
{
    bool ok = !g->config.network || add_device(g, &guest_nic_device, 0);
    for (u32 i = 0; ok && i < g->config.disk_count; i++)
        ok = add_device(g, &vblk_device, i);
    ok = ok && (!g->config.rng || add_device(g, &vrng_device, 0));
    return ok && (!g->config.balloon || add_device(g, &vballoon_device, 0));
}

// The guest's memory and clock are there already. Returns 0, E_NOMEM, or what a device refused
// with.
int platform_create(struct guest *g)
{
    struct platform *p = kzalloc(sizeof(*p));
    if (!p)
        return E_NOMEM;
    p->guest = g;
    g->platform = p;
    bool ok = g->config.clock != CLOCK_KVM || add_device(g, &kvmclock_device, 0);
    for (u32 i = 0; ok && i < ARRAY_SIZE(devices); i++)
        ok = add_device(g, devices[i], 0);
    if (ok && add_virtio(g))
        return 0;
    devices_destroy(g);
    platform_destroy(g);
    return E_NOMEM;
}

// After devices_destroy.
void platform_destroy(struct guest *g)
{
    kfree(g->platform);
    g->platform = NULL;
}

void platform_power_button(struct guest *g)
{
    struct platform *p = platform_of(g);
    if (p)
        vpm_power_button(p->pm);
}

void platform_reset_request(struct guest *g, const char *by)
{
    log_info("platform", "guest %s asks for a reset (%s)", g->name, by);
    g->reset_wanted = true;
    guest_kick(g);
}

void platform_poweroff_request(struct guest *g)
{
    log_info("platform", "guest %s powers off", g->name);
    g->poweroff_wanted = true;
    guest_kick(g);
}

bool platform_cpuid1_ecx(const struct guest *g, unsigned bit)
{
    for (u32 i = 0; i < g->cpuid_count; i++)
        if (g->cpuid[i].leaf == 1)
            return g->cpuid[i].ecx >> bit & 1;
    return false;
}
