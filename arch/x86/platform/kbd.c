// SPDX-License-Identifier: MIT
// The 8042 keyboard controller as far as systems need it without a keyboard: reset, A20, self-test.
#include "arch/x86/platform/platform.h"

#include "kernel/lib.h"

enum { REGION_DATA, REGION_COMMAND };
#define STATUS_OUTPUT_FULL 0x01
#define STATUS_SYSTEM      0x04
#define STATUS_COMMAND     0x08
#define STATUS_UNLOCKED    0x10
#define STATUS_TIMEOUT     0x40 // of a device that does not answer
#define OUTPUT_NO_RESET    0x01
#define OUTPUT_A20         0x02

struct vkbd {
    struct device *device;
    u8 config;  // command byte
    u8 command; // waits for its data byte; 0: none
    u8 output;  // output port; A20 is always on, whatever bit 1 says
    u8 data, data_full, timeout, last_was_command;
};

static void answer(struct vkbd *k, u8 byte, bool timeout)
{
    k->data = byte;
    k->data_full = 1;
    k->timeout = timeout;
}

static void write_command(struct vkbd *k, u8 value)
{
    k->command = 0;
    switch (value) {
    case 0x20: // read the command byte
        answer(k, k->config, false);
        break;
    case 0xaa: // self-test
        k->config |= STATUS_SYSTEM;
        answer(k, 0x55, false);
        break;
    case 0xa9: // interface tests: the clock line is stuck high, as without a device
    case 0xab:
        answer(k, 0x02, false);
        break;
    case 0xd0:
        answer(k, k->output, false);
        break;
    case 0x60: // these take a data byte
    case 0xd1:
    case 0xd4:
        k->command = value;
        break;
    case 0xf0 ... 0xff: // pulse output port bits that are 0; bit 0 is the CPU's reset
        if (!(value & 1))
            platform_reset_request(k->device->guest, "keyboard controller");
        break;
    }
}

static void write_data(struct vkbd *k, u8 value)
{
    u8 command = k->command;
    k->command = 0;
    if (command == 0x60) {
        k->config = value & 0x7f;
    } else if (command == 0xd1) {
        k->output = value | OUTPUT_NO_RESET;
        if (!(value & OUTPUT_NO_RESET))
            platform_reset_request(k->device->guest, "keyboard controller");
    } else {
        answer(k, 0xfe, true); // no keyboard, no mouse
    }
}

static u64 kbd_read(struct device *d, u32 region, u64 offset, u32 size)
{
    (void)offset;
    (void)size;
    struct vkbd *k = d->priv;
    if (region == REGION_DATA) {
        k->data_full = k->timeout = 0;
        return k->data;
    }
    return STATUS_UNLOCKED | (k->config & STATUS_SYSTEM) | (k->data_full ? STATUS_OUTPUT_FULL : 0) |
           (k->timeout ? STATUS_TIMEOUT : 0) | (k->last_was_command ? STATUS_COMMAND : 0);
}

static void kbd_write(struct device *d, u32 region, u64 offset, u32 size, u64 value)
{
    (void)offset;
    (void)size;
    struct vkbd *k = d->priv;
    k->last_was_command = region == REGION_COMMAND;
    if (region == REGION_COMMAND)
        write_command(k, (u8)value);
    else
        write_data(k, (u8)value);
}

static void kbd_reset(struct device *d)
{
    struct vkbd *k = d->priv;
    memset(k, 0, sizeof(*k));
    k->device = d;
    k->config = STATUS_SYSTEM; // firmware has run its self-test
    k->output = OUTPUT_NO_RESET | OUTPUT_A20;
}

static int kbd_init(struct device *d)
{
    kbd_reset(d);
    int error = device_claim_ports(d, 0x60, 1, REGION_DATA);
    return error ? error : device_claim_ports(d, 0x64, 1, REGION_COMMAND);
}

static void kbd_nothing(struct device *d)
{
    (void)d; // no timers, no interrupts
}

static bool check(const void *copy, char *err, size_t size)
{
    const struct vkbd *k = copy;
    u8 c = k->command;
    if ((c == 0 || c == 0x60 || c == 0xd1 || c == 0xd4) && (k->output & OUTPUT_NO_RESET))
        return true;
    snprintf(err, size, "keyboard controller: impossible command 0x%x or output port 0x%x", c,
             k->output);
    return false;
}

static const struct state_field fields[] = {
    FIELD(1, FIELD_COPY, struct vkbd, config, 1, 0, 0x7f),
    FIELD(2, FIELD_COPY, struct vkbd, command, 1, 0, 0),
    FIELD(3, FIELD_COPY, struct vkbd, output, 1, 0, 0),
    FIELD(4, FIELD_COPY, struct vkbd, data, 1, 0, 0),
    FIELD(5, FIELD_COPY, struct vkbd, data_full, 1, 0, 1),
    FIELD(6, FIELD_COPY, struct vkbd, timeout, 1, 0, 1),
    FIELD(7, FIELD_COPY, struct vkbd, last_was_command, 1, 0, 1),
    FIELD_LAST,
};
static const struct state_table state = {
    .name = "kbd",
    .version = 1,
    .fields = fields,
    .check = check,
    .struct_size = sizeof(struct vkbd),
};

const struct device_ops vkbd_device = {
    .name = "kbd",
    .state = &state,
    .priv_size = sizeof(struct vkbd),
    .init = kbd_init,
    .fini = kbd_nothing,
    .reset = kbd_reset,
    .read = kbd_read,
    .write = kbd_write,
    .pause = kbd_nothing,
    .resume = kbd_nothing,
};
