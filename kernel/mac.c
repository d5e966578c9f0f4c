// SPDX-License-Identifier: MIT
// MAC addresses: as text, and those that guests get where none is configured.
#include "kernel/config.h"
#include "kernel/lib.h"

static int digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

bool mac_valid(const u8 mac[6])
{
    u8 any = 0;
    for (u32 i = 0; i < 6; i++)
        any |= mac[i];
    return any && !(mac[0] & 1); // IEEE 802, 8.2.2: the bit of groups
}

int mac_parse(const char *s, u8 out[6])
{
    u8 mac[6];
    for (u32 i = 0; i < 6; i++, s += 3) {
        int high = digit(s[0]), low = high < 0 ? -1 : digit(s[1]);
        if (low < 0 || s[2] != (i < 5 ? ':' : '\0'))
            return E_INVAL;
        mac[i] = (u8)(high << 4 | low);
    }
    if (!mac_valid(mac))
        return E_INVAL;
    memcpy(out, mac, sizeof(mac));
    return 0;
}

void mac_format(const u8 mac[6], char buf[18])
{
    snprintf(buf, 18, "%02x:%02x:%02x:%02x:%02x:%02x", mac[0], mac[1], mac[2], mac[3], mac[4],
             mac[5]);
}

// IEEE 802, 8.2.2: locally administered, of one station.
void mac_from_uuid(const u8 uuid[16], u8 out[6])
{
    for (u32 i = 0; i < 6; i++)
        out[i] = uuid[i] ^ uuid[10 + i] ^ uuid[6 + i % 4];
    out[0] = (out[0] & 0xfc) | 2;
}
