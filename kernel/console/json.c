// SPDX-License-Identifier: MIT
// JSON strings: escapes, and a check of UTF-8.
#include "kernel/console/json.h"

#include "kernel/lib.h"

// Length of the well-formed UTF-8 sequence at s (RFC 3629 4), 0 when there is none.
static size_t utf8_length(const u8 *s)
{
    if (s[0] < 0x80)
        return 1;
    size_t n = s[0] >= 0xf0 ? 4 : s[0] >= 0xe0 ? 3 : 2;
    if (s[0] < 0xc2 || s[0] > 0xf4)
        return 0;
    for (size_t i = 1; i < n; i++)
        if ((s[i] & 0xc0) != 0x80)
            return 0;
    bool overlong = (s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xf0 && s[1] < 0x90);
    bool beyond = (s[0] == 0xed && s[1] > 0x9f) || (s[0] == 0xf4 && s[1] > 0x8f);
    return overlong || beyond ? 0 : n;
}

// One character of s as JSON wants it. Returns the bytes of s it took.
static size_t escape(char out[8], const u8 *s)
{
    size_t n = utf8_length(s);
    if (n == 0) {
        strlcpy(out, "\\ufffd", 8);
        return 1;
    }
    if (n == 1 && (*s == '"' || *s == '\\'))
        snprintf(out, 8, "\\%c", *s);
    else if (n == 1 && *s == '\n')
        strlcpy(out, "\\n", 8);
    else if (n == 1 && (*s < ' ' || *s == 0x7f))
        snprintf(out, 8, "\\u%04x", *s);
    else {
        memcpy(out, s, n);
        out[n] = 0;
    }
    return n;
}

size_t json_string(char *buf, size_t size, const char *s)
{
    size_t at = 0;
    buf[at++] = '"';
    for (const u8 *p = (const u8 *)s; *p;) {
        char piece[8];
        p += escape(piece, p);
        size_t n = strlen(piece);
        if (at + n + 2 > size)
            break;
        memcpy(buf + at, piece, n);
        at += n;
    }
    buf[at++] = '"';
    buf[at] = 0;
    return at;
}
