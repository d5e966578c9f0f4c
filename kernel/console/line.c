// SPDX-License-Identifier: MIT
// Line editing with the keys of a terminal (ECMA-48 sequences as xterm and linux send them).
#include "kernel/console/line.h"

#include "kernel/lib.h"

#define CTRL(c) ((c)&0x1f)

enum { ESC_NONE, ESC_START, ESC_CSI, ESC_SS3 };

static void emit(struct line *l, const char *s)
{
    l->emit(s, strlen(s));
}

static void bell(struct line *l)
{
    emit(l, "\a");
}

static void back(struct line *l, u32 columns)
{
    char seq[16];
    if (!columns)
        return;
    snprintf(seq, sizeof(seq), "\x1b[%uD", columns);
    emit(l, seq);
}

void line_erase(struct line *l)
{
    emit(l, "\r\x1b[K");
}

void line_draw(struct line *l)
{
    emit(l, l->prompt);
    emit(l, l->text);
    back(l, l->len - l->cursor);
}

void line_reset(struct line *l)
{
    l->text[0] = 0;
    l->len = l->cursor = 0;
    l->browsing = 0;
    l->escape = ESC_NONE;
}

// Draws from the cursor to the end again, after a change there.
static void draw_tail(struct line *l)
{
    emit(l, l->text + l->cursor);
    emit(l, "\x1b[K");
    back(l, l->len - l->cursor);
}

static void insert_char(struct line *l, char c)
{
    if (l->len + 1 >= LINE_BYTES) {
        bell(l);
        return;
    }
    memmove(l->text + l->cursor + 1, l->text + l->cursor, l->len - l->cursor + 1);
    l->text[l->cursor++] = c;
    l->len++;
    l->emit(&c, 1); // at the end of the line this is all there is to draw
    if (l->cursor < l->len)
        draw_tail(l);
}

void line_insert(struct line *l, const char *s)
{
    while (*s)
        insert_char(l, *s++);
}

// Removes [from, to) and leaves the cursor there.
static void remove_range(struct line *l, u32 from, u32 to)
{
    if (from == to) {
        bell(l);
        return;
    }
    memmove(l->text + from, l->text + to, l->len - to + 1);
    l->len -= to - from;
    if (l->cursor > from) // removed before or around the cursor
        back(l, l->cursor - from);
    l->cursor = from;
    draw_tail(l);
}

static void kill_range(struct line *l, u32 from, u32 to)
{
    memcpy(l->killed, l->text + from, to - from);
    l->killed[to - from] = 0;
    remove_range(l, from, to);
}

static void move_to(struct line *l, u32 at)
{
    if (at < l->cursor)
        back(l, l->cursor - at);
    else
        l->emit(l->text + l->cursor, at - l->cursor);
    l->cursor = at;
}

static u32 word_left(const struct line *l)
{
    u32 at = l->cursor;
    while (at && l->text[at - 1] == ' ')
        at--;
    while (at && l->text[at - 1] != ' ')
        at--;
    return at;
}

static u32 word_right(const struct line *l)
{
    u32 at = l->cursor;
    while (at < l->len && l->text[at] == ' ')
        at++;
    while (at < l->len && l->text[at] != ' ')
        at++;
    return at;
}

static void replace(struct line *l, const char *text)
{
    move_to(l, 0);
    l->len = (u32)strlcpy(l->text, text, LINE_BYTES);
    emit(l, l->text);
    emit(l, "\x1b[K");
    l->cursor = l->len;
}

void line_remember(struct line *l)
{
    const char *last = l->history[(l->history_count - 1) % LINE_HISTORY];
    if (!l->len || (l->history_count && !strcmp(last, l->text)))
        return;
    strlcpy(l->history[l->history_count++ % LINE_HISTORY], l->text, LINE_BYTES);
}

static void browse(struct line *l, bool older)
{
    u32 kept = MIN(l->history_count, (u32)LINE_HISTORY);
    if (older ? l->browsing == kept : l->browsing == 0) {
        bell(l);
        return;
    }
    if (!l->browsing)
        strlcpy(l->typed, l->text, LINE_BYTES);
    l->browsing = older ? l->browsing + 1 : l->browsing - 1;
    if (l->browsing)
        replace(l, l->history[(l->history_count - l->browsing) % LINE_HISTORY]);
    else
        replace(l, l->typed);
}

