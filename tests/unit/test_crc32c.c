// SPDX-License-Identifier: MIT
// The two ways to a CRC-32C give the same; test_lib.c has known values.
#include "tests/unit/unit.h"

#include "kernel/crc32c.c"

static void test_tables_and_instruction_agree(void **state)
{
    (void)state;
    u8 data[512];
    u64 x = 88172645463325252ull;
    for (u32 i = 0; i < sizeof(data); i++) {
        x ^= x << 13, x ^= x >> 7, x ^= x << 17;
        data[i] = (u8)x;
    }
    make_tables();
    for (u32 from = 0; from < 9; from++)
        for (u32 words = 0; words < 60; words++)
            assert_int_equal(by_tables((u32)x, data + from, words),
                             by_instruction((u32)x, data + from, words));
    assert_int_equal(crc32c(0, "123456789", 9), 0xe3069283);
    assert_int_equal(crc32c(crc32c(0, data, 77), data + 77, 400), crc32c(0, data, 477));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tables_and_instruction_agree),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
