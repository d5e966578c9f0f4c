// SPDX-License-Identifier: MIT
// Rings between guests' serial ports, which are written by vCPU threads, and the console's threads.
#include "kernel/console/tap.h"

#include "kernel/console/screen.h"
#include "kernel/guest/guest.h"
#include "kernel/lib.h"
#include "kernel/mem.h"

#define TAPS       16
#define RING_BYTES (64 * 1024u) // a kernel's boot messages
#define LINE_MAX   200u         // longer lines are shown in pieces

struct tap {
    struct spinlock lock;
    char name[CONFIG_NAME]; // "": free; lock
    bool follow, attached;  // table_lock
    u8 *ring;               // lock
    u32 head, tail;         // read at, written at, modulo RING_BYTES; lock
    u32 line_ends;          // line feeds in the ring; lock
    u64 lost;               // bytes that found no room; lock
};

static struct tap taps[TAPS];
static struct mutex table_lock;

// True when a thread that waits for this tap now has something to show: guests write byte by byte,
// and a wake for each would cost them time.
static bool push(struct tap *t, const char *s, size_t n)
{
    u64 flags = spin_lock_irqsave(&t->lock);
    bool was_empty = t->head == t->tail;
    u32 ends = t->line_ends;
    for (size_t i = 0; t->ring && i < n; i++) {
        if (t->tail - t->head == RING_BYTES) {
            t->lost += n - i;
            break;
        }
        t->ring[t->tail++ % RING_BYTES] = (u8)s[i];
        t->line_ends += s[i] == '\n';
    }
    bool news = t->attached ? was_empty : t->line_ends != ends || t->tail - t->head >= LINE_MAX;
    spin_unlock_irqrestore(&t->lock, flags);
    return news;
}

static void guest_wrote(struct guest *g, const char *s, size_t n)
{
    for (size_t i = 0; i < TAPS; i++)
        if (!strcmp(taps[i].name, g->name) && push(&taps[i], s, n))
            waitq_wake_all(&screen_event);
}

static struct tap *find(const char *name)
{
    for (size_t i = 0; i < TAPS; i++)
        if (taps[i].name[0] && !strcmp(taps[i].name, name))
            return &taps[i];
    return NULL;
}

static struct tap *open_tap(const char *name, int *error)
{
    struct tap *t = find(name);
    if (t)
        return t;
    for (size_t i = 0; i < TAPS && !t; i++)
        if (!taps[i].name[0])
            t = &taps[i];
    u8 *ring = t ? kmalloc(RING_BYTES) : NULL;
    *error = t ? E_NOMEM : E_BUSY;
    if (!ring)
        return NULL;
    u64 flags = spin_lock_irqsave(&t->lock);
    t->head = t->tail = t->line_ends = 0;
    t->lost = 0;
    t->ring = ring;
    strlcpy(t->name, name, sizeof(t->name));
    spin_unlock_irqrestore(&t->lock, flags);
    return t;
}

static void bind_guest(const char *name, bool on)
{
    mutex_lock(&guests_lock);
    struct guest *g = guest_find(name);
    if (g && on && g->console_sink != guest_wrote)
        guest_console_attach(g, guest_wrote);
    else if (g && !on && g->console_sink == guest_wrote)
        guest_console_attach(g, NULL);
    mutex_unlock(&guests_lock);
}

static void close_unused(struct tap *t)
{
    if (t->follow || t->attached)
        return;
    bind_guest(t->name, false);
    u64 flags = spin_lock_irqsave(&t->lock);
    u8 *ring = t->ring;
    t->ring = NULL;
    t->name[0] = 0;
    t->head = t->tail = t->line_ends = 0;
    spin_unlock_irqrestore(&t->lock, flags);
    kfree(ring);
}

int tap_follow(const char *name)
{
    int error = 0;
    mutex_lock(&table_lock);
    struct tap *t = open_tap(name, &error);
    if (t) {
        t->follow = true;
        error = 0;
        bind_guest(name, true);
    }
    mutex_unlock(&table_lock);
    return error;
}

