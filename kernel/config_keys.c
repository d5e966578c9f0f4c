// SPDX-License-Identifier: MIT
// Every key of host.cfg: its name, its place in the structs and how its value is read.
#include "kernel/config_keys.h"

#include "kernel/lib.h"
#include "kernel/similar.h"

void *config_fail(struct config_parser *p, const char *fmt, ...)
{
    if (p->failed || !p->err_size)
        return NULL;
    p->failed = true;
    int n = snprintf(p->err, p->err_size, "host.cfg line %d: ", p->line);
    if ((size_t)n >= p->err_size)
        return NULL;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(p->err + n, p->err_size - (size_t)n, fmt, ap);
    va_end(ap);
    return NULL;
}

static bool wrong_value(struct config_parser *p, const struct config_key *k, const char *wanted,
                        const char *value)
{
    config_fail(p, "%s in [%s] wants %s, found \"%s\"", k->name, p->section, wanted, value);
    return false;
}

static void *field(const struct config_parser *p, const struct config_key *k)
{
    return (u8 *)p->target + k->offset;
}

static bool set_text(struct config_parser *p, const struct config_key *k, const char *value)
{
    if (strlcpy(field(p, k), value, k->size) < k->size)
        return true;
    config_fail(p, "%s in [%s] is %zu characters long; %u is the most", k->name, p->section,
                strlen(value), k->size - 1);
    return false;
}

static bool set_name(struct config_parser *p, const struct config_key *k, const char *value)
{
    if (!config_name_valid(value))
        return wrong_value(p, k, "1 to 31 letters, digits, '-', '_' or '.'", value);
    return set_text(p, k, value);
}

static bool store(void *at, u32 size, u64 v)
{
    memcpy(at, &v, size); // little-endian: the low bytes are the value
    return true;
}

static bool set_number(struct config_parser *p, const struct config_key *k, const char *value)
{
    u64 v;
    if (parse_u64(value, &v) == 0 && v >= k->min && v <= k->max)
        return store(field(p, k), k->size, v);
    char wanted[64];
    snprintf(wanted, sizeof(wanted), "a number from %llu to %llu", (unsigned long long)k->min,
             (unsigned long long)k->max);
    return wrong_value(p, k, wanted, value);
}

static bool set_memory(struct config_parser *p, const struct config_key *k, const char *value)
{
    u64 v;
    if (parse_u64(value, &v) == 0 && v >= k->min && v <= k->max && v % 2 == 0)
        return store(field(p, k), k->size, v);
    char wanted[64];
    snprintf(wanted, sizeof(wanted), "an even number of MiB from %llu to %llu",
             (unsigned long long)k->min, (unsigned long long)k->max);
    return wrong_value(p, k, wanted, value);
}

// Bytes a second, with an optional K, M or G (of 1024).
static bool set_rate(struct config_parser *p, const struct config_key *k, const char *value)
{
    u64 v;
    if (parse_bytes(value, &v) == 0 && v <= k->max)
        return store(field(p, k), k->size, v);
    return wrong_value(p, k, "bytes a second like 10M, or 0 for no limit", value);
}

static bool set_bool(struct config_parser *p, const struct config_key *k, const char *value)
{
    static const char *const words[] = {"off", "on", "no", "yes", "false", "true", "0", "1"};
    for (size_t i = 0; i < ARRAY_SIZE(words); i++)
        if (!strcasecmp(value, words[i]))
            return store(field(p, k), sizeof(bool), i & 1);
    return wrong_value(p, k, "on or off", value);
}

static bool set_choice(struct config_parser *p, const struct config_key *k, const char *value,
                       const char *const *words, const char *wanted)
{
    for (u64 i = 0; words[i]; i++)
        if (!strcasecmp(value, words[i]))
            return store(field(p, k), k->size, i);
    return wrong_value(p, k, wanted, value);
}

static bool set_log_level(struct config_parser *p, const struct config_key *k, const char *value)
{
    static const char *const words[] = {"error", "warn", "info", "debug", NULL};
    return set_choice(p, k, value, words, "error, warn, info or debug");
}

static bool set_dirty(struct config_parser *p, const struct config_key *k, const char *value)
{
    static const char *const words[] = {"auto", "pml", "wp", NULL}; // enum dirty_mode
    return set_choice(p, k, value, words, "auto, pml or wp");
}

