// SPDX-License-Identifier: MIT
// Tells the network where a guest is: a reverse ARP request (RFC 903) in its name, which every
// switch on the way learns from and no host answers. A lost one must not leave the guest silent, so
// it comes several times.
#include "net/switch.h"

#include "lwip/timeouts.h"

#include "kernel/lib.h"
#include "net/uplink.h"

#define ETHERTYPE_RARP 0x80, 0x35

static const u16 times_ms[] = {0, 50, 150, 300, 600, 1000, 2000}; // after the guest goes on

static void send(struct switch_port *p)
{
    static const u8 fixed[] = {ETHERTYPE_RARP, 0, 1, 8, 0, 6, 4, 0, 3}; // Ethernet, IPv4, request
    struct nic_frame f = {.pbuf = frame_alloc(MIN_FRAME), .bytes = MIN_FRAME};
    if (!f.pbuf)
        return;
    u8 *frame = f.pbuf->payload, *body = frame + 12;
    memset(frame, 0, MIN_FRAME);
    memset(frame, 0xff, 6);
    memcpy(frame + 6, p->mac, 6);
    memcpy(body, fixed, sizeof(fixed));
    memcpy(body + 10, p->mac, 6); // who asks, and about whom: their IP addresses stay zero
    memcpy(body + 20, p->mac, 6);
    uplink_send(&f, p->vlan);
    pbuf_free(f.pbuf);
}

static void announce(void *port)
{
    struct switch_port *p = port;
    u32 now = times_ms[p->announced++];
    send(p);
    if (p->announced < ARRAY_SIZE(times_ms))
        sys_timeout(times_ms[p->announced] - now, announce, p);
}

void switch_announce(struct switch_port *p)
{
    switch_announce_stop(p);
    p->announced = 0;
    announce(p);
}

void switch_announce_stop(struct switch_port *p)
{
    sys_untimeout(announce, p);
}
