// SPDX-License-Identifier: MIT
// SipHash against its authors' test vectors, and the random numbers made of it.
// sources: kernel/random.c
#include "tests/unit/unit.h"

#include "boot/boot_info.h"
#include "kernel/host.h"
#include "kernel/random.h"

static struct boot_info bi = {.entropy = {1, 2, 3}};
const struct boot_info *host_boot = &bi;

static void test_siphash_vectors(void **state)
{
    (void)state;
    // SipHash-2-4 with key 00..0f of the first n bytes of 00 01 02 ... (the authors' vectors.h).
    static const struct {
        size_t bytes;
        u64 hash;
    } vectors[] = {{0, 0x726fdb47dd0e0e31},
                   {1, 0x74f839c593dc67fd},
                   {8, 0x93f5f5799a932462},
                   {15, 0xa129ca6149be45e5}};
    u8 data[16];
    u64 key[2];
    for (int i = 0; i < 16; i++)
        data[i] = (u8)i;
    memcpy(key, data, 16);
    for (size_t i = 0; i < ARRAY_SIZE(vectors); i++)
        assert_true(siphash(key, data, vectors[i].bytes) == vectors[i].hash);
}

static void test_random_bytes_fill_exactly(void **state)
{
    (void)state;
    u8 a[21] = {0}, b[21] = {0};
    a[20] = b[20] = 0x5a;
    random_bytes(a, 20);
    random_bytes(b, 20);
    assert_int_equal(a[20], 0x5a);
    assert_memory_not_equal(a, b, 20);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_siphash_vectors),
        cmocka_unit_test(test_random_bytes_fill_exactly),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
