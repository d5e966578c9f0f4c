// SPDX-License-Identifier: MIT
// State sections: the vCPU's field table, loading in two passes, and naming what differs.
// sources: kernel/migrate/sections.c kernel/migrate/section_diff.c kernel/migrate/vcpu_fields.c
// sources: kernel/migrate/stream.c kernel/migrate/hash.c kernel/guest/state.c kernel/crc32c.c
#include "tests/unit/unit.h"

#include "kernel/lib.h"
#include "kernel/mem.h"
#include "kernel/migrate/sections.h"
#include "kernel/migrate/stream.h"
#include "kernel/time.h"

// ---- Below: memory, and a guest of one vCPU and two devices -------------------------------------

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
    return (u64)(uintptr_t)aligned_alloc(PAGE_SIZE, count * PAGE_SIZE);
}

void pages_free(u64 pa, u64 count)
{
    (void)count;
    free((void *)(uintptr_t)pa);
}

static int allocations;
void *kzalloc(size_t n)
{
    allocations++;
    return calloc(1, n);
}

void kfree(void *p)
{
    allocations -= p != NULL;
    free(p);
}

void mutex_lock(struct mutex *m)
{
    (void)m;
}

void mutex_unlock(struct mutex *m)
{
    (void)m;
}

struct toy {
    u32 value;
    u8 fixed;
};
static const struct state_field toy_fields[] = {
    FIELD(1, FIELD_COPY, struct toy, value, 1, 0, 100),
    FIELD(2, FIELD_MUST_MATCH, struct toy, fixed, 1, 0, 0),
    FIELD_LAST,
};
static const struct state_table toy_table = {
    .name = "toy", .version = 1, .fields = toy_fields, .struct_size = sizeof(struct toy)};
static const struct state_field apic_fields[] = {FIELD(1, FIELD_COPY, struct toy, value, 1, 0, 0),
                                                 FIELD_LAST};
const struct state_table lapic_state = {
    .name = "lapic", .version = 1, .fields = apic_fields, .struct_size = sizeof(struct toy)};
static const struct device_ops toy_ops = {.name = "toy", .state = &toy_table};

static struct guest guest;
static struct vcpu vcpu;
static struct device devices[2];
static struct toy toys[2], apic;
static struct vcpu_state registers;
static char order[8]; // what was applied: 'v' when a vCPU was, with the devices' values then
static bool enterable;

void vcpu_save_state(struct vcpu *v, struct vcpu_state *s)
{
    assert_ptr_equal(v, &vcpu);
    *s = registers;
}

int vcpu_check_state(struct vcpu *v, const struct vcpu_state *s, char *err, size_t size)
{
    (void)v, (void)s;
    snprintf(err, size, "CR0 is odd");
    return enterable ? 0 : E_INVAL;
}

int vcpu_load_state(struct vcpu *v, const struct vcpu_state *s)
{
    (void)v;
    snprintf(order, sizeof(order), "%u %u", apic.value, toys[1].value);
    registers = *s;
    return 0;
}

static void fill(void *p, size_t n, u8 seed)
{
    for (size_t i = 0; i < n; i++)
        ((u8 *)p)[i] = (u8)(seed + i * 7);
}

// Every field another value, within the ranges of the table.
static void make_registers(struct vcpu_state *s, u8 seed)
{
    memset(s, 0, sizeof(*s));
    fill(s->gpr, sizeof(s->gpr), seed);
    fill(s->dr, sizeof(s->dr), seed);
    fill(s->mtrr_fixed, sizeof(s->mtrr_fixed), seed);
    for (u32 i = 0; i < SEG_COUNT; i++)
        s->seg[i] = (struct segment){seed + i, i * 3u, (u16)(i * 8), (u16)(0x93 + i)};
    s->rip = 0xfffffff81000000 + seed;
    s->rflags = 0x202;
    s->xcr0 = 0xe7;
    s->activity = VCPU_HALTED;
    s->nmi_pending = 1;
    s->event = (struct pending_event){1, 3, 14, 1, 2, 0};
    s->xsave_size = 2696;
    fill(s->xsave, sizeof(s->xsave), seed);
}

static int setup(void **state)
{
    (void)state;
    memset(&guest, 0, sizeof(guest));
    vcpu = (struct vcpu){.guest = &guest, .lapic = &apic};
    guest.vcpu[0] = &vcpu;
    guest.vcpu_count = 1;
    for (u32 i = 0; i < 2; i++)
        devices[i] =
            (struct device){.ops = &toy_ops, .guest = &guest, .priv = &toys[i], .instance = i};
    devices[0].next = &devices[1];
    guest.devices = &devices[0];
    toys[0] = (struct toy){11, 5};
    toys[1] = (struct toy){22, 5};
    apic = (struct toy){33, 0};
    make_registers(&registers, 1);
    enterable = true;
    allocations = 0;
    return 0;
}

