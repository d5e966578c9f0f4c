// SPDX-License-Identifier: MIT
// Formatted printing into a buffer: the subset of C's printf that kernel/lib.h names.
#include "kernel/lib.h"

struct out {
    char *buf;
    size_t size;
    size_t len; // what the whole text needs, kept or not
};

struct spec {
    bool minus, zero, plus, space, alt;
    int width;
    int precision; // -1: none given
    int longness;  // bytes of the integer argument
    char conv;
};

static void put(struct out *o, char c)
{
    if (o->len + 1 < o->size)
        o->buf[o->len] = c;
    o->len++;
}

static void put_n(struct out *o, char c, int n)
{
    while (n-- > 0)
        put(o, c);
}

static void put_text(struct out *o, const struct spec *sp, const char *s)
{
    if (!s)
        s = "(null)";
    size_t max = sp->precision >= 0 ? (size_t)sp->precision : (size_t)-1;
    int n = (int)strnlen(s, max);
    if (!sp->minus)
        put_n(o, ' ', sp->width - n);
    for (int i = 0; i < n; i++)
        put(o, s[i]);
    if (sp->minus)
        put_n(o, ' ', sp->width - n);
}

static int digits(u64 v, unsigned base, bool upper, char *tmp)
{
    const char *set = upper ? "0123456789ABCDEF" : "0123456789abcdef";
    int n = 0;
    for (; v; v /= base)
        tmp[n++] = set[v % base];
    return n;
}

static void put_number(struct out *o, const struct spec *sp, u64 v, bool negative)
{
    char tmp[24];
    bool hex = sp->conv == 'x' || sp->conv == 'X' || sp->conv == 'p';
    int n = digits(v, hex ? 16 : 10, sp->conv == 'X', tmp);
    const char *prefix = negative ? "-" : sp->plus ? "+" : sp->space ? " " : "";
    if (hex)
        prefix = sp->conv == 'p' || (sp->alt && v) ? (sp->conv == 'X' ? "0X" : "0x") : "";
    int zeros = (sp->precision < 0 ? 1 : sp->precision) - n;
    zeros = MAX(zeros, 0);
    int pad = sp->width - (int)strlen(prefix) - zeros - n;
    if (sp->zero && !sp->minus && sp->precision < 0 && pad > 0) {
        zeros += pad;
        pad = 0;
    }
    if (!sp->minus)
        put_n(o, ' ', pad);
    for (; *prefix; prefix++)
        put(o, *prefix);
    put_n(o, '0', zeros);
    while (n > 0)
        put(o, tmp[--n]);
    if (sp->minus)
        put_n(o, ' ', pad);
}

static bool parse_flag(struct spec *sp, char c)
{
    switch (c) {
    case '-':
        return sp->minus = true;
    case '0':
        return sp->zero = true;
    case '+':
        return sp->plus = true;
    case ' ':
        return sp->space = true;
    case '#':
        return sp->alt = true;
    default:
        return false;
    }
}

static const char *parse_count(const char *f, int *out)
{
    int v = 0;
    for (; *f >= '0' && *f <= '9'; f++)
        v = v < 100000 ? v * 10 + (*f - '0') : v;
    *out = v;
    return f;
}

static const char *parse_length(const char *f, struct spec *sp)
{
    sp->longness = sizeof(int);
    if (*f == 'h') {
        sp->longness = *++f == 'h' ? 1 : 2;
        return sp->longness == 1 ? f + 1 : f;
    }
    while (*f == 'l' || *f == 'z' || *f == 'j' || *f == 't') {
        sp->longness = 8;
        f++;
    }
    return f;
}

static s64 sign_extend(s64 v, int bytes)
{
    int shift = 64 - bytes * 8;
    return (s64)((u64)v << shift) >> shift;
}

static u64 zero_extend(u64 v, int bytes)
{
    int shift = 64 - bytes * 8;
    return v << shift >> shift;
}

// va_list is an array type here; the struct lets helpers share one.
struct args {
    va_list ap;
};

static u64 next_integer(struct args *a, int bytes)
{
    return bytes == 8 ? va_arg(a->ap, u64) : va_arg(a->ap, unsigned);
}

static const char *parse_spec(const char *f, struct spec *sp, struct args *a)
{
    *sp = (struct spec){.precision = -1};
    while (parse_flag(sp, *f))
        f++;
    if (*f == '*') {
        sp->width = va_arg(a->ap, int);
        f++;
        if (sp->width < 0) {
            sp->minus = true;
            sp->width = -sp->width;
        }
    } else {
        f = parse_count(f, &sp->width);
    }
    if (*f == '.') {
        if (*++f == '*') {
            sp->precision = va_arg(a->ap, int);
            f++;
        } else {
            f = parse_count(f, &sp->precision);
        }
    }
    f = parse_length(f, sp);
    sp->conv = *f;
    return *f ? f + 1 : f;
}

static void convert(struct out *o, struct spec *sp, struct args *a)
{
    switch (sp->conv) {
    case 'd':
    case 'i': {
        s64 v = sign_extend((s64)next_integer(a, sp->longness), sp->longness);
        put_number(o, sp, v < 0 ? 0 - (u64)v : (u64)v, v < 0);
        return;
    }
    case 'u':
    case 'x':
    case 'X':
        sp->plus = sp->space = false;
        put_number(o, sp, zero_extend(next_integer(a, sp->longness), sp->longness), false);
        return;
    case 'p':
        put_number(o, sp, (u64)(uintptr_t)va_arg(a->ap, void *), false);
        return;
    case 'c': {
        char s[2] = {(char)va_arg(a->ap, int), 0};
        sp->precision = -1;
        if (s[0])
            put_text(o, sp, s);
        else
            put(o, 0);
        return;
    }
    case 's':
        put_text(o, sp, va_arg(a->ap, const char *));
        return;
    case '%':
        put(o, '%');
        return;
    default: // an unknown conversion shows up in the text instead of eating an argument
        put(o, '%');
        if (sp->conv)
            put(o, sp->conv);
    }
}

int vsnprintf(char *buf, size_t size, const char *fmt, va_list ap)
{
    struct out o = {.buf = buf, .size = size};
    struct args a;
    va_copy(a.ap, ap);
    while (*fmt) {
        if (*fmt != '%') {
            put(&o, *fmt++);
            continue;
        }
        struct spec sp;
        fmt = parse_spec(fmt + 1, &sp, &a);
        convert(&o, &sp, &a);
    }
    va_end(a.ap);
    if (size)
        buf[MIN(o.len, size - 1)] = 0;
    return (int)o.len;
}

int snprintf(char *buf, size_t size, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(buf, size, fmt, ap);
    va_end(ap);
    return n;
}
