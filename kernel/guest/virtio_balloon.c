// SPDX-License-Identifier: MIT
// The guest's balloon (virtio 1.2, 5.5), for one purpose: a move asks the driver which pages are
// free (free page hinting, 5.5.6.5), and leaves them out. It is never asked to give up memory.
#include "kernel/guest/virtio_balloon.h"

#include "kernel/guest/guest.h"
#include "kernel/guest/virtio.h"
#include "kernel/guest/virtio_devices.h"
#include "kernel/lib.h"
#include "kernel/time.h"

#define F_STATS_VQ       BIT(1) // its queue gives the one of hints the number it has in 5.5.2
#define F_FREE_PAGE_HINT BIT(3)

enum queue { INFLATE, DEFLATE, STATS, FREE_PAGES, QUEUES };

struct config { // 5.5.4
    u32 num_pages, actual, free_page_hint_cmd_id;
};
#define CMD_STOP  0u
#define CMD_DONE  1u
#define CMD_FIRST 2u

#define WAIT_NS   (500 * NS_PER_MS) // for the next hint: a guest that is busy need not answer
#define ZERO_STEP (256 * KIB)

struct vballoon {
    struct virtio v;
    u32 actual;  // as the driver says
    u32 command; // what the driver is asked for
    u32 last_id; // of a command for hints: a driver does not look at the same one twice
    struct virtio_chain chain;
    // A move that waits for hints. NULL: none does.
    struct dirty_bitmap *todo;
    u64 left_out;
    bool begun;         // the driver has taken up the command
    volatile bool over; // and has come to its end
    struct waitq wake;
};

// ---- Hints -------------------------------------------------------------------------------------

// The driver has said that it does not care what is in there, and will not use it before it gets
// the chain back. Zeros stand for it at the destination, whose memory begins with zeros; so they do
// here, lest the two differ. A kernel that clears what it allocates, as Debian's does, has dirtied
// it just before: then it is sent after all, in the eight bytes of a page of zeros. It is not
// marked dirty: nothing of it has been sent, and nothing is to be.
static void leave_out(struct vballoon *b, u64 gpa)
{
    struct guest *g = b->v.pci.device->guest;
    if (!dirty_bitmap_clear(b->todo, guest_page_index(g, gpa)))
        return;
    u64 *word = guest_page(g, gpa);
    for (u32 i = 0; i < PAGE_SIZE / sizeof(*word); i++)
        if (word[i]) // most have never been used
            word[i] = 0;
    b->left_out++;
}

static void take_hint(struct vballoon *b)
{
    const struct virtio_chain *c = &b->chain;
    for (u32 i = c->readable_parts; i < c->parts; i++) {
        u64 end = c->part[i].gpa + c->part[i].bytes;
        for (u64 at = ALIGN_UP(c->part[i].gpa, PAGE_SIZE); at + PAGE_SIZE <= end; at += PAGE_SIZE) {
            leave_out(b, at);
            if (at % ZERO_STEP == 0)
                thread_yield_if_needed();
        }
    }
}

// A readable chain says which command the writable ones after it belong to.
static void take_command(struct vballoon *b)
{
    u32 id = CMD_STOP;
    virtio_copy_from(&b->v, &b->chain, 0, &id, sizeof(id));
    if (id == b->command && id >= CMD_FIRST) {
        b->begun = true;
    } else if (b->begun) {
        b->begun = false;
        waitq_set_and_wake(&b->wake, &b->over);
    }
}

static void take_free_pages(struct vballoon *b)
{
    if (b->chain.readable)
        take_command(b);
    else if (b->todo && b->begun)
        take_hint(b);
}

static void command(struct vballoon *b, u32 id)
{
    b->command = id;
    b->begun = false;
    virtio_config_changed(&b->v);
}

static void wait_for_hints(struct vballoon *b, u64 most_ns)
{
    u64 end = time_ns() + most_ns, before;
    do {
        before = b->left_out;
        wait_event_until(&b->wake, b->over, MIN(end, time_ns() + WAIT_NS));
    } while (!b->over && b->left_out != before && time_ns() < end);
}

