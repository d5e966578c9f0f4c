// SPDX-License-Identifier: MIT
// The host's log: a ring kept in memory, copied to the console as it grows.
#ifndef SKIFF_KERNEL_LOG_H
#define SKIFF_KERNEL_LOG_H

#include "kernel/types.h"

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };

// area: the room or guest concerned ("vmx", "net", "guest web"). One line, no newline at the end.
// Callable from any context, interrupt handlers included.
void log_write(enum log_level level, const char *area, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

#define log_error(area, ...) log_write(LOG_ERROR, area, __VA_ARGS__)
#define log_warn(area, ...)  log_write(LOG_WARN, area, __VA_ARGS__)
#define log_info(area, ...)  log_write(LOG_INFO, area, __VA_ARGS__)
#define log_debug(area, ...) log_write(LOG_DEBUG, area, __VA_ARGS__)

// Lines above this level are dropped; LOG_INFO until the config says otherwise.
void log_set_level(enum log_level level);
const char *log_level_name(enum log_level level); // "error", "warn", "info", "debug"

struct log_entry {
    u64 seq;
    u64 time_ns; // host monotonic time
    enum log_level level;
    char area[16];
    char text[200]; // longer lines are cut
};

// Copies entry seq (or the oldest kept one after it) to *out. Returns false where there is none.
bool log_get(u64 seq, struct log_entry *out);

u64 log_next_seq(void); // of the line that comes next

// With a sink, lines reach the serial port late. Whoever shows them says how far it is, and a crash
// prints the rest (serial_write, no locks taken).
void log_shown_up_to(u64 next_seq);
void log_print_unshown(void);

// Where each line goes as it is written; set by the console so it can redraw its prompt. Called in
// any context, interrupt handlers included, so a sink only wakes somebody who reads the ring.
// NULL: straight to the serial port.
void log_set_sink(void (*sink)(const struct log_entry *e));
// Formats as the console shows it: "[   12.345678] info  area: text" (no newline).
void log_format(const struct log_entry *e, char *buf, size_t size);

#endif
