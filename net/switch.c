// SPDX-License-Identifier: MIT
// The virtual switch: who gets a frame, and who may send it.
#include "net/switch.h"

#include "kernel/lib.h"
#include "kernel/log.h"
#include "kernel/time.h"
#include "net/frame.h"
#include "net/gro.h"
#include "net/netif.h"
#include "net/uplink.h"

#define BUCKETS     64u
#define SMALL_FRAME 256u // acknowledgements and questions wait for nobody

static struct switch_port *table[BUCKETS]; // by address and VLAN
static u32 learning;                       // ports with more than one station
static u32 queued_pbufs;
static bool any_touched, any_blocked, any_attended;
static u64 moved;       // since switch_moved
static bool hosts_turn; // guests wait for the wire, and this once its own stack comes before them

#define EACH_PORT(p)                                                                               \
    for (u32 bucket = 0; bucket < BUCKETS; bucket++)                                               \
        for (struct switch_port *p = table[bucket]; p; p = p->next)

static u64 key_of(const u8 mac[6], u16 vlan)
{
    u64 key = (u64)vlan << 48;
    memcpy(&key, mac, 6);
    return key;
}

static struct switch_port **bucket_of(u64 key)
{
    return &table[key * 0x9e3779b97f4a7c15ull >> 58]; // the top 6 bits: BUCKETS
}

static struct switch_port *find_own(u64 key)
{
    struct switch_port *p = *bucket_of(key);
    while (p && key_of(p->mac, p->vlan) != key)
        p = p->next;
    return p;
}

// ---- Stations behind a port --------------------------------------------------------------------

// Its place in the port's table; NULL: not there, or too long ago.
static u64 *find_station(struct switch_port *p, u64 key)
{
    u64 now = time_ns();
    for (u32 i = 0; i + 1 < p->stations; i++)
        if (p->station[i].key == key && now - p->station[i].seen_ns < SWITCH_STATION_NS)
            return &p->station[i].seen_ns;
    return NULL;
}

static struct switch_port *find_learned(u64 key)
{
    EACH_PORT(p)
    {
        if (find_station(p, key))
            return p;
    }
    return NULL;
}

static struct switch_port *find(u64 key)
{
    struct switch_port *p = find_own(key);
    return p || !learning ? p : find_learned(key);
}

// Whether the port may send as this station. One that is new takes a place that is free or stale.
static bool may_send_as(struct switch_port *p, u64 key)
{
    u64 now = time_ns(), *seen = find_station(p, key);
    if (seen) {
        *seen = now;
        return true;
    }
    if (key & 1 || find(key) || netif_wants((const u8 *)&key))
        return false;
    for (u32 i = 0; i + 1 < p->stations; i++) {
        bool stale = now - p->station[i].seen_ns >= SWITCH_STATION_NS;
        if (p->station[i].key && !stale)
            continue;
        p->station[i].key = key;
        p->station[i].seen_ns = now;
        return true;
    }
    return false;
}

// ---- To a station ------------------------------------------------------------------------------

static void touch(struct switch_port *p)
{
    p->touched = any_touched = true;
}

static void forget_first(struct switch_port *p)
{
    struct pbuf *pbuf = p->queue[p->queue_first].frame.pbuf;
    queued_pbufs -= pbuf_clen(pbuf);
    pbuf_free(pbuf);
    p->queue_first = (p->queue_first + 1) % SWITCH_QUEUE;
    p->queued--;
}

static bool is_old(const struct switch_port *p)
{
    return time_ns() - p->queue[p->queue_first].since_ns > SWITCH_QUEUE_NS;
}

// What waits for a guest that stands still must not keep the others' frames out.
static void forget_old(void)
{
    EACH_PORT(p)
    {
        for (; p->queued && is_old(p); p->figures.rx_dropped++)
            forget_first(p);
    }
}

