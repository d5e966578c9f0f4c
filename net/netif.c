// SPDX-License-Identifier: MIT
// Ties the NIC to lwIP: frames in and out, multicast filter, link, addresses and their changes.
#include "net/netif.h"

#include "lwip/dhcp.h"
#include "lwip/etharp.h"
#include "lwip/ethip6.h"
#include "lwip/inet_chksum.h"
#include "lwip/mld6.h"
#include "lwip/netif.h"
#include "lwip/priv/tcp_priv.h"
#include "lwip/stats.h"
#include "lwip/timeouts.h"

#include "kernel/lib.h"
#include "kernel/log.h"
#include "net/frame.h"
#include "net/gro.h"
#include "net/lwip/hooks.h"
#include "net/switch.h"
#include "net/uplink.h"

#define LINK_CHECK_MS 250
#define MAX_FRAME     65535u // what a chain of pbufs can hold
#define MAX_MULTICAST 32

static struct netif host_netif;
static struct nic *host_nic;
static const struct host_config *config;
static ip6_addr_t gateway6;
// Groups lwIP joined, and all nodes' (RFC 4291, 2.7.1), to which everybody belongs without joining.
static u8 multicast[MAX_MULTICAST][6] = {{0x33, 0x33, 0, 0, 0, 1}};
static u32 multicast_count = 1;

void address_to_lwip(const struct ip_address *a, ip_addr_t *out)
{
    ip_addr_set_zero(out);
    if (a->family == 6) {
        IP_SET_TYPE_VAL(*out, IPADDR_TYPE_V6);
        memcpy(ip_2_ip6(out)->addr, a->bytes, 16);
        ip6_addr_assign_zone(ip_2_ip6(out), IP6_UNICAST, &host_netif);
    } else {
        IP_SET_TYPE_VAL(*out, IPADDR_TYPE_V4);
        memcpy(&ip_2_ip4(out)->addr, a->bytes, 4);
    }
}

void address_from_lwip(const ip_addr_t *a, u8 prefix, struct ip_address *out)
{
    memset(out, 0, sizeof(*out));
    if (ip_addr_isany_val(*a))
        return;
    out->prefix = prefix;
    out->family = IP_IS_V6_VAL(*a) ? 6 : 4;
    if (out->family == 6)
        memcpy(out->bytes, ip_2_ip6(a)->addr, 16);
    else
        memcpy(out->bytes, &ip_2_ip4(a)->addr, 4);
}

static u32 prefix_mask(u8 prefix)
{
    return prefix ? lwip_htonl(~0u << (32 - prefix)) : 0;
}

static u8 mask_prefix(u32 mask)
{
    return mask ? (u8)(32 - __builtin_ctz(lwip_ntohl(mask))) : 0;
}

// ---- Transmission ------------------------------------------------------------------------------

static u16
    segment_bytes; // of the TCP segment on its way from lwIP to link_output, 0: send it whole

static err_t refuse(void)
{
    host_nic->tx_dropped++;
    LINK_STATS_INC(link.drop);
    return ERR_BUF;
}

static err_t link_output(struct netif *netif, struct pbuf *p)
{
    struct nic_frame f = {.pbuf = p, .bytes = p->tot_len};
    (void)netif;
    if (host_nic->can_sum) // lwIP has left TCP's and UDP's sums out
        frame_leave_sum_out(&f);
    if (f.bytes > host_nic->mtu + ETHERNET_HEADER) {
        f.segment_bytes = segment_bytes;
        if (!segment_bytes || !frame_can_cut(&f))
            return refuse();
    }
    if (switch_from_host(&f))
        return refuse();
    LINK_STATS_INC(link.xmit);
    return ERR_OK;
}

// Large segments: lwIP is told (tcp.c) that a segment may be many times as long as the link's
// packets, and the device cuts it up. The IP layer, which would make fragments of such a segment,
// meets it with a larger MTU; this is called when TCP has made the segment's header, right before.
u32_t *lwip_port_segment(struct pbuf *segment, const struct tcp_pcb *pcb, u32_t *options)
{
    u32 packet = segment->tot_len + IP_HLEN;
    bool large =
        host_nic->can_segment && pcb && !IP_IS_V6_VAL(pcb->remote_ip) && packet > host_nic->mtu;
    segment_bytes = large ? tcp_segment_bytes(pcb) : 0;
    host_netif.mtu = segment_bytes ? (u16)MAX_FRAME : (u16)host_nic->mtu;
    return options;
}

