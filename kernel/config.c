// SPDX-License-Identifier: MIT
// host.cfg: the sections, and what a complete configuration must have. Keys: kernel/config_keys.c.
#include "kernel/config.h"

#include <ini.h>

#include "kernel/config_keys.h"
#include "kernel/lib.h"

struct section {
    const char *name;
    bool named; // [peer NAME]
    const struct config_key *keys;
    void *(*open)(struct config_parser *p, const char *name); // where the keys go, NULL: error set
};

static void *open_host(struct config_parser *p, const char *name)
{
    (void)name;
    return p->out;
}

static void *open_peer(struct config_parser *p, const char *name)
{
    struct host_config *c = p->out;
    for (u32 i = 0; i < c->peer_count; i++)
        if (!strcmp(c->peers[i].name, name))
            return config_fail(p, "a second [peer %s]; each peer is described once", name);
    if (c->peer_count == CONFIG_MAX_PEERS)
        return config_fail(p, "[peer %s] is one too many; a host knows %d peers at most", name,
                           CONFIG_MAX_PEERS);
    struct peer_config *peer = &c->peers[c->peer_count];
    p->peer_line[c->peer_count++] = p->line;
    *peer = (struct peer_config){0};
    strlcpy(peer->name, name, sizeof(peer->name));
    return peer;
}

static void *open_guest(struct config_parser *p, const char *name)
{
    struct host_config *c = p->out;
    for (u32 i = 0; i < c->guest_count; i++)
        if (!strcmp(c->guests[i].name, name))
            return config_fail(p, "a second [guest %s]; each guest is described once", name);
    if (c->guest_count == CONFIG_MAX_GUESTS)
        return config_fail(p, "[guest %s] is one too many; a host runs %d guests at most", name,
                           CONFIG_MAX_GUESTS);
    struct guest_config *g = &c->guests[c->guest_count];
    p->guest_line[c->guest_count++] = p->line;
    *g = (struct guest_config){
        .memory_mib = 256, .vcpus = 1, .rng = true, .balloon = true, .network = true, .macs = 1};
    strlcpy(g->name, name, sizeof(g->name));
    return g;
}

static const struct section sections[] = {
    {"host", false, config_host_keys, open_host},       {"net", false, config_net_keys, open_host},
    {"migrate", false, config_migrate_keys, open_host}, {"peer", true, config_peer_keys, open_peer},
    {"guest", true, config_guest_keys, open_guest},
};

void config_defaults(struct host_config *out)
{
    memset(out, 0, sizeof(*out));
    strlcpy(out->name, "skiff", sizeof(out->name));
    out->dhcp = true;
    out->mtu = 1500;
    out->port = 7070;
    out->hints_ms = 50;
    out->blackout_target_ms = 100;
    out->max_rounds = 30;
    out->autostart_wait = true;
    out->log_level = 2; // LOG_INFO
}

static int open_section(struct config_parser *p, const char *text)
{
    p->target = NULL;
    strlcpy(p->section, text, sizeof(p->section));
    for (size_t i = 0; i < ARRAY_SIZE(sections); i++) {
        const struct section *s = &sections[i];
        size_t n = strlen(s->name);
        if (strncmp(text, s->name, n) || (text[n] && text[n] != ' ' && text[n] != '\t'))
            continue;
        const char *name = text + n;
        while (*name == ' ' || *name == '\t')
            name++;
        if (s->named && !config_name_valid(name))
            config_fail(p,
                        "[%s] wants a name of 1 to 31 letters, digits, '-', '_' or '.', as in "
                        "[%s alpha]",
                        text, s->name);
        else if (!s->named && *name)
            config_fail(p, "[%s] takes no name; write [%s]", text, s->name);
        else
            p->target = s->open(p, name);
        p->keys = s->keys;
        return p->target != NULL;
    }
    config_fail(p,
                "unknown section [%s]; sections are [host], [net], [migrate], [peer NAME] and "
                "[guest NAME]",
                text);
    return 0;
}

static int handle(void *user, const char *section, const char *key, const char *value, int line)
{
    struct config_parser *p = user;
    p->line = line;
    if (!key)
        return open_section(p, section);
    if (!value) {
        config_fail(p, "\"%s\" is neither [section], key = value nor a # comment", key);
        return 0;
    }
    if (!p->target) {
        config_fail(p, "\"%s\" stands before any section; begin with [host]", key);
        return 0;
    }
    return config_set_key(p, key, value);
}

// A key that was never given is found at the end; the line named is the one of its section.
static int check_complete(struct config_parser *p)
{
    struct host_config *c = p->out;
    for (u32 i = 0; i < c->peer_count; i++) {
        p->line = p->peer_line[i];
        if (!c->peers[i].address.family) {
            config_fail(p, "[peer %s] has no address; add address = A.B.C.D", c->peers[i].name);
            return E_INVAL;
        }
    }
    for (u32 i = 0; i < c->guest_count; i++) {
        struct guest_config *g = &c->guests[i];
        p->line = p->guest_line[i];
        if (!g->kernel[0]) {
            config_fail(p, "[guest %s] has no kernel; add kernel = \\skiff\\vmlinuz", g->name);
            return E_INVAL;
        }
        if (!g->uuid_set)
            uuid_from_names(c->name, g->name, g->uuid);
        if (!mac_valid(g->mac))
            mac_from_uuid(g->uuid, g->mac);
    }
    return 0;
}

// inih found a fault before our handler saw the line: it is too long or lacks its "]".
static void explain_line(struct config_parser *p, const char *text, int line)
{
    p->line = line;
    while (--line > 0 && (text = strchr(text, '\n')))
        text++;
    const char *end = text ? strchr(text, '\n') : NULL;
    if (text && (end ? (size_t)(end - text) : strlen(text)) > CONFIG_MAX_LINE)
        config_fail(p, "the line is longer than %d characters", CONFIG_MAX_LINE);
    else
        config_fail(p, "a section needs its closing ], as in [host]");
}

int config_parse(const char *text, struct host_config *out, char *err, size_t err_size)
{
    struct config_parser p = {.out = out, .err = err, .err_size = err_size};
    config_defaults(out);
    if (err_size)
        err[0] = 0;
    int line = ini_parse_string(text, handle, &p);
    if (line && !p.failed)
        explain_line(&p, text, line);
    if (p.failed)
        return E_INVAL;
    return check_complete(&p);
}