static void enqueue(struct switch_port *p, const struct nic_frame *f)
{
    u32 pbufs = pbuf_clen(f->pbuf);
    if (p->queued == SWITCH_QUEUE || queued_pbufs + pbufs > SWITCH_QUEUE_PBUFS)
        forget_old();
    if (p->queued == SWITCH_QUEUE || queued_pbufs + pbufs > SWITCH_QUEUE_PBUFS) {
        p->figures.rx_dropped++;
        return;
    }
    u32 at = (p->queue_first + p->queued++) % SWITCH_QUEUE;
    pbuf_ref(f->pbuf);
    queued_pbufs += pbufs;
    p->queue[at].frame = *f;
    p->queue[at].since_ns = time_ns();
}

static void took(struct switch_port *p, const struct nic_frame *f)
{
    p->figures.rx_frames++;
    p->figures.rx_bytes += f->bytes;
    moved += f->bytes + SWITCH_FRAME_BYTES;
}

static void offer(struct switch_port *p, const struct nic_frame *f)
{
    int r = p->queued ? E_BUSY : p->ops->deliver(p, f);
    if (r == E_BUSY)
        enqueue(p, f);
    else if (r)
        p->figures.rx_dropped++;
    else
        took(p, f);
}

static int deliver_segment(void *port, struct nic_frame *s)
{
    struct switch_port *p = port;
    if (!p->can_sum)
        frame_make_sum(s);
    offer(p, s);
    return 0;
}

static bool can_cut(const struct switch_port *p, const struct nic_frame *f)
{
    bool ip4 = ((const u8 *)f->pbuf->payload)[ETHERNET_HEADER] >> 4 == 4;
    return p->can_sum && (ip4 ? p->can_cut4 : p->can_cut6);
}

// In a shape that the station takes.
static void deliver(struct switch_port *p, struct nic_frame *f)
{
    touch(p);
    if (f->segment_bytes && !can_cut(p, f)) {
        if (frame_cut(f, deliver_segment, p))
            p->figures.rx_dropped++;
        return;
    }
    if (f->l4_offset && !p->can_sum)
        frame_make_sum(f);
    offer(p, f);
}

void switch_deliver(struct switch_port *p, struct nic_frame *f)
{
    deliver(p, f);
}

// What waits was made for the driver that was there then.
static bool still_takes(const struct switch_port *p, const struct nic_frame *f)
{
    return (!f->l4_offset || p->can_sum) && (!f->segment_bytes || can_cut(p, f));
}

void switch_port_ready(struct switch_port *p)
{
    touch(p);
    while (p->queued) {
        const struct nic_frame *f = &p->queue[p->queue_first].frame;
        int r = is_old(p) || !still_takes(p, f) ? E_TIMEOUT : p->ops->deliver(p, f);
        if (r == E_BUSY)
            return;
        if (r)
            p->figures.rx_dropped++;
        else
            took(p, f);
        forget_first(p);
    }
}

// A guest may cause so many copies for others, for each costs the host its time.
static bool may_flood(struct switch_port *from)
{
    u64 now = time_ns(), burst = (u64)SWITCH_FLOOD_BURST * NS_PER_SEC / SWITCH_FLOOD_RATE;
    if (!from)
        return true;
    if (from->flood_ns > now + burst)
        return false;
    from->flood_ns = MAX(from->flood_ns, now) + NS_PER_SEC / SWITCH_FLOOD_RATE;
    return true;
}

static void flood(struct switch_port *from, struct nic_frame *f, u16 vlan)
{
    EACH_PORT(p)
    {
        if (p == from || p->vlan != vlan || p->departed)
            continue;
        if (may_flood(from))
            deliver(p, f);
        else
            from->figures.tx_refused++;
    }
}

