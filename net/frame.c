// SPDX-License-Identifier: MIT
// What a device would do with a frame, done in software: checksums, TCP segments. VLAN tags.
#include "net/frame.h"

#include "lwip/inet_chksum.h"
#include "lwip/prot/ethernet.h"
#include "lwip/prot/ip.h"
#include "lwip/prot/ip4.h"
#include "lwip/prot/ip6.h"
#include "lwip/prot/tcp.h"

#include "kernel/lib.h"
#include "net/bytes.h"

#define IP             ETHERNET_HEADER // offset in the frame
#define IP4_LENGTH     2               // offsets in the headers
#define IP4_ID         4
#define IP4_SUM        10
#define IP6_LENGTH     4
#define TCP_SEQUENCE   4
#define TCP_WORDS      12
#define TCP_CONTROL    13
#define TCP_SUM        16
#define UDP_SUM        6
#define UDP_HEADER     8u
#define CHANGES_BEFORE TCP_CWR             // flags of the first segment alone
#define CHANGES_AFTER  (TCP_FIN | TCP_PSH) // and of the last

static u8 *first(const struct nic_frame *f)
{
    return f->pbuf->payload;
}

static bool is_ip4(const u8 *frame)
{
    return frame_type(frame) == ETHTYPE_IP;
}

u32 frame_find_l4(const u8 *frame, u32 bytes, u8 *protocol)
{
    const u8 *ip = frame + IP;
    u32 at = IP;
    *protocol = 0;
    if (bytes >= IP + IP_HLEN && is_ip4(frame)) {
        bool fragment = (ip[6] & 0x3f) || ip[7]; // more of them follow, or came before
        *protocol = fragment ? 0 : ip[9];
        at += (ip[0] & 15u) * 4;
    } else if (bytes >= IP + IP6_HLEN && frame_type(frame) == ETHTYPE_IPV6) {
        *protocol = ip[6];
        at += IP6_HLEN;
    }
    u32 header = *protocol == IP_PROTO_TCP ? TCP_HLEN : *protocol == IP_PROTO_UDP ? UDP_HEADER : 0;
    return header && at >= IP + IP_HLEN && at + header <= bytes ? at : 0;
}

// ---- Checksums ---------------------------------------------------------------------------------

// The pseudo header's sum (RFC 9293, 3.1; RFC 8200, 8.1), in the machine's byte order.
static u16 pseudo_sum(const u8 *frame, u8 protocol, u32 length)
{
    u32 addresses = is_ip4(frame) ? 12 : 8, bytes = is_ip4(frame) ? 8 : 32;
    u32 sum = lwip_port_checksum(frame + IP + addresses, (int)bytes) + lwip_htons(protocol) +
              lwip_htons((u16)length);
    sum = (sum & 0xffff) + (sum >> 16);
    return (u16)((sum & 0xffff) + (sum >> 16));
}

void frame_leave_sum_out(struct nic_frame *f)
{
    u8 protocol, *frame = first(f);
    u32 l4 = frame_find_l4(frame, f->pbuf->len, &protocol);
    if (!l4)
        return;
    u16 sum = pseudo_sum(frame, protocol, f->bytes - l4);
    f->l4_offset = l4;
    f->sum_offset = l4 + (protocol == IP_PROTO_TCP ? TCP_SUM : UDP_SUM);
    memcpy(frame + f->sum_offset, &sum, 2);
}

void frame_make_sum(struct nic_frame *f)
{
    u8 *field = first(f) + f->sum_offset;
    pbuf_remove_header(f->pbuf, f->l4_offset);
    u16 sum = inet_chksum_pbuf(f->pbuf);
    pbuf_add_header_force(f->pbuf, f->l4_offset);
    // UDP's zero means that there is none (RFC 768), and to others both zeros are the same.
    sum = sum ? sum : 0xffff;
    memcpy(field, &sum, 2);
    f->l4_offset = f->sum_offset = 0;
    f->sum_ok = true;
}

// ---- Segments ----------------------------------------------------------------------------------