void tap_unfollow(const char *name)
{
    mutex_lock(&table_lock);
    struct tap *t = find(name);
    if (t) {
        t->follow = false;
        close_unused(t);
    }
    mutex_unlock(&table_lock);
}

const char *tap_followed(unsigned i)
{
    for (size_t k = 0; k < TAPS; k++)
        if (taps[k].follow && i-- == 0)
            return taps[k].name;
    return NULL;
}

struct tap *tap_attach(const char *name, int *error)
{
    mutex_lock(&table_lock);
    struct tap *t = open_tap(name, error);
    if (t) {
        t->attached = true;
        bind_guest(name, true);
    }
    mutex_unlock(&table_lock);
    return t;
}

void tap_detach(struct tap *t)
{
    mutex_lock(&table_lock);
    t->attached = false;
    close_unused(t);
    mutex_unlock(&table_lock);
}

size_t tap_used(const struct tap *t)
{
    return t->tail - t->head;
}

// Lock held.
static u8 pop(struct tap *t)
{
    assert_held(&t->lock);
    u8 c = t->ring[t->head++ % RING_BYTES];
    t->line_ends -= c == '\n';
    return c;
}

size_t tap_read(struct tap *t, char *buf, size_t size)
{
    size_t n = 0;
    u64 flags = spin_lock_irqsave(&t->lock);
    if (t->lost && t->head == t->tail) {
        n = (size_t)snprintf(buf, size, "\n[%llu bytes lost]\n", (unsigned long long)t->lost);
        n = MIN(n, size - 1);
        t->lost = 0;
    }
    while (n < size && t->ring && t->head != t->tail)
        buf[n++] = (char)pop(t);
    spin_unlock_irqrestore(&t->lock, flags);
    return n;
}

static bool line_ready(const struct tap *t)
{
    return t->follow && (t->line_ends || tap_used(t) >= LINE_MAX);
}

bool tap_any(void)
{
    for (size_t i = 0; i < TAPS; i++)
        if (taps[i].name[0])
            return true;
    return false;
}

bool tap_has_line(void)
{
    for (size_t i = 0; i < TAPS; i++)
        if (line_ready(&taps[i]))
            return true;
    return false;
}

static void take(struct tap *t, char *buf, size_t size)
{
    size_t n = (size_t)snprintf(buf, size, "%s| ", t->name);
    u64 flags = spin_lock_irqsave(&t->lock);
    for (u32 i = 0; i < LINE_MAX && t->ring && t->head != t->tail; i++) {
        u8 c = pop(t);
        if (c == '\n')
            break;
        if (c == '\r')
            continue;
        // Whatever would move the terminal's cursor is not the guest's to send.
        bool plain = c >= ' ' && c != 0x7f;
        if (n + 1 < size)
            buf[n++] = plain || c == '\t' ? (char)c : '?';
    }
    if (t->lost && t->head == t->tail) {
        n += (size_t)snprintf(buf + n, size - n, " [%llu bytes lost]", (unsigned long long)t->lost);
        t->lost = 0;
    }
    buf[MIN(n, size - 1)] = 0;
    spin_unlock_irqrestore(&t->lock, flags);
}

bool tap_take_line(char *buf, size_t size)
{
    static unsigned last; // the next guest's turn, so that a talkative one does not hide others
    for (unsigned i = 0; i < TAPS; i++) {
        struct tap *t = &taps[++last % TAPS];
        if (line_ready(t)) {
            take(t, buf, size);
            return true;
        }
    }
    return false;
}

void tap_bind(void)
{
    mutex_lock(&table_lock);
    for (size_t i = 0; i < TAPS; i++)
        if (taps[i].name[0])
            bind_guest(taps[i].name, true);
    mutex_unlock(&table_lock);
}