static err_t ip4_out(struct netif *netif, struct pbuf *p, const ip4_addr_t *to)
{
    netif->mtu = (u16)host_nic->mtu;
    err_t err = etharp_output(netif, p, to);
    segment_bytes = 0;
    return err;
}

// ---- Reception ---------------------------------------------------------------------------------

bool netif_wants(const u8 mac[6])
{
    static const u8 broadcast[6] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
    if (!mac_is_group(mac))
        return memcmp(mac, host_nic->mac, 6) == 0;
    for (u32 i = 0; i < multicast_count; i++)
        if (memcmp(multicast[i], mac, 6) == 0)
            return true;
    return memcmp(mac, broadcast, 6) == 0;
}

// What is verified, lwIP need not look at.
void gro_deliver(struct pbuf *p, bool sum_ok)
{
    u16 checked = NETIF_CHECKSUM_CHECK_TCP | NETIF_CHECKSUM_CHECK_UDP;
    LINK_STATS_INC(link.recv);
    if (sum_ok)
        host_netif.chksum_flags &= (u16)~checked;
    else
        host_netif.chksum_flags |= checked;
    if (host_netif.input(p, &host_netif) != ERR_OK)
        pbuf_free(p);
}

// IPv6 groups become 33:33 and the last four bytes of the group (RFC 2464, 7).
static err_t mld_filter(struct netif *netif, const ip6_addr_t *group,
                        enum netif_mac_filter_action act)
{
    u8 mac[6] = {0x33, 0x33};
    u32 i;
    (void)netif;
    memcpy(mac + 2, &group->addr[3], 4);
    for (i = 0; i < multicast_count && memcmp(multicast[i], mac, 6) != 0; i++)
        ;
    if (act == NETIF_ADD_MAC_FILTER) {
        if (i == multicast_count && i == MAX_MULTICAST)
            return ERR_MEM;
        if (i == multicast_count)
            memcpy(multicast[multicast_count++], mac, 6);
    }
    // A group that is left stays in the filter: another group may share its address, and lwIP drops
    // what it did not join.
    uplink_set_filter((const u8(*)[6])multicast, multicast_count);
    return ERR_OK;
}

static err_t init(struct netif *netif)
{
    netif->name[0] = 'e';
    netif->name[1] = 'n';
    netif->hostname = config->name[0] ? config->name : "skiff";
    memcpy(netif->hwaddr, host_nic->mac, 6);
    netif->hwaddr_len = 6;
    netif->mtu = (u16)host_nic->mtu;
    netif->flags = NETIF_FLAG_BROADCAST | NETIF_FLAG_ETHARP | NETIF_FLAG_ETHERNET | NETIF_FLAG_MLD6;
    netif->output = ip4_out;
    netif->output_ip6 = ethip6_output;
    netif->linkoutput = link_output;
    if (host_nic->can_sum) // IP's own sum is over 20 bytes: lwIP makes it
        netif->chksum_flags &= (u16) ~(NETIF_CHECKSUM_GEN_TCP | NETIF_CHECKSUM_GEN_UDP);
    netif_set_mld_mac_filter(netif, mld_filter);
    return ERR_OK;
}

static void log_address(const ip_addr_t *a, u8 prefix, bool taken)
{
    struct ip_address ours;
    char text[64];
    address_from_lwip(a, prefix, &ours);
    ip_format(&ours, text, sizeof(text));
    if (taken)
        log_error("net", "another host already uses %s: not using it", text);
    else
        log_info("net", "address %s", text);
}

// lwIP calls this for every change; only what is new is told.
static void status_changed(struct netif *netif)
{
    static u32 shown4;
    static u8 shown_state[LWIP_IPV6_NUM_ADDRESSES];
    u32 now4 = netif_ip4_addr(netif)->addr;
    if (now4 != shown4 && now4)
        log_address(&netif->ip_addr, mask_prefix(netif_ip4_netmask(netif)->addr), false);
    if (now4 != shown4 && !now4)
        log_warn("net", "the IPv4 address is gone: its DHCP lease ended");
    shown4 = now4;
    for (int i = 0; i < LWIP_IPV6_NUM_ADDRESSES; i++) {
        u8 state = netif_ip6_addr_state(netif, i);
        if (state == shown_state[i])
            continue;
        shown_state[i] = state;
        if (ip6_addr_isduplicated(state) || ip6_addr_ispreferred(state))
            log_address(&netif->ip6_addr[i], 64, ip6_addr_isduplicated(state));
    }
}

