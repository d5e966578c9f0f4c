// SPDX-License-Identifier: MIT
// The refusals before the first page: each reason is found and named.
// sources: kernel/migrate/check.c kernel/migrate/cpu_features.c kernel/mac.c kernel/migrate/describe.c
// sources: kernel/migrate/sections.c kernel/migrate/vcpu_fields.c kernel/migrate/stream.c
// sources: kernel/migrate/hash.c kernel/guest/reference.c kernel/guest/state.c kernel/crc32c.c
#include "tests/unit/unit.h"

#include "arch/x86/cpu.h"
#include "kernel/lib.h"
#include "kernel/mem.h"
#include "kernel/migrate/check.h"
#include "kernel/migrate/ownership.h"
#include "kernel/migrate/sections.h"
#include "kernel/time.h"
#include "storage/datastore.h"

bool volume_get_info(u32 i, struct volume_info *out)
{
    (void)i, (void)out;
    return false;
}

// ---- Below: a host's CPU, memory and guests -----------------------------------------------------

struct host_features host_features;
char backend_missing[160] = "VT-x is locked off";
static const struct backend_ops some_backend = {.name = "vmx"};
const struct backend_ops *backend = &some_backend;
u64 host_tsc_hz = 2000000000;
struct mutex guests_lock;
static u32 leaf1_ecx, leaf7_ebx, widths, component_offset;
static u64 free_bytes;
static struct guest *by_uuid, *by_name;
static bool doubt;

void host_cpuid(u32 leaf, u32 sub, u32 out[4])
{
    memset(out, 0, 16);
    if (leaf == 1)
        out[2] = leaf1_ecx;
    if (leaf == 7 && sub == 0)
        out[1] = leaf7_ebx;
    if (leaf == 0x80000008)
        out[0] = widths;
    if (leaf == 0xd && sub == 2) {
        out[0] = 256;
        out[1] = component_offset;
    }
}

u64 time_ns(void)
{
    return 0;
}

int conn_read_full(struct conn *c, void *buf, u64 size)
{
    (void)c, (void)buf, (void)size;
    return E_IO;
}

u64 pages_alloc(u64 count)
{
    (void)count;
    return 0;
}

void pages_free(u64 pa, u64 count)
{
    (void)pa, (void)count;
}

void mutex_lock(struct mutex *m)
{
    (void)m;
}

void mutex_unlock(struct mutex *m)
{
    (void)m;
}

void mem_get_stats(struct mem_stats *out)
{
    *out = (struct mem_stats){.free_bytes = free_bytes};
}

struct guest *guest_find(const char *name)
{
    (void)name;
    return by_name;
}

struct guest *guest_find_uuid(const u8 uuid[16])
{
    (void)uuid;
    return by_uuid;
}

const char *guest_state_name(enum guest_state s)
{
    return s == GUEST_RUNNING ? "running" : "something";
}

bool ownership_in_doubt(const u8 uuid[16])
{
    (void)uuid;
    return doubt;
}

void vcpu_save_state(struct vcpu *v, struct vcpu_state *s)
{
    (void)v, (void)s;
}

int vcpu_check_state(struct vcpu *v, const struct vcpu_state *s, char *err, size_t size)
{
    (void)v, (void)s, (void)err, (void)size;
    return 0;
}

int vcpu_load_state(struct vcpu *v, const struct vcpu_state *s)
{
    (void)v, (void)s;
    return 0;
}

static const struct state_field no_fields[] = {FIELD_LAST};
const struct state_table lapic_state = {.name = "lapic", .version = 1, .fields = no_fields};

// ---- A guest like the ones described ------------------------------------------------------------

static struct state_table uart_table = {.name = "uart", .version = 1, .fields = no_fields};
static const struct device_ops uart_ops = {.name = "uart", .state = &uart_table};
static struct device uart;
static struct vcpu vcpu;
static struct guest guest;
static struct guest_desc desc;
static struct reasons why;
static char err[200];

