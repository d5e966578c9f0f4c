// SPDX-License-Identifier: MIT
// The virtual switch: guests' network cards, the host's own network stack and the wire on one
// Ethernet. The network thread owns all of it.
//
// A guest's port has an address that is known from its configuration, and what is not known here is
// on the wire: so nothing unknown is ever flooded to guests. Learned are the stations behind a
// guest that may have more than one (a bridge, containers), and that a guest's address has come up
// on the wire, for then it runs elsewhere.
#ifndef SKIFF_NET_SWITCH_H
#define SKIFF_NET_SWITCH_H

#include "net/guest_nic.h"
#include "net/nic.h"

#define SWITCH_QUEUE       64u  // frames that wait for a guest
#define SWITCH_QUEUE_PBUFS 128u // of all guests together: the NIC needs its buffers
#define SWITCH_QUEUE_NS    (2 * NS_PER_SEC)
#define SWITCH_STATIONS    16u // behind one port, at most
#define SWITCH_STATION_NS  (300 * NS_PER_SEC)
#define SWITCH_FRAME_BYTES 4096u  // a frame costs as much as so many bytes of one, roughly
#define SWITCH_FLOOD_BURST 1000u  // copies for other guests that one guest may cause,
#define SWITCH_FLOOD_RATE  10000u // and as many a second

struct switch_port;

struct switch_port_ops {
    // Copies a frame to the station. 0; E_BUSY: it has no room, the frame waits until
    // switch_port_ready; another error: the frame is dropped.
    int (*deliver)(struct switch_port *p, const struct nic_frame *f);
    void (*flush)(struct switch_port *p); // after deliveries: tell the station
    // Send what there is: the wire has room again, or the port is attended to.
    void (*send)(struct switch_port *p);
    void (*rest)(
        struct switch_port *p); // nobody attends to it any more: it says when it has frames
    void (*replaced)(struct switch_port *p); // a departed one: the guest is back, the port removed
};

struct switch_port {
    // Set before switch_add. can_: what the station takes with its sum left out, or not cut up.
    const struct switch_port_ops *ops;
    u8 mac[6];
    u16 vlan;     // 0: untagged on the wire
    u32 stations; // how many addresses may send, its own among them
    bool can_sum, can_cut4, can_cut6;
    // The guest has left: what still comes for it from the wire is delivered here, and what the
    // stations of this host send to it as well, until its address has been seen on the wire.
    bool departed;
    // The switch's
    bool elsewhere; // departed, and seen on the wire
    struct switch_figures figures;
    bool blocked, touched, attended;
    struct {
        u64 key, seen_ns;
    } station[SWITCH_STATIONS - 1];
    struct {
        struct nic_frame frame;
        u64 since_ns;
    } queue[SWITCH_QUEUE];
    u32 queue_first, queued;
    u64 flood_ns; // as if all copies until now had been at SWITCH_FLOOD_RATE
    u32 announced;
    struct switch_port *next;
};

// Network thread, as all here. add: E_EXIST when the address is taken in this VLAN, E_NOMEM.
int switch_add(struct switch_port *p);
void switch_remove(struct switch_port *p); // forgets it and its frames
// The station takes frames again: hands over what waits.
void switch_port_ready(struct switch_port *p);
// A frame from a station. E_BUSY: the wire has no room, come again with it when `send` is called.
// Else 0, also for what is refused, and the pbuf is taken over.
int switch_from_port(struct switch_port *p, struct nic_frame *f);
// The station has something to send and no memory for it: `send` is called in a while.
void switch_wait(struct switch_port *p);
// `send` is called at every switch_attended, and `rest` once at the switch_rest that follows.
void switch_attend(struct switch_port *p);
void switch_attended(void);
void switch_rest(void); // ports that wait for the wire stay attended to
// What stations have sent and got since the last call: bytes, and SWITCH_FRAME_BYTES more for each
// frame.
u64 switch_moved(void);
// A frame from the host's own stack, whose pbuf it stays: 0, E_BUSY, or E_INVAL.
int switch_from_host(struct nic_frame *f);
// A frame from the wire; takes its pbuf over.
void switch_from_uplink(struct nic_frame *f);
void switch_flush(void); // once after some frames
// Once after the wire has had no room. Guests and the host's stack (its_turn) go first by turns, so
// that neither a guest nor a move takes all of the wire.
void switch_retry(void (*its_turn)(void));
// A frame for one station, from elsewhere than the wire; the pbuf stays the caller's.
void switch_deliver(struct switch_port *p, struct nic_frame *f);
// A guest has left: `to` takes the place of `from`, which is removed, and the frames that wait for
// it alone. E_NOENT: it is not there.
int switch_depart(struct switch_port *from, struct switch_port *to);
// Tells the network where the station is now, several times in the next seconds (announce.c).
void switch_announce(struct switch_port *p);
void switch_announce_stop(struct switch_port *p);

#endif
