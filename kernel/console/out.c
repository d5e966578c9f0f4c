// SPDX-License-Identifier: MIT
// Writes fields as text or as JSON.
#include "kernel/console/out.h"

#include "kernel/config.h"
#include "kernel/console/json.h"
#include "kernel/lib.h"

#define FIGURE 24

void out_init(struct out *o, bool json, void (*sink)(void *arg, const char *s, size_t n), void *arg)
{
    *o = (struct out){.json = json, .sink = sink, .arg = arg};
}

void out_flush(struct out *o)
{
    if (o->len)
        o->sink(o->arg, o->buf, o->len);
    o->len = 0;
}

// Hands on the whole lines there are: the log's may come between two pieces.
static void make_room(struct out *o)
{
    size_t whole = o->len;
    while (whole && o->buf[whole - 1] != '\n')
        whole--;
    if (!whole)
        whole = o->len;
    o->sink(o->arg, o->buf, whole);
    memmove(o->buf, o->buf + whole, o->len - whole);
    o->len -= whole;
}

static void put(struct out *o, const char *s, size_t n)
{
    while (n) {
        if (o->len == sizeof(o->buf))
            make_room(o);
        size_t k = MIN(n, sizeof(o->buf) - o->len);
        memcpy(o->buf + o->len, s, k);
        o->len += k;
        s += k;
        n -= k;
    }
}

__attribute__((format(printf, 2, 3))) static void putf(struct out *o, const char *fmt, ...)
{
    char line[1100]; // the longest text there is, a command line, and its key
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(line, sizeof(line), fmt, ap);
    va_end(ap);
    put(o, line, strlen(line));
}

static void put_json(struct out *o, const char *s)
{
    char text[1200]; // the longest field of ours, should every byte need an escape, is cut
    put(o, text, json_string(text, sizeof(text), s));
}

void out_printf(struct out *o, const char *fmt, ...)
{
    if (o->json)
        return;
    char line[1024];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(line, sizeof(line), fmt, ap);
    va_end(ap);
    put(o, line, strlen(line));
}

void out_begin(struct out *o)
{
    o->comma = false;
    if (o->json)
        put(o, "{", 1);
}

void out_end(struct out *o)
{
    if (o->json)
        put(o, "}\n", 2);
}

static const char *const units[] = {"_ns", "_us", "_ms", "_bytes", "_mib", "_hz"};

static const char *unit_of(const char *key)
{
    size_t n = strlen(key);
    for (size_t i = 0; i < ARRAY_SIZE(units); i++) {
        size_t k = strlen(units[i]);
        if (n > k && !strcmp(key + n - k, units[i]))
            return units[i];
    }
    return "";
}

static void put_key(struct out *o, const char *key)
{
    if (o->json) {
        if (o->comma)
            put(o, ", ", 2);
        o->comma = true;
        putf(o, "\"%s\": ", key);
        return;
    }
    char label[40];
    strlcpy(label, key, sizeof(label));
    label[strlen(label) - strlen(unit_of(label))] = 0;
    for (char *p = label; *p; p++)
        if (*p == '_')
            *p = ' ';
    putf(o, "%-22s ", label);
}

static void end_value(struct out *o)
{
    if (!o->json)
        put(o, "\n", 1);
}

void out_str(struct out *o, const char *key, const char *value)
{
    put_key(o, key);
    if (o->json)
        put_json(o, value);
    else
        putf(o, "%s", *value ? value : "-");
    end_value(o);
}

const char *format_bytes(char *buf, u64 bytes)
{
    static const char *const names[] = {"bytes", "KiB", "MiB", "GiB", "TiB"};
    unsigned i = 0;
    u64 rest = 0;
    for (; bytes >= 1024 && i + 1 < ARRAY_SIZE(names); i++) {
        rest = bytes % 1024;
        bytes /= 1024;
    }
    if (i)
        snprintf(buf, FIGURE, "%llu.%llu %s", (unsigned long long)bytes,
                 (unsigned long long)(rest * 10 / 1024), names[i]);
    else
        snprintf(buf, FIGURE, "%llu %s", (unsigned long long)bytes, names[0]);
    return buf;
}

const char *format_ns(char *buf, u64 ns)
{
    if (ns >= NS_PER_SEC)
        snprintf(buf, FIGURE, "%llu.%03llu s", (unsigned long long)(ns / NS_PER_SEC),
                 (unsigned long long)(ns % NS_PER_SEC / NS_PER_MS));
    else
        snprintf(buf, FIGURE, "%llu.%03llu ms", (unsigned long long)(ns / NS_PER_MS),
                 (unsigned long long)(ns % NS_PER_MS / NS_PER_US));
    return buf;
}

static const char *format_unit(char *buf, const char *unit, u64 v)
{
    if (!strcmp(unit, "_bytes"))
        return format_bytes(buf, v);
    if (!strcmp(unit, "_mib"))
        return format_bytes(buf, v * MIB);
    if (!strcmp(unit, "_ns"))
        return format_ns(buf, v);
    if (!strcmp(unit, "_us"))
        return format_ns(buf, v * NS_PER_US);
    if (!strcmp(unit, "_ms"))
        return format_ns(buf, v * NS_PER_MS);
    snprintf(buf, FIGURE, "%llu Hz", (unsigned long long)v);
    return buf;
}

void out_u64(struct out *o, const char *key, u64 value)
{
    const char *unit = unit_of(key);
    char figure[FIGURE];
    put_key(o, key);
    if (o->json || !*unit)
        putf(o, "%llu", (unsigned long long)value);
    else
        putf(o, "%s", format_unit(figure, unit, value));
    end_value(o);
}

void out_bool(struct out *o, const char *key, bool value)
{
    put_key(o, key);
    putf(o, "%s", o->json ? (value ? "true" : "false") : (value ? "yes" : "no"));
    end_value(o);
}

void out_ip(struct out *o, const char *key, const struct ip_address *a)
{
    if (!a->family)
        return;
    char text[64];
    ip_format(a, text, sizeof(text));
    out_str(o, key, text);
}

void out_uuid(struct out *o, const char *key, const u8 uuid[16])
{
    char text[37];
    uuid_format(uuid, text);
    out_str(o, key, text);
}

void out_list_begin(struct out *o, const char *key)
{
    put_key(o, key);
    o->in_list = false;
    if (o->json)
        put(o, "[", 1);
}

void out_list_str(struct out *o, const char *value)
{
    if (o->in_list)
        put(o, ", ", 2);
    o->in_list = true;
    if (o->json)
        put_json(o, value);
    else
        put(o, value, strlen(value));
}

void out_list_end(struct out *o)
{
    if (o->json)
        put(o, "]", 1);
    end_value(o);
}

void out_error(struct out *o, const char *fmt, ...)
{
    char text[512];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    if (o->json) {
        out_begin(o);
        out_str(o, "error", text);
        out_end(o);
    } else {
        putf(o, "error: ");
        put(o, text, strlen(text));
        put(o, "\n", 1);
    }
}
