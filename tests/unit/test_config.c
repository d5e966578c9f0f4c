// SPDX-License-Identifier: MIT
// host.cfg: every key is read, and every mistake is named with its line.

// sources: kernel/config.c kernel/config_keys.c kernel/name.c kernel/uuid.c kernel/mac.c kernel/ip.c
// sources: kernel/number.c kernel/similar.c $(INIH_SRC)/ini.c
#include "tests/unit/unit.h"

#include "kernel/config.h"
#include "kernel/lib.h"

static struct host_config cfg;
static char err[300];

static const char full[] = "# a comment\n"
                           "[host]\n"
                           "name = alpha\n"
                           "log_level = debug\n"
                           "autostart_wait = off\n"
                           "; another\n"
                           "[net]\r\n"
                           "address = 10.0.0.1/24\n"
                           "gateway = 10.0.0.254\n"
                           "address6 = fd00::1/64\n"
                           "gateway6 = fd00::fe\n"
                           "mtu = 9000\n"
                           "port = 7171\n"
                           "[migrate]\n"
                           "verify = on\n"
                           "hints_ms = 7\n"
                           "blackout_target_ms = 50\n"
                           "max_rounds = 9\n"
                           "max_rate = 10M\n"
                           "[peer bravo]\n"
                           "address = 10.0.0.2\n"
                           "[peer charlie]\n"
                           "address = fd00::3\n"
                           "port = 9\n"
                           "[guest web]\n"
                           "uuid = 0d3bb9f2-6c1e-4c6a-9d55-2f8f3a1c7e10\n"
                           "memory = 128\n"
                           "vcpus = 2\n"
                           "kernel = \\skiff\\vmlinuz\n"
                           "initrd = \\skiff\\initrd\n"
                           "module = \\skiff\\second\n"
                           "cmdline = console=ttyS0,115200 a=b;c # all of it\n"
                           "disk = fast/web\n"
                           "disk = nvme0\n"
                           "rng = off\n"
                           "balloon = no\n"
                           "network = on\n"
                           "mac = 52:54:00:Ab:cD:01\n"
                           "vlan = 4094\n"
                           "macs = 16\n"
                           "autostart = yes\n"
                           "dirty = wp\n"
                           "[guest db]\n"
                           "kernel = k\n";

static void test_every_key(void **state)
{
    (void)state;
    assert_int_equal(config_parse(full, &cfg, err, sizeof(err)), 0);
    assert_string_equal(err, "");
    assert_string_equal(cfg.name, "alpha");
    assert_int_equal(cfg.log_level, 3);
    assert_false(cfg.autostart_wait);
    assert_false(cfg.dhcp);
    assert_int_equal(cfg.address4.prefix, 24);
    assert_int_equal(cfg.gateway4.bytes[3], 254);
    assert_int_equal(cfg.address6.family, 6);
    assert_int_equal(cfg.gateway6.bytes[15], 0xfe);
    assert_int_equal(cfg.mtu, 9000);
    assert_int_equal(cfg.port, 7171);
    assert_int_equal(cfg.verify, VERIFY_ON);
    assert_int_equal(cfg.hints_ms, 7);
    assert_int_equal(cfg.blackout_target_ms, 50);
    assert_int_equal(cfg.max_rounds, 9);
    assert_int_equal(cfg.max_rate, 10 * MIB);
    assert_int_equal(cfg.peer_count, 2);
    assert_string_equal(cfg.peers[1].name, "charlie");
    assert_int_equal(cfg.peers[1].port, 9);
    assert_int_equal(cfg.peers[0].port, 0);
    assert_int_equal(cfg.guest_count, 2);
    const struct guest_config *g = &cfg.guests[0];
    assert_string_equal(g->name, "web");
    assert_true(g->uuid_set);
    assert_int_equal(g->memory_mib, 128);
    assert_int_equal(g->vcpus, 2);
    assert_string_equal(g->kernel, "\\skiff\\vmlinuz");
    assert_int_equal(g->module_count, 2);
    assert_string_equal(g->modules[0], "\\skiff\\initrd");
    assert_string_equal(g->modules[1], "\\skiff\\second");
    assert_string_equal(g->cmdline, "console=ttyS0,115200 a=b;c # all of it");
    assert_int_equal(g->disk_count, 2);
    assert_string_equal(g->disks[0], "fast/web");
    assert_string_equal(g->disks[1], "nvme0");
    assert_true(g->autostart);
    assert_int_equal(g->dirty, DIRTY_WP);
    assert_false(g->rng || g->balloon);
    assert_true(cfg.guests[1].rng && cfg.guests[1].balloon);
    assert_true(g->network);
    assert_memory_equal(g->mac, "\x52\x54\0\xab\xcd\x01", 6);
    assert_int_equal(g->vlan, 4094);
    assert_int_equal(g->macs, 16);
    assert_true(cfg.guests[1].network);
    assert_int_equal(cfg.guests[1].vlan, 0);
    assert_int_equal(cfg.guests[1].macs, 1);
    u8 mac[6];
    mac_from_uuid(cfg.guests[1].uuid, mac);
    assert_memory_equal(cfg.guests[1].mac, mac, 6);
    assert_int_equal(mac[0] & 3, 2); // locally administered, of one station
    assert_false(cfg.guests[1].uuid_set);
    assert_int_equal(cfg.guests[1].uuid[6] >> 4, 8);
}

