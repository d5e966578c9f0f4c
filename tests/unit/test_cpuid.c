// SPDX-License-Identifier: MIT
// CPUID policy: what of a host's CPUID a guest sees, and the clock rate it is told.
// sources: kernel/guest/cpuid.c kernel/guest/cpuid_features.c kernel/guest/cpu_level.c
#include "fake_guest.h"
#include "kernel/guest/cpu_level.h"
#include "kernel/guest/cpuid.h"
#include "kernel/guest/cpuid_features.h"

// A host that has every feature bit there is.
static void everything(u32 leaf, u32 sub, u32 r[4])
{
    r[0] = r[1] = r[2] = r[3] = ~0u;
    if (leaf == 0) {
        memcpy(&r[1], "GenuntelineI", 12);
        r[0] = 0x20;
    } else if (leaf == 1) {
        r[0] = 0x50654;
        r[1] = 0x07100800;
    } else if (leaf == 4) {
        r[0] = sub < 4 ? 0x1c004000 | sub << 5 | 1 : 0;
    } else if (leaf == 7 && sub == 0) {
        r[0] = 2;
    } else if (leaf == 0xd && sub >= 2) {
        static const u32 size[10] = {[2] = 256, [5] = 64, [6] = 512, [7] = 1024, [9] = 8};
        static const u32 offset[10] = {[2] = 576, [5] = 1088, [6] = 1152, [7] = 1664, [9] = 2688};
        r[0] = sub < 10 ? size[sub] : 0;
        r[1] = sub < 10 ? offset[sub] : 0;
        r[2] = sub == 9 ? 2 : 0; // one that wants alignment
    } else if (leaf == 0x80000008) {
        r[0] = 57 << 8 | 46;
    }
}

static void nothing(u32 leaf, u32 sub, u32 r[4])
{
    (void)leaf, (void)sub;
    memset(r, 0, 16);
}

#define ALL_XCR0 0x2e7 // x87, SSE, AVX, AVX-512, PKRU

static struct guest *const g = &fake_guest;

static void build(cpuid_source host, u64 xcr0, u32 vcpus)
{
    fake_guest_reset();
    g->config.vcpus = vcpus;
    g->clock.tsc_hz = 2900000000ull;
    fake_vcpu.xcr0 = 1;
    cpuid_build(g, host, xcr0);
}

static void ask(u32 leaf, u32 sub, u32 r[4])
{
    r[0] = leaf, r[1] = 0, r[2] = sub, r[3] = 0;
    cpuid_query(&fake_vcpu, r);
}

static void test_only_listed_bits_are_shown(void **state)
{
    (void)state;
    static const struct {
        u32 leaf, sub, reg;
    } words[] = {{1, 0, 2}, {1, 0, 3}, {7, 0, 1}, {7, 0, 2}, {7, 0, 3}, {7, 1, 0}, {0xd, 1, 0},
                 {6, 0, 0}, {0x80000001, 0, 2}, {0x80000001, 0, 3}, {0x80000007, 0, 3}};
    u32 r[4];
    build(everything, ALL_XCR0, 1);
    for (size_t w = 0; w < ARRAY_SIZE(words); w++) {
        ask(words[w].leaf, words[w].sub, r);
        for (u32 bit = 0; bit < 32; bit++) {
            bool shown = r[words[w].reg] >> bit & 1;
            const char *name = cpuid_bit_name(words[w].leaf, words[w].sub, words[w].reg, bit);
            if (shown != (name != NULL))
                fail_msg("leaf %x register %u bit %u: shown %d, named %s", words[w].leaf,
                         words[w].reg, bit, shown, name ? name : "nothing");
        }
    }
}

static void test_hidden_by_name(void **state)
{
    (void)state;
    u32 r[4];
    build(everything, ~0ull, 1);
    ask(1, 0, r);
    assert_false(r[2] & BIT(5));  // VMX
    assert_false(r[2] & BIT(3));  // MONITOR
    assert_true(r[2] & BIT(31));  // a hypervisor
    assert_true(r[2] & BIT(24));  // TSC deadline
    assert_false(r[3] & BIT(21)); // DS
    ask(7, 0, r);
    assert_false(r[1] & (BIT(4) | BIT(11) | BIT(14) | BIT(25))); // HLE, RTM, MPX, PT
    assert_false(r[2] & (BIT(16) | BIT(7)));                     // LA57, CET
    assert_false(r[3] & (BIT(24) | BIT(22) | BIT(29)));          // AMX, ARCH_CAPABILITIES
    ask(0xa, 0, r);
    assert_int_equal(r[0] | r[1] | r[2] | r[3], 0); // no PMU
    ask(0xd, 1, r);
    assert_false(r[0] & BIT(3)); // XSAVES
    ask(0x80000001, 0, r);
    assert_false(r[2] & BIT(2)); // SVM
    ask(0x14, 0, r);
    assert_int_equal(r[0] | r[1], 0);
}

