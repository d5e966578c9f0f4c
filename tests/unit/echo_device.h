// SPDX-License-Identifier: MIT
// A virtio device that gives back what it gets, for the tests of the virtio core.
#ifndef SKIFF_TESTS_ECHO_DEVICE_H
#define SKIFF_TESTS_ECHO_DEVICE_H

#include "tests/unit/fake_virtio.h"

const struct device_ops vrng_device, vblk_device, vballoon_device;

// A device that gives every chain back at once, what was read written in capitals.
#define ECHO_FEATURE BIT(3)
#define ECHO_NEEDS BIT(4) // needs ECHO_FEATURE
struct echo {
    struct virtio v;
    struct virtio_chain chain;
    u8 config[12];
    bool hold; // chains stay where they are
    u32 kicks, resets, pops;
    u32 last_set;
};
static struct echo *echo;

static void echo_kicked(struct virtio *v, u32 q)
{
    struct echo *e = container_of(v, struct echo, v);
    e->kicks++;
    while (!e->hold && virtio_pop(v, q, &e->chain)) {
        u8 text[64];
        u32 n = virtio_copy_from(v, &e->chain, 0, text, sizeof(text));
        for (u32 i = 0; i < n; i++)
            text[i] &= (u8)~0x20;
        e->pops++;
        virtio_push(v, q, e->chain.head, virtio_copy_to(v, &e->chain, 0, text, n));
    }
    virtio_publish(v, q);
}

static void echo_reset(struct virtio *v)
{
    container_of(v, struct echo, v)->resets++;
}

static void echo_get_config(struct virtio *v, void *config)
{
    memcpy(config, container_of(v, struct echo, v)->config, 12);
}

static void echo_set_config(struct virtio *v, u32 offset, u32 size, u32 value)
{
    struct echo *e = container_of(v, struct echo, v);
    if (offset + size <= sizeof(e->config))
        memcpy(e->config + offset, &value, size);
}

static bool echo_accept(const struct virtio *v, u64 features)
{
    (void)v;
    return !(features & ECHO_NEEDS) || features & ECHO_FEATURE;
}

static const struct virtio_ops echo_ops = {
    .id = 42,
    .class_code = 0xff0000,
    .queues = 2,
    .queue_size = 8,
    .get_config = echo_get_config,
    .config_bytes = 12,
    .set_config = echo_set_config,
    .accept = echo_accept,
    .kicked = echo_kicked,
    .reset = echo_reset,
};

static int echo_init(struct device *d)
{
    echo = d->priv;
    for (u8 i = 0; i < 12; i++)
        echo->config[i] = i;
    return virtio_init(d, &echo_ops, 5, ECHO_FEATURE | ECHO_NEEDS);
}

static bool echo_check(const void *copy, char *err, size_t size)
{
    return virtio_check(&((const struct echo *)copy)->v, err, size);
}

static const struct state_field echo_fields[] = {VIRTIO_FIELDS(struct echo, v), FIELD_LAST};
static const struct state_table echo_state = {.name = "echo",
                                              .version = 1,
                                              .fields = echo_fields,
                                              .check = echo_check,
                                              .struct_size = sizeof(struct echo)};
static const struct device_ops echo_device = {
    .name = "echo",
    .state = &echo_state,
    .priv_size = sizeof(struct echo),
    .init = echo_init,
    .fini = virtio_fini,
    .reset = virtio_reset,
    .read = virtio_read,
    .write = virtio_write,
    .pause = virtio_pause,
    .resume = virtio_resume,
};

static void make_echo(void)
{
    assert_non_null(device_add(&guest, &echo_device, 0));
}

static int set_up(void **state)
{
    pc_one(state);
    memset(ram, 0, sizeof(ram));
    guest_logs = 0;
    make_echo();
    return 0;
}

static void start(u64 features)
{
    drv_start(5, 2, 8, features);
}

static const char *state_text(void)
{
    static char text[128];
    virtio_describe(&echo->v, text, sizeof(text));
    return text;
}

#define IN 0x200000
#define OUT 0x210000

static u16 add_echo(u32 q, const char *text)
{
    struct drv_desc d[] = {{IN, (u32)strlen(text), 0, 0}, {OUT, 64, D_WRITE, 0}};
    strcpy((char *)ram + IN, text);
    memset(ram + OUT, 0, 64);
    return drv_add(q, d, 2);
}

#endif
