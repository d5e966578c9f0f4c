// SPDX-License-Identifier: MIT
// The guest's ACPI tables: found as systems find them, sound, and in accord with the devices.
// sources: arch/x86/platform/*.c kernel/guest/bus.c kernel/guest/device.c
// sources: kernel/guest/state.c kernel/guest/gtimer.c
#include "arch/x86/platform/acpi_tables.h"
#include "tests/unit/fake_platform.h"

static const void *at(u64 gpa)
{
    assert_in_range(gpa, 0xe0000, 0xfffff);
    return fake_rom + (gpa - 0xe0000);
}

static u8 sum(const void *p, size_t n)
{
    u8 s = 0;
    for (size_t i = 0; i < n; i++)
        s += ((const u8 *)p)[i];
    return s;
}

// As a system scans for it: on 16-byte boundaries.
static const struct acpi_rsdp *find_rsdp(void)
{
    for (u32 i = 0; i < sizeof(fake_rom); i += 16)
        if (!memcmp(fake_rom + i, "RSD PTR ", 8) && !sum(fake_rom + i, 20))
            return (const void *)(fake_rom + i);
    fail_msg("no RSDP");
    return NULL;
}

static const struct acpi_header *table(const struct acpi_rsdp *r, const char *signature)
{
    const struct acpi_header *x = at(r->xsdt);
    assert_memory_equal(x->signature, "XSDT", 4);
    assert_int_equal(sum(x, x->length), 0);
    for (u32 i = 0; i < (x->length - sizeof(*x)) / 8; i++) {
        u64 gpa;
        memcpy(&gpa, (const u8 *)(x + 1) + i * 8, 8);
        const struct acpi_header *h = at(gpa);
        assert_int_equal(sum(h, h->length), 0);
        if (!memcmp(h->signature, signature, 4))
            return h;
    }
    fail_msg("no %s", signature);
    return NULL;
}

static void write_tables(void)
{
    u64 rsdp;
    memset(fake_rom, 0, sizeof(fake_rom));
    assert_int_equal(platform_write_acpi(&guest, &rsdp), 0);
    assert_ptr_equal(at(rsdp), find_rsdp());
}

static void root_tables(void **state)
{
    (void)state;
    write_tables();
    const struct acpi_rsdp *r = find_rsdp();
    assert_int_equal(sum(r, r->length), 0);
    assert_int_equal(r->revision, 2);
    const struct acpi_header *rsdt = at(r->rsdt), *xsdt = at(r->xsdt);
    assert_memory_equal(rsdt->signature, "RSDT", 4);
    assert_int_equal(sum(rsdt, rsdt->length), 0);
    assert_int_equal((rsdt->length - 36) / 4, (xsdt->length - 36) / 8);
    table(r, "WAET");
}

static void fadt(void **state)
{
    (void)state;
    write_tables();
    const struct acpi_fadt *f = (const void *)table(find_rsdp(), "FACP");
    assert_int_equal(f->header.length, 268);
    assert_memory_equal(at(f->dsdt), dsdt_aml, dsdt_aml_bytes);
    assert_int_equal(f->x_dsdt, f->dsdt);
    assert_memory_equal(at(f->facs), "FACS", 4);
    assert_int_equal(f->facs % 64, 0);
    assert_int_equal(f->sci_interrupt, 9);
    assert_int_equal(f->pm_timer, 0x608);
    assert_int_equal(f->pm1a_control, 0x604);
    assert_int_equal(f->x_pm1a_event.bit_width, f->pm1_event_bytes * 8);
    assert_int_equal(f->x_pm1a_control.bit_width, f->pm1_control_bytes * 8);
    assert_int_equal(f->x_pm_timer.bit_width, f->pm_timer_bytes * 8);
    assert_int_equal(f->x_gpe0.address, f->gpe0);
    assert_int_equal(f->boot_arch & 2, 0); // no 8042
    bus_io_write(&guest, (u16)f->reset_register.address, 1, f->reset_value);
    assert_true(guest.reset_wanted);
}

static void madt(void **state)
{
    (void)state;
    write_tables();
    const struct acpi_header *h = table(find_rsdp(), "APIC");
    const u8 *p = (const u8 *)h + sizeof(struct acpi_madt), *end = (const u8 *)h + h->length;
    u32 cpus = 0, ioapics = 0, overrides = 0;
    for (; p < end; p += p[1]) {
        assert_in_range(p[1], 6, 12);
        const struct madt_lapic *l = (const void *)p;
        const struct madt_override *o = (const void *)p;
        if (p[0] == 0) {
            assert_int_equal(l->apic_id, cpus++);
            assert_int_equal(l->flags, 1);
        } else if (p[0] == 1) {
            ioapics++;
        } else if (p[0] == 2) {
            overrides++;
            assert_int_equal(o->gsi, o->source ? 9 : 2);
            assert_int_equal(o->flags, o->source ? 0xd : 0);
        }
    }
    assert_ptr_equal(p, end);
    assert_int_equal(cpus, 4);
    assert_int_equal(ioapics, 1);
    assert_int_equal(overrides, 2);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, pc_four, pc_destroy)
    const struct CMUnitTest tests[] = {
        T(root_tables),
        T(fadt),
        T(madt),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