static void test_defaults(void **state)
{
    (void)state;
    assert_int_equal(config_parse("", &cfg, err, sizeof(err)), 0);
    assert_true(cfg.dhcp);
    assert_true(cfg.autostart_wait);
    assert_int_equal(cfg.port, 7070);
    assert_int_equal(cfg.mtu, 1500);
    assert_int_equal(cfg.hints_ms, 50);
    assert_int_equal(cfg.blackout_target_ms, 100);
    assert_int_equal(cfg.max_rounds, 30);
}

static void expect_error(const char *text, const char *wanted)
{
    assert_int_equal(config_parse(text, &cfg, err, sizeof(err)), E_INVAL);
    assert_string_equal(err, wanted);
}

static void test_unknown_names(void **state)
{
    (void)state;
    expect_error("[guest web]\nmemroy = 64\n",
                 "host.cfg line 2: unknown key \"memroy\" in [guest web]; did you mean memory? keys "
                 "are uuid, memory, vcpus, cpu, clock, kernel, module, initrd, cmdline, disk, rng, balloon, "
                 "network, mac, vlan, macs, autostart, dirty");
    expect_error("[host]\nzzz = 1\n", "host.cfg line 2: unknown key \"zzz\" in [host]; keys are "
                                      "name, log_level, autostart_wait");
    expect_error("\n\n[hots]\n", "host.cfg line 3: unknown section [hots]; sections are [host], "
                                 "[net], [migrate], [peer NAME] and [guest NAME]");
    expect_error("name = a\n",
                 "host.cfg line 1: \"name\" stands before any section; begin with [host]");
    expect_error("[host]\nname\n",
                 "host.cfg line 2: \"name\" is neither [section], key = value nor a # comment");
    expect_error("[host\n", "host.cfg line 1: a section needs its closing ], as in [host]");
    expect_error("[host x]\n", "host.cfg line 1: [host x] takes no name; write [host]");
    expect_error("[guest]\n", "host.cfg line 1: [guest] wants a name of 1 to 31 letters, digits, "
                              "'-', '_' or '.', as in [guest alpha]");
}

static void test_wrong_values(void **state)
{
    (void)state;
    static const char *const macs[] = {"",
                                       "52:54:00:12:34",
                                       "52:54:00:12:34:56:",
                                       "52-54-00-12-34-56",
                                       "5:254:00:12:34:56",
                                       "53:54:00:12:34:56",
                                       "00:00:00:00:00:00"};
    for (u32 i = 0; i < ARRAY_SIZE(macs); i++) {
        char text[80], wanted[160];
        snprintf(text, sizeof(text), "[guest a]\nmac = %s\n", macs[i]);
        snprintf(wanted, sizeof(wanted),
                 "host.cfg line 2: mac in [guest a] wants the address of one station like "
                 "52:54:00:12:34:56, found \"%s\"",
                 macs[i]);
        expect_error(text, wanted);
    }
    expect_error("[guest a]\nmemory = 63\n",
                 "host.cfg line 2: memory in [guest a] wants an even number of MiB from 64 to "
                 "1048576, found \"63\"");
    expect_error("[guest a]\nvcpus = 0\n",
                 "host.cfg line 2: vcpus in [guest a] wants a number from 1 to 16, found \"0\"");
    expect_error("[guest a]\ndisk = a\ndisk = b\ndisk = c\ndisk = d\ndisk = e\n",
                 "host.cfg line 6: disk \"e\" in [guest a] is one too many; a guest takes 4");
    expect_error("[net]\naddress = 10.0.0.1\n",
                 "host.cfg line 2: address in [net] wants dhcp or an address with its prefix "
                 "length like 10.0.0.1/24, found \"10.0.0.1\"");
    expect_error("[migrate]\nverify = maybe\n",
                 "host.cfg line 2: verify in [migrate] wants off, on or strict, found \"maybe\"");
    expect_error("[guest a]\ndirty = soap\n",
                 "host.cfg line 2: dirty in [guest a] wants auto, pml or wp, found \"soap\"");
    expect_error("[net]\ngateway = fd00::1\n", "host.cfg line 2: gateway in [net] wants an IPv4 "
                                               "address like 10.0.0.254, found \"fd00::1\"");
    expect_error("[guest a]\nmodule = m\ninitrd = i\n",
                 "host.cfg line 3: initrd in [guest a] stands for the first module, and \"m\" is "
                 "that already; name it first or write module");
}

static void test_incomplete(void **state)
{
    (void)state;
    expect_error("[host]\n[peer b]\nport = 1\n",
                 "host.cfg line 2: [peer b] has no address; add address = A.B.C.D");
    expect_error("[guest a]\n",
                 "host.cfg line 1: [guest a] has no kernel; add kernel = \\skiff\\vmlinuz");
    expect_error("[guest a]\nkernel=k\n[guest a]\n",
                 "host.cfg line 3: a second [guest a]; each guest is described once");
}