// The host's stack takes the pbuf over and changes it: what others have as well it gets a copy of.
// It reads beyond the end of a short frame; those from the wire have zeros there.
static void deliver_host(struct nic_frame *f, bool wire)
{
    struct pbuf *p = f->pbuf;
    bool sum_ok = f->sum_ok || f->l4_offset;
    f->pbuf = NULL;
    if (p->ref > 1 || (!wire && f->bytes < MIN_FRAME)) {
        struct pbuf *copy = frame_alloc(MAX(f->bytes, MIN_FRAME));
        if (copy) {
            memset(copy->payload, 0, MIN_FRAME);
            pbuf_copy(copy, p);
        }
        pbuf_free(p);
        p = copy;
    }
    if (p && wire)
        gro_receive(p, sum_ok);
    else if (p)
        gro_deliver(p, sum_ok);
}

// ---- From the stations and from the wire -------------------------------------------------------

// IEEE 802.1Q, 8.6.3: a bridge forwards nothing to these, and a guest that sent what switches tell
// each other could have the host's link shut.
static bool is_reserved(const u8 mac[6])
{
    static const u8 prefix[5] = {0x01, 0x80, 0xc2, 0, 0};
    return memcmp(mac, prefix, sizeof(prefix)) == 0 && mac[5] <= 0x0f;
}

static bool may_send(struct switch_port *p, const struct nic_frame *f)
{
    const u8 *frame = f->pbuf->payload;
    if (f->pbuf->len < ETHERNET_HEADER || is_reserved(frame)) {
        p->figures.tx_refused++;
        return false;
    }
    u32 type = frame_type(frame);
    bool own = memcmp(frame + 6, p->mac, 6) == 0;
    if (type != ETHERTYPE_VLAN && type != ETHERTYPE_QINQ &&
        (own || may_send_as(p, key_of(frame + 6, p->vlan))))
        return true;
    p->figures.wrong_source++;
    return false;
}

static void send_out(struct switch_port *p, struct nic_frame *f)
{
    if (uplink_send(f, p->vlan))
        p->figures.tx_refused++;
}

static void end(struct nic_frame *f)
{
    if (f->pbuf)
        pbuf_free(f->pbuf);
}

void switch_wait(struct switch_port *p)
{
    p->blocked = any_blocked = true;
    uplink_refuse();
}

int switch_from_port(struct switch_port *p, struct nic_frame *f)
{
    if (!may_send(p, f)) {
        end(f);
        return 0;
    }
    const u8 *to = f->pbuf->payload;
    bool group = mac_is_group(to), host = p->vlan == 0 && netif_wants(to);
    struct switch_port *q = group ? NULL : find(key_of(to, p->vlan));
    bool wire = group || (!host && (!q || q->elsewhere));
    if (wire && !uplink_has_room()) {
        p->blocked = any_blocked = true;
        return E_BUSY;
    }
    p->figures.tx_frames++;
    p->figures.tx_bytes += f->bytes;
    moved += f->bytes + SWITCH_FRAME_BYTES;
    if (group)
        flood(p, f, p->vlan);
    if (q && q != p && !wire)
        deliver(q, f);
    if (wire)
        send_out(p, f);
    if (host)
        deliver_host(f, false);
    end(f);
    return 0;
}

int switch_from_host(struct nic_frame *f)
{
    const u8 *to = f->pbuf->payload;
    struct switch_port *q = mac_is_group(to) ? NULL : find(key_of(to, 0));
    if (q && !q->elsewhere) {
        deliver(q, f);
        return 0;
    }
    // What the stack is made to send by an acknowledgement would take the room that guests wait
    // for.
    if (any_blocked && !hosts_turn && f->bytes > SMALL_FRAME) {
        uplink_refuse();
        return E_BUSY;
    }
    if (mac_is_group(to))
        flood(NULL, f, 0);
    return uplink_send(f, 0);
}

// The address of a guest that has left, on the wire: the network knows where it is now.
static void note_source(const u8 *frame, u16 vlan)
{
    struct switch_port *p = find_own(key_of(frame + 6, vlan));
    if (p && p->departed)
        p->elsewhere = true;
}

