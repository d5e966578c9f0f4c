// SPDX-License-Identifier: MIT
// Random numbers: SipHash of a counter under a key from the firmware's entropy.
#include "kernel/random.h"

#include "arch/x86/cpu.h"
#include "boot/boot_info.h"
#include "kernel/host.h"
#include "kernel/lib.h"

static u64 pool_key[2]; // written once, by the first caller, before threads compete
static u64 counter;

static u64 rotl(u64 x, unsigned n)
{
    return x << n | x >> (64 - n);
}

static void sip_round(u64 v[4])
{
    v[0] += v[1];
    v[2] += v[3];
    v[1] = rotl(v[1], 13) ^ v[0];
    v[3] = rotl(v[3], 16) ^ v[2];
    v[0] = rotl(v[0], 32);
    v[2] += v[1];
    v[0] += v[3];
    v[1] = rotl(v[1], 17) ^ v[2];
    v[3] = rotl(v[3], 21) ^ v[0];
    v[2] = rotl(v[2], 32);
}

static void sip_word(u64 v[4], u64 word)
{
    v[3] ^= word;
    sip_round(v);
    sip_round(v);
    v[0] ^= word;
}

u64 siphash(const u64 key[2], const void *data, size_t bytes)
{
    // The four initial words spell "somepseudorandomlygeneratedbytes".
    u64 v[4] = {key[0] ^ 0x736f6d6570736575, key[1] ^ 0x646f72616e646f6d,
                key[0] ^ 0x6c7967656e657261, key[1] ^ 0x7465646279746573};
    const u8 *p = data;
    u64 word;
    size_t left = bytes;
    for (; left >= 8; left -= 8, p += 8) {
        memcpy(&word, p, 8);
        sip_word(v, word);
    }
    word = (u64)bytes << 56;
    for (size_t i = 0; i < left; i++)
        word |= (u64)p[i] << (8 * i);
    sip_word(v, word);
    v[2] ^= 0xff;
    for (int i = 0; i < 4; i++)
        sip_round(v);
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}

static void seed(void)
{
    u64 words[4];
    memcpy(words, host_boot->entropy, sizeof(words));
    pool_key[0] = words[0] ^ words[2];
    pool_key[1] = (words[1] ^ words[3]) | 1; // not zero: seeded
}

u64 random_u64(void)
{
    if (!pool_key[1])
        seed();
    // The time of the call is mixed in, so that firmware without entropy still gives values that
    // differ from boot to boot.
    u64 input[2] = {__atomic_add_fetch(&counter, 1, __ATOMIC_RELAXED), rdtsc()};
    return siphash(pool_key, input, sizeof(input));
}

void random_bytes(void *buf, size_t bytes)
{
    u8 *out = buf;
    while (bytes > 0) {
        u64 value = random_u64();
        size_t n = MIN(bytes, sizeof(value));
        for (size_t i = 0; i < n; i++)
            out[i] = (u8)(value >> (8 * i));
        out += n;
        bytes -= n;
    }
}