static void test_lengths(void **state)
{
    (void)state;
    static char text[4096];
    for (size_t n = 1000; n < 1300; n++) { // around the cmdline's own limit
        size_t at = (size_t)sprintf(text, "[guest a]\nkernel = k\ncmdline = ");
        memset(text + at, 'x', n);
        strcpy(text + at + n, "\n");
        int rc = config_parse(text, &cfg, err, sizeof(err));
        assert_int_equal(rc, n < 1024 ? 0 : E_INVAL);
    }
    memset(text, 'y', 2000);
    strcpy(text + 2000, "\n[host]\n");
    expect_error(text, "host.cfg line 1: the line is longer than 1290 characters");
    char tiny[8];
    assert_int_equal(config_parse("[x]", &cfg, tiny, sizeof(tiny)), E_INVAL);
    assert_string_equal(tiny, "host.cf");
}

static void test_too_many(void **state)
{
    (void)state;
    static char text[16384];
    char *p = text;
    for (int i = 0; i <= CONFIG_MAX_GUESTS; i++)
        p += sprintf(p, "[guest g%d]\nkernel = k\n", i);
    assert_int_equal(config_parse(text, &cfg, err, sizeof(err)), E_INVAL);
    assert_int_equal(cfg.guest_count, CONFIG_MAX_GUESTS);
    assert_non_null(strstr(err, "one too many"));
    strcpy(text, "[guest a]\nkernel=k\nmodule=1\nmodule=2\nmodule=3\nmodule=4\nmodule=5\n");
    assert_int_equal(config_parse(text, &cfg, err, sizeof(err)), E_INVAL);
    assert_int_equal(cfg.guests[0].module_count, CONFIG_MAX_MODULES);
}

static void check_ip(const char *text, const char *back)
{
    struct ip_address a;
    char buf[64];
    if (!back) {
        assert_int_equal(ip_parse(text, &a), E_INVAL);
        return;
    }
    assert_int_equal(ip_parse(text, &a), 0);
    ip_format(&a, buf, sizeof(buf));
    assert_string_equal(buf, back);
}

static void test_addresses(void **state)
{
    (void)state;
    check_ip("10.0.0.1", "10.0.0.1");
    check_ip("255.255.255.255/32", "255.255.255.255/32");
    check_ip("::", "::");
    check_ip("::1/128", "::1/128");
    check_ip("fd00::", "fd00::");
    check_ip("FD00:0:0:1:0:0:0:2", "fd00:0:0:1::2");
    check_ip("1:2:3:4:5:6:7:8", "1:2:3:4:5:6:7:8");
    check_ip("1:0:3:4:5:6:7:8", "1:0:3:4:5:6:7:8");
    check_ip("::2:3:4:5:6:7:8", "0:2:3:4:5:6:7:8");
    check_ip("1::8", "1::8");
    static const char *const bad[] = {
        "",        "1.2.3",     "1.2.3.4.5", "256.1.1.1",       "01.2.3.4",          "1.2.3.4/",
        "1.2.3.4/33", "1.2.3.4/0", "1.2.3.4x", ":",             ":::",               "1:2:3:4:5:6:7",
        "1:2:3:4:5:6:7:8:9", "1::2::3", "12345::",  "1:2:3:4:5:6:7:8::", "::1/129",  "fe80::1:",
        "1:2:3:4:5:6:7::8", "-1.2.3.4"};
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
        check_ip(bad[i], NULL);
}

static void test_uuid(void **state)
{
    (void)state;
    u8 u[16], v[16];
    char buf[37];
    assert_int_equal(uuid_parse("0D3bb9f2-6c1e-4c6a-9d55-2f8f3a1c7e10", u), 0);
    uuid_format(u, buf);
    assert_string_equal(buf, "0d3bb9f2-6c1e-4c6a-9d55-2f8f3a1c7e10");
    static const char *const bad[] = {"", "0d3bb9f2", "0d3bb9f26c1e4c6a9d552f8f3a1c7e10",
                                      "0d3bb9f2-6c1e-4c6a-9d55-2f8f3a1c7e1",
                                      "0d3bb9f2-6c1e-4c6a-9d55-2f8f3a1c7e10x",
                                      "0d3bb9f2-6c1e-4c6a-9d55-2f8f3a1c7e1g"};
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
        assert_int_equal(uuid_parse(bad[i], u), E_INVAL);
    uuid_from_names("alpha", "web", u);
    uuid_from_names("alpha", "web", v);
    assert_memory_equal(u, v, 16);
    uuid_from_names("alphaw", "eb", v);
    assert_memory_not_equal(u, v, 16);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_key),     cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_unknown_names), cmocka_unit_test(test_wrong_values),
        cmocka_unit_test(test_incomplete),    cmocka_unit_test(test_lengths),
        cmocka_unit_test(test_too_many),      cmocka_unit_test(test_addresses),
        cmocka_unit_test(test_uuid),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
