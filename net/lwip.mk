# SPDX-License-Identifier: MIT
# The parts of lwIP that Skiff compiles, and where its port finds them. LWIP_SRC is the unpacked source.
LWIP_FILES := \
    core/def.c core/inet_chksum.c core/init.c core/ip.c core/mem.c core/memp.c core/netif.c core/pbuf.c \
    core/stats.c core/sys.c core/tcp.c core/tcp_in.c core/tcp_out.c core/timeouts.c core/udp.c \
    core/ipv4/acd.c core/ipv4/dhcp.c core/ipv4/etharp.c core/ipv4/icmp.c core/ipv4/ip4.c \
    core/ipv4/ip4_addr.c core/ipv4/ip4_frag.c \
    core/ipv6/ethip6.c core/ipv6/icmp6.c core/ipv6/inet6.c core/ipv6/ip6.c core/ipv6/ip6_addr.c \
    core/ipv6/ip6_frag.c core/ipv6/mld6.c core/ipv6/nd6.c netif/ethernet.c
LIB_SRCS += $(addprefix $(LWIP_SRC)/src/,$(LWIP_FILES))
LIB_INCLUDES += -Inet/lwip -I$(LWIP_SRC)/src/include
LIB_CFLAGS += -Werror=implicit-function-declaration
