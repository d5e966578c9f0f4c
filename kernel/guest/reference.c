// SPDX-License-Identifier: MIT
// References to guests, for whoever goes on with one after guests_lock is dropped.
#include "kernel/guest/guest.h"
#include "kernel/mem.h"

struct guest *guest_hold(struct guest *g)
{
    if (g)
        __atomic_add_fetch(&g->references, 1, __ATOMIC_RELAXED);
    return g;
}

struct guest *guest_get(const char *name)
{
    mutex_lock(&guests_lock);
    struct guest *g = guest_hold(guest_find(name));
    mutex_unlock(&guests_lock);
    return g;
}

struct guest *guest_get_uuid(const u8 uuid[16])
{
    mutex_lock(&guests_lock);
    struct guest *g = guest_hold(guest_find_uuid(uuid));
    mutex_unlock(&guests_lock);
    return g;
}

void guest_put(struct guest *g)
{
    // Acquire and release: whoever frees it sees all that the others did with it.
    if (g && __atomic_sub_fetch(&g->references, 1, __ATOMIC_ACQ_REL) == 0)
        kfree(g);
}