// One STATE record's payload for a section.
static u32 encode(const struct section *sec, u8 *buf)
{
    struct wire_section *w = (struct wire_section *)buf;
    memset(w, 0, sizeof(*w));
    s64 n = section_save(sec, w + 1, SECTION_DATA_MAX);
    assert_true(n > 0);
    w->kind = sec->kind;
    w->instance = sec->instance;
    w->bytes = (u32)n;
    strlcpy(w->name, sec->name, sizeof(w->name));
    return (u32)sizeof(*w) + (u32)n;
}

static u8 buffer[STREAM_MAX_PAYLOAD] __attribute__((aligned(8)));
static char err[300];

static bool nth(u32 n, struct section *sec)
{
    struct section_iter it = {.guest = &guest};
    bool more = section_next(&it, sec);
    while (more && n--)
        more = section_next(&it, sec);
    return more;
}

// ---- Tests --------------------------------------------------------------------------------------

static void test_order(void **state)
{
    (void)state;
    struct section sec;
    const enum section_kind kinds[] = {SECTION_LAPIC, SECTION_DEVICE, SECTION_DEVICE, SECTION_VCPU};
    for (u32 i = 0; i < 4; i++) {
        assert_true(nth(i, &sec));
        assert_int_equal(sec.kind, kinds[i]);
    }
    assert_false(nth(4, &sec));
}

static void test_round_trip(void **state)
{
    (void)state;
    static u8 stream[4][STREAM_MAX_PAYLOAD] __attribute__((aligned(8)));
    u32 bytes[4];
    struct section sec;
    for (u32 i = 0; nth(i, &sec); i++)
        bytes[i] = encode(&sec, stream[i]);
    struct vcpu_state sent = registers;
    memset(&registers, 0, sizeof(registers));
    toys[0].value = toys[1].value = apic.value = 0;

    struct load l = {.guest = &guest};
    for (u32 i = 0; i < 4; i++)
        assert_int_equal(load_check(&l, stream[i], bytes[i], err, sizeof(err)), 0);
    assert_int_equal(toys[0].value, 0); // nothing was touched yet
    assert_int_equal(load_complete(&l, err, sizeof(err)), 0);
    assert_int_equal(load_apply(&l, err, sizeof(err)), 0);
    load_free(&l);
    assert_int_equal(toys[0].value, 11);
    assert_int_equal(toys[1].value, 22);
    assert_string_equal(order, "33 22"); // local APIC and devices before the vCPU
    assert_memory_equal(&registers, &sent, sizeof(sent));
    assert_int_equal(allocations, 0);
}

static void test_incomplete(void **state)
{
    (void)state;
    struct load l = {.guest = &guest};
    struct section sec;
    for (u32 i = 0; nth(i, &sec); i++) {
        if (i != 2)
            assert_int_equal(load_check(&l, buffer, encode(&sec, buffer), err, sizeof(err)), 0);
    }
    assert_int_equal(load_complete(&l, err, sizeof(err)), E_PROTO);
    assert_string_equal(err, "the state of \"toy\" number 1 did not come");
    load_free(&l);
    assert_int_equal(allocations, 0);
}

static int check_section(u32 n, u32 patch_at, u8 patch)
{
    struct load l = {.guest = &guest};
    struct section sec;
    nth(n, &sec);
    u32 bytes = encode(&sec, buffer);
    if (patch_at < bytes)
        buffer[patch_at] = patch;
    int e = load_check(&l, buffer, bytes, err, sizeof(err));
    load_free(&l);
    assert_int_equal(allocations, 0);
    return e;
}

static void test_refusals(void **state)
{
    (void)state;
    // header 40, table header 8, field header 8: the value starts at 56
    assert_int_equal(check_section(1, 56, 101), E_PROTO);
    assert_non_null(strstr(err, "\"toy\" number 0 is refused"));
    assert_non_null(strstr(err, "value is 0x65, allowed are 0x0 to 0x64"));
    assert_int_equal(check_section(1, 72, 6), E_PROTO);
    assert_non_null(strstr(err, "fixed is 0x6, this host has 0x5"));
    assert_int_equal(check_section(1, 4, 9), E_PROTO);
    assert_string_equal(err, "state of \"toy\" number 9 came, and the guest here has no such part");
    assert_int_equal(check_section(1, 32, 1), E_PROTO);
    assert_non_null(strstr(err, "malformed STATE record"));
    assert_int_equal(check_section(1, 8, 0), E_PROTO);
}

static void test_twice(void **state)
{
    (void)state;
    struct load l = {.guest = &guest};
    struct section sec;
    nth(1, &sec);
    u32 bytes = encode(&sec, buffer);
    assert_int_equal(load_check(&l, buffer, bytes, err, sizeof(err)), 0);
    assert_int_equal(load_check(&l, buffer, bytes, err, sizeof(err)), E_PROTO);
    assert_string_equal(err, "state of \"toy\" number 0 came twice");
    load_free(&l);
}

