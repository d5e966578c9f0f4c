// SPDX-License-Identifier: MIT
// The serial line as a screen: who may write to it when, and the log lines between.
#ifndef SKIFF_CONSOLE_SCREEN_H
#define SKIFF_CONSOLE_SCREEN_H

#include "kernel/thread.h"
#include "kernel/types.h"

enum screen_mode {
    SCREEN_EDITING,  // prompt and line: everything is printed above them
    SCREEN_RUNNING,  // a command writes whole lines: log lines come between, guests' lines wait
    SCREEN_WATCHING, // a command waits for something: both come between
    SCREEN_ATTACHED, // the line belongs to a guest's console: both wait
};

// Bytes came in, a line was logged, a guest wrote, the mode changed. Both of the console's threads
// wait here.
extern struct waitq screen_event;

// prompt_draw and prompt_erase are called, screen locked, around what is printed while editing.
void screen_start(void (*prompt_draw)(void), void (*prompt_erase)(void));
void screen_lock(void);
void screen_unlock(void);
void screen_write(const char *s, size_t n);  // locked; paced to the line's speed
void screen_set_mode(enum screen_mode mode); // locked
void screen_print(const char *s, size_t n);  // lock, write, unlock

#endif
