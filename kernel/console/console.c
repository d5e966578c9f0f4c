// SPDX-License-Identifier: MIT
// The console's thread: reads keys, edits the line, runs commands, prompts again.
#include "kernel/console/console.h"

#include "arch/x86/cpu.h"
#include "kernel/console/command.h"
#include "kernel/console/keys.h"
#include "kernel/console/line.h"
#include "kernel/console/screen.h"
#include "kernel/lib.h"
#include "kernel/log.h"
#include "kernel/time.h"

static struct line line = {.prompt = "skiff> ", .emit = screen_write}; // the screen's lock
static u64 prompt_ns;

int key_wait(u64 deadline_ns)
{
    int c = -1;
    wait_event_until(&screen_event, (c = serial_read()) >= 0, deadline_ns);
    return c;
}

u64 console_prompt_ns(void)
{
    return prompt_ns;
}

static void draw(void)
{
    line_draw(&line);
}

static void erase(void)
{
    line_erase(&line);
}

static void key_arrived(void)
{
    waitq_wake_all(&screen_event);
}

struct completion {
    char common[64]; // what all candidates begin with
    unsigned count;
    bool list; // second pass: print them
    u32 column;
};

static void candidate(void *arg, const char *word)
{
    struct completion *c = arg;
    if (c->list) {
        screen_write("  ", 2);
        screen_write(word, strlen(word));
        return;
    }
    if (!c->count++)
        strlcpy(c->common, word, sizeof(c->common));
    size_t n = 0;
    while (c->common[n] && c->common[n] == word[n])
        n++;
    c->common[n] = 0;
}

static void list_candidates(const char *before)
{
    struct completion all = {.list = true};
    screen_write("\n", 1);
    command_complete(before, candidate, &all);
    screen_write("\n", 1);
    draw();
}

static void complete(void)
{
    char before[LINE_BYTES];
    struct completion c = {.count = 0};
    strlcpy(before, line.text, line.cursor + 1);
    size_t begin = command_complete(before, candidate, &c);
    const char *typed = before + begin;
    bool longer = strlen(c.common) > strlen(typed);
    if (longer)
        line_insert(&line, c.common + strlen(typed));
    if (c.count == 1)
        line_insert(&line, " ");
    else if (c.count && !longer)
        list_candidates(before);
    else if (!c.count)
        screen_write("\a", 1);
}

static void output(void *arg, const char *s, size_t n)
{
    (void)arg;
    screen_print(s, n);
}

static void run(void)
{
    char text[LINE_BYTES];
    strlcpy(text, line.text, sizeof(text));
    line_remember(&line);
    line_reset(&line);
    screen_set_mode(SCREEN_RUNNING);
    screen_unlock();
    command_run(text, output, NULL);
    screen_lock();
    screen_set_mode(SCREEN_EDITING);
    draw();
}

// Screen locked.
static void handle(enum line_event e)
{
    switch (e) {
    case LINE_MORE:
        return;
    case LINE_DONE:
        return run();
    case LINE_TAB:
        return complete();
    case LINE_CANCEL:
        return draw();
    case LINE_CLEAR:
        screen_write("\x1b[H\x1b[2J", 7);
        return draw();
    }
}

static void console(void *arg)
{
    (void)arg;
    screen_lock();
    screen_set_mode(SCREEN_EDITING);
    draw();
    prompt_ns = time_ns();
    screen_unlock();
    for (;;) {
        int c = key_wait(0);
        screen_lock();
        handle(line_feed(&line, (u8)c));
        screen_unlock();
    }
}

void console_start(void)
{
    screen_start(draw, erase);
    serial_set_rx_handler(key_arrived);
    if (!thread_create("console", console, NULL, THREAD_BIG_STACK))
        panic("no memory for the console's thread");
}
