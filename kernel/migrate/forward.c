// SPDX-License-Identifier: MIT
// After a move: frames that still reach the old host follow the guest over the move's connection,
// until the network has learned where it is.
#include "kernel/migrate/forward.h"

#include "kernel/guest/guest.h"
#include "kernel/lib.h"
#include "kernel/log.h"
#include "kernel/mem.h"
#include "kernel/thread.h"
#include "kernel/time.h"
#include "net/departed.h"
#include "net/guest_nic.h"

#define MOST_NS      (10 * NS_PER_SEC)
#define SILENCE_NS   (2 * NS_PER_SEC) // without a frame: nobody sends to the old place any more
#define MAX_FORWARDS 4u               // at a time; each has a connection at the other host

static u32 forwards; // atomic

struct forward {
    struct stream s;
    struct departed *departed;
    char guest[CONFIG_NAME];
};

static void forward_thread(void *arg)
{
    struct forward *f = arg;
    u64 now = time_ns(), end = now + MOST_NS, frames = 0;
    int e = 0;
    f->s.timeout_ns = SILENCE_NS;
    for (; e == 0 && now < end; now = time_ns(), frames++) {
        s64 n = departed_take(f->departed, stream_payload(&f->s), STREAM_MAX_PAYLOAD,
                              MIN(end, now + SILENCE_NS));
        if (n < 0)
            break;
        e = stream_send_built(&f->s, REC_FRAME | RECORD_OPTIONAL, (u32)n);
    }
    departed_end(f->departed);
    stream_close(&f->s, e == 0);
    if (frames)
        log_info("migrate", "guest %s: %llu frames that came here were passed on", f->guest,
                 (unsigned long long)frames);
    kfree(f);
    __atomic_sub_fetch(&forwards, 1, __ATOMIC_RELAXED);
}

bool forward_begin(struct guest *g, struct stream *s)
{
    bool room = __atomic_add_fetch(&forwards, 1, __ATOMIC_RELAXED) <= MAX_FORWARDS;
    struct forward *f = room ? kzalloc(sizeof(*f)) : NULL;
    if (f) {
        f->departed = departed_begin(g);
        f->s = *s;
        strlcpy(f->guest, g->name, sizeof(f->guest));
    }
    if (f && f->departed && thread_create("forward", forward_thread, f, 0)) {
        s->conn = NULL;
        return true;
    }
    if (f && f->departed)
        departed_end(f->departed);
    kfree(f);
    __atomic_sub_fetch(&forwards, 1, __ATOMIC_RELAXED);
    return false;
}

// For the guest that this connection has brought, and only while it is here.
int forward_take(struct stream *s, const struct record *r)
{
    struct guest *g = guest_get_uuid(s->peer.uuid);
    if (!g)
        return 0;
    mutex_lock(&g->lock);
    bool here = g->state == GUEST_RUNNING || g->state == GUEST_PAUSED;
    if (here && g->epoch == s->peer.epoch)
        guest_nic_receive(g, r->payload, r->bytes);
    mutex_unlock(&g->lock);
    guest_put(g);
    return 0;
}
