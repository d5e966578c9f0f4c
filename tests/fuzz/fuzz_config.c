// SPDX-License-Identifier: MIT
// host.cfg with any content: parsed or refused with a sentence, and nothing else.

// sources: kernel/config.c kernel/config_keys.c kernel/name.c kernel/uuid.c kernel/mac.c kernel/ip.c
// sources: kernel/number.c kernel/similar.c $(INIH_SRC)/ini.c
#include <stdlib.h>
#include <string.h>

#include "kernel/config.h"
#include "kernel/lib.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool ok)
{
    if (!ok)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct host_config cfg;
    char err[200], address[48];
    char *text = malloc(size + 1);
    memcpy(text, data, size);
    text[size] = 0;
    int rc = config_parse(text, &cfg, err, sizeof(err));
    check(rc == 0 ? !err[0] : !strncmp(err, "host.cfg line ", 14));
    check(cfg.guest_count <= CONFIG_MAX_GUESTS && cfg.peer_count <= CONFIG_MAX_PEERS);
    for (u32 i = 0; rc == 0 && i < cfg.guest_count; i++) {
        const struct guest_config *g = &cfg.guests[i];
        check(config_name_valid(g->name) && g->kernel[0] && g->module_count <= CONFIG_MAX_MODULES);
        check(g->memory_mib >= 64 && g->vcpus >= 1 && g->dirty <= DIRTY_WP);
        check(memchr(g->cmdline, 0, sizeof(g->cmdline)) != NULL);
    }
    // An address that was accepted means the same when it is written out and read again.
    struct ip_address a, b;
    if (ip_parse(text, &a) == 0) {
        ip_format(&a, address, sizeof(address));
        check(ip_parse(address, &b) == 0 && !memcmp(&a, &b, sizeof(a)));
    }
    free(text);
    return 0;
}
