// SPDX-License-Identifier: MIT
// What lwIP asks of its host: time, bounded memory, random numbers, checksums, diagnostics.
#include "kernel/lib.h"
#include "kernel/log.h"
#include "kernel/mem.h"
#include "kernel/random.h"
#include "kernel/time.h"

#include "lwip/opt.h"
#include "lwip/stats.h"
#include "lwip/sys.h"
#include "net/lwip/hooks.h"

u32_t sys_now(void)
{
    return (u32_t)(time_ns() / NS_PER_MS);
}

// lwIP counts what it holds in lwip_stats.mem.used; beyond the limit its senders wait.
void *lwip_port_malloc(size_t bytes)
{
    if (lwip_stats.mem.used + bytes > NET_HEAP_LIMIT)
        return NULL;
    return kmalloc(bytes);
}

void *lwip_port_calloc(size_t count, size_t bytes)
{
    void *p = lwip_port_malloc(count * bytes);
    if (p)
        memset(p, 0, count * bytes);
    return p;
}

void lwip_port_free(void *p)
{
    kfree(p);
}

// lwIP asserts about packets as well as about itself, so a release build logs and goes on, which is
// what lwIP without assertions does; a debug build stops where the invariant broke.
void lwip_port_assert(const char *message, const char *file, int line)
{
    static u32 count;
    const char *name = strrchr(file, '/');
    if (SKIFF_DEBUG)
        panic("lwIP: %s (%s:%d)", message, name ? name + 1 : file, line);
    if (count++ < 16)
        log_error("net", "lwIP invariant broken, going on: %s (%s:%d)", message,
                  name ? name + 1 : file, line);
}

void lwip_port_print(const char *fmt, ...)
{
    char text[160];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    log_debug("net", "%s", text);
}

u32 lwip_port_random(void)
{
    return (u32)random_u64();
}

static void put_address(u8 out[16], const ip_addr_t *a)
{
    memset(out, 0, 16);
    if (IP_IS_V6(a))
        memcpy(out, ip_2_ip6(a)->addr, 16);
    else
        memcpy(out, &ip_2_ip4(a)->addr, 4);
}

// RFC 6528: a clock of 4 us ticks plus a keyed hash of the connection's addresses and ports.
u32_t lwip_port_isn(const ip_addr_t *local_ip, u16_t local_port, const ip_addr_t *remote_ip,
                    u16_t remote_port)
{
    static u64 key[2];
    struct {
        u8 local[16], remote[16];
        u16 ports[2];
    } tuple = {.ports = {local_port, remote_port}};
    if (!key[0])
        random_bytes(key, sizeof(key));
    put_address(tuple.local, local_ip);
    put_address(tuple.remote, remote_ip);
    return (u32_t)siphash(key, &tuple, sizeof(tuple)) + (u32_t)(time_ns() / 4000);
}

// The carries of a 64-bit one's complement sum are folded into 16 bits: adding in wider words gives
// the same result (RFC 1071, 2).
static u16 fold16(u64 sum)
{
    sum = (sum & 0xffffffff) + (sum >> 32);
    sum = (sum & 0xffff) + (sum >> 16 & 0xffff) + (sum >> 32);
    sum = (sum & 0xffff) + (sum >> 16);
    return (u16)((sum & 0xffff) + (sum >> 16));
}

// Adds blocks of 64 bytes, at least one, keeping the carry in the flag from word to word.
static u64 sum_blocks(const u8 *p, u64 blocks)
{
    u64 sum = 0;
    __asm__ volatile("clc\n"
                     "1: adcq (%1), %0\n"
                     "adcq 8(%1), %0\n"
                     "adcq 16(%1), %0\n"
                     "adcq 24(%1), %0\n"
                     "adcq 32(%1), %0\n"
                     "adcq 40(%1), %0\n"
                     "adcq 48(%1), %0\n"
                     "adcq 56(%1), %0\n"
                     "leaq 64(%1), %1\n" // neither lea nor dec touches the carry
                     "decq %2\n"
                     "jnz 1b\n"
                     "adcq $0, %0"
                     : "+r"(sum), "+r"(p), "+r"(blocks)
                     :
                     : "memory", "cc");
    return sum;
}

// Internet checksum (RFC 1071) of bytes at any alignment, not inverted, in the machine's byte
// order.
u16 lwip_port_checksum(const void *data, int bytes)
{
    const u8 *p = data;
    u64 sum = 0, word = 0;
    if (bytes >= 64) {
        sum = fold16(sum_blocks(p, (u64)bytes / 64));
        p += bytes & ~63;
        bytes &= 63;
    }
    for (; bytes >= 4; bytes -= 4, p += 4) {
        u32 w;
        memcpy(&w, p, sizeof(w));
        sum += w;
    }
    for (int i = 0; i < bytes; i++) // zero padded, as RFC 1071 says for an odd end
        word |= (u64)p[i] << (8 * i);
    return fold16(sum + word);
}
