// SPDX-License-Identifier: MIT
// The real lwIP and its port behind a NIC that exists only here: answers to ping, and a hundred
// thousand mutated frames under the sanitizers.
// sources: net/netif.c net/gro.c net/switch.c net/uplink.c net/frame.c net/announce.c net/lwip/port.c kernel/random.c kernel/ip.c kernel/number.c
// sources: $(addprefix $(LWIP_SRC)/src/,$(LWIP_FILES))
// cflags: -idirafter $(ROOT)/net/lwip -I$(LWIP_SRC)/src/include
#include "tests/unit/unit.h"

#include "boot/boot_info.h"
#include "kernel/host.h"
#include "kernel/lib.h"
#include "kernel/log.h"
#include "kernel/mem.h"
#include "kernel/time.h"

#include "lwip/inet_chksum.h"
#include "lwip/init.h"
#include "lwip/stats.h"
#include "lwip/tcp.h"
#include "lwip/timeouts.h"

#include "net/gro.h"
#include "net/netif.h"
#include "net/uplink.h"

#define MAX_FRAME 1514
#define FRAMES    100000

static struct boot_info bi;
const struct boot_info *host_boot = &bi;
static u64 now_ns = NS_PER_SEC;
static u8 sent[MAX_FRAME]; // the last frame that went out
static u32 sent_bytes, sent_count;

u64 time_ns(void)
{
    return now_ns;
}

void *kmalloc(size_t bytes)
{
    return malloc(bytes);
}

void log_write(enum log_level level, const char *area, const char *fmt, ...)
{
    (void)area;
    if (level == LOG_ERROR)
        fail_msg("logged an error: %s", fmt);
}

void panic(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fail_msg("panic: %s", fmt);
    abort();
}

static bool link_up(struct nic *n)
{
    (void)n;
    return true;
}

static void set_filter(struct nic *n, const u8 (*multicast)[6], u32 count, bool promiscuous)
{
    (void)n, (void)multicast, (void)promiscuous;
    assert_in_range(count, 1, 32);
}

static bool has_room(struct nic *n)
{
    (void)n;
    return true;
}

static int transmit(struct nic *n, const struct nic_frame *f)
{
    assert_in_range(f->bytes, 14, n->mtu + ETHERNET_HEADER);
    assert_int_equal(f->bytes, f->pbuf->tot_len);
    pbuf_copy_partial(f->pbuf, sent, (u16)f->bytes, 0);
    sent_bytes = f->bytes;
    sent_count++;
    return 0;
}

static const struct nic_ops fake_ops = {
    .name = "fake",
    .link_up = link_up,
    .set_filter = set_filter,
    .has_room = has_room,
    .transmit = transmit,
};
static struct nic nic = {
    .ops = &fake_ops, .mtu = 1500, .mac = {0x52, 0x54, 0, 0x5f, 0, 2}, .interrupt = PCI_POLLED};
static struct host_config config = {
    .name = "unit",
    .address4 = {4, 24, {10, 77, 0, 2}},
    .address6 = {6, 64, {0xfd, 0x77, 0, 0x5f, [15] = 2}},
};

static void run_for(u64 ms)
{
    for (u64 i = 0; i < ms; i += 10) {
        now_ns += 10 * NS_PER_MS;
        sys_check_timeouts();
    }
}

static u32 buffers; // that lwIP has

static void buffer_freed(struct pbuf *p)
{
    buffers--;
    free(p);
}

struct pbuf *nic_buffer_pbuf(struct nic_buffer *b, u32 from, u32 bytes)
{
    buffers++;
    b->pbuf.custom_free_function = buffer_freed;
    return pbuf_alloced_custom(PBUF_RAW, (u16)bytes, PBUF_REF, &b->pbuf, b->data + from,
                               (u16)bytes);
}

int frame_pool_init(void)
{
    return 0;
}

struct pbuf *frame_alloc(u32 bytes)
{
    return pbuf_alloc(PBUF_LINK, (u16)bytes, PBUF_RAM);
}

u16 tcp_segment_bytes(const struct tcp_pcb *pcb)
{
    (void)pcb;
    return 0;
}

// The least that comes in one piece. lwIP reads a byte or two past the end of broken TCP options
// and all of a cut-off ARP packet, for which every driver's buffers have room.
#define HEADERS 160u

