// SPDX-License-Identifier: MIT
// Where linker.ld puts the image's parts.
#ifndef SKIFF_ARCH_IMAGE_H
#define SKIFF_ARCH_IMAGE_H

#include "kernel/types.h"

extern u8 image_start[], text_start[], text_end[], rodata_start[], rodata_end[], data_start[],
    image_end[];
extern u8 boot_stack_guard[], boot_stack_bottom[], boot_stack_top[]; // boot/start.S

#endif
