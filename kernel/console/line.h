// SPDX-License-Identifier: MIT
// The line editor: bytes from a terminal in, an edited line and what to draw out. Knows nothing of
// the serial port, so that tests can drive it.
#ifndef SKIFF_CONSOLE_LINE_H
#define SKIFF_CONSOLE_LINE_H

#include "kernel/types.h"

#define LINE_BYTES   256
#define LINE_HISTORY 32

enum line_event {
    LINE_MORE,   // go on
    LINE_DONE,   // Enter: text is complete
    LINE_TAB,    // the caller completes with line_insert
    LINE_CANCEL, // Ctrl-C: text was discarded
    LINE_CLEAR,  // Ctrl-L: the caller clears the screen and redraws
};

struct line {
    const char *prompt;
    void (*emit)(const char *s, size_t n);
    char text[LINE_BYTES]; // terminated
    u32 len, cursor;
    u8 escape;               // where in an escape sequence
    u8 parameter;            // its number
    bool after_cr;           // swallow the LF of a CR LF
    char killed[LINE_BYTES]; // by Ctrl-K, -U and -W, for Ctrl-Y
    char history[LINE_HISTORY][LINE_BYTES];
    u32 history_count;      // ever stored
    u32 browsing;           // steps back, 0: the line being typed
    char typed[LINE_BYTES]; // that line, while browsing
};

enum line_event line_feed(struct line *l, u8 c);
void line_reset(struct line *l); // an empty line, nothing drawn
void line_draw(struct line *l);  // prompt, text, cursor; from column 0 of an empty row
void line_erase(struct line *l); // the row it is drawn in
void line_insert(struct line *l, const char *s);
void line_remember(struct line *l); // into the history, unless empty or repeated

#endif
