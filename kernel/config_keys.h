// SPDX-License-Identifier: MIT
// Inside the configuration's parser: the keys as data, and the place an error is kept.
#ifndef SKIFF_KERNEL_CONFIG_KEYS_H
#define SKIFF_KERNEL_CONFIG_KEYS_H

#include "kernel/config.h"

#define CONFIG_MAX_LINE 1290 // a little under INI_MAX_LINE of kernel/inih.mk

struct config_parser {
    struct host_config *out;
    char *err;
    size_t err_size;
    bool failed;
    int line;
    char section[64];
    const struct config_key *keys; // of the open section, ended by a NULL name
    void *target;                  // struct the keys' offsets count from
    int peer_line[CONFIG_MAX_PEERS], guest_line[CONFIG_MAX_GUESTS];
};

struct config_key {
    const char *name;
    // Returns false after config_fail.
    bool (*set)(struct config_parser *p, const struct config_key *k, const char *value);
    u32 offset, size; // of the field
    u64 min, max;     // numbers
};

extern const struct config_key config_host_keys[], config_net_keys[], config_migrate_keys[],
    config_peer_keys[], config_guest_keys[];

// Writes "host.cfg line N: ..." once (the first fault counts). Returns NULL for the caller's sake.
void *config_fail(struct config_parser *p, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
// Returns 1, or 0 after config_fail (what inih expects of its handler).
int config_set_key(struct config_parser *p, const char *key, const char *value);

#endif