static int setup(void **state)
{
    (void)state;
    host_features =
        (struct host_features){.vendor = "GenuineIntel", .xcr0_supported = 7, .xsave_size = 832};
    backend = &some_backend;
    leaf1_ecx = 0xffffffff;
    leaf7_ebx = 0xffffffff;
    widths = 48 << 8 | 39;
    component_offset = 576;
    free_bytes = GIB;
    by_uuid = by_name = NULL;
    doubt = false;
    uart_table.version = 1;
    memset(&guest, 0, sizeof(guest));
    memset(&why, 0, sizeof(why));
    strlcpy(guest.name, "web", sizeof(guest.name));
    vcpu = (struct vcpu){.guest = &guest};
    guest.vcpu[0] = &vcpu;
    guest.vcpu_count = 1;
    uart = (struct device){.ops = &uart_ops, .guest = &guest};
    guest.devices = &uart;
    guest.config.memory_mib = 128;
    guest.memory.bytes = 128 * MIB;
    guest.memory.region_count = 1;
    guest.memory.region[0].bytes = 128 * MIB;
    guest.clock.tsc_hz = host_tsc_hz;
    guest.cpuid_count = 5;
    guest.cpuid[0] = (struct cpuid_entry){1, 0, 0, 0, 0, 1u << 28 | 1u << 31 | 1u << 21, 0};
    guest.cpuid[1] = (struct cpuid_entry){7, 0, 1, 0, 1u << 16 | 1u << 1, 0, 0};
    guest.cpuid[2] = (struct cpuid_entry){0xd, 0, 1, 7, 0, 0, 0};
    guest.cpuid[3] = (struct cpuid_entry){0xd, 2, 1, 256, 576, 0, 0};
    guest.cpuid[4] = (struct cpuid_entry){0x80000008, 0, 0, 48 << 8 | 39, 0, 0, 0};
    return describe_guest(&guest, &desc, err, sizeof(err));
}

static void assert_reason(const char *text)
{
    if (!strstr(why.text, text))
        fail_msg("wanted \"%s\" in \"%s\"", text, why.text);
}

static void check_all(void)
{
    struct guest *existing;
    static const u8 uuid[16];
    check_cpu(&desc, "alpha", &why);
    check_memory(&desc, 0, &why);
    check_identity(&desc, uuid, "alpha", &existing, &why);
    check_built(&desc, &guest, "alpha", &why);
}

// ---- Tests --------------------------------------------------------------------------------------

static void test_nothing_against_it(void **state)
{
    (void)state;
    check_all();
    assert_int_equal(why.count, 0);
    assert_string_equal(why.text, "");
}

static void test_everything_against_it(void **state)
{
    (void)state;
    struct guest other = {.name = "web", .state = GUEST_RUNNING};
    strlcpy(host_features.vendor, "AuthenticAMD", sizeof(host_features.vendor));
    leaf1_ecx = ~(1u << 28 | 1u << 31 | 1u << 21); // AVX; the others are the hypervisor's own
    leaf7_ebx = ~(1u << 16 | 1u << 1);
    host_features.xcr0_supported = 3;
    widths = 48 << 8 | 36;
    free_bytes = 128 * MIB;
    by_name = &other;
    uart_table.version = 1;
    desc.devices[1].version = 2;
    check_all();
    assert_int_equal(why.count, 8);
    assert_reason("CPU vendor: alpha has GenuineIntel, this host AuthenticAMD, and");
    assert_reason("CPU feature avx: the guest has been shown it, and this CPU lacks it");
    assert_reason("CPU feature avx512f:");
    assert_reason("XSAVE component AVX (XCR0 bit 2)");
    assert_reason("physical addresses: the guest was shown 39 bits, this CPU has 36");
    assert_reason("memory: the guest needs 133 MiB (128 MiB of RAM and its tables), 128 MiB are");
    assert_reason("name: another guest here is called web already");
    assert_reason("device uart 0: alpha has state version 2, this host knows up to 1; update");
}