static void test_what_we_make_ourselves_is_there_on_any_host(void **state)
{
    (void)state;
    build(nothing, 3, 1);
    assert_true(cpuid_has(g, 1, 2, 21) && cpuid_has(g, 1, 2, 24) && cpuid_has(g, 1, 2, 31));
    assert_true(cpuid_has(g, 1, 3, 12) && cpuid_has(g, 7, 1, 1) && cpuid_has(g, 0x80000007, 3, 8));
    assert_false(cpuid_has(g, 1, 2, 28));
    assert_false(cpuid_has(g, 0x77777777, 0, 0));
}

static void test_signature_and_limits(void **state)
{
    (void)state;
    u32 r[4];
    char name[13] = "";
    build(everything, ALL_XCR0, 1);
    ask(0x40000000, 0, r);
    memcpy(name, &r[1], 12);
    assert_string_equal(name, "SkiffSkiff  ");
    ask(0, 0, r);
    assert_int_equal(r[0], 0x16);
    ask(0x80000008, 0, r);
    assert_int_equal(r[0], 48 << 8 | 46); // no five-level paging
    ask(0x12345678, 3, r);
    assert_int_equal(r[0] | r[1] | r[2] | r[3], 0);
    ask(0xffffffff, 0, r);
    assert_int_equal(r[0] | r[1] | r[2] | r[3], 0);
}

static void test_topology(void **state)
{
    (void)state;
    u32 r[4];
    build(everything, ALL_XCR0, 1);
    ask(1, 0, r);
    assert_false(r[3] & BIT(28));
    ask(4, 0, r);
    assert_int_equal(r[0] >> 14, 0); // the host's 8 cores are not shown
    build(everything, ALL_XCR0, 6);
    fake_vcpu.index = 5;
    ask(1, 0, r);
    assert_int_equal(r[1] >> 24, 5);
    assert_int_equal(r[1] >> 16 & 0xff, 6);
    assert_true(r[3] & BIT(28));
    ask(0xb, 1, r);
    assert_int_equal(r[0], 3); // IDs of 6 CPUs take 3 bits
    assert_int_equal(r[1], 6);
    assert_int_equal(r[3], 5);
    ask(4, 0, r);
    assert_int_equal(r[0] >> 26, 7);
    assert_int_equal(r[0] >> 14 & 0xfff, 0);
    ask(4, 3, r);
    assert_int_equal(r[0] >> 14 & 0xfff, 7);
    ask(4, 4, r);
    assert_int_equal(r[0] & 0x1f, 0);
}

static void test_state_bits_follow_the_vcpu(void **state)
{
    (void)state;
    u32 r[4];
    build(everything, ALL_XCR0, 1);
    ask(1, 0, r);
    assert_false(r[2] & BIT(27));
    ask(7, 0, r);
    assert_false(r[2] & BIT(4));
    fake_regs.cr4 = BIT(18) | BIT(22);
    ask(1, 0, r);
    assert_true(r[2] & BIT(27)); // OSXSAVE
    ask(7, 0, r);
    assert_true(r[2] & BIT(4)); // OSPKE
}

static void test_xsave_sizes(void **state)
{
    (void)state;
    u32 r[4];
    build(everything, ALL_XCR0, 1);
    ask(0xd, 0, r);
    assert_int_equal(r[0], ALL_XCR0);
    assert_int_equal(r[1], 576); // x87 alone
    assert_int_equal(r[2], 2696);
    fake_vcpu.xcr0 = 7;
    ask(0xd, 0, r);
    assert_int_equal(r[1], 832);
    fake_vcpu.xcr0 = 0x207; // AVX and PKRU: apart in one form, side by side in the other
    ask(0xd, 0, r);
    assert_int_equal(r[1], 2696);
    ask(0xd, 1, r);
    assert_int_equal(r[1], 832 + 8);
    ask(0xd, 2, r);
    assert_int_equal(r[0], 256);
    ask(0xd, 17, r); // AMX
    assert_int_equal(r[0], 0);
}