static bool set_cpu(struct config_parser *p, const struct config_key *k, const char *value)
{
    static const char *const words[] = {"host", "x86-64-v2", "x86-64-v3", "x86-64-v4", NULL};
    return set_choice(p, k, value, words, "host, x86-64-v2, x86-64-v3 or x86-64-v4");
}

static bool set_clock(struct config_parser *p, const struct config_key *k, const char *value)
{
    static const char *const words[] = {"tsc", "kvm", NULL}; // enum clock_kind
    return set_choice(p, k, value, words, "tsc or kvm");
}

static bool set_verify(struct config_parser *p, const struct config_key *k, const char *value)
{
    static const char *const words[] = {"off", "on", "strict", NULL}; // enum verify_mode
    return set_choice(p, k, value, words, "off, on or strict");
}

static bool set_uuid(struct config_parser *p, const struct config_key *k, const char *value)
{
    struct guest_config *g = p->target;
    if (uuid_parse(value, g->uuid))
        return wrong_value(p, k, "a UUID like 0d3bb9f2-6c1e-4c6a-9d55-2f8f3a1c7e10", value);
    g->uuid_set = true;
    return true;
}

static bool set_mac(struct config_parser *p, const struct config_key *k, const char *value)
{
    return mac_parse(value, field(p, k)) == 0 ||
           wrong_value(p, k, "the address of one station like 52:54:00:12:34:56", value);
}

static bool set_address4(struct config_parser *p, const struct config_key *k, const char *value)
{
    struct host_config *c = p->out;
    struct ip_address a;
    if (!strcasecmp(value, "dhcp")) {
        c->dhcp = true;
        return true;
    }
    if (ip_parse(value, &a) || a.family != 4 || !a.prefix)
        return wrong_value(p, k, "dhcp or an address with its prefix length like 10.0.0.1/24",
                           value);
    c->dhcp = false;
    c->address4 = a;
    return true;
}

static bool set_address6(struct config_parser *p, const struct config_key *k, const char *value)
{
    struct ip_address a;
    if (ip_parse(value, &a) || a.family != 6 || !a.prefix)
        return wrong_value(p, k, "an IPv6 address with its prefix length like fd00::1/64", value);
    memcpy(field(p, k), &a, sizeof(a));
    return true;
}

// An address of somebody else, so without a prefix; min is the family wanted, 0 for either.
static bool set_remote(struct config_parser *p, const struct config_key *k, const char *value)
{
    struct ip_address a;
    if (ip_parse(value, &a) || a.prefix || (k->min && a.family != k->min))
        return wrong_value(p, k,
                           k->min == 4   ? "an IPv4 address like 10.0.0.254"
                           : k->min == 6 ? "an IPv6 address like fd00::fe"
                                         : "an address like 10.0.0.2 or fd00::2",
                           value);
    memcpy(field(p, k), &a, sizeof(a));
    return true;
}

static bool set_module(struct config_parser *p, const struct config_key *k, const char *value)
{
    struct guest_config *g = p->target;
    if (g->module_count == CONFIG_MAX_MODULES) {
        config_fail(p, "module \"%s\" in [%s] is one too many; a guest takes %d", value, p->section,
                    CONFIG_MAX_MODULES);
        return false;
    }
    struct config_key slot = *k;
    slot.offset += g->module_count * CONFIG_PATH;
    if (!*value)
        return wrong_value(p, k, "the path of a file", value);
    g->module_count++;
    return set_text(p, &slot, value);
}

static bool set_disk(struct config_parser *p, const struct config_key *k, const char *value)
{
    struct guest_config *g = p->target;
    if (g->disk_count == CONFIG_MAX_DISKS) {
        config_fail(p, "disk \"%s\" in [%s] is one too many; a guest takes %d", value, p->section,
                    CONFIG_MAX_DISKS);
        return false;
    }
    struct config_key slot = *k;
    slot.offset += g->disk_count * CONFIG_DISK;
    if (!*value)
        return wrong_value(p, k, "STORE/VOLUME or the name of a host disk", value);
    g->disk_count++;
    return set_text(p, &slot, value);
}

