// SPDX-License-Identifier: MIT
// Making and unmaking the dirty log of a guest, for kernel/guest/memory.c alone.
#ifndef SKIFF_GUEST_DIRTY_H
#define SKIFF_GUEST_DIRTY_H

#include "kernel/guest/memory.h"

int dirty_log_create(struct guest *g); // for g->memory.bytes of RAM; 0 or E_NOMEM
void dirty_log_destroy(struct guest *g);

#endif
