// SPDX-License-Identifier: MIT
// How lwIP is built: one thread, raw API, IPv4 and IPv6, large scaled TCP windows, bounded memory.
#ifndef SKIFF_LWIP_LWIPOPTS_H
#define SKIFF_LWIP_LWIPOPTS_H

#define NO_SYS               1
#define SYS_LIGHTWEIGHT_PROT 0
#define LWIP_NETCONN         0
#define LWIP_SOCKET          0
#define LWIP_HOOK_FILENAME   "net/lwip/hooks.h"
#define LWIP_TIMERS          1

// Protocols.
#define LWIP_IPV4                      1
#define LWIP_IPV6                      1
#define LWIP_ICMP                      1
#define LWIP_UDP                       1
#define LWIP_TCP                       1
#define LWIP_RAW                       0
#define LWIP_DNS                       0
#define LWIP_DHCP                      1
#define LWIP_IGMP                      0
#define LWIP_IPV6_MLD                  1
#define LWIP_IPV6_DHCP6                0
#define LWIP_ND6_RDNSS_MAX_DNS_SERVERS 0
#define LWIP_DHCP_MAX_DNS_SERVERS      0
#define IP_REASSEMBLY                  1
#define IP_FRAG                        1
#define LWIP_IPV6_REASS                1
#define LWIP_IPV6_FRAG                 1
#define IPV6_FRAG_COPYHEADER           1 // pointers of 64 bits do not fit into the fragment header
#define LWIP_ETHERNET                  1
#define LWIP_NETIF_HOSTNAME            1
#define LWIP_NETIF_STATUS_CALLBACK     1
#define LWIP_NETIF_TX_SINGLE_PBUF      1 // most frames leave in one piece: no gathering

// Every checksum is made and checked in software, except what the NIC makes, or has verified for
// the frame at hand (net/netif.c).
#define LWIP_CHECKSUM_CTRL_PER_NETIF 1
#define CHECKSUM_GEN_IP              1
#define CHECKSUM_CHECK_IP            1
#define CHECKSUM_CHECK_TCP           1
#define CHECKSUM_CHECK_UDP           1
#define CHECKSUM_CHECK_ICMP          1
#define CHECKSUM_CHECK_ICMP6         1

// The kernel has a mem_init too. Sources that include both headers take kernel/mem.h first.
#define mem_init lwip_mem_init

// Memory. The heap is kmalloc's, up to NET_HEAP_LIMIT (net/lwip/port.c): send buffers live there.
// Received frames stay in the NIC's buffers (net/buffer.c); a connection's bytes leave them for its
// ring at once, so only segments out of order stay in them. The sizes depend on each other: the
// send queue has two entries for each full segment of the send buffer, as lwIP demands.
#define MEM_ALIGNMENT           8
#define MEM_CUSTOM_ALLOCATOR    1
#define MEM_CUSTOM_MALLOC       lwip_port_malloc
#define MEM_CUSTOM_CALLOC       lwip_port_calloc
#define MEM_CUSTOM_FREE         lwip_port_free
#define NET_HEAP_LIMIT          (4096 * 1024)
#define MEM_SIZE                NET_HEAP_LIMIT
#define MEMP_NUM_PBUF           64
#define MEMP_NUM_UDP_PCB        4
#define MEMP_NUM_TCP_PCB        40
#define MEMP_NUM_TCP_PCB_LISTEN 8
#define MEMP_NUM_TCP_SEG        2048
#define MEMP_NUM_ARP_QUEUE      32
#define MEMP_NUM_ND6_QUEUE      32
#define MEMP_NUM_REASSDATA      8
// One for each connection being opened, one for the link, one to spare, and one a guest.
#define MEMP_NUM_SYS_TIMEOUT   (LWIP_NUM_SYS_TIMEOUT_INTERNAL + 12 + 2 + 64)
#define MEMP_NUM_FRAG_PBUF     64
#define MEMP_NUM_MLD6_GROUP    16
#define IP_REASS_MAX_PBUFS     64
#define PBUF_POOL_SIZE         0
#define ARP_TABLE_SIZE         64
#define LWIP_ND6_NUM_NEIGHBORS 64

// TCP. A window of 1 MiB is 1 Gb/s at 8 ms of round trip. With one of 2 MiB two emulated 82540EMs
// carried half as much, with their CPUs half idle: it is more than a tap's queue of 1000 packets of
// 1500 bytes. A send buffer twice as long keeps data at hand for whenever the window moves: the
// writer and the network thread take turns, and a buffer that is all under way leaves both idle for
// a round trip.
// The link's MTU bounds a segment; this is what goes into one of 9000 bytes.
#define TCP_MSS                   8960
#define LWIP_WND_SCALE            1
#define TCP_RCV_SCALE             5
#define TCP_WND                   (1024 * 1024)
#define TCP_SND_BUF               (2 * 1024 * 1024)
#define TCP_SND_QUEUELEN          1024
#define TCP_OVERSIZE              32768 // a segment that more is to come for is made as long as it may be
#define TCP_SNDLOWAT              (16 * 1024)
#define TCP_QUEUE_OOSEQ           1
#define TCP_OOSEQ_MAX_BYTES       (512 * 1024)
#define LWIP_TCP_SACK_OUT         1
#define TCP_LISTEN_BACKLOG        1
#define LWIP_TCP_KEEPALIVE        1
#define LWIP_TCP_PCB_NUM_EXT_ARGS 1 // the segment size that the peer knows of (net/tcp.c)

// Time. lwIP's timers tick at 250 ms by default; a lost segment at the end of a move would then
// cost more than a whole blackout. At 50 ms the shortest retransmission time-out is 300 ms (three
// slow ticks) and the longest delay of an acknowledgement 50 ms.
#define TCP_TMR_INTERVAL  50
#define LWIP_TCP_RTO_TIME 1000
// Short DHCP leases are renewed in time; lwIP counts leases in these units.
#define DHCP_COARSE_TIMER_SECS 10
#define TCP_MAXRTX             8
#define TCP_SYNMAXRTX          6
#define TCP_MSL                5000

#define LWIP_STATS         1
#define LWIP_STATS_LARGE   1
#define LWIP_STATS_DISPLAY 0
#define MEM_STATS          1

#endif