static bool set_initrd(struct config_parser *p, const struct config_key *k, const char *value)
{
    struct guest_config *g = p->target;
    if (!g->module_count)
        return set_module(p, k, value);
    config_fail(p,
                "initrd in [%s] stands for the first module, and \"%s\" is that already; name it "
                "first or write module",
                p->section, g->modules[0]);
    return false;
}

#define FIELD(type, member) offsetof(type, member), sizeof(((type *)0)->member)
#define HOST(member)        FIELD(struct host_config, member)
#define PEER(member)        FIELD(struct peer_config, member)
#define GUEST(member)       FIELD(struct guest_config, member)
#define END                                                                                        \
    {                                                                                              \
        NULL, NULL, 0, 0, 0, 0                                                                     \
    }

const struct config_key config_host_keys[] = {
    {"name", set_name, HOST(name), 0, 0},
    {"log_level", set_log_level, HOST(log_level), 0, 0},
    {"autostart_wait", set_bool, HOST(autostart_wait), 0, 0},
    END,
};

const struct config_key config_net_keys[] = {
    {"address", set_address4, HOST(address4), 0, 0},
    {"gateway", set_remote, HOST(gateway4), 4, 0},
    {"address6", set_address6, HOST(address6), 0, 0},
    {"gateway6", set_remote, HOST(gateway6), 6, 0},
    {"mtu", set_number, HOST(mtu), 1280, 9000},
    {"port", set_number, HOST(port), 1, 65535},
    END,
};

const struct config_key config_migrate_keys[] = {
    {"verify", set_verify, HOST(verify), 0, 0},
    {"hints_ms", set_number, HOST(hints_ms), 0, 60000},
    {"blackout_target_ms", set_number, HOST(blackout_target_ms), 1, 600000},
    {"max_rounds", set_number, HOST(max_rounds), 1, 10000},
    {"max_rate", set_rate, HOST(max_rate), 0, ~0ull},
    END,
};

const struct config_key config_peer_keys[] = {
    {"address", set_remote, PEER(address), 0, 0},
    {"port", set_number, PEER(port), 1, 65535},
    END,
};

const struct config_key config_guest_keys[] = {
    {"uuid", set_uuid, GUEST(uuid), 0, 0},
    {"memory", set_memory, GUEST(memory_mib), 64, 1024 * 1024},
    {"vcpus", set_number, GUEST(vcpus), 1, 16},
    {"cpu", set_cpu, GUEST(cpu), 0, 0},
    {"clock", set_clock, GUEST(clock), 0, 0},
    {"kernel", set_text, GUEST(kernel), 0, 0},
    {"module", set_module, FIELD(struct guest_config, modules[0]), 0, 0},
    {"initrd", set_initrd, FIELD(struct guest_config, modules[0]), 0, 0},
    {"cmdline", set_text, GUEST(cmdline), 0, 0},
    {"disk", set_disk, FIELD(struct guest_config, disks[0]), 0, 0},
    {"rng", set_bool, GUEST(rng), 0, 0},
    {"balloon", set_bool, GUEST(balloon), 0, 0},
    {"network", set_bool, GUEST(network), 0, 0},
    {"mac", set_mac, GUEST(mac), 0, 0},
    {"vlan", set_number, GUEST(vlan), 1, 4094},
    {"macs", set_number, GUEST(macs), 1, 16},
    {"autostart", set_bool, GUEST(autostart), 0, 0},
    {"dirty", set_dirty, GUEST(dirty), 0, 0},
    END,
};

static void unknown_key(struct config_parser *p, const char *key)
{
    char list[200] = "";
    char meant[40] = "";
    for (const struct config_key *k = p->keys; k->name; k++) {
        size_t n = strlen(list);
        snprintf(list + n, sizeof(list) - n, "%s%s", n ? ", " : "", k->name);
        if (!meant[0] && word_similar(key, k->name))
            snprintf(meant, sizeof(meant), "did you mean %s? ", k->name);
    }
    config_fail(p, "unknown key \"%s\" in [%s]; %skeys are %s", key, p->section, meant, list);
}

int config_set_key(struct config_parser *p, const char *key, const char *value)
{
    for (const struct config_key *k = p->keys; k->name; k++)
        if (!strcmp(k->name, key))
            return k->set(p, k, value);
    unknown_key(p, key);
    return 0;
}
