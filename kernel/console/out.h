// SPDX-License-Identifier: MIT
// A command's output, as text for people or as JSON with one object a line. Fields are described
// once: their key ends in the unit (_ns, _us, _ms, _bytes, _mib, _hz), which the text form spells
// out.
#ifndef SKIFF_CONSOLE_OUT_H
#define SKIFF_CONSOLE_OUT_H

#include "kernel/types.h"

struct ip_address;

struct out {
    bool json;
    void (*sink)(void *arg, const char *s, size_t n); // gets whole lines, or 8 KiB of one
    void *arg;
    size_t len;
    bool comma; // in an object that has a field already
    bool in_list;
    char buf[8192]; // a command that holds a lock fits in whole
};

void out_init(struct out *o, bool json, void (*sink)(void *arg, const char *s, size_t n),
              void *arg);
void out_flush(struct out *o);

// Text as it is; left out in JSON.
void out_printf(struct out *o, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

void out_begin(struct out *o); // one object; in text, lines of "key: value"
void out_end(struct out *o);
void out_str(struct out *o, const char *key, const char *value);
void out_u64(struct out *o, const char *key, u64 value);
void out_bool(struct out *o, const char *key, bool value);
void out_ip(struct out *o, const char *key, const struct ip_address *a); // left out when unset
void out_uuid(struct out *o, const char *key, const u8 uuid[16]);
// A list of strings under one key.
void out_list_begin(struct out *o, const char *key);
void out_list_str(struct out *o, const char *value);
void out_list_end(struct out *o);

// "error: ..." or {"error": "..."}, one line.
void out_error(struct out *o, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

// Figures as people read them: "12.3 MiB", "1.250 s". buf of 24 bytes.
const char *format_bytes(char *buf, u64 bytes);
const char *format_ns(char *buf, u64 ns);

#endif
