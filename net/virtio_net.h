// SPDX-License-Identifier: MIT
// What a virtio network device and its driver agree on (virtio 1.2, 5.1): the host's card has the
// driver's side, a guest's the device's.
#ifndef SKIFF_NET_VIRTIO_NET_H
#define SKIFF_NET_VIRTIO_NET_H

#include "kernel/types.h"

// 5.1.3
#define NET_F_CSUM           BIT(0)
#define NET_F_GUEST_CSUM     BIT(1)
#define NET_F_MTU            BIT(3)
#define NET_F_MAC            BIT(5)
#define NET_F_GUEST_TSO4     BIT(7)
#define NET_F_GUEST_TSO6     BIT(8)
#define NET_F_HOST_TSO4      BIT(11)
#define NET_F_HOST_TSO6      BIT(12)
#define NET_F_MRG_RXBUF      BIT(15)
#define NET_F_STATUS         BIT(16)
#define NET_F_CTRL_VQ        BIT(17)
#define NET_F_GUEST_ANNOUNCE BIT(21)

struct virtio_net_header { // 5.1.6
    u8 flags, gso_type;
    u16 header_bytes, gso_bytes, sum_start, sum_offset, buffers;
};
_Static_assert(sizeof(struct virtio_net_header) == 12, "virtio 1.2, 5.1.6");
#define NET_HEADER_NEEDS_SUM BIT(0)
#define NET_HEADER_SUM_OK    BIT(1)
#define NET_GSO_NONE         0
#define NET_GSO_TCP4         1
#define NET_GSO_TCP6         4

#endif