static void test_xcr0_values(void **state)
{
    (void)state;
    build(everything, ALL_XCR0, 1);
    assert_int_equal(cpuid_xcr0(g), ALL_XCR0);
    assert_true(cpuid_xcr0_valid(g, 1) && cpuid_xcr0_valid(g, 7) && cpuid_xcr0_valid(g, 0xe7));
    assert_false(cpuid_xcr0_valid(g, 0));
    assert_false(cpuid_xcr0_valid(g, 2));
    assert_false(cpuid_xcr0_valid(g, 5));     // AVX without SSE
    assert_false(cpuid_xcr0_valid(g, 0xe3));  // AVX-512 without AVX
    assert_false(cpuid_xcr0_valid(g, 0x27));  // a part of AVX-512
    assert_false(cpuid_xcr0_valid(g, BIT(17) | 7));
    build(everything, 0x67, 1); // a host with a part of AVX-512 only
    assert_int_equal(cpuid_xcr0(g), 7);
}

// ---- Levels -------------------------------------------------------------------------------------

// An AMD CPU with as much.
static void other_vendor(u32 leaf, u32 sub, u32 r[4])
{
    everything(leaf, sub, r);
    if (leaf == 0)
        memcpy(&r[1], "AuthcAMDenti", 12);
    if (leaf == 1)
        r[0] = 0x800f12;
    if (leaf == 4 || leaf == 0x80000005)
        r[0] = 0x1234;
    if (leaf == 0x80000008)
        r[0] = 48 << 8 | 48;
}

static void build_level(u8 level, cpuid_source host)
{
    fake_guest_reset();
    g->config.cpu = level;
    g->clock.tsc_hz = 2900000000ull;
    fake_vcpu.xcr0 = 1;
    cpuid_build(g, host, ALL_XCR0);
}

static void test_a_level_is_the_same_on_every_host(void **state)
{
    (void)state;
    for (u8 level = CPU_V2; level <= CPU_V4; level++) {
        build_level(level, everything);
        u32 count = g->cpuid_count;
        static struct cpuid_entry before[GUEST_MAX_CPUID];
        memcpy(before, g->cpuid, sizeof(before));
        build_level(level, other_vendor);
        assert_int_equal(g->cpuid_count, count);
        assert_memory_equal(before, g->cpuid, count * sizeof(before[0]));
        assert_memory_equal(&g->cpuid[0].ebx, "Genu", 4);
    }
}

// The psABI's lists (table 3.1), by leaf, register and bit.
static void test_levels_are_the_psabis(void **state)
{
    (void)state;
    static const struct {
        u32 leaf;
        u8 reg, bit, level;
    } bits[] = {
        {1, 3, 15, 2}, {1, 3, 8, 2}, {1, 3, 24, 2}, {1, 3, 26, 2}, {0x80000001, 3, 11, 2},
        {1, 2, 13, 2}, {0x80000001, 2, 0, 2}, {1, 2, 23, 2}, {1, 2, 0, 2}, {1, 2, 19, 2},
        {1, 2, 20, 2}, {1, 2, 9, 2}, // v2: CX16, LAHF, POPCNT, SSE3, SSE4.1, SSE4.2, SSSE3
        {1, 2, 28, 3}, {7, 1, 5, 3}, {7, 1, 3, 3}, {7, 1, 8, 3}, {1, 2, 29, 3}, {1, 2, 12, 3},
        {0x80000001, 2, 5, 3}, {1, 2, 22, 3}, {1, 2, 26, 3}, // v3: AVX to MOVBE, XSAVE
        {7, 1, 16, 4}, {7, 1, 30, 4}, {7, 1, 28, 4}, {7, 1, 17, 4}, {7, 1, 31, 4}, // v4: AVX-512
        {7, 3, 26, 9}, {7, 3, 31, 9}, {7, 2, 3, 9}, {1, 2, 17, 9}, {7, 1, 29, 9}, {7, 1, 21, 9},
    };
    static const u64 xcr0[] = {0, 0, 1, 7, 0xe7}; // by level; 1: no XSAVE
    for (u8 level = 2; level <= 4; level++) {
        build_level((u8)(CPU_V2 + level - 2), everything);
        for (size_t i = 0; i < ARRAY_SIZE(bits); i++)
            if (cpuid_has(g, bits[i].leaf, bits[i].reg, bits[i].bit) != (bits[i].level <= level))
                fail_msg("v%u: leaf %x register %u bit %u", level, bits[i].leaf, bits[i].reg,
                         bits[i].bit);
        assert_int_equal(cpuid_xcr0(g), xcr0[level]);
    }
    u32 r[4];
    char name[49] = "";
    for (u32 i = 0; i < 3; i++) {
        ask(0x80000002 + i, 0, r);
        memcpy(name + 16 * i, r, 16);
    }
    assert_string_equal(name, "Virtual CPU (x86-64-v4)");
    ask(0x80000008, 0, r);
    assert_int_equal(r[0], 48 << 8 | 39);
}

