// SPDX-License-Identifier: MIT
// UUIDs: text form (RFC 9562 4), and those derived from the names of host and guest.
#include "kernel/config.h"
#include "kernel/lib.h"

static int hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

static bool dash_before(unsigned byte)
{
    return byte == 4 || byte == 6 || byte == 8 || byte == 10;
}

int uuid_parse(const char *s, u8 out[16])
{
    u8 bytes[16];
    for (unsigned i = 0; i < 16; i++) {
        if (dash_before(i) && *s++ != '-')
            return E_INVAL;
        int high = hex_value(s[0]);
        int low = high < 0 ? -1 : hex_value(s[1]);
        if (low < 0)
            return E_INVAL;
        bytes[i] = (u8)(high << 4 | low);
        s += 2;
    }
    if (*s)
        return E_INVAL;
    memcpy(out, bytes, 16);
    return 0;
}

void uuid_format(const u8 uuid[16], char buf[37])
{
    char *p = buf;
    for (unsigned i = 0; i < 16; i++) {
        if (dash_before(i))
            *p++ = '-';
        snprintf(p, 3, "%02x", uuid[i]);
        p += 2;
    }
}

// FNV-1a; the terminating zero is part of the text, so that "ab"+"c" and "a"+"bc" differ.
static u64 fnv1a(u64 h, const char *s)
{
    do
        h = (h ^ (u8)*s) * 0x100000001b3ull;
    while (*s++);
    return h;
}

void uuid_from_names(const char *host, const char *guest, u8 out[16])
{
    u64 a = fnv1a(fnv1a(0xcbf29ce484222325ull, host), guest);
    u64 b = fnv1a(fnv1a(~a, guest), host);
    memcpy(out, &a, 8);
    memcpy(out + 8, &b, 8);
    out[6] = (out[6] & 0x0f) | 0x80; // version 8
    out[8] = (out[8] & 0x3f) | 0x80; // variant
}
