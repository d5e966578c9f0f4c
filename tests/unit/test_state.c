// SPDX-License-Identifier: MIT
// Field tables: what is saved comes back, and nothing that is wrong gets in.
// sources: kernel/guest/state.c
#include "unit.h"

#include "kernel/guest/state.h"
#include "kernel/lib.h"

struct thing {
    u8 flag;
    u32 word;
    u64 array[3];
    u8 bytes[5];
    u16 fixed;
    u32 newer;
    void *host_pointer; // not in the table
};

static bool check(const void *copy, char *err, size_t size)
{
    const struct thing *t = copy;
    if (t->word != 13)
        return true;
    snprintf(err, size, "13 is unlucky");
    return false;
}

static const struct state_field fields[] = {
    FIELD(1, FIELD_COPY, struct thing, flag, 1, 0, 1),
    FIELD(2, FIELD_COPY, struct thing, word, 1, 0, 0),
    FIELD_ARRAY(3, FIELD_COPY, struct thing, array, 1),
    FIELD_ARRAY(4, FIELD_BYTES, struct thing, bytes, 1),
    FIELD(5, FIELD_MUST_MATCH, struct thing, fixed, 1, 0, 0),
    FIELD(6, FIELD_COPY, struct thing, newer, 2, 0, 0),
    FIELD_LAST,
};
static const struct state_table table = {
    .name = "thing", .version = 2, .fields = fields, .check = check,
    .struct_size = sizeof(struct thing),
};
// The table as the version before had it, with a field that was dropped since.
static const struct state_field old_fields[] = {
    FIELD(1, FIELD_COPY, struct thing, flag, 1, 0, 1),
    FIELD(2, FIELD_COPY, struct thing, word, 1, 0, 0),
    FIELD_ARRAY(3, FIELD_COPY, struct thing, array, 1),
    FIELD_ARRAY(4, FIELD_BYTES, struct thing, bytes, 1),
    FIELD(5, FIELD_MUST_MATCH, struct thing, fixed, 1, 0, 0),
    FIELD(9, FIELD_COPY, struct thing, newer, 1, 0, 0),
    FIELD_LAST,
};
static const struct state_table old_table = {
    .name = "thing", .version = 1, .fields = old_fields, .struct_size = sizeof(struct thing),
};

static struct thing from, to, scratch;
static u8 buf[512];
static char err[200];
static s64 bytes;

static int setup(void **state)
{
    (void)state;
    from = (struct thing){1, 0xdeadbeef, {1, ~0ull, 3}, "four", 77, 5, &from};
    memset(&to, 0, sizeof(to));
    to.fixed = 77;
    to.newer = 42;
    to.host_pointer = &to;
    memset(buf, 0, sizeof(buf));
    bytes = state_save(&table, &from, buf, sizeof(buf));
    assert_true(bytes > 0);
    return 0;
}

static int load(const struct state_table *t, u64 n)
{
    err[0] = 0;
    int e = state_check(t, &to, buf, n, &scratch, err, sizeof(err));
    if (!e)
        state_apply(t, &to, &scratch);
    return e;
}

static void test_round_trip(void **state)
{
    (void)state;
    assert_int_equal(state_save(&table, &from, NULL, 0), bytes);
    assert_int_equal(bytes % 8, 0);
    assert_int_equal(state_save(&table, &from, buf, (u64)bytes - 1), E_INVAL);
    assert_int_equal(load(&table, (u64)bytes), 0);
    assert_int_equal(to.flag, 1);
    assert_int_equal(to.word, 0xdeadbeef);
    assert_memory_equal(to.array, from.array, sizeof(to.array));
    assert_memory_equal(to.bytes, from.bytes, 5);
    assert_int_equal(to.newer, 5);
    assert_ptr_equal(to.host_pointer, &to);
}

static void refused(const char *with)
{
    struct thing before = to;
    assert_int_equal(load(&table, (u64)bytes), E_INVAL);
    if (!strstr(err, with))
        fail_msg("\"%s\" does not say \"%s\"", err, with);
    assert_memory_equal(&before, &to, sizeof(to));
}

static void save_again(void)
{
    bytes = state_save(&table, &from, buf, sizeof(buf));
}

static void test_refusals_name_table_and_field(void **state)
{
    (void)state;
    from.flag = 2;
    save_again();
    refused("state of thing: flag is 0x2");
    from.flag = 0;
    from.fixed = 78;
    save_again();
    refused("fixed is 0x4e, this host has 0x4d");
    from.fixed = 77;
    from.word = 13;
    save_again();
    refused("13 is unlucky");
    from.word = 1;
    save_again();
    buf[0] = 3; // version
    refused("version 3 is newer than this host's 2");
}

static void test_structure_is_checked(void **state)
{
    (void)state;
    u8 good[sizeof(buf)];
    memcpy(good, buf, sizeof(buf));
    buf[8] = 99; // first field's id
    refused("field 99 is unknown");
    memcpy(buf, good, sizeof(buf));
    buf[8] = 2; // flag's data under word's id: another shape
    refused("word has 1 elements of 1 bytes");
    memcpy(buf, good, sizeof(buf));
    buf[2]--; // one field less
    refused("after the last field");
    memcpy(buf, good, sizeof(buf));
    buf[2]++;
    refused("cut short");
    memcpy(buf, good, sizeof(buf));
    buf[12] = 0xff; // count of the first field
    buf[15] = 0xff;
    refused("only");
}

static void test_a_field_twice(void **state)
{
    (void)state;
    // flag (16 bytes with its header) over word, which has the same length.
    memcpy(buf + 24, buf + 8, 16);
    refused("comes twice");
}

static void test_a_missing_field(void **state)
{
    (void)state;
    memmove(buf + 8, buf + 24, (size_t)bytes - 24);
    bytes -= 16;
    buf[2]--;
    memcpy(buf + 4, &bytes, 4);
    refused("flag is missing");
}

static void test_every_truncation_is_refused(void **state)
{
    (void)state;
    for (u64 n = 0; n < (u64)bytes; n++)
        assert_int_equal(load(&table, n), E_INVAL);
}

static void test_no_byte_crashes_it(void **state)
{
    (void)state;
    u8 good[sizeof(buf)];
    memcpy(good, buf, sizeof(buf));
    srand(3);
    for (int i = 0; i < 200000; i++) {
        memcpy(buf, good, sizeof(buf));
        for (int k = rand() % 4; k >= 0; k--)
            buf[rand() % bytes] = (u8)rand();
        load(&table, (u64)(rand() % 8 ? bytes : rand() % (int)sizeof(buf)));
    }
}

static void test_an_older_sender(void **state)
{
    (void)state;
    bytes = state_save(&old_table, &from, buf, sizeof(buf));
    assert_int_equal(load(&table, (u64)bytes), 0);
    assert_int_equal(to.word, from.word);
    assert_int_equal(to.newer, 42); // absent: what it was
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup(name, setup)
        T(test_round_trip),
        T(test_refusals_name_table_and_field),
        T(test_structure_is_checked),
        T(test_a_field_twice),
        T(test_a_missing_field),
        T(test_every_truncation_is_refused),
        T(test_no_byte_crashes_it),
        T(test_an_older_sender),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
