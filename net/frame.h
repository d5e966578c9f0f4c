// SPDX-License-Identifier: MIT
// What a device would do with a frame, done in software: checksums, TCP segments. VLAN tags.
#ifndef SKIFF_NET_FRAME_H
#define SKIFF_NET_FRAME_H

#include "net/nic.h"

#define VLAN_TAG        4u
#define ETHERTYPE_VLAN  0x8100u // IEEE 802.1Q, 9.6
#define ETHERTYPE_QINQ  0x88a8u
#define FRAME_MOST_CUTS 256u // segments of one frame

static inline u32 frame_type(const u8 *frame)
{
    return (u32)frame[12] << 8 | frame[13];
}
static inline bool mac_is_group(const u8 mac[6])
{
    return mac[0] & 1;
}

// Where the TCP or UDP header of an untagged packet begins; 0 when it has none that a device can
// sum, or not all of it lies within the first `bytes`.
u32 frame_find_l4(const u8 *frame, u32 bytes, u8 *protocol);
// Leaves out the packet's TCP or UDP checksum, for whoever is next to make it: the field gets the
// pseudo header's sum.
void frame_leave_sum_out(struct nic_frame *f);
// Makes the sum that was left out.
void frame_make_sum(struct nic_frame *f);
// Whether the segment that f carries is what it says and may be cut up. Fills in header_bytes.
bool frame_can_cut(struct nic_frame *f);
// Cuts f, which frame_can_cut, into frames with their sums left out, and hands each to emit, which
// does not own it. Stops when there is no memory, or when emit returns an error, and returns it.
int frame_cut(const struct nic_frame *f, int (*emit)(void *arg, struct nic_frame *segment),
              void *arg);
// Puts a tag into a frame with FRAME_HEADROOM or VLAN_TAG bytes of it left, and takes one out
// (false: it has none, or is too short for one).
void frame_add_tag(struct nic_frame *f, u16 vlan);
bool frame_take_tag(struct nic_frame *f, u16 *vlan);

#endif
