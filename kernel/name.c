// SPDX-License-Identifier: MIT
// Which names hosts, peers, guests, datastores and volumes may have.
#include "kernel/config.h"
#include "kernel/lib.h"

bool config_name_valid(const char *s)
{
    size_t n = strnlen(s, CONFIG_NAME);
    if (n == 0 || n == CONFIG_NAME)
        return false;
    for (; *s; s++) {
        bool alnum = (*s >= '0' && *s <= '9') || ((*s | 0x20) >= 'a' && (*s | 0x20) <= 'z');
        if (!alnum && *s != '-' && *s != '_' && *s != '.')
            return false;
    }
    return true;
}
