// SPDX-License-Identifier: MIT
// Commands: words, options, help for wrong input, completion, and output as text and as JSON.

// sources: kernel/console/command.c kernel/console/out.c kernel/console/json.c kernel/similar.c
// sources: kernel/uuid.c kernel/mac.c kernel/ip.c
#include "tests/unit/unit.h"

#include "kernel/config.h"
#include "kernel/console/command.h"
#include "kernel/console/json.h"
#include "kernel/guest/guest.h"
#include "kernel/lib.h"

static char output[65536];

static void sink(void *arg, const char *s, size_t n)
{
    (void)arg;
    strncat(output, s, n);
}

static void run_echo(struct call *c)
{
    struct out *o = c->out;
    out_printf(o, "text only\n");
    out_begin(o);
    out_str(o, "first", c->arg[0]);
    out_str(o, "second", c->arg[1] ? c->arg[1] : "-");
    out_bool(o, "loud", option_given(c, "--loud"));
    out_u64(o, "time_ns", 1234567890);
    out_end(o);
}

static void run_nothing(struct call *c)
{
    (void)c;
}

static struct guest *held; // what the command below leaves in its call
static u32 returned;
static void run_with_guest(struct call *c)
{
    c->guest = held;
}

void guest_put(struct guest *g)
{
    returned += g != NULL;
}

const struct command host_commands[] = {
    {"help", "[COMMAND]", "", "the commands", NULL, command_help},
    {"echo", "NAME [on|off]", "--loud --long", "says it again", "  Details.", run_echo},
    {NULL, NULL, NULL, NULL, NULL, NULL},
};
const struct command guest_commands[] = {
    {"start", "NAME", "", "starts", NULL, run_with_guest},
    {"stats", "", "", "figures", NULL, run_nothing},
    {NULL, NULL, NULL, NULL, NULL, NULL},
};
const struct command attach_commands[] = {
    {"console", "NAME", "", "connects", NULL, run_nothing},
    {NULL, NULL, NULL, NULL, NULL, NULL},
};
const struct command disk_commands[] = {
    {"disks", "", "", "disks", NULL, run_nothing},
    {NULL, NULL, NULL, NULL, NULL, NULL},
};
const struct command store_commands[] = {
    {"volumes", "", "", "volumes", NULL, run_nothing},
    {NULL, NULL, NULL, NULL, NULL, NULL},
};
const struct command move_commands[] = {
    {"resolve", "NAME keep|drop", "", "decides", NULL, run_nothing},
    {NULL, NULL, NULL, NULL, NULL, NULL},
};

void argument_words(const char *kind, size_t n, void (*found)(void *arg, const char *word),
                    void *arg)
{
    char k[32];
    snprintf(k, sizeof(k), "%.*s", (int)n, kind);
    if (!strcmp(k, "NAME")) {
        found(arg, "web");
        found(arg, "web-2");
        found(arg, "db");
    } else if (!strcmp(k, "COMMAND")) {
        for (const struct command *c = command_next(NULL); c; c = command_next(c))
            found(arg, c->name);
    } else if (strchr(k, '|')) {
        for (char *w = strtok(k, "|"); w; w = strtok(NULL, "|"))
            found(arg, w);
    }
}

static const char *run(const char *line)
{
    char copy[300];
    output[0] = 0;
    strcpy(copy, line);
    command_run(copy, sink, NULL);
    return output;
}

static void test_text(void **state)
{
    (void)state;
    assert_string_equal(run("  echo   web  "), "text only\n"
                                               "first                  web\n"
                                               "second                 -\n"
                                               "loud                   no\n"
                                               "time                   1.234 s\n");
    assert_string_equal(run(""), "");
    assert_string_equal(run("   "), "");
}

