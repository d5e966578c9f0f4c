// SPDX-License-Identifier: MIT
// JSON strings (RFC 8259 7) from text that anybody may have written.
#ifndef SKIFF_CONSOLE_JSON_H
#define SKIFF_CONSOLE_JSON_H

#include "kernel/types.h"

// Escapes s into buf with its quotes. Bytes that are not UTF-8 become U+FFFD. What does not fit is
// left out whole, so the result is always a valid string; size is 3 or more. Returns its length.
size_t json_string(char *buf, size_t size, const char *s);

#endif
