// SPDX-License-Identifier: MIT
// Joining received TCP segments: what is joined, what is not, and that nothing changes its order.
// sources: net/gro.c net/lwip/port.c kernel/random.c
// sources: $(addprefix $(LWIP_SRC)/src/,$(LWIP_FILES))
// cflags: -idirafter $(ROOT)/net/lwip -I$(LWIP_SRC)/src/include
#include "tests/unit/unit.h"

#include "boot/boot_info.h"
#include "kernel/host.h"
#include "kernel/lib.h"
#include "kernel/log.h"
#include "kernel/time.h"

#include "lwip/inet_chksum.h"
#include "lwip/ip4.h"
#include "lwip/nd6.h"
#include "lwip/tcp.h"

#include "net/gro.h"

#define HEADERS 54u
#define DATA    1000u

static struct boot_info bi;
const struct boot_info *host_boot = &bi;
static struct pbuf *got[8];
static bool got_ok[8];
static u32 got_count;

u64 time_ns(void)
{
    return NS_PER_SEC;
}

void *kmalloc(size_t bytes)
{
    return malloc(bytes);
}

void log_write(enum log_level level, const char *area, const char *fmt, ...)
{
    (void)level, (void)area;
    fail_msg("logged: %s", fmt);
}

u32_t *lwip_port_segment(struct pbuf *segment, const struct tcp_pcb *pcb, u32_t *options)
{
    (void)segment, (void)pcb;
    return options;
}

const ip6_addr_t *lwip_port_gateway6(struct netif *netif, const ip6_addr_t *dest)
{
    (void)netif, (void)dest;
    return NULL;
}

void gro_deliver(struct pbuf *p, bool sum_ok)
{
    assert_in_range(got_count, 0, 7);
    got_ok[got_count] = sum_ok;
    got[got_count++] = p;
}

static int forget(void **state)
{
    (void)state;
    gro_flush();
    while (got_count)
        pbuf_free(got[--got_count]);
    return 0;
}

static void put32(u8 *at, u32 v)
{
    v = lwip_htonl(v);
    memcpy(at, &v, 4);
}

// A segment of `bytes` bytes that begins at seq, with right sums, in a frame of a link that pads.
static struct pbuf *segment(u32 seq, u32 bytes, u8 flags, u32 padding)
{
    struct pbuf *p = pbuf_alloc(PBUF_RAW, (u16)(HEADERS + bytes + padding), PBUF_RAM);
    u8 *f = p->payload;
    memset(f, 0, p->len);
    f[12] = 8;
    f[14] = 0x45;
    f[16] = (u8)((40 + bytes) >> 8);
    f[17] = (u8)(40 + bytes);
    f[22] = 64;
    f[23] = 6;
    memcpy(f + 26, (u8[]){10, 0, 0, 1, 10, 0, 0, 2, 0x12, 0x34, 0x1b, 0x9e}, 12);
    put32(f + 38, seq);
    put32(f + 42, seq + 7); // acknowledges more each time
    f[46] = 0x50;
    f[47] = flags;
    f[48] = (u8)(seq >> 8);
    for (u32 i = 0; i < bytes; i++)
        f[HEADERS + i] = (u8)((seq + i) % 251);
    u16 sum = inet_chksum(f + 14, 20);
    memcpy(f + 24, &sum, 2);
    ip4_addr_t from, to;
    memcpy(&from, f + 26, 4);
    memcpy(&to, f + 30, 4);
    pbuf_remove_header(p, 34);
    p->tot_len = p->len = (u16)(20 + bytes);
    sum = inet_chksum_pseudo(p, 6, p->tot_len, &from, &to);
    p->tot_len = p->len = (u16)(20 + bytes + padding);
    pbuf_add_header(p, 34);
    memcpy(f + 50, &sum, 2);
    return p;
}

static void check_data(const struct pbuf *p, u32 seq, u32 bytes)
{
    assert_int_equal(p->tot_len, HEADERS + bytes);
    for (u32 i = 0; i < bytes; i++)
        assert_int_equal(pbuf_get_at(p, (u16)(HEADERS + i)), (seq + i) % 251);
}

static void test_segments_in_order_become_one(void **state)
{
    (void)state;
    for (u32 i = 0; i < 5; i++)
        gro_receive(segment(100 + i * DATA, DATA, i == 4 ? 0x18 : 0x10, 0), false);
    assert_int_equal(got_count, 0);
    gro_flush();
    assert_int_equal(got_count, 1);
    assert_true(got_ok[0]);
    check_data(got[0], 100, 5 * DATA);
    const u8 *f = got[0]->payload;
    assert_int_equal(inet_chksum(f + 14, 20), 0);
    assert_int_equal(f[16] << 8 | f[17], 40 + 5 * DATA);
    assert_int_equal(f[47], 0x18);
    u8 ack[4];
    put32(ack, 100 + 4 * DATA + 7);
    assert_memory_equal(f + 42, ack, 4);
}

static void test_padding_is_cut_off(void **state)
{
    (void)state;
    gro_receive(segment(0, 3, 0x10, 3), false);
    gro_receive(segment(3, 5, 0x10, 1), false);
    gro_flush();
    assert_int_equal(got_count, 1);
    check_data(got[0], 0, 8);
}

static void test_a_gap_and_a_flag_keep_segments_apart(void **state)
{
    (void)state;
    gro_receive(segment(0, DATA, 0x10, 0), false);
    gro_receive(segment(2 * DATA, DATA, 0x10, 0), false); // a hole before it
    gro_receive(segment(3 * DATA, DATA, 0x11, 0), false); // FIN
    gro_receive(segment(4 * DATA, 0, 0x10, 0), false);    // a mere acknowledgement
    assert_int_equal(got_count, 4);
    check_data(got[0], 0, DATA);
    check_data(got[1], 2 * DATA, DATA);
    check_data(got[2], 3 * DATA, DATA);
    assert_false(got_ok[2]);
}

static void test_a_damaged_segment_is_left_to_lwip(void **state)
{
    (void)state;
    gro_receive(segment(0, DATA, 0x10, 0), false);
    struct pbuf *bad = segment(DATA, DATA, 0x10, 0);
    ((u8 *)bad->payload)[HEADERS + 9] ^= 4;
    gro_receive(bad, false);
    assert_int_equal(got_count, 2);
    assert_true(got_ok[0]);
    assert_false(got_ok[1]);
    assert_int_equal(got[1]->len, HEADERS + DATA); // with its headers back in place
    assert_int_equal(((u8 *)got[1]->payload)[12], 8);
}

static void test_a_packet_never_grows_beyond_its_length_field(void **state)
{
    (void)state;
    u32 seq = 0;
    for (u32 i = 0; i < 100; i++, seq += 1460)
        gro_receive(segment(seq, 1460, 0x10, 0), false);
    gro_flush();
    assert_in_range(got_count, 2, 4);
    u32 total = 0;
    for (u32 i = 0; i < got_count; i++)
        total += got[i]->tot_len - HEADERS;
    assert_int_equal(total, seq);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_segments_in_order_become_one, forget),
        cmocka_unit_test_teardown(test_padding_is_cut_off, forget),
        cmocka_unit_test_teardown(test_a_gap_and_a_flag_keep_segments_apart, forget),
        cmocka_unit_test_teardown(test_a_damaged_segment_is_left_to_lwip, forget),
        cmocka_unit_test_teardown(test_a_packet_never_grows_beyond_its_length_field, forget),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
