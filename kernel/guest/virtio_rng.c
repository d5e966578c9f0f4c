// SPDX-License-Identifier: MIT
// The guest's source of entropy (virtio 1.2, 5.4): the host's random numbers.
#include "kernel/guest/virtio.h"
#include "kernel/guest/virtio_devices.h"
#include "kernel/random.h"

#define ANSWER_MAX 4096u // of one chain; a driver takes fewer bytes than it asked for (5.4.6.2)

struct vrng {
    struct virtio v;
    struct virtio_chain chain;
    u8 bytes[ANSWER_MAX];
};

static void kicked(struct virtio *v, u32 q)
{
    struct vrng *r = container_of(v, struct vrng, v);
    while (virtio_pop(v, q, &r->chain)) {
        u32 n = MIN(r->chain.writable, ANSWER_MAX);
        random_bytes(r->bytes, n);
        virtio_push(v, q, r->chain.head, virtio_copy_to(v, &r->chain, 0, r->bytes, n));
        virtio_publish(v, q);
        thread_yield_if_needed();
    }
}

static void reset(struct virtio *v)
{
    (void)v; // every chain is answered at once
}

static const struct virtio_ops ops = {
    .id = VIRTIO_RNG,
    .class_code = 0x100000, // encryption and decryption, as others show it
    .queues = 1,
    .queue_size = 64,
    .kicked = kicked,
    .reset = reset,
};

static int vrng_init(struct device *d)
{
    return virtio_init(d, &ops, VIRTIO_SLOT_RNG, 0);
}

static bool check(const void *copy, char *err, size_t size)
{
    return virtio_check(&((const struct vrng *)copy)->v, err, size);
}

static const struct state_field fields[] = {
    VIRTIO_FIELDS(struct vrng, v),
    FIELD_LAST,
};
static const struct state_table state = {
    .name = "virtio-rng",
    .version = 1,
    .fields = fields,
    .check = check,
    .struct_size = sizeof(struct vrng),
};

const struct device_ops vrng_device = {
    .name = "virtio-rng",
    .state = &state,
    .priv_size = sizeof(struct vrng),
    .init = vrng_init,
    .fini = virtio_fini,
    .reset = virtio_reset,
    .read = virtio_read,
    .write = virtio_write,
    .pause = virtio_pause,
    .resume = virtio_resume,
};