static void delete_forward(struct line *l)
{
    remove_range(l, l->cursor, MIN(l->cursor + 1, l->len));
}

static enum line_event finish(struct line *l, enum line_event what)
{
    move_to(l, l->len);
    emit(l, what == LINE_CANCEL ? "^C\n" : "\n");
    if (what == LINE_CANCEL)
        line_reset(l);
    l->browsing = 0;
    return what;
}

static void control(struct line *l, u8 c)
{
    switch (c) {
    case CTRL('A'):
        return move_to(l, 0);
    case CTRL('B'):
        return move_to(l, l->cursor ? l->cursor - 1 : 0);
    case CTRL('D'):
        return delete_forward(l);
    case CTRL('E'):
        return move_to(l, l->len);
    case CTRL('F'):
        return move_to(l, MIN(l->cursor + 1, l->len));
    case CTRL('H'):
    case 0x7f:
        return remove_range(l, l->cursor ? l->cursor - 1 : 0, l->cursor);
    case CTRL('K'):
        return kill_range(l, l->cursor, l->len);
    case CTRL('N'):
        return browse(l, false);
    case CTRL('P'):
        return browse(l, true);
    case CTRL('U'):
        return kill_range(l, 0, l->cursor);
    case CTRL('W'):
        return kill_range(l, word_left(l), l->cursor);
    case CTRL('Y'):
        return line_insert(l, l->killed);
    default:
        bell(l);
    }
}

// The last byte of ESC [ ... or ESC O ...
static void key(struct line *l, u8 final)
{
    bool word = l->parameter == 5 || l->parameter == 3; // Ctrl- or Alt- with an arrow
    switch (final) {
    case 'A':
        return browse(l, true);
    case 'B':
        return browse(l, false);
    case 'C':
        return move_to(l, word ? word_right(l) : MIN(l->cursor + 1, l->len));
    case 'D':
        return move_to(l, word ? word_left(l) : l->cursor ? l->cursor - 1 : 0);
    case 'H':
        return move_to(l, 0);
    case 'F':
        return move_to(l, l->len);
    case '~':
        if (l->parameter == 1 || l->parameter == 7)
            return move_to(l, 0);
        if (l->parameter == 4 || l->parameter == 8)
            return move_to(l, l->len);
        if (l->parameter == 3)
            return delete_forward(l);
        break;
    }
    bell(l);
}

static void escape_byte(struct line *l, u8 c)
{
    if (l->escape == ESC_START) {
        l->parameter = 0;
        l->escape = c == '[' ? ESC_CSI : c == 'O' ? ESC_SS3 : ESC_NONE;
        if (c == 'b')
            move_to(l, word_left(l));
        else if (c == 'f')
            move_to(l, word_right(l));
        return;
    }
    if (c >= '0' && c <= '9') {
        l->parameter = (u8)(l->parameter * 10 + (c - '0'));
        return;
    }
    if (c == ';') { // the modifier, which follows, is what counts
        l->parameter = 0;
        return;
    }
    l->escape = ESC_NONE;
    if (c >= 0x40 && c < 0x7f)
        key(l, c);
}

enum line_event line_feed(struct line *l, u8 c)
{
    bool after_cr = l->after_cr;
    l->after_cr = c == '\r';
    if (c == 0x1b) {
        l->escape = ESC_START;
        return LINE_MORE;
    }
    if (l->escape && c >= ' ') {
        escape_byte(l, c);
        return LINE_MORE;
    }
    l->escape = ESC_NONE;
    if (c == '\r' || (c == '\n' && !after_cr))
        return finish(l, LINE_DONE);
    if (c == '\n')
        return LINE_MORE;
    if (c == '\t')
        return LINE_TAB;
    if (c == CTRL('C'))
        return finish(l, LINE_CANCEL);
    if (c == CTRL('L'))
        return LINE_CLEAR;
    if (c >= 0x80) // names, paths and verbs are ASCII
        bell(l);
    else if (c < ' ' || c == 0x7f)
        control(l, c);
    else
        insert_char(l, (char)c);
    return LINE_MORE;
}
