// SPDX-License-Identifier: MIT
// The XSAVE area of a vCPU's state, in one form that does not depend on the host it was saved on.
#ifndef SKIFF_GUEST_XSAVE_AREA_H
#define SKIFF_GUEST_XSAVE_AREA_H

#include "kernel/guest/guest.h"

// Fills s->xsave and s->xsave_size from the area that v's parked thread has saved.
void xsave_take(const struct vcpu *v, struct vcpu_state *s);
// NULL when this host can load the area for this guest, else what is wrong with it.
const char *xsave_check(const struct guest *g, const struct vcpu_state *s);

#endif
