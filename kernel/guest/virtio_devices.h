// SPDX-License-Identifier: MIT
// The guest's virtio devices, for platform.c, which makes those its configuration asks for.
#ifndef SKIFF_GUEST_VIRTIO_DEVICES_H
#define SKIFF_GUEST_VIRTIO_DEVICES_H

#include "kernel/guest/device.h"

extern const struct device_ops vrng_device, vblk_device, vballoon_device;

#endif