static void test_vcpu_refused(void **state)
{
    (void)state;
    struct load l = {.guest = &guest};
    struct section sec;
    for (u32 i = 0; nth(i, &sec); i++)
        load_check(&l, buffer, encode(&sec, buffer), err, sizeof(err));
    enterable = false;
    assert_int_equal(load_complete(&l, err, sizeof(err)), E_PROTO);
    assert_string_equal(err, "vCPU 0's state is refused: CR0 is odd");
    load_free(&l);

    registers.rflags = 0;
    assert_int_equal(check_section(3, ~0u, 0), E_PROTO);
    assert_non_null(strstr(err, "RFLAGS"));
    make_registers(&registers, 1);
    registers.xcr0 = 2;
    assert_int_equal(check_section(3, ~0u, 0), E_PROTO);
    make_registers(&registers, 1);
    registers.event.type = 1;
    assert_int_equal(check_section(3, ~0u, 0), E_PROTO);
    make_registers(&registers, 1);
    registers.activity = 9;
    assert_int_equal(check_section(3, ~0u, 0), E_PROTO);
}

// Any truncation or any byte of the encoding changed: refused, or a state within the ranges.
static void test_damaged(void **state)
{
    (void)state;
    struct section sec;
    nth(3, &sec);
    for (u32 cut = 0; cut < encode(&sec, buffer); cut += 13) {
        struct load l = {.guest = &guest};
        load_check(&l, buffer, cut, err, sizeof(err));
        load_free(&l);
    }
    u32 bytes = encode(&sec, buffer);
    for (u32 at = 0; at < MIN(bytes, 1600u); at++)
        check_section(3, at, 0xff);
    assert_int_equal(allocations, 0);
}

// Two fields of one id would be one lost; a table's ids are below 256 for its reader.
static void test_vcpu_table_is_sound(void **state)
{
    (void)state;
    u8 seen[256] = {0};
    for (const struct state_field *f = vcpu_table.fields; f->kind != FIELD_END; f++) {
        assert_true(f->id < 256);
        assert_int_equal(seen[f->id]++, 0);
        assert_true(f->offset + (u64)f->size * f->count <= sizeof(struct vcpu_state));
    }
}

// Whatever register differs is carried, and named.
static void test_every_register_is_carried(void **state)
{
    (void)state;
    static u8 a[STREAM_MAX_PAYLOAD], b[STREAM_MAX_PAYLOAD];
    struct vcpu_state x, y;
    char what[200];
    make_registers(&x, 1);
    s64 n = state_save(&vcpu_table, &x, a, sizeof(a));
    u32 unnamed = 0;
    for (size_t at = 0; at < sizeof(x); at++) {
        y = x;
        ((u8 *)&y)[at] ^= 0x10;
        state_save(&vcpu_table, &y, b, sizeof(b));
        bool differs = section_difference(&vcpu_table, a, (u64)n, b, (u64)n, what, sizeof(what));
        unnamed += !differs;
        assert_true(!differs || strlen(what) > 10);
    }
    assert_in_range(unnamed, 0, 64 + 32); // alignment padding only
    assert_false(section_difference(&vcpu_table, a, (u64)n, a, (u64)n, what, sizeof(what)));
}

static void test_difference_names(void **state)
{
    (void)state;
    static u8 a[STREAM_MAX_PAYLOAD], b[STREAM_MAX_PAYLOAD];
    struct vcpu_state x, y;
    char what[200];
    make_registers(&x, 1);
    y = x;
    y.seg[SEG_FS].base = 0x1234;
    s64 n = state_save(&vcpu_table, &x, a, sizeof(a));
    state_save(&vcpu_table, &y, b, sizeof(b));
    assert_true(section_difference(&vcpu_table, a, (u64)n, b, (u64)n, what, sizeof(what)));
    assert_string_equal(what, "fs.base is 0x5 here and 0x1234 there");
    y = x;
    y.xsave[700] ^= 1;
    state_save(&vcpu_table, &y, b, sizeof(b));
    assert_true(section_difference(&vcpu_table, a, (u64)n, b, (u64)n, what, sizeof(what)));
    assert_true(strncmp(what, "xsave[700] is", 13) == 0);
    assert_true(section_difference(&vcpu_table, a, (u64)n, b, 20, what, sizeof(what)));
    for (u64 cut = 0; cut < (u64)n; cut += 11) // a peer's encoding may be anything
        section_difference(&vcpu_table, a, (u64)n, b, cut, what, sizeof(what));
}

int main(void)
{
#define T(name) cmocka_unit_test_setup(name, setup)
    const struct CMUnitTest tests[] = {
        T(test_order),
        T(test_round_trip),
        T(test_incomplete),
        T(test_refusals),
        T(test_twice),
        T(test_vcpu_refused),
        T(test_damaged),
        T(test_vcpu_table_is_sound),
        T(test_every_register_is_carried),
        T(test_difference_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
