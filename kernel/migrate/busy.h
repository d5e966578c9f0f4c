// SPDX-License-Identifier: MIT
// What a connection costs the host it ends at.
#ifndef SKIFF_MIGRATE_BUSY_H
#define SKIFF_MIGRATE_BUSY_H

#include "kernel/types.h"

// CPU time of the two threads a connection needs: the calling one, and the one of all connections.
u64 busy_cpu_ns(void);
// And what guests used of the CPU while another thread waited for it: at a destination they will do
// so to the end.
u64 busy_ns(void);

#endif