static void from_uplink(struct nic_frame *f)
{
    u16 vlan = 0;
    const u8 *frame = f->pbuf->payload;
    if (f->pbuf->len < ETHERNET_HEADER || is_reserved(frame))
        return;
    if (frame_take_tag(f, &vlan))
        frame = f->pbuf->payload;
    if (f->segment_bytes && !frame_can_cut(f))
        f->segment_bytes = 0; // as long as it is
    note_source(frame, vlan);
    if (mac_is_group(frame)) {
        flood(NULL, f, vlan);
    } else {
        struct switch_port *p = find(key_of(frame, vlan));
        if (p) {
            deliver(p, f);
            return;
        }
    }
    if (vlan == 0 && netif_wants(frame))
        deliver_host(f, true);
}

void switch_from_uplink(struct nic_frame *f)
{
    from_uplink(f);
    end(f);
}

// ---- Ports -------------------------------------------------------------------------------------

void switch_remove(struct switch_port *p)
{
    struct switch_port **at = bucket_of(key_of(p->mac, p->vlan));
    while (*at && *at != p)
        at = &(*at)->next;
    if (!*at)
        return;
    *at = p->next;
    learning -= p->stations > 1;
    switch_announce_stop(p);
    while (p->queued)
        forget_first(p);
}

static void insert(struct switch_port *p)
{
    struct switch_port **bucket = bucket_of(key_of(p->mac, p->vlan));
    p->next = *bucket;
    *bucket = p;
    learning += p->stations > 1;
}

int switch_depart(struct switch_port *from, struct switch_port *to)
{
    if (find_own(key_of(from->mac, from->vlan)) != from)
        return E_NOENT;
    memcpy(to->mac, from->mac, sizeof(to->mac));
    to->vlan = from->vlan;
    to->departed = true;
    for (; from->queued; forget_first(from)) {
        struct nic_frame *f = &from->queue[from->queue_first].frame;
        if (!mac_is_group(f->pbuf->payload)) // these have reached it where it is now
            deliver(to, f);
    }
    switch_remove(from);
    insert(to);
    return 0;
}

int switch_add(struct switch_port *p)
{
    u64 key = key_of(p->mac, p->vlan);
    struct switch_port *other = find_own(key);
    if (other && other->departed) {
        switch_remove(other);
        other->ops->replaced(other);
        other = NULL;
    }
    if (other || (p->vlan == 0 && netif_wants(p->mac)))
        return E_EXIST;
    if (frame_pool_init())
        return E_NOMEM;
    insert(p);
    uplink_receive_all();
    return 0;
}

void switch_flush(void)
{
    if (!any_touched)
        return;
    any_touched = false;
    EACH_PORT(p)
    {
        if (p->touched)
            p->ops->flush(p);
        p->touched = false;
    }
}

void switch_attend(struct switch_port *p)
{
    p->attended = any_attended = true;
}

void switch_attended(void)
{
    if (!any_attended)
        return;
    EACH_PORT(p)
    {
        if (p->attended && !p->blocked)
            p->ops->send(p);
    }
}

void switch_rest(void)
{
    if (!any_attended)
        return;
    any_attended = false;
    EACH_PORT(p)
    {
        bool attended = p->attended;
        p->attended = attended && p->blocked;
        any_attended |= p->attended;
        if (attended)
            p->ops->rest(p);
    }
}

u64 switch_moved(void)
{
    u64 bytes = moved;
    moved = 0;
    return bytes;
}

static void guests_turn(void)
{
    if (!any_blocked)
        return;
    any_blocked = false;
    EACH_PORT(p)
    {
        bool blocked = p->blocked;
        p->blocked = false;
        if (blocked)
            p->ops->send(p);
    }
}

void switch_retry(void (*its_turn)(void))
{
    static bool host_first;
    host_first = !host_first;
    if (!host_first)
        guests_turn();
    hosts_turn = true;
    its_turn();
    hosts_turn = false;
    if (host_first)
        guests_turn();
}
