// SPDX-License-Identifier: MIT
// The switch's way out: frames to and from the host's NIC, and what that NIC cannot do itself.
#include "net/uplink.h"

#include "lwip/prot/ethernet.h"
#include "lwip/prot/ip.h"
#include "lwip/prot/ip4.h"

#include "kernel/lib.h"
#include "net/frame.h"
#include "net/netif.h"
#include "net/switch.h"

#define MAX_FRAME 65535u // what a chain of pbufs can hold

static struct nic *nic;
static const u8 (*groups)[6];
static u32 group_count;
static bool receive_all, refused;

void uplink_start(struct nic *n)
{
    nic = n;
}

// ---- What is received --------------------------------------------------------------------------

static void set_filter(void)
{
    nic->ops->set_filter(nic, groups, group_count, receive_all);
}

void uplink_set_filter(const u8 (*multicast)[6], u32 count)
{
    groups = multicast;
    group_count = count;
    set_filter();
}

void uplink_receive_all(void)
{
    if (receive_all)
        return;
    receive_all = true;
    set_filter();
}

static struct nic_frame incoming; // a frame that is not complete: its buffers so far
static struct nic_frame partial;  // what the device says of it

void nic_receive_failed(struct nic *n)
{
    (void)n;
    if (incoming.pbuf)
        pbuf_free(incoming.pbuf);
    incoming.pbuf = NULL;
    partial = (struct nic_frame){.pbuf = NULL};
}

void nic_received_partial(const struct nic_frame *f)
{
    partial = *f;
}

// Takes over what the device said where it fits the frame. A sum that was left out, by another
// guest of the machine this host runs on, vouches for the frame as a verified one does.
static void finish(struct nic_frame *f, bool sum_ok)
{
    bool sum = partial.l4_offset >= ETHERNET_HEADER && partial.sum_offset > partial.l4_offset &&
               partial.sum_offset + 2 <= f->pbuf->len;
    f->bytes = f->pbuf->tot_len;
    f->sum_ok = sum_ok;
    f->l4_offset = sum ? partial.l4_offset : 0;
    f->sum_offset = sum ? partial.sum_offset : 0;
    f->segment_bytes = sum ? partial.segment_bytes : 0;
}

void nic_received(struct nic *n, struct nic_buffer *b, u32 from, u32 bytes, u32 flags)
{
    struct pbuf *p = nic_buffer_pbuf(b, from, bytes);
    if (bytes < MIN_FRAME) // lwIP reads all of an ARP packet, however little of it came
        memset((u8 *)p->payload + bytes, 0, MIN_FRAME - bytes);
    if (incoming.pbuf && incoming.pbuf->tot_len + bytes > MAX_FRAME) {
        n->rx_errors++;
        nic_receive_failed(n);
    }
    if (incoming.pbuf)
        pbuf_cat(incoming.pbuf, p);
    else
        incoming.pbuf = p;
    if (!(flags & NIC_RX_END))
        return;
    struct nic_frame f = incoming;
    incoming.pbuf = NULL;
    finish(&f, flags & NIC_RX_SUM_OK);
    partial = (struct nic_frame){.pbuf = NULL};
    n->rx_frames++;
    n->rx_bytes += f.bytes;
    switch_from_uplink(&f);
}

// ---- What is sent ------------------------------------------------------------------------------

bool uplink_has_room(void)
{
    // Without a link nothing leaves the ring, and nobody may wait for that.
    bool room = !netif_link_is_up() || nic->ops->has_room(nic);
    refused |= !room;
    return room;
}

void uplink_refuse(void)
{
    refused = true;
}

bool uplink_was_refused(void)
{
    bool was = refused;
    refused = false;
    return was;
}

// The sums that every NIC makes: TCP's and UDP's, right behind the IP header.
static bool nic_sums(const struct nic_frame *f)
{
    u8 protocol;
    u32 l4 = frame_find_l4(f->pbuf->payload, f->pbuf->len, &protocol);
    return nic->can_sum && l4 == f->l4_offset &&
           f->sum_offset == l4 + (protocol == IP_PROTO_TCP ? 16 : 6);
}

static bool nic_cuts(const struct nic_frame *f)
{
    return nic->can_segment && frame_type(f->pbuf->payload) == ETHTYPE_IP &&
           f->l4_offset == ETHERNET_HEADER + IP_HLEN;
}

static int send_segment(void *arg, struct nic_frame *s)
{
    return uplink_send(s, *(u16 *)arg);
}

int uplink_send(struct nic_frame *f, u16 vlan)
{
    if (f->segment_bytes && (vlan || !nic_cuts(f)))
        return frame_cut(f, send_segment, &vlan);
    if (f->bytes > nic->mtu + ETHERNET_HEADER && !f->segment_bytes)
        return E_INVAL;
    // NICs count offsets from a header without a tag.
    if (f->l4_offset && (vlan || !nic_sums(f)))
        frame_make_sum(f);
    if (vlan)
        frame_add_tag(f, vlan);
    if (nic->ops->transmit(nic, f)) {
        refused = true;
        return E_BUSY;
    }
    nic->tx_frames++;
    nic->tx_bytes += f->bytes;
    return 0;
}