u64 balloon_leave_out_free(struct guest *g, struct dirty_bitmap *todo, u64 most_ns)
{
    struct device *d = device_find(g, vballoon_device.name, 0);
    struct vballoon *b = d ? d->priv : NULL;
    if (!b)
        return 0;
    virtio_lock(&b->v);
    bool can = virtio_running(&b->v) && virtio_has(&b->v, F_FREE_PAGE_HINT) && !g->pause_count;
    if (can) {
        b->todo = todo;
        b->left_out = 0;
        b->over = false;
        b->last_id = b->last_id % 0x10000 + 1;
        command(b, CMD_FIRST + b->last_id);
    }
    virtio_unlock(&b->v);
    if (!can)
        return 0;
    wait_for_hints(b, most_ns);
    virtio_lock(&b->v);
    b->todo = NULL;
    command(b, CMD_DONE); // the driver may use its pages again
    virtio_unlock(&b->v);
    return b->left_out;
}

// ---- The device --------------------------------------------------------------------------------

// Statistics were not asked for: the driver's one buffer stays where it is.
static void kicked(struct virtio *v, u32 q)
{
    struct vballoon *b = container_of(v, struct vballoon, v);
    while (q != STATS && virtio_pop(v, q, &b->chain)) {
        if (q == FREE_PAGES)
            take_free_pages(b);
        virtio_push(v, q, b->chain.head, 0);
        virtio_publish(v, q);
        thread_yield_if_needed();
    }
}

static void reset(struct virtio *v)
{
    struct vballoon *b = container_of(v, struct vballoon, v);
    b->actual = 0;
    b->command = CMD_STOP;
    b->begun = false;
    waitq_set_and_wake(&b->wake, &b->over);
}

static void get_config(struct virtio *v, void *out)
{
    const struct vballoon *b = container_of(v, struct vballoon, v);
    struct config c = {.actual = b->actual, .free_page_hint_cmd_id = b->command};
    memcpy(out, &c, sizeof(c));
}

static void set_config(struct virtio *v, u32 offset, u32 size, u32 value)
{
    if (offset == offsetof(struct config, actual) && size == 4)
        container_of(v, struct vballoon, v)->actual = value;
}

static const struct virtio_ops ops = {
    .id = VIRTIO_BALLOON,
    .class_code = 0x050000,
    .queues = QUEUES,
    .queue_size = 128,
    .get_config = get_config,
    .config_bytes = sizeof(struct config),
    .set_config = set_config,
    .kicked = kicked,
    .reset = reset,
};

static int vballoon_init(struct device *d)
{
    return virtio_init(d, &ops, VIRTIO_SLOT_BALLOON, F_STATS_VQ | F_FREE_PAGE_HINT);
}

static bool check(const void *copy, char *err, size_t size)
{
    return virtio_check(&((const struct vballoon *)copy)->v, err, size);
}

static const struct state_field fields[] = {
    VIRTIO_FIELDS(struct vballoon, v),
    FIELD(40, FIELD_COPY, struct vballoon, actual, 1, 0, 0),
    FIELD(41, FIELD_COPY, struct vballoon, command, 1, 0, 0),
    FIELD(42, FIELD_COPY, struct vballoon, last_id, 1, 0, 0),
    FIELD_LAST,
};
static const struct state_table state = {
    .name = "virtio-balloon",
    .version = 1,
    .fields = fields,
    .check = check,
    .struct_size = sizeof(struct vballoon),
};

const struct device_ops vballoon_device = {
    .name = "virtio-balloon",
    .state = &state,
    .priv_size = sizeof(struct vballoon),
    .init = vballoon_init,
    .fini = virtio_fini,
    .reset = virtio_reset,
    .read = virtio_read,
    .write = virtio_write,
    .pause = virtio_pause,
    .resume = virtio_resume,
};