static void test_json_output(void **state)
{
    (void)state;
    const char *wanted = "{\"first\": \"web\", \"second\": \"on\", \"loud\": true, "
                         "\"time_ns\": 1234567890}\n";
    assert_string_equal(run("echo web on --loud --format json"), wanted);
    assert_string_equal(run("echo --format=json --loud web on"), wanted);
    assert_string_equal(run("--format json echo web --loud on"), wanted);
    assert_string_equal(run("echo --format json"),
                        "{\"error\": \"echo needs NAME; usage: echo NAME [on|off]\"}\n");
}

static void test_a_commands_guest_is_put_after_it(void **state)
{
    static struct guest guest;
    (void)state;
    returned = 0;
    held = &guest;
    run("start web");
    assert_int_equal(returned, 1);
    run("stats");
    run("start");
    assert_int_equal(returned, 1);
    held = NULL;
}

static void test_wrong_input(void **state)
{
    (void)state;
    assert_string_equal(run("strat web"),
                        "error: there is no command \"strat\"; did you mean start?\n");
    assert_string_equal(run("frobnicate"),
                        "error: there is no command \"frobnicate\"; help lists them\n");
    assert_string_equal(run("start"), "error: start needs NAME; usage: start NAME\n");
    assert_string_equal(run("start a b"), "error: start does not take \"b\"; usage: start NAME\n");
    assert_string_equal(run("stats x"), "error: stats does not take \"x\"; usage: stats\n");
    assert_string_equal(run("resolve web maybe"), "error: resolve wants keep|drop, found \"maybe\"; "
                                                  "usage: resolve NAME keep|drop\n");
    assert_string_equal(run("echo web maybe"),
                        "error: echo wants on|off, found \"maybe\"; usage: echo NAME [on|off]\n");
    assert_string_equal(run("start web --lod"),
                        "error: start has no option --lod; it takes --format text|json\n");
    assert_string_equal(
        run("echo web --lod"),
        "error: echo has no option --lod; it takes --loud --long --format text|json\n");
    assert_string_equal(run("stats --format xml"),
                        "error: --format takes text or json, found \"xml\"\n");
    assert_string_equal(run("stats --format"), "error: --format takes text or json, found \"\"\n");
    assert_string_equal(run("a b c d e f g h i j k l m n o p q"), "error: more than 16 words\n");
}

static void test_help(void **state)
{
    (void)state;
    run("help");
    static const char *const names[] = {"help", "echo", "start", "stats", "console", "resolve"};
    for (size_t i = 0; i < ARRAY_SIZE(names); i++)
        assert_non_null(strstr(output, names[i]));
    assert_string_equal(run("help echo"), "echo NAME [on|off] --loud --long [--format text|json]\n"
                                          "  says it again\n  Details.\n");
    assert_string_equal(run("help sart"),
                        "error: there is no command \"sart\"; did you mean start?\n");
}

static char words[512];

static void collect(void *arg, const char *word)
{
    (void)arg;
    strcat(words, word);
    strcat(words, " ");
}

static void complete(const char *line, const char *wanted, size_t begin)
{
    words[0] = 0;
    assert_int_equal(command_complete(line, collect, NULL), begin);
    assert_string_equal(words, wanted);
}

static void test_completion(void **state)
{
    (void)state;
    complete("", "help echo start stats console resolve disks volumes ", 0);
    complete("st", "start stats ", 0);
    complete("start ", "web web-2 db ", 6);
    complete("start w", "web web-2 ", 6);
    complete("start web ", "", 10);
    complete("resolve web k", "keep ", 12);
    complete("echo web ", "on off ", 9);
    complete("echo --l", "--loud --long ", 5);
    complete("echo --loud d", "db ", 12);
    complete("echo --format json d", "db ", 19);
    complete("start --f", "--format ", 6);
    complete("stats --format j", "json ", 15);
    complete("help res", "resolve ", 5);
    complete("nonsense x", "", 9);
}

static void json(const char *text, size_t size, const char *wanted)
{
    char buf[128];
    assert_int_equal(json_string(buf, size, text), strlen(wanted));
    assert_string_equal(buf, wanted);
}