// What the guest was shown is the same everywhere then, its vendor too.
static void test_a_level_crosses_vendors(void **state)
{
    (void)state;
    desc.g.cpu = CPU_V3;
    strlcpy(host_features.vendor, "AuthenticAMD", sizeof(host_features.vendor));
    check_cpu(&desc, "alpha", &why);
    assert_int_equal(why.count, 0);
    component_offset = 832; // both vendors have AVX-512, at different places
    check_cpu(&desc, "alpha", &why);
    assert_int_equal(why.count, 1);
}

static void test_no_backend(void **state)
{
    (void)state;
    backend = NULL;
    check_cpu(&desc, "alpha", &why);
    assert_string_equal(why.text, "this host runs no guests: VT-x is locked off");
}

static void test_xsave_layout(void **state)
{
    (void)state;
    component_offset = 640;
    check_cpu(&desc, "alpha", &why);
    assert_string_equal(why.text,
                        "XSAVE component 2 lies at 576 (256 bytes), on this CPU at 640 (256)");
}

static void identity(struct guest *same, enum guest_state state, bool in_doubt)
{
    struct guest *existing;
    static const u8 uuid[16];
    memset(&why, 0, sizeof(why));
    same->state = (u8)state;
    by_uuid = by_name = same;
    doubt = in_doubt;
    check_identity(&desc, uuid, "alpha", &existing, &why);
    assert_ptr_equal(existing, same);
}

static void test_uuid(void **state)
{
    (void)state;
    struct guest same = {.name = "web"};
    identity(&same, GUEST_OFF, false);
    assert_int_equal(why.count, 0);
    identity(&same, GUEST_MOVED, false); // it comes back
    assert_int_equal(why.count, 0);
    identity(&same, GUEST_IN_DOUBT, false); // configured here too, and not started for that
    assert_int_equal(why.count, 0);
    identity(&same, GUEST_IN_DOUBT, true);
    assert_int_equal(why.count, 1);
    identity(&same, GUEST_RUNNING, false);
    assert_string_equal(why.text, "UUID: guest web here has the same one and is running; alpha "
                                  "wants to send another");
    strlcpy(same.name, "www", sizeof(same.name));
    identity(&same, GUEST_OFF, false);
    assert_string_equal(why.text, "name: the guest with this UUID is called www here and web at "
                                  "alpha");
}

static void test_devices(void **state)
{
    (void)state;
    uart_table.version = 2; // newer here: fine
    check_built(&desc, &guest, "alpha", &why);
    assert_int_equal(why.count, 0);
    guest.devices = NULL;
    check_built(&desc, &guest, "alpha", &why);
    assert_string_equal(why.text, "device uart 0: the guest at alpha has it, this host does not "
                                  "know it");
    memset(&why, 0, sizeof(why));
    guest.devices = &uart;
    desc.g.device_count--; // the vCPU's section is the last
    guest.memory.region[0].bytes += PAGE_SIZE;
    check_built(&desc, &guest, "alpha", &why);
    assert_reason("device vcpu 0: this host's PC has it, the guest at alpha does not");
    assert_reason("memory layout: this version lays out 128 MiB differently");
}

static void test_reasons_that_do_not_fit_are_counted(void **state)
{
    (void)state;
    for (u32 i = 0; i < 300; i++)
        reason_add(&why, "reason %u of very many, each of them a sentence", i);
    assert_int_equal(why.count, 300);
    assert_true(strlen(why.text) < sizeof(why.text) && why.used == strlen(why.text));
}

static int take(u32 type, const void *payload, u32 bytes)
{
    struct record r = {type, bytes, payload};
    return describe_take(&desc, &r, err, sizeof(err));
}

