// SPDX-License-Identifier: MIT
// What the host knows about itself from its start: the boot information and its configuration.
#ifndef SKIFF_KERNEL_HOST_H
#define SKIFF_KERNEL_HOST_H

#include "kernel/config.h"

struct boot_info;

extern const struct boot_info *host_boot; // set first of all, never changed
extern struct host_config host_config;    // after host.cfg was parsed; defaults where it is wrong
extern char host_config_error[320];       // what is wrong with it; "" when nothing is

#endif
