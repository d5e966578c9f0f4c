// SPDX-License-Identifier: MIT
// A guest that has moved away: what still comes for it here is kept, to be passed on.
#include "net/departed.h"

#include "kernel/guest/guest.h"
#include "kernel/lib.h"
#include "kernel/mem.h"
#include "net/switch.h"
#include "net/work.h"

#define KEPT 64u // frames

// The network thread's, but what is volatile, which the thread that takes looks at.
struct departed {
    struct switch_port port; // first
    struct pbuf *frame[KEPT];
    u32 head;
    volatile u32 count;
    volatile bool back;
    struct waitq wait;
};

static int keep(struct switch_port *p, const struct nic_frame *f)
{
    struct departed *d = (struct departed *)p;
    if (d->count == KEPT)
        return E_NOMEM;
    pbuf_ref(f->pbuf);
    d->frame[(d->head + d->count) % KEPT] = f->pbuf;
    d->count++;
    return 0;
}

static void tell(struct switch_port *p)
{
    waitq_wake_all(&((struct departed *)p)->wait);
}

static void nothing(struct switch_port *p)
{
    (void)p; // it sends nothing
}

static void replaced(struct switch_port *p)
{
    ((struct departed *)p)->back = true;
    tell(p);
}

static const struct switch_port_ops ops = {
    .deliver = keep,
    .flush = tell,
    .send = nothing,
    .rest = nothing,
    .replaced = replaced,
};

struct call {
    struct departed *d;
    struct switch_port *from;
    void *buf;
    u32 size;
};

static int replace(void *arg)
{
    struct call *c = arg;
    return switch_depart(c->from, &c->d->port);
}

struct departed *departed_begin(struct guest *g)
{
    struct call c = {.from = guest_nic_port(g)};
    c.d = c.from ? kzalloc(sizeof(*c.d)) : NULL;
    if (!c.d)
        return NULL;
    c.d->port.ops = &ops;
    if (net_call(replace, &c) == 0)
        return c.d;
    kfree(c.d);
    return NULL;
}

static struct pbuf *take_first(struct departed *d)
{
    struct pbuf *p = d->frame[d->head];
    d->head = (d->head + 1) % KEPT;
    d->count--;
    return p;
}

static int take(void *arg)
{
    struct call *c = arg;
    struct pbuf *p = take_first(c->d);
    int bytes = pbuf_copy_partial(p, c->buf, (u16)MIN(c->size, 0xffffu), 0);
    pbuf_free(p);
    return bytes;
}

s64 departed_take(struct departed *d, void *buf, u32 size, u64 deadline_ns)
{
    struct call c = {.d = d, .buf = buf, .size = size};
    if (!wait_event_until(&d->wait, d->count || d->back, deadline_ns))
        return E_TIMEOUT;
    return d->count ? net_call(take, &c) : E_ABORT;
}

static int remove(void *arg)
{
    struct departed *d = arg;
    switch_remove(&d->port);
    while (d->count)
        pbuf_free(take_first(d));
    return 0;
}

void departed_end(struct departed *d)
{
    net_call(remove, d);
    kfree(d);
}