static void check_link(void *arg)
{
    (void)arg;
    bool up = host_nic->ops->link_up(host_nic);
    if (up != !!netif_is_link_up(&host_netif)) {
        log_info("net", "link %s", up ? "up" : "down");
        if (up)
            netif_set_link_up(&host_netif);
        else
            netif_set_link_down(&host_netif);
    }
    // Frames without a single interrupt: the firmware's interrupt line is not where they arrive.
    if (host_nic->interrupt != PCI_POLLED && host_nic->rx_frames > 0 && host_nic->irqs == 0) {
        host_nic->interrupt = PCI_POLLED;
        log_warn("net", "%s raises no interrupts: polling it every millisecond",
                 host_nic->ops->name);
    }
    sys_timeout(LINK_CHECK_MS, check_link, NULL);
}

static void start_ip4(void)
{
    ip_addr_t address, gateway;
    ip4_addr_t mask;
    if (config->dhcp) {
        if (dhcp_start(&host_netif) != ERR_OK)
            log_error("net", "no memory to start DHCP");
        return;
    }
    if (config->address4.family != 4)
        return;
    address_to_lwip(&config->address4, &address);
    mask.addr = prefix_mask(config->address4.prefix);
    ip_addr_set_zero_ip4(&gateway);
    if (config->gateway4.family == 4)
        address_to_lwip(&config->gateway4, &gateway);
    netif_set_addr(&host_netif, ip_2_ip4(&address), &mask, ip_2_ip4(&gateway));
}

// The link-local address is made from the MAC; a global one is the configured one, else routers may
// announce one (RFC 4862).
static void start_ip6(void)
{
    ip_addr_t a;
    netif_create_ip6_linklocal_address(&host_netif, 1);
    host_netif.ip6_autoconfig_enabled = config->address6.family != 6;
    if (config->address6.family != 6)
        return;
    if (config->address6.prefix != 64)
        log_warn("net",
                 "address6 has prefix /%u, but the host's network knows only /64: using that",
                 config->address6.prefix);
    address_to_lwip(&config->address6, &a);
    netif_ip6_addr_set(&host_netif, 1, ip_2_ip6(&a));
    netif_ip6_addr_set_state(&host_netif, 1, IP6_ADDR_TENTATIVE);
    if (config->gateway6.family == 6) {
        address_to_lwip(&config->gateway6, &a);
        ip6_addr_copy(gateway6, *ip_2_ip6(&a));
    }
}

const ip6_addr_t *lwip_port_gateway6(struct netif *netif, const ip6_addr_t *dest)
{
    (void)netif;
    (void)dest;
    return ip6_addr_isany(&gateway6) ? NULL : &gateway6;
}

void netif_start(struct nic *n, const struct host_config *cfg)
{
    host_nic = n;
    config = cfg;
    netif_add_noaddr(&host_netif, NULL, init, netif_input);
    netif_set_default(&host_netif);
    netif_set_status_callback(&host_netif, status_changed);
    netif_set_up(&host_netif);
    start_ip6();
    start_ip4();
    check_link(NULL);
}

bool netif_can_segment(void)
{
    return host_nic->can_segment;
}

bool netif_link_is_up(void)
{
    return netif_is_link_up(&host_netif);
}

// From any thread: addresses are read while lwIP may change them, which shows for a moment at most.
void netif_get_info(struct net_info *out)
{
    const struct netif *n = &host_netif;
    out->link = netif_is_link_up(n);
    address_from_lwip(&n->ip_addr, mask_prefix(netif_ip4_netmask(n)->addr), &out->address4);
    address_from_lwip(&n->gw, 0, &out->gateway4);
    address_from_lwip(&n->ip6_addr[0], 64, &out->link_local6);
    for (int i = 1; i < LWIP_IPV6_NUM_ADDRESSES && !out->address6.family; i++)
        if (ip6_addr_isvalid(netif_ip6_addr_state(n, i)))
            address_from_lwip(&n->ip6_addr[i], 64, &out->address6);
}
