// SPDX-License-Identifier: MIT
// The line editor, seen through a small model of a terminal: what is drawn must be what is held.

// sources: kernel/console/line.c
#include "tests/unit/unit.h"

#include "kernel/console/line.h"
#include "kernel/lib.h"

#define COLUMNS 400

static char screen[COLUMNS + 1]; // the row the cursor is in
static unsigned column, rows, bells;
static struct line line;

static void clear_from(unsigned at)
{
    memset(screen + at, ' ', COLUMNS - at);
}

static unsigned sequence(const char *s, size_t n)
{
    unsigned value = 0;
    size_t i = 2;
    for (; i < n && s[i] >= '0' && s[i] <= '9'; i++)
        value = value * 10 + (unsigned)(s[i] - '0');
    assert_true(i < n);
    if (s[i] == 'D')
        column -= value;
    else if (s[i] == 'K')
        clear_from(column);
    else
        fail_msg("unknown sequence %c", s[i]);
    return (unsigned)i + 1;
}

static void terminal(const char *s, size_t n)
{
    while (n) {
        unsigned used = 1;
        if (*s == 0x1b)
            used = sequence(s, n);
        else if (*s == '\n') {
            rows++;
            column = 0;
            clear_from(0);
        } else if (*s == '\r')
            column = 0;
        else if (*s == '\a')
            bells++;
        else
            screen[column++] = *s;
        assert_true(column < COLUMNS);
        s += used;
        n -= used;
    }
}

static void check_drawn(void)
{
    char wanted[COLUMNS + 1];
    assert_int_equal(line.len, strlen(line.text));
    assert_true(line.cursor <= line.len);
    int n = sprintf(wanted, "skiff> %s", line.text);
    memset(wanted + n, ' ', COLUMNS - (size_t)n);
    assert_memory_equal(screen, wanted, COLUMNS);
    assert_int_equal(column, 7 + line.cursor);
}

static enum line_event type(const char *s)
{
    enum line_event e = LINE_MORE;
    for (; *s; s++) {
        e = line_feed(&line, (u8)*s);
        if (e == LINE_MORE)
            check_drawn();
    }
    return e;
}

static int start(void **state)
{
    (void)state;
    memset(&line, 0, sizeof(line));
    line.prompt = "skiff> ";
    line.emit = terminal;
    column = rows = bells = 0;
    clear_from(0);
    line_draw(&line);
    check_drawn();
    return 0;
}

static void next_line(void)
{
    line_remember(&line);
    line_reset(&line);
    line_draw(&line);
}

static void test_typing(void **state)
{
    (void)state;
    assert_int_equal(type("list\r"), LINE_DONE);
    assert_string_equal(line.text, "list");
    assert_int_equal(rows, 1);
    next_line();
    assert_int_equal(line_feed(&line, '\n'), LINE_MORE); // of the CR LF
    assert_int_equal(line.len, 0);
    assert_int_equal(type("a\n"), LINE_DONE); // a lone LF ends a line as well
}

static void test_editing_keys(void **state)
{
    (void)state;
    type("lisz\x7ft");
    assert_string_equal(line.text, "list");
    type("\x01X\x05Y");
    assert_string_equal(line.text, "XlistY");
    type("\x1b[D\x1b[D\x1b[3~");
    assert_string_equal(line.text, "XlisY");
    type("\x1b[H\x1b[C\x04\x1bOF!");
    assert_string_equal(line.text, "XisY!");
    type("\x02\x02\x0b");
    assert_string_equal(line.text, "Xis");
    type("\x19"); // what was killed comes back
    assert_string_equal(line.text, "XisY!");
    type("\x15");
    assert_string_equal(line.text, "");
    type("one two three\x17");
    assert_string_equal(line.text, "one two ");
    type("\x1b[1;5D\x1b" "bA");
    assert_string_equal(line.text, "Aone two ");
    type("\x1b[1;5CB\x1b[4~C\x1b[1~D");
    assert_string_equal(line.text, "DAoneB two C");
    assert_int_equal(bells, 0);
    type("\x1b[1~\x7f\x1b[99~\xc3\xa9");
    assert_int_equal(bells, 4);
}

static void test_history(void **state)
{
    (void)state;
    static const char *const lines[] = {"one", "two", "two", "three", ""};
    for (size_t i = 0; i < ARRAY_SIZE(lines); i++) {
        type(lines[i]);
        type("\r");
        next_line();
    }
    type("dra");
    type("\x1b[A");
    assert_string_equal(line.text, "three");
    type("\x1b[A\x10");
    assert_string_equal(line.text, "one"); // "two" once, the empty line not at all
    type("\x1b[A");
    assert_int_equal(bells, 1);
    type("\x1b[B\x0e\x1b[B");
    assert_string_equal(line.text, "dra");
    type("\x1b[B");
    assert_int_equal(bells, 2);
    for (int i = 0; i < 100; i++) {
        char text[32];
        sprintf(text, "\x15line %d", i);
        type(text);
        type("\r");
        next_line();
    }
    for (int i = 0; i < 200; i++)
        type("\x1b[A");
    assert_string_equal(line.text, "line 68"); // the oldest of 32
}

static void test_cancel_and_clear(void **state)
{
    (void)state;
    assert_int_equal(type("half\x03"), LINE_CANCEL);
    assert_int_equal(line.len, 0);
    line_draw(&line);
    assert_int_equal(type("x\x0c"), LINE_CLEAR);
    assert_int_equal(type("\t"), LINE_TAB);
    line_insert(&line, "yz");
    check_drawn();
    assert_string_equal(line.text, "xyz");
}

static void test_full_line(void **state)
{
    (void)state;
    for (int i = 0; i < LINE_BYTES + 20; i++)
        type("x");
    assert_int_equal(line.len, LINE_BYTES - 1);
    assert_int_equal(bells, 21);
    type("\x01y\x0b\x19\x19");
    assert_int_equal(line.len, LINE_BYTES - 1);
}

static void test_any_bytes(void **state)
{
    (void)state;
    static const char keys[] = "\x1b[ODCAB~135;\x7f\x01\x05\x0b\x19\x10\x0e\x17";
    u32 seed = 1;
    for (int i = 0; i < 200000; i++) {
        seed = seed * 1103515245 + 12345;
        u8 c = (u8)(seed >> 16);
        if (c % 4 == 0)
            c = (u8)keys[(seed >> 24) % (sizeof(keys) - 1)];
        enum line_event e = line_feed(&line, c);
        if (e == LINE_DONE || e == LINE_CANCEL)
            next_line();
        check_drawn();
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_typing, start),
        cmocka_unit_test_setup(test_editing_keys, start),
        cmocka_unit_test_setup(test_history, start),
        cmocka_unit_test_setup(test_cancel_and_clear, start),
        cmocka_unit_test_setup(test_full_line, start),
        cmocka_unit_test_setup(test_any_bytes, start),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
