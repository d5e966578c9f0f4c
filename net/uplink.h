// SPDX-License-Identifier: MIT
// The switch's way out: frames to and from the host's NIC. Network thread only.
#ifndef SKIFF_NET_UPLINK_H
#define SKIFF_NET_UPLINK_H

#include "net/nic.h"

void uplink_start(struct nic *n);
// A frame that the NIC has no room for now is refused; the network thread sees that, and senders
// are tried again.
bool uplink_has_room(void);
void uplink_refuse(void);      // as if there had been none
bool uplink_was_refused(void); // since the last call
// Sends a frame, tagged where vlan is not 0, and does in software what the NIC cannot. The frame's
// memory stays the caller's, who does not read it again. 0, E_BUSY, or E_INVAL: too long.
int uplink_send(struct nic_frame *f, u16 vlan);
// Groups that the host itself listens to.
void uplink_set_filter(const u8 (*multicast)[6], u32 count);
// From here on every frame on the wire is received: guests have addresses of their own.
void uplink_receive_all(void);

#endif
