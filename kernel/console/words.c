// SPDX-License-Identifier: MIT
// What an argument could be: the guests, peers, disks and jobs of this host, commands, choices.
#include "kernel/console/command.h"
#include "kernel/guest/guest.h"
#include "kernel/host.h"
#include "kernel/lib.h"
#include "kernel/migrate/fault.h"
#include "kernel/migrate/migrate.h"
#include "storage/datastore.h"

typedef void (*found_fn)(void *arg, const char *word);

static void guest_words(found_fn found, void *arg)
{
    mutex_lock(&guests_lock);
    for (struct guest *g = guest_first(); g; g = g->next)
        found(arg, g->name);
    mutex_unlock(&guests_lock);
}

static void peer_words(found_fn found, void *arg)
{
    for (u32 i = 0; i < host_config.peer_count; i++)
        found(arg, host_config.peers[i].name);
}

static void disk_words(found_fn found, void *arg)
{
    for (const struct block_device *b = block_next(NULL); b; b = block_next(b))
        found(arg, b->name);
}

static void job_words(found_fn found, void *arg)
{
    struct job_info j;
    char id[24];
    for (unsigned i = 0; job_get(i, &j); i++) {
        snprintf(id, sizeof(id), "%llu", (unsigned long long)j.id);
        found(arg, id);
    }
}

static void command_words(found_fn found, void *arg)
{
    for (const struct command *c = command_next(NULL); c; c = command_next(c))
        found(arg, c->name);
}

static void fault_words(found_fn found, void *arg)
{
    for (unsigned i = 0; fault_name(i); i++)
        found(arg, fault_name(i));
}

static void store_words(found_fn found, void *arg)
{
    struct datastore_info d;
    for (u32 i = 0; datastore_get_info(i, &d); i++)
        found(arg, d.name);
}

static void volume_words(found_fn found, void *arg)
{
    struct volume_info v;
    for (u32 i = 0; volume_get_info(i, &v); i++)
        found(arg, v.path);
}

static void store_and_disk_words(found_fn found, void *arg)
{
    store_words(found, arg);
    disk_words(found, arg);
}

static void choice_words(const char *kind, size_t n, found_fn found, void *arg)
{
    char word[24];
    for (size_t i = 0, start = 0; i <= n; i++) {
        if (i < n && kind[i] != '|')
            continue;
        strlcpy(word, kind + start, MIN(i - start + 1, sizeof(word)));
        found(arg, word);
        start = i + 1;
    }
}

void argument_words(const char *kind, size_t n, found_fn found, void *arg)
{
    static const struct {
        const char *kind;
        void (*words)(found_fn found, void *arg);
    } sources[] = {
        {"NAME", guest_words},  {"PEER", peer_words},       {"DISK", disk_words},
        {"STORE", store_words}, {"VOLUME", volume_words},   {"WHAT", store_and_disk_words},
        {"JOB", job_words},     {"COMMAND", command_words}, {"FAULT", fault_words}};
    for (size_t i = 0; i < ARRAY_SIZE(sources); i++)
        if (strlen(sources[i].kind) == n && !strncmp(sources[i].kind, kind, n)) {
            sources[i].words(found, arg);
            return;
        }
    for (size_t i = 0; i < n; i++)
        if (kind[i] == '|') {
            choice_words(kind, n, found, arg);
            return;
        }
}