// A longer frame lies in memory of its size, so that reading past its end is seen; every third one
// in two pieces, as from a device with small buffers.
static void receive(const u8 *frame, u32 bytes)
{
    static u32 number;
    u32 first = ++number % 3 == 0 && bytes > HEADERS ? HEADERS : bytes;
    for (u32 at = 0; at < bytes; at += first, first = bytes - at) {
        struct nic_buffer *b = malloc(sizeof(*b) + MAX(first, HEADERS));
        memcpy(b->data, frame + at, first);
        nic_received(&nic, b, 0, first, at + first == bytes ? NIC_RX_END : 0);
    }
    if (number % 4 == 0)
        gro_flush();
}

static int start(void **state)
{
    (void)state;
    lwip_init();
    uplink_start(&nic);
    netif_start(&nic, &config);
    run_for(5000); // duplicate address detection
    struct tcp_pcb *pcb = tcp_new_ip_type(IPADDR_TYPE_ANY);
    assert_int_equal(tcp_bind(pcb, IP_ANY_TYPE, 7070), ERR_OK);
    assert_non_null(tcp_listen_with_backlog(pcb, 8));
    return 0;
}

// Good frames from 10.77.0.1 and fd77:5f::1 (02:00:00:00:00:01), to be sent as they are or mutated.
#define ETH(type)   0x52, 0x54, 0, 0x5f, 0, 2, 2, 0, 0, 0, 0, 1, (type) >> 8, (type)&0xff
#define BCAST(type) 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 1, (type) >> 8, (type)&0xff
#define IP4(protocol, length, fragment)                                                            \
    0x45, 0, 0, 20 + (length), 0, 1, (fragment) >> 8, (fragment)&0xff, 64, protocol, 0, 0, 10, 77, \
        0, 1, 10, 77, 0, 2
#define IP6(next, length)                                                                          \
    0x60, 0, 0, 0, 0, length, next, 255, 0xfd, 0x77, 0, 0x5f, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1,  \
        0xfd, 0x77, 0, 0x5f, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2
static const u8 arp_request[] = {BCAST(0x806), 0,  1, 8, 0, 6, 4, 0, 1, 2, 0,  0,  0, 0, 1,
                                 10,           77, 0, 1, 0, 0, 0, 0, 0, 0, 10, 77, 0, 2};
static const u8 echo4[] = {ETH(0x800), IP4(1, 12, 0), 8, 0, 0, 0, 0, 1, 0, 1, 1, 2, 3, 4};
static const u8 fragment4[] = {
    ETH(0x800), IP4(17, 16, 0x2000), 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16};
static const u8 last_fragment4[] = {ETH(0x800), IP4(17, 8, 0x0002), 1, 2, 3, 4, 5, 6, 7, 8};
static const u8 syn4[] = {ETH(0x800), IP4(6, 32, 0),
                          0x30,       0x39,
                          0x1b,       0x9e,
                          0,          0,
                          0,          1,
                          0,          0,
                          0,          0,
                          0x80,       2,
                          0xff,       0xff,
                          0,          0,
                          0,          0,
                          2,          4,
                          5,          0xb4,
                          1,          3,
                          3,          7,
                          4,          2,
                          1,          1};
static const u8 dhcp4[] = {
    ETH(0x800), IP4(17, 24, 0), 0,    67,   0,   68, 0, 24, 0, 0, 2, 1, 6, 0, 1, 2, 3, 4, 5, 6, 7,
    8,          0x63,           0x82, 0x53, 0x63};
static const u8 solicit6[] = {ETH(0x86dd), IP6(58, 32), 135, 0, 0, 0, 0, 0, 0, 0, 0xfd, 0x77,
                              0,           0x5f,        0,   0, 0, 0, 0, 0, 0, 0, 0,    0,
                              0,           2,           1,   1, 2, 0, 0, 0, 0, 1};
static const u8 router6[] = {ETH(0x86dd), IP6(58, 48), 134, 0, 0, 0, 64, 0,  0,    0,    0, 0, 0,
                             0,           0,           0,   0, 0, 3, 4,  64, 0xc0, 0,    0, 1, 0,
                             0,           0,           1,   0, 0, 0, 0,  0,  0xfd, 0x78, 0, 0, 0,
                             0,           0,           0,   0, 0, 0, 0,  0,  0,    0,    0};
static const u8 echo6[] = {ETH(0x86dd), IP6(58, 12), 128, 0, 0, 0, 0, 1, 0, 1, 1, 2, 3, 4};
static const u8 options6[] = {ETH(0x86dd), IP6(0, 28), 60, 0,   5, 2, 0, 0, 1, 0, 58, 0, 1, 4, 0,
                              0,           0,          0,  128, 0, 0, 0, 0, 1, 0, 1,  1, 2, 3, 4};
