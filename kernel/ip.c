// SPDX-License-Identifier: MIT
// IPv4 and IPv6 addresses as text, with an optional prefix length.
#include "kernel/config.h"
#include "kernel/lib.h"

// A decimal number up to max without signs, blanks or leading zeros. Returns the end or NULL.
static const char *read_decimal(const char *s, unsigned max, unsigned *out)
{
    if (*s < '0' || *s > '9' || (s[0] == '0' && s[1] >= '0' && s[1] <= '9'))
        return NULL;
    unsigned v = 0;
    for (; *s >= '0' && *s <= '9'; s++) {
        v = v * 10 + (unsigned)(*s - '0');
        if (v > max)
            return NULL;
    }
    *out = v;
    return s;
}

static const char *read_ipv4(const char *s, u8 *bytes)
{
    for (int i = 0; i < 4; i++) {
        unsigned v;
        if (i && *s++ != '.')
            return NULL;
        s = read_decimal(s, 255, &v);
        if (!s)
            return NULL;
        bytes[i] = (u8)v;
    }
    return s;
}

static const char *read_group(const char *s, unsigned *out)
{
    unsigned v = 0;
    int n = 0;
    for (;; s++, n++) {
        unsigned d;
        if (*s >= '0' && *s <= '9')
            d = (unsigned)(*s - '0');
        else if ((*s | 0x20) >= 'a' && (*s | 0x20) <= 'f')
            d = (unsigned)((*s | 0x20) - 'a') + 10;
        else
            break;
        v = v << 4 | d;
        if (n == 4)
            return NULL;
    }
    *out = v;
    return n ? s : NULL;
}

// RFC 4291 2.2, forms 1 and 2.
static const char *read_ipv6(const char *s, u8 *bytes)
{
    unsigned group[8];
    int n = 0;
    int gap = -1; // groups before "::"
    if (s[0] == ':' && s[1] == ':') {
        gap = 0;
        s += 2;
    }
    while (n < 8 && *s && *s != '/') {
        const char *end = read_group(s, &group[n]);
        if (!end)
            return NULL;
        n++;
        s = end;
        if (*s != ':')
            break;
        s++;
        if (*s == ':') {
            if (gap >= 0)
                return NULL;
            gap = n;
            s++;
        } else if (!*s || *s == '/' || n == 8) {
            return NULL; // a single colon at the end
        }
    }
    if (gap < 0 ? n != 8 : n == 8)
        return NULL;
    memset(bytes, 0, 16);
    for (int i = 0; i < n; i++) {
        int at = gap >= 0 && i >= gap ? 8 - n + i : i;
        bytes[at * 2] = (u8)(group[i] >> 8);
        bytes[at * 2 + 1] = (u8)group[i];
    }
    return s;
}

int ip_parse(const char *s, struct ip_address *out)
{
    struct ip_address a = {0};
    a.family = strchr(s, ':') ? 6 : 4;
    const char *end = a.family == 6 ? read_ipv6(s, a.bytes) : read_ipv4(s, a.bytes);
    if (end && *end == '/') {
        unsigned prefix;
        end = read_decimal(end + 1, a.family == 6 ? 128 : 32, &prefix);
        if (!end || !prefix)
            return E_INVAL;
        a.prefix = (u8)prefix;
    }
    if (!end || *end)
        return E_INVAL;
    *out = a;
    return 0;
}

// The longest run of two or more zero groups, which RFC 5952 4.2 writes as "::".
static int longest_zero_run(const u8 *bytes, int *length)
{
    int best = -1;
    *length = 1;
    for (int i = 0; i < 8; i++) {
        int n = 0;
        while (i + n < 8 && !bytes[(i + n) * 2] && !bytes[(i + n) * 2 + 1])
            n++;
        if (n > *length) {
            best = i;
            *length = n;
        }
    }
    return best;
}

static void format_ipv6(const u8 *bytes, char *buf, size_t size)
{
    int length;
    int gap = longest_zero_run(bytes, &length);
    size_t at = 0;
    for (int i = 0; i < 8 && at < size;) {
        if (i == gap) {
            at += (size_t)snprintf(buf + at, size - at, "::");
            i += length;
            continue;
        }
        const char *colon = i && i != gap + length ? ":" : "";
        if (i && gap < 0)
            colon = ":";
        at += (size_t)snprintf(buf + at, size - at, "%s%x", colon,
                               (unsigned)bytes[i * 2] << 8 | bytes[i * 2 + 1]);
        i++;
    }
}

void ip_format(const struct ip_address *a, char *buf, size_t size)
{
    char text[48] = "none";
    const u8 *b = a->bytes;
    if (a->family == 4)
        snprintf(text, sizeof(text), "%u.%u.%u.%u", b[0], b[1], b[2], b[3]);
    else if (a->family == 6)
        format_ipv6(b, text, sizeof(text));
    if (a->family && a->prefix)
        snprintf(buf, size, "%s/%u", text, a->prefix);
    else
        snprintf(buf, size, "%s", text);
}
