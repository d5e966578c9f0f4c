// SPDX-License-Identifier: MIT
// What guests write to their serial ports, kept until the console shows it.
#ifndef SKIFF_CONSOLE_TAP_H
#define SKIFF_CONSOLE_TAP_H

#include "kernel/types.h"

// Follows a guest by name, there or not: its lines are shown as "NAME| text".
// 0, E_NOMEM, or E_BUSY when too many are followed.
int tap_follow(const char *name);
void tap_unfollow(const char *name);
const char *tap_followed(unsigned i); // i-th name, NULL after the last

// For an attached console: the guest's bytes as they come, from now on.
struct tap;
struct tap *tap_attach(const char *name, int *error);
void tap_detach(struct tap *t);
size_t tap_used(const struct tap *t);
size_t tap_read(struct tap *t, char *buf, size_t size);

bool tap_any(void); // any open at all
bool tap_has_line(void);
bool tap_take_line(char *buf, size_t size); // of any followed guest, without its end
// Connects taps with guests that have come meanwhile. About every 100 ms.
void tap_bind(void);

#endif