static const u8 fragment6[] = {ETH(0x86dd), IP6(44, 24), 58, 0, 0, 1, 0, 0, 0, 9, 128, 0, 0,
                               0,           0,           1,  0, 1, 1, 2, 3, 4, 5, 6,   7, 8};
static const u8 mld6[] = {ETH(0x86dd), IP6(58, 24), 130, 0, 0, 0, 0, 10, 0, 0,    0xff, 2, 0,
                          0,           0,           0,   0, 0, 0, 0, 0,  1, 0xff, 0,    0, 2};
static const struct {
    const u8 *bytes;
    u32 count;
} seeds[] = {
#define SEED(s)                                                                                    \
    {                                                                                              \
        s, sizeof(s)                                                                               \
    }
    SEED(arp_request), SEED(echo4),    SEED(fragment4), SEED(last_fragment4),
    SEED(syn4),        SEED(dhcp4),    SEED(solicit6),  SEED(router6),
    SEED(echo6),       SEED(options6), SEED(fragment6), SEED(mld6),
};

static u16 get16(const u8 *p)
{
    return (u16)(p[0] << 8 | p[1]);
}

static void put_sum(u8 *at, u16 sum)
{
    memcpy(at, &sum, 2);
}

// The sum over a pseudo header and a payload whose checksum field is zero.
static u16 pseudo_sum(const u8 *addresses, u32 address_bytes, u8 protocol, const u8 *p, u32 bytes)
{
    u8 all[2 * MAX_FRAME] = {0};
    memcpy(all, addresses, address_bytes);
    all[address_bytes] = (u8)(bytes >> 8);
    all[address_bytes + 1] = (u8)bytes;
    all[address_bytes + 3] = protocol;
    memcpy(all + address_bytes + 4, p, bytes);
    return inet_chksum(all, (u16)(address_bytes + 4 + bytes));
}

static u32 sum_offset(u8 protocol)
{
    return protocol == 1 || protocol == 58 ? 2 : protocol == 6 ? 16 : protocol == 17 ? 6 : 0;
}

// Makes the checksums right again where the headers still say where they are.
static void mend(u8 *f, u32 bytes)
{
    if (bytes >= 34 && get16(f + 12) == 0x800) {
        u32 head = (f[14] & 15u) * 4, at = 14 + head + sum_offset(f[23]);
        if (head < 20 || 14 + head > bytes)
            return;
        if (f[23] != 17 && at + 2 <= bytes && at > 14 + head) {
            put_sum(f + at, 0);
            u8 *p = f + 14 + head;
            u32 n = bytes - 14 - head;
            put_sum(f + at, f[23] == 1 ? inet_chksum(p, (u16)n) : pseudo_sum(f + 26, 8, 6, p, n));
        }
        put_sum(f + 24, 0);
        put_sum(f + 24, inet_chksum(f + 14, (u16)head));
    }
    if (bytes >= 54 && get16(f + 12) == 0x86dd) {
        u32 at = 54 + sum_offset(f[20]);
        if (at > 54 && at + 2 <= bytes) {
            put_sum(f + at, 0);
            put_sum(f + at, pseudo_sum(f + 22, 32, f[20], f + 54, bytes - 54));
        }
    }
}

static void test_answers_ping4(void **state)
{
    (void)state;
    u8 frame[sizeof(echo4)];
    receive(arp_request, sizeof(arp_request));
    assert_int_equal(get16(sent + 12), 0x806);
    assert_int_equal(get16(sent + 20), 2);
    assert_memory_equal(sent + 22, nic.mac, 6);
    memcpy(frame, echo4, sizeof(frame));
    mend(frame, sizeof(frame));
    receive(frame, sizeof(frame));
    assert_int_equal(get16(sent + 12), 0x800);
    assert_int_equal(sent[34], 0); // echo reply
    assert_memory_equal(sent + 38, frame + 38, 8);
    assert_int_equal(inet_chksum(sent + 14, 20), 0);
    assert_int_equal(inet_chksum(sent + 34, 12), 0);
}

static void test_answers_ping6(void **state)
{
    (void)state;
    u8 frame[MAX_FRAME];
    memcpy(frame, solicit6, sizeof(solicit6));
    mend(frame, sizeof(solicit6));
    receive(frame, sizeof(solicit6));
    assert_int_equal(sent[54], 136); // neighbour advertisement
    memcpy(frame, echo6, sizeof(echo6));
    mend(frame, sizeof(echo6));
    receive(frame, sizeof(echo6));
    assert_int_equal(sent[54], 129); // echo reply
    assert_memory_equal(sent + 58, frame + 58, 8);
}