bool frame_can_cut(struct nic_frame *f)
{
    const u8 *frame = first(f);
    u8 protocol;
    u32 l4 = frame_find_l4(frame, f->pbuf->len, &protocol);
    if (!l4 || l4 != f->l4_offset || protocol != IP_PROTO_TCP || f->sum_offset != l4 + TCP_SUM)
        return false;
    f->header_bytes = l4 + (frame[l4 + TCP_WORDS] >> 4) * 4u;
    return f->header_bytes >= l4 + TCP_HLEN && f->header_bytes <= f->pbuf->len &&
           f->header_bytes < f->bytes && f->segment_bytes &&
           (f->bytes - f->header_bytes) / f->segment_bytes < FRAME_MOST_CUTS;
}

static void fill_ip(u8 *frame, u32 bytes, u32 number)
{
    u8 *ip = frame + IP;
    if (!is_ip4(frame)) {
        put16(ip + IP6_LENGTH, bytes - IP - IP6_HLEN);
        return;
    }
    put16(ip + IP4_LENGTH, bytes - IP);
    put16(ip + IP4_ID, get16(ip + IP4_ID) + number);
    memset(ip + IP4_SUM, 0, 2);
    u16 sum = inet_chksum(ip, (u16)((ip[0] & 15u) * 4));
    memcpy(ip + IP4_SUM, &sum, 2);
}

// The number-th segment, whose data begin `at` bytes behind the headers.
static void fill_headers(struct nic_frame *s, const struct nic_frame *f, u32 number, u32 at)
{
    u8 *frame = first(s), *tcp = frame + f->l4_offset;
    bool last = at + s->bytes == f->bytes;
    fill_ip(frame, s->bytes, number);
    put32(tcp + TCP_SEQUENCE, get32(tcp + TCP_SEQUENCE) + at);
    if (number)
        tcp[TCP_CONTROL] &= (u8)~CHANGES_BEFORE;
    if (!last)
        tcp[TCP_CONTROL] &= (u8)~CHANGES_AFTER;
    frame_leave_sum_out(s);
}

// [from, from+bytes) of one frame to `to` in another.
static void copy(const struct pbuf *in, u32 from, struct pbuf *out, u32 to, u32 bytes)
{
    for (; bytes; out = out->next) {
        u32 n = to < out->len ? MIN(out->len - to, bytes) : 0;
        pbuf_copy_partial(in, (u8 *)out->payload + to, (u16)n, (u16)from);
        to = to < out->len ? 0 : to - out->len;
        from += n;
        bytes -= n;
    }
}

int frame_cut(const struct nic_frame *f, int (*emit)(void *arg, struct nic_frame *segment),
              void *arg)
{
    u32 data = f->bytes - f->header_bytes, number = 0;
    for (u32 at = 0, n; at < data; at += n) {
        n = MIN(f->segment_bytes, data - at);
        struct nic_frame s = {.bytes = f->header_bytes + n};
        s.pbuf = frame_alloc(s.bytes);
        if (!s.pbuf)
            return E_NOMEM;
        copy(f->pbuf, 0, s.pbuf, 0, f->header_bytes);
        copy(f->pbuf, f->header_bytes + at, s.pbuf, f->header_bytes, n);
        fill_headers(&s, f, number++, at);
        int r = emit(arg, &s);
        pbuf_free(s.pbuf);
        if (r)
            return r;
    }
    return 0;
}

// ---- VLAN tags ---------------------------------------------------------------------------------

static void move_offsets(struct nic_frame *f, u32 by)
{
    f->bytes += by;
    if (f->l4_offset) {
        f->l4_offset += by;
        f->sum_offset += by;
    }
    if (f->header_bytes)
        f->header_bytes += by;
}

void frame_add_tag(struct nic_frame *f, u16 vlan)
{
    pbuf_add_header_force(f->pbuf, VLAN_TAG);
    u8 *frame = first(f);
    memmove(frame, frame + VLAN_TAG, 12);
    put16(frame + 12, ETHERTYPE_VLAN);
    put16(frame + 14, vlan);
    move_offsets(f, VLAN_TAG);
}

bool frame_take_tag(struct nic_frame *f, u16 *vlan)
{
    u8 *frame = first(f);
    if (f->pbuf->len < ETHERNET_HEADER + VLAN_TAG || frame_type(frame) != ETHERTYPE_VLAN)
        return false;
    *vlan = get16(frame + 14) & 0xfff;
    memmove(frame + VLAN_TAG, frame, 12);
    pbuf_remove_header(f->pbuf, VLAN_TAG);
    move_offsets(f, 0u - VLAN_TAG);
    return true;
}
