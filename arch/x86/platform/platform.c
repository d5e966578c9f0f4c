// SPDX-License-Identifier: MIT
// Puts the PC together: creates its devices in order, and what does not belong to one of them.
#include "arch/x86/platform/platform.h"

#include "kernel/lib.h"
#include "kernel/log.h"
#include "kernel/mem.h"

// Interrupt controllers first: the others drive their lines from init on.
static const struct device_ops *const devices[] = {
    &vpic_device,  &vioapic_device, &vlapic_device, &vpit_device, &vrtc_device,
    &vuart_device, &vpm_device,     &vpci_device,   &vkbd_device, &vmisc_device,
};

// The guest's memory and clock are there already. Returns 0, E_NOMEM, or what a device refused
// with.
int platform_create(struct guest *g)
{
    struct platform *p = kzalloc(sizeof(*p));
    if (!p)
        return E_NOMEM;
    p->guest = g;
    g->platform = p;
    for (u32 i = 0; i < ARRAY_SIZE(devices); i++) {
        if (!device_add(g, devices[i], 0)) {
            log_error("platform", "guest %s: device %s could not be created", g->name,
                      devices[i]->name);
            devices_destroy(g);
            platform_destroy(g);
            return E_NOMEM;
        }
    }
    return 0;
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