static void test_malformed_descriptions(void **state)
{
    (void)state;
    struct wire_guest good = desc.g, w;
#define BAD(change)                                                                                \
    do {                                                                                           \
        w = good;                                                                                  \
        change;                                                                                    \
        assert_int_equal(take(REC_GUEST, &w, sizeof(w)), E_PROTO);                                 \
    } while (0)
    assert_int_equal(take(REC_GUEST, &good, sizeof(good)), 0);
    BAD(memset(w.name, 'x', sizeof(w.name)));
    BAD(w.name[1] = '/');
    BAD(w.cmdline[0] = '\n');
    BAD(memset(w.kernel, 'x', sizeof(w.kernel)));
    BAD(memset(w.modules[3], 'x', sizeof(w.modules[3])));
    BAD(w.vcpus = 0);
    BAD(w.vcpus = GUEST_MAX_VCPUS + 1);
    BAD(w.region_count = 5);
    BAD(w.region_count = 0);
    BAD(w.region[0].bytes = 0);
    BAD(w.region[0].bytes += PAGE_SIZE);
    BAD(w.region[0].gpa = 1);
    BAD(w.memory_bytes = ~0ull);
    BAD(w.memory_mib = 127);
    BAD(w.cpuid_count = WIRE_MAX_CPUID + 1);
    BAD(w.device_count = WIRE_MAX_DEVICES + 1);
    BAD(w.module_count = 5);
    BAD(w.tsc_hz = 0);
    BAD(w.dirty = 3);
    BAD(w.cpu = 4);
    BAD(w.clock = 2);
    BAD(w.mac[0] = 1);
    BAD((w.mac[0] = 2, w.vlan = 4095));
    BAD((w.mac[0] = 2, w.macs = 0));
    BAD((w.mac[0] = 2, w.macs = 17));
    assert_int_equal(take(REC_CPUID, desc.cpuid, 4 * sizeof(desc.cpuid[0])), E_PROTO);
    assert_int_equal(take(REC_CPUID, desc.cpuid, 5 * sizeof(desc.cpuid[0])), 0);
    struct wire_device devices[3];
    memcpy(devices, desc.devices, sizeof(devices));
    assert_int_equal(take(REC_DEVICES, devices, sizeof(devices)), 0);
    assert_true(describe_complete(&desc));
    devices[1].name[0] = '\0';
    assert_int_equal(take(REC_DEVICES, devices, sizeof(devices)), E_PROTO);
    assert_false(describe_complete(&desc));
}

static void test_configuration_travels(void **state)
{
    (void)state;
    static const u8 uuid[16] = {5};
    struct guest_config c;
    strlcpy(desc.g.kernel, "\\skiff\\vmlinuz", sizeof(desc.g.kernel));
    desc.g.module_count = 1;
    strlcpy(desc.g.modules[0], "\\skiff\\initrd", sizeof(desc.g.modules[0]));
    describe_config(&desc.g, uuid, &c);
    assert_string_equal(c.name, "web");
    assert_int_equal(c.memory_mib, 128);
    assert_true(c.uuid_set);
    assert_int_equal(c.uuid[0], 5);
    assert_string_equal(c.kernel, "\\skiff\\vmlinuz");
    assert_string_equal(c.modules[0], "\\skiff\\initrd");
    assert_int_equal(c.module_count, 1);
    assert_false(c.autostart);
}

static void test_feature_names(void **state)
{
    (void)state;
    assert_string_equal(cpu_feature_name(7, 0, 1, 5), "avx2");
    assert_string_equal(cpu_feature_name(1, 0, 2, 12), "fma");
    assert_string_equal(cpu_feature_name(0x80000001, 0, 3, 27), "rdtscp");
    assert_null(cpu_feature_name(5, 0, 0, 0));
    assert_string_equal(xcr0_component_name(9), "PKRU");
    assert_null(xcr0_component_name(63));
}

int main(void)
{
#define T(name) cmocka_unit_test_setup(name, setup)
    const struct CMUnitTest tests[] = {
        T(test_nothing_against_it),
        T(test_everything_against_it),
        T(test_a_level_crosses_vendors),
        T(test_no_backend),
        T(test_xsave_layout),
        T(test_uuid),
        T(test_devices),
        T(test_reasons_that_do_not_fit_are_counted),
        T(test_malformed_descriptions),
        T(test_configuration_travels),
        T(test_feature_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
