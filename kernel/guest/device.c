// SPDX-License-Identifier: MIT
// The devices of a guest: made, found, reset, paused and resumed as one.
#include "kernel/guest/device.h"

#include "kernel/guest/bus.h"
#include "kernel/guest/guest.h"
#include "kernel/lib.h"
#include "kernel/mem.h"

static void append(struct guest *g, struct device *d)
{
    struct device **at = &g->devices;
    while (*at)
        at = &(*at)->next;
    *at = d;
}

static void release(struct device *d)
{
    kfree(d->priv);
    kfree(d);
}

struct device *device_add(struct guest *g, const struct device_ops *ops, u32 instance)
{
    struct device *d = kzalloc(sizeof(*d));
    if (!d)
        return NULL;
    d->ops = ops;
    d->guest = g;
    d->instance = instance;
    d->priv = kzalloc(ops->priv_size);
    if (!d->priv || ops->init(d)) {
        bus_forget(d);
        release(d);
        return NULL;
    }
    append(g, d);
    return d;
}

struct device *device_find(struct guest *g, const char *name, u32 instance)
{
    for (struct device *d = g->devices; d; d = d->next)
        if (d->instance == instance && !strcmp(d->ops->name, name))
            return d;
    return NULL;
}

// In reverse: what a device was built on, a bus for one, is there until it has gone.
void devices_destroy(struct guest *g)
{
    while (g->devices) {
        struct device **at = &g->devices;
        while ((*at)->next)
            at = &(*at)->next;
        struct device *d = *at;
        *at = NULL;
        d->ops->fini(d);
        bus_forget(d);
        release(d);
    }
}

static void for_each(struct guest *g, void (*call)(struct device *d))
{
    for (struct device *d = g->devices; d; d = d->next) {
        mutex_lock(&d->lock);
        call(d);
        mutex_unlock(&d->lock);
    }
}

static void call_reset(struct device *d)
{
    d->ops->reset(d);
}

static void call_pause(struct device *d)
{
    d->ops->pause(d);
}

static void call_resume(struct device *d)
{
    d->ops->resume(d);
}

void devices_reset(struct guest *g)
{
    for_each(g, call_reset);
}

void devices_pause(struct guest *g)
{
    for_each(g, call_pause);
}

void devices_resume(struct guest *g)
{
    for_each(g, call_resume);
}
