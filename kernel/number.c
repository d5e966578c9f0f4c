// SPDX-License-Identifier: MIT
// Numbers from text.
#include "kernel/lib.h"

static int digit_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return 16;
}

int parse_u64(const char *s, u64 *out)
{
    u64 base = 10;
    if (s[0] == '0' && (s[1] == 'x' || s[1] == 'X')) {
        base = 16;
        s += 2;
    }
    if (!*s)
        return E_INVAL;
    u64 v = 0;
    for (; *s; s++) {
        u64 d = (u64)digit_value(*s);
        if (d >= base || v > (UINT64_MAX - d) / base)
            return E_INVAL;
        v = v * base + d;
    }
    *out = v;
    return 0;
}

int parse_bytes(const char *s, u64 *out)
{
    static const char units[] = "KMGT";
    char digits[24];
    size_t n = strlen(s);
    if (!n || n >= sizeof(digits))
        return E_INVAL;
    const char *unit = strchr(units, s[n - 1] & ~0x20);
    unsigned shift = s[n - 1] > '9' && unit ? 10 * (unsigned)(unit - units + 1) : 0;
    strlcpy(digits, s, shift ? n : n + 1);
    if (parse_u64(digits, out) || *out > UINT64_MAX >> shift)
        return E_INVAL;
    *out <<= shift;
    return 0;
}
