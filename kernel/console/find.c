// SPDX-License-Identifier: MIT
// Lookups that end in one helpful line: the nearest name, or all there are.
#include "kernel/console/find.h"

#include "kernel/host.h"
#include "kernel/lib.h"
#include "kernel/similar.h"

#define NO_SECTION "host.cfg of this host names none"

struct nearest {
    const char *wanted;
    char best[40];
    unsigned distance;
    char all[160];
    bool found;
};

static void look_at(void *arg, const char *word)
{
    struct nearest *n = arg;
    unsigned d = word_distance(n->wanted, word);
    n->found |= !strcmp(n->wanted, word);
    if (word_similar(n->wanted, word) && (!n->best[0] || d < n->distance)) {
        strlcpy(n->best, word, sizeof(n->best));
        n->distance = d;
    }
    size_t at = strlen(n->all);
    snprintf(n->all + at, sizeof(n->all) - at, "%s%s", at ? ", " : "", word);
}

static bool find_word(struct call *c, const char *kind, const char *what, const char *wanted,
                      const char *none)
{
    struct nearest n = {.wanted = wanted};
    argument_words(kind, strlen(kind), look_at, &n);
    if (n.found)
        return true;
    if (n.best[0])
        out_error(c->out, "there is no %s \"%s\"; did you mean %s?", what, wanted, n.best);
    else if (n.all[0])
        out_error(c->out, "there is no %s \"%s\"; there %s %s", what, wanted,
                  strchr(n.all, ',') ? "are" : "is", n.all);
    else
        out_error(c->out, "there is no %s \"%s\"; %s", what, wanted, none);
    return false;
}

struct guest *find_guest(struct call *c, const char *name)
{
    guest_put(c->guest);
    c->guest = guest_get(name);
    if (!c->guest)
        find_word(c, "NAME", "guest", name, NO_SECTION);
    return c->guest;
}

bool find_peer(struct call *c, const char *name)
{
    return find_word(c, "PEER", "peer", name, NO_SECTION);
}

bool find_store(struct call *c, const char *name)
{
    return find_word(c, "STORE", "datastore", name, "\"datastore format DISK NAME\" makes one");
}

struct block_device *find_disk(struct call *c, const char *name)
{
    return find_word(c, "DISK", "disk", name, "no driver has found one") ? block_find(name) : NULL;
}

bool find_number(struct call *c, const char *what, const char *text, u64 *out)
{
    if (parse_u64(text, out) == 0)
        return true;
    out_error(c->out, "%s is a number, found \"%s\"", what, text);
    return false;
}
