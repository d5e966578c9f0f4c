// SPDX-License-Identifier: MIT
// From a line of input to a command: words, options, arguments, and what to say about wrong ones.
#include "kernel/console/command.h"

#include "kernel/guest/guest.h"
#include "kernel/lib.h"
#include "kernel/similar.h"

static const struct command *const groups[] = {host_commands, guest_commands, attach_commands,
                                               move_commands, disk_commands,  store_commands};

const struct command *command_next(const struct command *c)
{
    if (!c)
        return groups[0];
    if (c[1].name)
        return c + 1;
    for (size_t i = 0; i + 1 < ARRAY_SIZE(groups); i++) {
        const struct command *last = groups[i];
        while (last[1].name)
            last++;
        if (c == last)
            return groups[i + 1];
    }
    return NULL;
}

const struct command *command_find(const char *name)
{
    for (const struct command *c = command_next(NULL); c; c = command_next(c))
        if (!strcmp(c->name, name))
            return c;
    return NULL;
}

// The i-th word of a list separated by blanks; its length, 0 when there is none.
static size_t nth_word(const char *list, unsigned i, const char **word)
{
    for (;; i--) {
        while (*list == ' ')
            list++;
        size_t n = 0;
        while (list[n] && list[n] != ' ')
            n++;
        *word = list;
        if (!i || !n)
            return n;
        list += n;
    }
}

static int option_index(const struct command *c, const char *option)
{
    const char *word;
    for (unsigned i = 0;; i++) {
        size_t n = nth_word(c->options, i, &word);
        if (!n)
            return -1;
        if (strlen(option) == n && !strncmp(word, option, n))
            return (int)i;
    }
}

bool option_given(const struct call *c, const char *option)
{
    int i = option_index(c->command, option);
    assert(i >= 0);
    return c->options >> i & 1;
}

struct words {
    char *word[COMMAND_WORDS];
    unsigned count;
    bool too_many;
};

static void split(char *line, struct words *w)
{
    for (char *p = line; *p;) {
        while (*p == ' ')
            *p++ = 0;
        if (!*p)
            return;
        if (w->count == COMMAND_WORDS) {
            w->too_many = true;
            return;
        }
        w->word[w->count++] = p;
        while (*p && *p != ' ')
            p++;
    }
}

static void drop_words(struct words *w, unsigned at, unsigned n)
{
    w->count -= n;
    for (unsigned i = at; i < w->count; i++)
        w->word[i] = w->word[i + n];
}

// Takes --format and its value out of the words. Returns false on one that does not exist, which
// wrong then points to.
static bool take_format(struct words *w, bool *json, const char **wrong)
{
    for (unsigned i = 0; i < w->count;) {
        const char *value = NULL;
        unsigned n = 1;
        if (!strncmp(w->word[i], "--format=", 9)) {
            value = w->word[i] + 9;
        } else if (!strcmp(w->word[i], "--format")) {
            value = i + 1 < w->count ? w->word[i + 1] : "";
            n = i + 1 < w->count ? 2 : 1;
        }
        if (!value) {
            i++;
            continue;
        }
        *json = !strcmp(value, "json");
        if (!*json && strcmp(value, "text")) {
            *wrong = value;
            return false;
        }
        drop_words(w, i, n);
    }
    return true;
}

static bool take_options(struct call *c, struct words *w)
{
    for (unsigned i = 1; i < w->count;) {
        if (strncmp(w->word[i], "--", 2)) {
            i++;
            continue;
        }
        int option = option_index(c->command, w->word[i]);
        if (option < 0) {
            out_error(c->out, "%s has no option %s; it takes %s%s--format text|json",
                      c->command->name, w->word[i], c->command->options,
                      *c->command->options ? " " : "");
            return false;
        }
        c->options |= 1u << option;
        drop_words(w, i, 1);
    }
    return true;
}

struct choice {
    const char *word;
    bool found;
};

static void match_choice(void *arg, const char *word)
{
    struct choice *c = arg;
    c->found |= !strcmp(word, c->word);
}

static bool check_choice(struct call *c, const char *kind, size_t n, const char *given)
{
    struct choice choice = {.word = given};
    bool is_choice = false;
    for (size_t i = 0; i < n; i++)
        is_choice |= kind[i] == '|';
    if (!is_choice)
        return true;
    argument_words(kind, n, match_choice, &choice);
    if (!choice.found)
        out_error(c->out, "%s wants %.*s, found \"%s\"; usage: %s %s", c->command->name, (int)n,
                  kind, given, c->command->name, c->command->args);
    return choice.found;
}

static bool take_arguments(struct call *c, const struct words *w)
{
    unsigned i = 0;
    const char *kind;
    size_t n;
    for (; (n = nth_word(c->command->args, i, &kind)); i++) {
        bool optional = kind[0] == '[';
        assert(i < COMMAND_MAX_ARGS);
        if (i + 1 >= w->count) {
            if (optional)
                return true;
            out_error(c->out, "%s needs %.*s; usage: %s %s", c->command->name, (int)n, kind,
                      c->command->name, c->command->args);
            return false;
        }
        c->arg[i] = w->word[i + 1];
        if (!check_choice(c, kind + optional, n - 2 * optional, c->arg[i]))
            return false;
    }
    if (w->count <= i + 1)
        return true;
    out_error(c->out, "%s does not take \"%s\"; usage: %s%s%s", c->command->name, w->word[i + 1],
              c->command->name, i ? " " : "", c->command->args);
    return false;
}

