// SPDX-License-Identifier: MIT
// Commands on guests' serial ports: console (both ways) and follow (what they say, among the log).
#include "kernel/console/command.h"
#include "kernel/console/find.h"
#include "kernel/console/keys.h"
#include "kernel/console/screen.h"
#include "kernel/console/tap.h"
#include "arch/x86/cpu.h"
#include "kernel/guest/guest.h"
#include "kernel/lib.h"
#include "kernel/mem.h"
#include "kernel/time.h"

#define LOOK_NS    (200 * NS_PER_MS) // how often the guest's state is looked at
#define TAIL_BYTES 16384
#define SHOW_MAX   512
#define GRACE      3 // looks: a reboot passes through off

static bool has_port(u8 state)
{
    return state == GUEST_RUNNING || state == GUEST_PAUSED || state == GUEST_FROZEN;
}

// False when the guest is gone. Sends n typed bytes to it.
static bool feed(const char *name, const char *s, size_t n)
{
    mutex_lock(&guests_lock);
    struct guest *g = guest_find(name);
    bool there = g && has_port(g->state);
    if (there && n)
        guest_console_input(g, s, n);
    mutex_unlock(&guests_lock);
    return there;
}

// Serial lines end in CR LF and the driver adds a CR of its own; the LF may come in the next piece.
static void show(const char *s, size_t n)
{
    static bool held; // a CR; only one guest is shown at a time
    char plain[SHOW_MAX + 1];
    size_t k = 0;
    for (size_t i = 0; i < n; i++) {
        if (held && s[i] != '\n')
            plain[k++] = '\r';
        held = s[i] == '\r';
        if (!held)
            plain[k++] = s[i];
    }
    screen_print(plain, k);
}

// Takes the typed bytes up to Ctrl-], which ends it (false).
static bool pass_keys(int first, const char *name)
{
    char typed[64];
    size_t n = 0;
    for (int c = first; c >= 0; c = n < sizeof(typed) ? serial_read() : -1) {
        if (c == KEY_CTRL_BRACKET) {
            feed(name, typed, n);
            return false;
        }
        typed[n++] = (char)c;
    }
    feed(name, typed, n);
    return true;
}

// Until Ctrl-] (true) or the guest's end (false).
static bool converse(struct tap *t, const char *name)
{
    char buf[SHOW_MAX];
    int absent = 0;
    while (absent < GRACE) {
        int c = -1;
        wait_event_until(&screen_event, tap_used(t) || (c = serial_read()) >= 0,
                         time_ns() + LOOK_NS);
        if (c >= 0 && !pass_keys(c, name))
            return true;
        size_t n = tap_read(t, buf, sizeof(buf));
        if (n)
            show(buf, n);
        absent = n || feed(name, NULL, 0) ? 0 : absent + 1;
        if (c < 0 && n && (c = serial_read()) >= 0 && !pass_keys(c, name))
            return true; // a guest that never stops talking can be left
    }
    return false;
}

static void attach(struct call *c, struct tap *t, const char *name)
{
    out_printf(c->out, "connected to %s; Ctrl-] leaves\n", name);
    out_flush(c->out);
    screen_lock();
    screen_set_mode(SCREEN_ATTACHED);
    screen_unlock();
    bool left = converse(t, name);
    screen_lock();
    screen_write("\n", 1);
    screen_set_mode(SCREEN_RUNNING);
    screen_unlock();
    tap_detach(t);
    if (!left)
        out_printf(c->out, "%s is not running any more\n", name);
}

static void show_tail(struct guest *g)
{
    char *tail = kmalloc(TAIL_BYTES);
    if (!tail)
        return;
    size_t n = guest_console_tail(g, tail, TAIL_BYTES);
    for (size_t i = 0; i < n; i += SHOW_MAX)
        show(tail + i, MIN(n - i, (size_t)SHOW_MAX));
    screen_print("\n", 1);
    kfree(tail);
}

static void run_console(struct call *c)
{
    struct guest *g = find_guest(c, c->arg[0]);
    if (!g)
        return;
    if (!has_port(g->state)) {
        out_error(c->out, "%s is %s; a console needs a running guest", g->name,
                  guest_state_name(g->state));
        return;
    }
    if (option_given(c, "--tail"))
        show_tail(g);
    int error = 0;
    struct tap *t = tap_attach(g->name, &error);
    if (!t)
        out_error(c->out, error == E_NOMEM ? "no memory for a console"
                                           : "too many guests are followed; follow NAME off");
    else
        attach(c, t, g->name);
}

static void follow_list(struct call *c)
{
    const char *name;
    for (unsigned i = 0; (name = tap_followed(i)); i++) {
        out_printf(c->out, "%s\n", name);
        if (!c->out->json)
            continue;
        out_begin(c->out);
        out_str(c->out, "guest", name);
        out_bool(c->out, "follow", true);
        out_end(c->out);
    }
}

static void run_follow(struct call *c)
{
    const char *name = c->arg[0];
    bool on = !c->arg[1] || !strcmp(c->arg[1], "on");
    int error = 0;
    if (!name) {
        follow_list(c);
        return;
    }
    if (!config_name_valid(name)) {
        out_error(c->out, "\"%s\" cannot be a guest's name", name);
        return;
    }
    if (on)
        error = tap_follow(name);
    else
        tap_unfollow(name);
    if (error) {
        out_error(c->out, error == E_NOMEM ? "no memory to follow another guest"
                                           : "16 guests are followed already; follow NAME off");
        return;
    }
    out_printf(c->out, "%s %s\n", name, on ? "is followed" : "is not followed any more");
    if (!c->out->json)
        return;
    out_begin(c->out);
    out_str(c->out, "guest", name);
    out_bool(c->out, "follow", on);
    out_end(c->out);
}

const struct command attach_commands[] = {
    {"console", "NAME", "--tail", "connects to a guest's serial port; Ctrl-] leaves",
     "  --tail shows the last 16 KiB it wrote first. Log lines wait until you leave.", run_console},
    {"follow", "[NAME] [on|off]", "", "shows what a guest writes, line by line as \"NAME| text\"",
     "  The guest need not be here yet. Without a name: the guests that are followed.", run_follow},
    {NULL, NULL, NULL, NULL, NULL, NULL},
};
