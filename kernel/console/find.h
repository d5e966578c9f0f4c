// SPDX-License-Identifier: MIT
// What commands look up by name, with the sentence for what is not there.
#ifndef SKIFF_CONSOLE_FIND_H
#define SKIFF_CONSOLE_FIND_H

#include "kernel/console/command.h"
#include "kernel/guest/guest.h"
#include "storage/block.h"

// The call keeps a reference to the guest found last. NULL: the error was written.
struct guest *find_guest(struct call *c, const char *name);
bool find_peer(struct call *c, const char *name);
bool find_store(struct call *c, const char *name);
struct block_device *find_disk(struct call *c, const char *name); // NULL: the error was written
bool find_number(struct call *c, const char *what, const char *text, u64 *out);

#endif
