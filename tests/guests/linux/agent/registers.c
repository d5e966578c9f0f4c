// SPDX-License-Identifier: MIT
// Puts a pattern into every extended register the CPU has and later checks that it is still there.
// All other code of the agent is built to leave these registers alone, but libc may use them: load,
// work, check, then print.
#include <asm/prctl.h>
#include <cpuid.h>
#include <inttypes.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "agent.h"
#include "registers.h"

#define XCR0_AVX            0x06u
#define XCR0_AVX512         0xe6u
#define MXCSR_DEFAULT       0x1f80u
#define X87_CONTROL_DEFAULT 0x037fu

static struct registers loaded, found;
static uint64_t gs_word;

static uint32_t xcr0(void)
{
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return low;
}

// What CPU and kernel together allow: CPUID for the instructions, XCR0 for the state.
static unsigned detect(void)
{
    unsigned a, b, c, d, features = 0;

    __cpuid(1, a, b, c, d);
    if (!(c & bit_OSXSAVE))
        return 0;
    if ((c & bit_AVX) && (xcr0() & XCR0_AVX) == XCR0_AVX)
        features |= REGISTERS_AVX;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d))
        return features;
    if ((b & bit_AVX512F) && (b & bit_AVX512BW) && (xcr0() & XCR0_AVX512) == XCR0_AVX512)
        features |= REGISTERS_AVX512;
    if (c & bit_OSPKE)
        features |= REGISTERS_PKRU;
    return features;
}

static unsigned features(void)
{
    static unsigned known = ~0u;
    if (known == ~0u)
        known = detect();
    return known;
}

const char *registers_level(void)
{
    if (features() & REGISTERS_AVX512)
        return "avx512";
    return features() & REGISTERS_AVX ? "avx" : "sse";
}

static void make_pattern(uint64_t seed)
{
    unsigned rounding = seed & 3;

    for (unsigned i = 0; i < REGISTERS_ZMM_COUNT; i++)
        for (unsigned j = 0; j < 8; j++)
            loaded.zmm[i][j] = seed = splitmix64(seed);
    for (unsigned i = 0; i < 8; i++) {
        loaded.mask[i] = seed = splitmix64(seed);
        loaded.x87[i] = (int64_t)(seed >> 1);
    }
    loaded.mxcsr = MXCSR_DEFAULT | rounding << 13;
    loaded.x87_control = (uint16_t)(X87_CONTROL_DEFAULT | rounding << 10);
    // Protection key 0 is every page's here, the others are nobody's.
    loaded.pkru = (uint32_t)seed & ~3u;
}

void registers_load(uint64_t seed)
{
    make_pattern(seed);
    gs_word = seed;
    syscall(SYS_arch_prctl, ARCH_SET_GS, &gs_word);
    registers_put(&loaded, features());
}

static void compare(const char *name, const void *want, const void *have, size_t bytes)
{
    if (memcmp(want, have, bytes))
        agent_error("register state %s changed", name);
}

void registers_check(uint64_t seed)
{
    uint64_t gs_value;

    memset(&found, 0, sizeof found);
    registers_get(&found, features());
    __asm__ volatile("mov %%gs:0, %0" : "=r"(gs_value)::"memory");
    if (gs_value != seed)
        agent_error("register state gs base changed");
    compare("x87", loaded.x87, found.x87, sizeof found.x87);
    compare("x87 control", &loaded.x87_control, &found.x87_control, sizeof found.x87_control);
    compare("mxcsr", &loaded.mxcsr, &found.mxcsr, sizeof found.mxcsr);
    if (features() & REGISTERS_PKRU)
        compare("pkru", &loaded.pkru, &found.pkru, sizeof found.pkru);
    if (features() & REGISTERS_AVX512) {
        compare("zmm", loaded.zmm, found.zmm, sizeof found.zmm);
        compare("mask", loaded.mask, found.mask, sizeof found.mask);
        return;
    }
    for (unsigned i = 0; i < 16; i++)
        compare("xmm or ymm", loaded.zmm[i], found.zmm[i], features() & REGISTERS_AVX ? 32 : 16);
}
