// SPDX-License-Identifier: MIT
// The freestanding library against the C library: the same calls must give the same answers.

// prefixed: kernel/lib.c kernel/printf.c kernel/number.c kernel/crc32c.c
#include "tests/unit/unit.h"
#include <strings.h>

#include "kernel/types.h"

void *our_memcpy(void *dst, const void *src, size_t n);
void *our_memmove(void *dst, const void *src, size_t n);
void *our_memset(void *dst, int c, size_t n);
int our_memcmp(const void *a, const void *b, size_t n);
size_t our_strlen(const char *s);
size_t our_strnlen(const char *s, size_t max);
int our_strcmp(const char *a, const char *b);
int our_strncmp(const char *a, const char *b, size_t n);
int our_strcasecmp(const char *a, const char *b);
char *our_strchr(const char *s, int c);
char *our_strrchr(const char *s, int c);
char *our_strstr(const char *hay, const char *needle);
size_t our_strlcpy(char *dst, const char *src, size_t size);
int our_snprintf(char *buf, size_t size, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
int our_parse_u64(const char *s, u64 *out);
int our_parse_bytes(const char *s, u64 *out);
u32 our_crc32c(u32 crc, const void *data, size_t len);

static void test_copies(void **state)
{
    (void)state;
    for (size_t n = 0; n < 40; n++) {
        for (size_t to = 0; to < 40; to++) {
            u8 ours[96], theirs[96];
            for (size_t i = 0; i < sizeof(ours); i++)
                ours[i] = theirs[i] = (u8)(i * 7 + 1);
            our_memmove(ours + to, ours + 16, n);
            memmove(theirs + to, theirs + 16, n);
            assert_memory_equal(ours, theirs, sizeof(ours));
            our_memset(ours + to, (int)n, n);
            memset(theirs + to, (int)n, n);
            assert_memory_equal(ours, theirs, sizeof(ours));
            assert_ptr_equal(our_memcpy(ours, theirs + to, n), ours);
            assert_memory_equal(ours, theirs + to, n);
        }
    }
}

static int sign(int v)
{
    return (v > 0) - (v < 0);
}

static void test_compares(void **state)
{
    (void)state;
    static const char *const words[] = {"", "a", "A", "ab", "abc", "abd", "\xff", "abcdefgh",
                                        "abcdefghi", "ABCDEFGHI", "abcdefg\x80"};
    for (size_t i = 0; i < ARRAY_SIZE(words); i++) {
        const char *a = words[i];
        assert_int_equal(our_strlen(a), strlen(a));
        assert_int_equal(our_strnlen(a, 2), strnlen(a, 2));
        assert_ptr_equal(our_strchr(a, 'b'), strchr(a, 'b'));
        assert_ptr_equal(our_strchr(a, 0), strchr(a, 0));
        assert_ptr_equal(our_strrchr(a, 'a'), strrchr(a, 'a'));
        for (size_t j = 0; j < ARRAY_SIZE(words); j++) {
            const char *b = words[j];
            size_t n = MIN(strlen(a), strlen(b)) + 1;
            assert_int_equal(sign(our_strcmp(a, b)), sign(strcmp(a, b)));
            assert_int_equal(sign(our_strncmp(a, b, 2)), sign(strncmp(a, b, 2)));
            assert_int_equal(sign(our_strcasecmp(a, b)), sign(strcasecmp(a, b)));
            assert_int_equal(sign(our_memcmp(a, b, n)), sign(memcmp(a, b, n)));
            assert_ptr_equal(our_strstr(a, b), strstr(a, b));
        }
    }
    char buf[4] = "xyz";
    assert_int_equal(our_strlcpy(buf, "hello", sizeof(buf)), 5);
    assert_string_equal(buf, "hel");
    assert_int_equal(our_strlcpy(buf, "q", 0), 1);
    assert_string_equal(buf, "hel");
}

#define SAME(...)                                                                                  \
    do {                                                                                           \
        char ours[64], theirs[64];                                                                 \
        assert_int_equal(our_snprintf(ours, sizeof(ours), __VA_ARGS__),                            \
                         snprintf(theirs, sizeof(theirs), __VA_ARGS__));                           \
        assert_string_equal(ours, theirs);                                                         \
        assert_int_equal(our_snprintf(ours, 5, __VA_ARGS__), (int)strlen(theirs));                 \
        theirs[4] = 0;                                                                             \
        assert_string_equal(ours, theirs);                                                         \
    } while (0)

static void test_printf_integers(void **state)
{
    (void)state;
    SAME("%d %i %u", -5, 7, 9u);
    SAME("[%5d|%-5d|%05d|%+d]", 42, 42, -42, 42);
    SAME("[%.3d|%8.3d|%-8.3d|%08d]", 7, -7, 7, 7);
    SAME("[%.0d|% d|%*d|%-*d]", 0, 5, 6, 1, 6, 2);
    SAME("%x %X %#x %#010x", 0xbeefu, 0xBEEFu, 0xbeefu, 0xbeefu);
    SAME("%hhx %hx %hhd %hd", (unsigned char)0xff, (unsigned short)0xffff, (signed char)-1,
         (short)-2);
    SAME("%lld %llu", INT64_MIN + 0ll, UINT64_MAX + 0ull);
    SAME("%lx %zu %zd", 0x1122334455667788ul, (size_t)12, (ssize_t)-12);
    SAME("%d %d", INT32_MIN, INT32_MAX);
    SAME("%p", (void *)0x1234abcd);
}

static void test_printf_text(void **state)
{
    (void)state;
    SAME("[%s|%10s|%-10s|%.2s|%8.3s]", "ab", "cd", "ef", "ghij", "klmnop");
    SAME("[%c|%3c|%-3c] 100%%", 'x', 'y', 'z');
    SAME("[%.*s]", 3, "abcdef");
    SAME("%s", "");
    char one[1] = {'x'};
    assert_int_equal(our_snprintf(one, 1, "%d", 12345), 5);
    assert_int_equal(one[0], 0);
    assert_int_equal(our_snprintf(NULL, 0, "%d", 12345), 5);
}

static void test_parse_u64(void **state)
{
    (void)state;
    u64 v = 1;
    assert_int_equal(our_parse_u64("0", &v), 0);
    assert_int_equal(v, 0);
    assert_int_equal(our_parse_u64("18446744073709551615", &v), 0);
    assert_true(v == UINT64_MAX);
    assert_int_equal(our_parse_u64("0xFFffFFffFFffFFff", &v), 0);
    assert_true(v == UINT64_MAX);
    static const char *const bad[] = {"", "-1", "+1", " 1", "1 ", "0x", "18446744073709551616",
                                      "0x10000000000000000", "12a", "99999999999999999999"};
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
        assert_int_equal(our_parse_u64(bad[i], &v), E_INVAL);
}

static void test_parse_bytes(void **state)
{
    (void)state;
    static const char *const bad[] = {"", "K", "1X", "1.5G", "16777216T", "1 G", "1GB"};
    u64 v = 1;
    assert_int_equal(our_parse_bytes("1000", &v), 0);
    assert_int_equal(v, 1000);
    assert_int_equal(our_parse_bytes("3k", &v), 0);
    assert_int_equal(v, 3 * KIB);
    assert_int_equal(our_parse_bytes("20G", &v), 0);
    assert_int_equal(v, 20 * GIB);
    assert_int_equal(our_parse_bytes("16777215T", &v), 0);
    assert_true(v == 16777215 * (1024 * GIB));
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
        assert_int_equal(our_parse_bytes(bad[i], &v), E_INVAL);
}

static void test_crc32c(void **state)
{
    (void)state;
    // RFC 3720 B.4.
    u8 zero[32] = {0}, ones[32], up[32];
    memset(ones, 0xff, sizeof(ones));
    for (int i = 0; i < 32; i++)
        up[i] = (u8)i;
    assert_int_equal(our_crc32c(0, zero, 32), 0x8a9136aa);
    assert_int_equal(our_crc32c(0, ones, 32), 0x62a8ab43);
    assert_int_equal(our_crc32c(0, up, 32), 0x46dd794e);
    assert_int_equal(our_crc32c(0, "123456789", 9), 0xe3069283);
    assert_int_equal(our_crc32c(our_crc32c(0, up, 13), up + 13, 19), 0x46dd794e);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_copies),        cmocka_unit_test(test_compares),
        cmocka_unit_test(test_printf_integers), cmocka_unit_test(test_printf_text),
        cmocka_unit_test(test_parse_u64), cmocka_unit_test(test_parse_bytes),     cmocka_unit_test(test_crc32c),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
