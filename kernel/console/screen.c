// SPDX-License-Identifier: MIT
// Shares the serial line between the prompt, commands, the log and what followed guests say.
#include "kernel/console/screen.h"

#include "arch/x86/cpu.h"
#include "kernel/console/tap.h"
#include "kernel/lib.h"
#include "kernel/log.h"
#include "kernel/time.h"

struct waitq screen_event;

// 115200 baud, ten bits a byte. The serial driver's ring must not fill up: it would poll then.
#define BYTE_NS      86806
#define QUEUE_MAX_NS (500 * NS_PER_MS)
#define QUEUE_LOW_NS (250 * NS_PER_MS)
#define CHUNK        64u
// How many lines are printed before others get the screen.
#define BURST 16
// How often guests that are followed and were not there yet are looked for.
#define BIND_NS (100 * NS_PER_MS)

static struct mutex lock;
static volatile enum screen_mode mode = SCREEN_RUNNING; // lock
static u64 sent_ns;                                     // when the line is idle again; lock
static u64 next_log;                                    // first line not shown; lock
static void (*draw)(void), (*erase)(void);

void screen_lock(void)
{
    mutex_lock(&lock);
}

void screen_unlock(void)
{
    mutex_unlock(&lock);
}

void screen_set_mode(enum screen_mode m)
{
    mode = m;
    waitq_wake_all(&screen_event);
}

void screen_write(const char *s, size_t n)
{
    while (n) {
        size_t k = MIN(n, CHUNK);
        serial_write(s, k);
        s += k;
        n -= k;
        u64 now = time_ns();
        sent_ns = MAX(sent_ns, now) + k * BYTE_NS;
        if (sent_ns - now > QUEUE_MAX_NS)
            thread_sleep_ns(sent_ns - now - QUEUE_LOW_NS);
        else
            thread_yield_if_needed();
    }
}

void screen_print(const char *s, size_t n)
{
    screen_lock();
    screen_write(s, n);
    screen_unlock();
}

static void log_arrived(const struct log_entry *e)
{
    (void)e; // any context: whoever prints it reads the ring
    waitq_wake_all(&screen_event);
}

static bool guests_may_speak(void)
{
    return mode == SCREEN_EDITING || mode == SCREEN_WATCHING;
}

static bool pending(void)
{
    if (mode == SCREEN_ATTACHED)
        return false;
    return next_log != log_next_seq() || (guests_may_speak() && tap_has_line());
}

// The next line to show, without its end. False when there is none.
static bool next_line(char *buf, size_t size)
{
    struct log_entry e;
    if (log_get(next_log, &e)) {
        next_log = e.seq + 1;
        log_shown_up_to(next_log);
        log_format(&e, buf, size);
        return true;
    }
    return guests_may_speak() && tap_take_line(buf, size);
}

static void show_pending(void)
{
    char line[300];
    screen_lock();
    bool editing = mode == SCREEN_EDITING;
    bool any = false;
    for (int i = 0; i < BURST && mode != SCREEN_ATTACHED && next_line(line, sizeof(line) - 1);
         i++) {
        if (editing && !any)
            erase();
        any = true;
        size_t n = strlen(line);
        line[n++] = '\n';
        screen_write(line, n);
    }
    if (editing && any)
        draw();
    screen_unlock();
}

static void printer(void *arg)
{
    (void)arg;
    for (;;) {
        // A tap whose guest has not come yet is what the deadline is for; opening one wakes us.
        wait_event_until(&screen_event, pending(), tap_any() ? time_ns() + BIND_NS : 0);
        tap_bind();
        if (pending())
            show_pending();
        thread_yield_if_needed();
    }
}

void screen_start(void (*prompt_draw)(void), void (*prompt_erase)(void))
{
    draw = prompt_draw;
    erase = prompt_erase;
    if (!thread_create("console-log", printer, NULL, 0)) {
        log_error("console", "no memory for the thread that shows the log; lines come unasked");
        return;
    }
    next_log = log_next_seq();
    log_shown_up_to(next_log);
    log_set_sink(log_arrived);
}