static void unknown_command(struct out *o, const char *name)
{
    const struct command *best = NULL;
    for (const struct command *c = command_next(NULL); c; c = command_next(c))
        if (word_similar(name, c->name) &&
            (!best || word_distance(name, c->name) < word_distance(name, best->name)))
            best = c;
    if (best)
        out_error(o, "there is no command \"%s\"; did you mean %s?", name, best->name);
    else
        out_error(o, "there is no command \"%s\"; help lists them", name);
}

static void run_words(struct call *c, struct words *w, const char *wrong_format)
{
    if (wrong_format)
        out_error(c->out, "--format takes text or json, found \"%s\"", wrong_format);
    else if (w->too_many)
        out_error(c->out, "more than %d words", COMMAND_WORDS);
    else if (!(c->command = command_find(w->word[0])))
        unknown_command(c->out, w->word[0]);
    else if (take_options(c, w) && take_arguments(c, w))
        c->command->run(c);
}

void command_run(char *line, void (*sink)(void *arg, const char *s, size_t n), void *arg)
{
    static struct out out; // the console's one thread runs one command at a time
    struct words w = {0};
    bool json = false;
    const char *wrong = NULL;
    split(line, &w);
    take_format(&w, &json, &wrong);
    if (!w.count)
        return;
    out_init(&out, json, sink, arg);
    struct call c = {.out = &out};
    run_words(&c, &w, wrong);
    guest_put(c.guest);
    out_flush(&out);
}

static void help_list(struct out *o)
{
    for (const struct command *c = command_next(NULL); c; c = command_next(c)) {
        char usage[48];
        snprintf(usage, sizeof(usage), "%s %s", c->name, c->args);
        out_printf(o, "  %-26s %s\n", usage, c->summary);
        if (o->json) {
            out_begin(o);
            out_str(o, "command", c->name);
            out_str(o, "args", c->args);
            out_str(o, "options", c->options);
            out_str(o, "summary", c->summary);
            out_end(o);
        }
    }
    out_printf(o, "Every command takes --format json. help COMMAND says more.\n");
}

void command_help(struct call *call)
{
    struct out *o = call->out;
    if (!call->arg[0]) {
        help_list(o);
        return;
    }
    const struct command *c = command_find(call->arg[0]);
    if (!c) {
        unknown_command(o, call->arg[0]);
        return;
    }
    if (o->json) {
        out_begin(o);
        out_str(o, "command", c->name);
        out_str(o, "args", c->args);
        out_str(o, "options", c->options);
        out_str(o, "summary", c->summary);
        out_str(o, "details", c->details ? c->details : "");
        out_end(o);
        return;
    }
    out_printf(o, "%s%s%s%s%s [--format text|json]\n  %s\n", c->name, *c->args ? " " : "", c->args,
               *c->options ? " " : "", c->options, c->summary);
    if (c->details)
        out_printf(o, "%s\n", c->details);
}

// The kind of the argument that word number `index` (after the command) would be.
static size_t argument_kind(const struct command *c, unsigned index, const char **kind)
{
    size_t n = nth_word(c->args, index, kind);
    if (n && (*kind)[0] == '[') {
        (*kind)++;
        n -= 2;
    }
    return n;
}

struct filter {
    const char *start; // what the words must begin with
    void (*found)(void *arg, const char *word);
    void *arg;
};

static void pass(void *arg, const char *word)
{
    struct filter *f = arg;
    if (!strncmp(word, f->start, strlen(f->start)))
        f->found(f->arg, word);
}

static void option_words(const struct command *c, struct filter *f)
{
    const char *word;
    char option[24];
    size_t n;
    for (unsigned i = 0; (n = nth_word(c->options, i, &word)); i++) {
        strlcpy(option, word, MIN(n + 1, sizeof(option)));
        pass(f, option);
    }
    pass(f, "--format");
}

size_t command_complete(const char *line, void (*found)(void *arg, const char *word), void *arg)
{
    char copy[256];
    if (strlcpy(copy, line, sizeof(copy)) >= sizeof(copy))
        return strlen(line);
    size_t begin = strlen(copy);
    while (begin && copy[begin - 1] != ' ')
        begin--;
    struct filter f = {.start = line + begin, .found = found, .arg = arg};
    copy[begin] = 0;
    struct words w = {0};
    split(copy, &w);
    if (!w.count) {
        argument_words("COMMAND", 7, pass, &f);
        return begin;
    }
    const struct command *c = command_find(w.word[0]);
    const char *last = w.word[w.count - 1];
    if (!strcmp(last, "--format")) {
        argument_words("text|json", 9, pass, &f);
        return begin;
    }
    if (!c)
        return begin;
    if (f.start[0] == '-') {
        option_words(c, &f);
        return begin;
    }
    unsigned index = 0;
    for (unsigned i = 1; i < w.count; i++)
        index += w.word[i][0] != '-' && strcmp(w.word[i - 1], "--format");
    const char *kind;
    size_t n = argument_kind(c, index, &kind);
    if (n)
        argument_words(kind, n, pass, &f);
    return begin;
}