static void test_wrong_checksum_is_counted(void **state)
{
    (void)state;
    u32 before = sent_count, errors = lwip_stats.ip.chkerr;
    receive(echo4, sizeof(echo4)); // its checksums are zero
    assert_int_equal(sent_count, before);
    assert_int_equal(lwip_stats.ip.chkerr, errors + 1);
}

static u32 next_random(void)
{
    static u64 x = 88172645463325252ull; // xorshift64: the same frames at every run
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    return (u32)(x >> 16);
}

static u32 mutate(u8 *f)
{
    u32 which = next_random() % ARRAY_SIZE(seeds), bytes = seeds[which].count;
    memcpy(f, seeds[which].bytes, bytes);
    for (u32 n = next_random() % 6; n > 0; n--) {
        static const u8 edges[] = {0, 1, 4, 0x7f, 0x80, 0xff};
        u32 at = 12 + next_random() % (bytes - 12);
        u32 r = next_random();
        if (r & 1)
            f[at] = edges[r / 8 % sizeof(edges)];
        else if (r & 2)
            f[at] ^= (u8)(1u << (r / 8 % 8));
        else
            f[at] = (u8)(r >> 8);
    }
    u32 r = next_random();
    if (r % 8 == 0) { // longer, with the lengths as they were
        u32 more = next_random() % (MAX_FRAME - bytes);
        for (u32 i = 0; i < more; i++)
            f[bytes++] = (u8)next_random();
    } else if (r % 8 == 1) {
        bytes = 1 + next_random() % bytes;
    }
    if (r % 10 != 2)
        mend(f, bytes);
    return bytes;
}

static void test_mutated_frames_do_no_harm(void **state)
{
    u8 f[MAX_FRAME];
    for (u32 i = 0; i < FRAMES; i++) {
        u32 bytes = mutate(f);
        receive(f, bytes);
        now_ns += 200 * NS_PER_US;
        if (i % 64 == 0)
            sys_check_timeouts();
    }
    // Enough of them got past the first checks of each layer.
    const u32 most = ~0u, some = FRAMES / 200;
    assert_in_range(lwip_stats.etharp.recv, some, most);
    assert_in_range(lwip_stats.icmp.recv, some, most);
    assert_in_range(lwip_stats.udp.recv, some, most);
    assert_in_range(lwip_stats.tcp.recv, some, most);
    assert_in_range(lwip_stats.ip_frag.recv, some, most);
    assert_in_range(lwip_stats.ip6_frag.recv, some, most);
    assert_in_range(lwip_stats.icmp6.recv, some, most);
    assert_in_range(lwip_stats.nd6.recv, some, most);
    assert_in_range(sent_count, some, most);
    gro_flush();
    run_for(70000); // reassembly and half-open connections time out
    assert_int_equal(buffers, 0);
    assert_int_equal(lwip_stats.memp[MEMP_REASSDATA]->used, 0);
    assert_int_equal(lwip_stats.memp[MEMP_TCP_PCB]->used, 0);
    assert_in_range(lwip_stats.mem.used, 0, 16384);
    assert_true(lwip_stats.mem.max <= NET_HEAP_LIMIT);
    test_answers_ping4(state);
    test_answers_ping6(state);
}

static void test_checksum_of_any_length_and_alignment(void **state)
{
    (void)state;
    u8 data[200];
    for (u32 i = 0; i < sizeof(data); i++)
        data[i] = (u8)(next_random() | (i % 3 ? 0 : 0xff));
    for (int from = 0; from < 8; from++) {
        for (int n = 0; n < 190; n++) {
            u32 sum = 0; // RFC 1071, word by word
            for (int i = 0; i < n; i++)
                sum += i % 2 ? (u32)data[from + i] << 8 : data[from + i];
            while (sum >> 16)
                sum = (sum & 0xffff) + (sum >> 16);
            assert_int_equal(lwip_port_checksum(data + from, n), sum);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_checksum_of_any_length_and_alignment),
        cmocka_unit_test(test_answers_ping4),
        cmocka_unit_test(test_answers_ping6),
        cmocka_unit_test(test_wrong_checksum_is_counted),
        cmocka_unit_test(test_mutated_frames_do_no_harm),
    };
    return cmocka_run_group_tests(tests, start, NULL);
}