static void test_json_strings(void **state)
{
    (void)state;
    json("plain", 128, "\"plain\"");
    json("a\"b\\c", 128, "\"a\\\"b\\\\c\"");
    json("x\n\x1b\x7f", 128, "\"x\\n\\u001b\\u007f\"");
    json("\xc3\xa9 \xe2\x82\xac \xf0\x9f\x9a\xa2", 128, "\"\xc3\xa9 \xe2\x82\xac \xf0\x9f\x9a\xa2\"");
    // Lone, overlong, surrogate, beyond the last code point, cut short.
    json("\x80|\xc0\xaf|\xed\xa0\x80|\xf4\x90\x80\x80|\xe2\x82", 128,
         "\"\\ufffd|\\ufffd\\ufffd|\\ufffd\\ufffd\\ufffd|\\ufffd\\ufffd\\ufffd\\ufffd|\\ufffd\\ufffd\"");
    json("abcdef", 6, "\"abc\"");
    json("ab\"\"\"", 6, "\"ab\"");
    json("", 3, "\"\"");
}

static void test_figures(void **state)
{
    (void)state;
    char buf[24];
    assert_string_equal(format_bytes(buf, 0), "0 bytes");
    assert_string_equal(format_bytes(buf, 1023), "1023 bytes");
    assert_string_equal(format_bytes(buf, 1536), "1.5 KiB");
    assert_string_equal(format_bytes(buf, 128 * MIB), "128.0 MiB");
    assert_string_equal(format_bytes(buf, ~0ull), "16777215.9 TiB");
    assert_string_equal(format_ns(buf, 1500), "0.001 ms");
    assert_string_equal(format_ns(buf, 45 * NS_PER_MS), "45.000 ms");
    assert_string_equal(format_ns(buf, 61 * NS_PER_SEC), "61.000 s");
}

static size_t most;

static void measure(void *arg, const char *s, size_t n)
{
    (void)arg;
    (void)s;
    most = MAX(most, n);
}

static void expect_whole_lines(void *arg, const char *s, size_t n)
{
    (void)arg;
    assert_int_equal(s[n - 1], '\n');
}

static void test_pieces_of_output_end_with_a_line(void **state)
{
    (void)state;
    static struct out o;
    out_init(&o, true, expect_whole_lines, NULL);
    for (int i = 0; i < 2000; i++) {
        out_begin(&o);
        out_u64(&o, "value", (u64)i * i * i);
        out_end(&o);
    }
    out_flush(&o);
}

static void test_long_output(void **state)
{
    (void)state;
    static struct out o;
    struct ip_address unset = {0}, a;
    assert_int_equal(ip_parse("10.0.0.1/24", &a), 0);
    out_init(&o, true, measure, NULL);
    char longer[3000];
    memset(longer, 7, sizeof(longer) - 1);
    longer[sizeof(longer) - 1] = 0;
    for (int i = 0; i < 50; i++) {
        out_begin(&o);
        out_str(&o, "s", longer);
        out_end(&o);
    }
    out_flush(&o);
    assert_true(most <= sizeof(o.buf));
    out_init(&o, true, sink, NULL);
    output[0] = 0;
    out_begin(&o);
    out_ip(&o, "none", &unset);
    out_ip(&o, "address", &a);
    out_list_begin(&o, "list");
    out_list_str(&o, "a");
    out_list_str(&o, "b");
    out_list_end(&o);
    out_list_begin(&o, "empty");
    out_list_end(&o);
    out_end(&o);
    out_flush(&o);
    assert_string_equal(output,
                        "{\"address\": \"10.0.0.1/24\", \"list\": [\"a\", \"b\"], \"empty\": []}\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_text),       cmocka_unit_test(test_json_output),
        cmocka_unit_test(test_a_commands_guest_is_put_after_it),
        cmocka_unit_test(test_wrong_input), cmocka_unit_test(test_help),
        cmocka_unit_test(test_completion), cmocka_unit_test(test_json_strings),
        cmocka_unit_test(test_figures),    cmocka_unit_test(test_pieces_of_output_end_with_a_line),
        cmocka_unit_test(test_long_output),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
