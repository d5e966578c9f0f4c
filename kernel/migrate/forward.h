// SPDX-License-Identifier: MIT
// Frames for a guest that has moved away follow it, for some seconds.
#ifndef SKIFF_MIGRATE_FORWARD_H
#define SKIFF_MIGRATE_FORWARD_H

#include "kernel/migrate/stream.h"

struct guest;

// The destination has said RUNNING; the guest here stands still and is taken apart afterwards.
// True: the stream is taken over, and closed when nothing comes any more.
bool forward_begin(struct guest *g, struct stream *s);
// A FRAME from the host that the guest came from.
int forward_take(struct stream *s, const struct record *r);

#endif
