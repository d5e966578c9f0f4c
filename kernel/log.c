// SPDX-License-Identifier: MIT
// The log ring: lines of varying length packed in a byte ring, the oldest dropped for the newest.
#include "kernel/log.h"

#include "arch/x86/cpu.h"
#include "kernel/lib.h"
#include "kernel/thread.h"
#include "kernel/time.h"

#define RING_BYTES (64 * 1024u)

// A line in the ring: this header, then the area and the text, both without a terminator.
struct record {
    u64 time_ns;
    u8 level;
    u8 area_len;
    u8 text_len;
    u8 pad[5];
};
static_assert(sizeof(struct record) == 16, "log record header");
static_assert(sizeof(((struct log_entry *)0)->text) <= 256, "text_len is a byte");

static struct spinlock lock;
static u8 ring[RING_BYTES];
static u32 head, tail;          // byte offsets that only grow, modulo RING_BYTES; lock
static u64 first_seq, next_seq; // of the record at tail, of the one to come; lock
static u64 shown_seq;           // the first line the sink has not shown
static enum log_level threshold = LOG_INFO;
static void (*sink)(const struct log_entry *e);

static void ring_write(u32 at, const void *src, u32 n)
{
    u32 i = at % RING_BYTES;
    u32 k = MIN(n, RING_BYTES - i);
    memcpy(ring + i, src, k);
    memcpy(ring, (const u8 *)src + k, n - k);
}

static void ring_read(u32 at, void *dst, u32 n)
{
    u32 i = at % RING_BYTES;
    u32 k = MIN(n, RING_BYTES - i);
    memcpy(dst, ring + i, k);
    memcpy((u8 *)dst + k, ring, n - k);
}

static u32 record_bytes(const struct record *r)
{
    return sizeof(*r) + r->area_len + r->text_len;
}

static u32 skip_record(u32 at)
{
    struct record r;
    ring_read(at, &r, sizeof(r));
    return at + record_bytes(&r);
}

static void append(struct log_entry *e)
{
    struct record r = {.time_ns = e->time_ns,
                       .level = (u8)e->level,
                       .area_len = (u8)strlen(e->area),
                       .text_len = (u8)strlen(e->text)};
    u32 need = record_bytes(&r);
    u64 flags = spin_lock_irqsave(&lock);
    while (RING_BYTES - (head - tail) < need) {
        tail = skip_record(tail);
        first_seq++;
    }
    ring_write(head, &r, sizeof(r));
    ring_write(head + sizeof(r), e->area, r.area_len);
    ring_write(head + sizeof(r) + r.area_len, e->text, r.text_len);
    head += need;
    e->seq = next_seq++;
    spin_unlock_irqrestore(&lock, flags);
}

// Guests and peers can have a say in what is logged: nothing that would steer a terminal passes.
static void make_printable(char *s)
{
    for (; *s; s++)
        if ((u8)*s < ' ' || *s == 0x7f)
            *s = '?';
}

static void write_serial(const struct log_entry *e)
{
    char line[256];
    log_format(e, line, sizeof(line) - 1);
    strlcpy(line + strlen(line), "\n", 2);
    serial_write(line, strlen(line));
}

void log_write(enum log_level level, const char *area, const char *fmt, ...)
{
    if (level > threshold)
        return;
    struct log_entry e = {.time_ns = time_ns(), .level = level};
    strlcpy(e.area, area, sizeof(e.area));
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(e.text, sizeof(e.text), fmt, ap);
    va_end(ap);
    make_printable(e.area);
    make_printable(e.text);
    append(&e);
    if (sink)
        sink(&e);
    else
        write_serial(&e);
}

// seq is one that is kept.
static void read_entry(u64 seq, struct log_entry *out)
{
    u32 at = tail;
    for (u64 s = first_seq; s < seq; s++)
        at = skip_record(at);
    struct record r;
    ring_read(at, &r, sizeof(r));
    *out = (struct log_entry){.seq = seq, .time_ns = r.time_ns, .level = r.level};
    ring_read(at + sizeof(r), out->area, r.area_len);
    ring_read(at + sizeof(r) + r.area_len, out->text, r.text_len);
}

bool log_get(u64 seq, struct log_entry *out)
{
    u64 flags = spin_lock_irqsave(&lock);
    seq = MAX(seq, first_seq);
    bool found = seq < next_seq;
    if (found)
        read_entry(seq, out);
    spin_unlock_irqrestore(&lock, flags);
    return found;
}

u64 log_next_seq(void)
{
    u64 flags = spin_lock_irqsave(&lock);
    u64 seq = next_seq;
    spin_unlock_irqrestore(&lock, flags);
    return seq;
}

void log_shown_up_to(u64 seq)
{
    shown_seq = seq;
}

void log_print_unshown(void)
{
    struct log_entry e;
    if (!sink)
        return;
    for (u64 seq = MAX(shown_seq, first_seq); seq < next_seq; seq++) {
        read_entry(seq, &e);
        write_serial(&e);
    }
    shown_seq = next_seq;
}

void log_set_sink(void (*fn)(const struct log_entry *e))
{
    sink = fn;
}

void log_set_level(enum log_level level)
{
    threshold = level;
}

const char *log_level_name(enum log_level level)
{
    static const char *const names[] = {"error", "warn", "info", "debug"};
    return level <= LOG_DEBUG ? names[level] : "?";
}

void log_format(const struct log_entry *e, char *buf, size_t size)
{
    snprintf(buf, size, "[%5llu.%06llu] %-5s %s: %s", (unsigned long long)(e->time_ns / NS_PER_SEC),
             (unsigned long long)(e->time_ns % NS_PER_SEC / 1000), log_level_name(e->level),
             e->area, e->text);
}
