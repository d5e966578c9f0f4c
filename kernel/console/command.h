// SPDX-License-Identifier: MIT
// Commands of the console: the table's rows and what a running command is given.
#ifndef SKIFF_CONSOLE_COMMAND_H
#define SKIFF_CONSOLE_COMMAND_H

#include "kernel/console/out.h"
#include "kernel/types.h"

#define COMMAND_MAX_ARGS 4
#define COMMAND_WORDS    16

struct call {
    const struct command *command;
    const char *arg[COMMAND_MAX_ARGS]; // NULL where an optional one was not given
    u32 options;                       // bit i: the i-th word of command->options was given
    struct out *out;
    struct guest *guest; // a reference that find_guest took; put when the command ends
};

struct command {
    const char *name;
    // Arguments, which also say what completes them: NAME is a guest, PEER a peer, DISK a disk,
    // STORE a datastore, VOLUME a volume, WHAT a datastore or a disk, JOB a job id, COMMAND a
    // command, "a|b" a choice; [X] is optional.
    const char *args;
    const char *options; // "--check --detach"; --format is every command's
    const char *summary; // one line
    const char *details; // more lines for `help COMMAND`, or NULL
    void (*run)(struct call *c);
};

// The groups, each ended by a NULL name.
extern const struct command host_commands[], guest_commands[], attach_commands[], move_commands[],
    disk_commands[], store_commands[];
const struct command *command_find(const char *name);
const struct command *command_next(const struct command *c); // NULL: the first; NULL at the end
bool option_given(const struct call *c, const char *option);

// Runs one line of input. Wrong input is answered with one line; an empty line with nothing.
void command_run(char *line, void (*sink)(void *arg, const char *s, size_t n), void *arg);

void command_help(struct call *c);

// All ways the word that ends at `line`'s end could go on, each given to found() whole.
// Returns where that word begins.
size_t command_complete(const char *line, void (*found)(void *arg, const char *word), void *arg);

// Words an argument of this kind could be (NAME, PEER, DISK, STORE, VOLUME, JOB, COMMAND or "a|b").
void argument_words(const char *kind, size_t kind_len, void (*found)(void *arg, const char *word),
                    void *arg);

#endif
