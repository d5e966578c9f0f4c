// SPDX-License-Identifier: MIT
// Joins received TCP segments over IPv4 without options, the ones that bulk data comes in.
#include "net/gro.h"

#include "lwip/inet_chksum.h"
#include "lwip/prot/ethernet.h"
#include "lwip/prot/ip.h"
#include "lwip/prot/ip4.h"
#include "lwip/prot/tcp.h"

#include "kernel/lib.h"
#include "net/bytes.h"

#define IP      14u // offsets in the frame
#define TCP     (IP + IP_HLEN)
#define DATA    (TCP + TCP_HLEN)
#define LONGEST 65535u // of a packet, and of a chain of pbufs with its Ethernet header

static struct pbuf *held;
static u32 next_seq; // of the byte after the held segment

static u8 *frame(const struct pbuf *p)
{
    return p->payload;
}

// TCP's checksum over everything behind IP's header. The header is put back as it was.
static bool sum_right(struct pbuf *p)
{
    ip4_addr_t from, to;
    memcpy(&from, frame(p) + IP + 12, 4);
    memcpy(&to, frame(p) + IP + 16, 4);
    pbuf_remove_header(p, TCP);
    u16 sum = inet_chksum_pseudo(p, IP_PROTO_TCP, p->tot_len, &from, &to);
    pbuf_add_header_force(p, TCP);
    return sum == 0;
}

// A sound segment that carries nothing but data, with whatever Ethernet padded cut off.
static bool is_plain(struct pbuf *p, bool sum_ok)
{
    const u8 *f = frame(p);
    if (p->len < DATA || get16(f + 12) != ETHTYPE_IP || f[IP] != 0x45 || f[IP + 9] != IP_PROTO_TCP)
        return false;
    u32 packet = get16(f + IP + 2), fragment = get16(f + IP + 6) & (IP_MF | IP_OFFMASK | IP_RF);
    if (fragment || packet <= DATA - IP || packet + IP > p->tot_len)
        return false;
    if (f[TCP + 12] != TCP_HLEN / 4 << 4 || (f[TCP + 13] & ~TCP_PSH) != TCP_ACK)
        return false;
    pbuf_realloc(p, (u16)(packet + IP));
    return inet_chksum(f + IP, IP_HLEN) == 0 && (sum_ok || sum_right(p));
}

// Same addresses, ports, class of service, and the next byte.
static bool continues(const struct pbuf *p)
{
    const u8 *a = frame(held), *b = frame(p);
    return memcmp(a + IP + 12, b + IP + 12, 8 + 4) == 0 && a[IP + 1] == b[IP + 1] &&
           get32(b + TCP + 4) == next_seq && held->tot_len + p->tot_len - DATA <= LONGEST;
}

// The joined segment has the newest acknowledgement and window, and is pushed if one of them was.
static void join(struct pbuf *p)
{
    u8 *a = frame(held);
    const u8 *b = frame(p);
    memcpy(a + TCP + 8, b + TCP + 8, 4);
    a[TCP + 13] |= b[TCP + 13];
    memcpy(a + TCP + 14, b + TCP + 14, 2);
    next_seq += p->tot_len - DATA;
    pbuf_remove_header(p, DATA);
    pbuf_cat(held, p);
    put16(a + IP + 2, held->tot_len - IP);
}

void gro_flush(void)
{
    struct pbuf *p = held;
    if (!p)
        return;
    held = NULL;
    u8 *sum = frame(p) + IP + 10;
    memset(sum, 0, 2);
    u16 fresh = inet_chksum(frame(p) + IP, IP_HLEN);
    memcpy(sum, &fresh, 2);
    gro_deliver(p, true);
}

void gro_receive(struct pbuf *p, bool sum_ok)
{
    bool plain = is_plain(p, sum_ok);
    if (plain && held && continues(p)) {
        join(p);
        return;
    }
    gro_flush();
    if (!plain) {
        gro_deliver(p, sum_ok);
        return;
    }
    held = p;
    next_seq = get32(frame(p) + TCP + 4) + p->tot_len - DATA;
}