static u32 lacks_leaf7_ebx;
static void lacks_some(u32 leaf, u32 sub, u32 r[4])
{
    everything(leaf, sub, r);
    if (leaf == 7 && sub == 0)
        r[1] &= ~lacks_leaf7_ebx;
}

static void test_a_host_that_lacks_some_of_a_level_says_what(void **state)
{
    (void)state;
    char err[200];
    struct guest_config c = {.name = "web", .cpu = CPU_V4, .memory_mib = 128};
    lacks_leaf7_ebx = BIT(16) | BIT(30);
    assert_int_equal(cpu_level_check(&c, lacks_some, ALL_XCR0, err, sizeof(err)), E_NOSUP);
    assert_string_equal(err, "guest web: this CPU lacks avx512f, avx512bw, which cpu = x86-64-v4 "
                             "needs; choose a lower one");
    c.cpu = CPU_V3;
    assert_int_equal(cpu_level_check(&c, lacks_some, ALL_XCR0, err, sizeof(err)), 0);
    assert_int_equal(cpu_level_check(&c, lacks_some, 3, err, sizeof(err)), E_NOSUP);
    assert_int_equal(cpu_level_check(&c, nothing, 0, err, sizeof(err)), E_NOSUP);
    c.cpu = CPU_HOST;
    assert_int_equal(cpu_level_check(&c, nothing, 0, err, sizeof(err)), 0);
    c.cpu = CPU_V2;
    c.memory_mib = 512 * 1024;
    assert_int_equal(cpu_level_check(&c, everything, 0, err, sizeof(err)), E_NOSUP);
}

// As Linux computes it (native_calibrate_tsc), in 32 bits.
static u64 linux_tsc_khz(u64 hz)
{
    u32 r[4];
    build(everything, ALL_XCR0, 1);
    g->clock.tsc_hz = hz;
    cpuid_build(g, everything, ALL_XCR0);
    ask(0x15, 0, r);
    assert_true(r[0] && r[1]);
    u32 crystal_khz = r[2] / 1000;
    assert_true((u64)crystal_khz * r[1] <= 0xffffffff);
    return crystal_khz * r[1] / r[0];
}

static void test_linux_learns_the_rate_our_timers_run_at(void **state)
{
    (void)state;
    static const u64 hosts[] = {100000000, 99999000, 99998987, 1000000000, 1999999123, 2899998765,
                                3500001234, 4199999999, 800000001};
    for (size_t i = 0; i < ARRAY_SIZE(hosts); i++) {
        u64 hz = cpuid_guest_tsc_hz(hosts[i]);
        u64 off = hz > hosts[i] ? hz - hosts[i] : hosts[i] - hz;
        assert_true(off * 1000000 / hosts[i] < 20); // parts per million
        assert_int_equal(linux_tsc_khz(hz) * 1000, hz);
    }
    u32 r[4];
    ask(0x16, 0, r);
    assert_int_equal(r[0], r[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_only_listed_bits_are_shown),
        cmocka_unit_test(test_hidden_by_name),
        cmocka_unit_test(test_what_we_make_ourselves_is_there_on_any_host),
        cmocka_unit_test(test_signature_and_limits),
        cmocka_unit_test(test_topology),
        cmocka_unit_test(test_state_bits_follow_the_vcpu),
        cmocka_unit_test(test_xsave_sizes),
        cmocka_unit_test(test_xcr0_values),
        cmocka_unit_test(test_a_level_is_the_same_on_every_host),
        cmocka_unit_test(test_levels_are_the_psabis),
        cmocka_unit_test(test_a_host_that_lacks_some_of_a_level_says_what),
        cmocka_unit_test(test_linux_learns_the_rate_our_timers_run_at),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
