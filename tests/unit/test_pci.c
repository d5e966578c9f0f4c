// SPDX-License-Identifier: MIT
// The PCI bus: configuration space, BARs sized and moved, INTx, MSI-X, moves.
// sources: arch/x86/platform/*.c kernel/guest/bus.c kernel/guest/device.c
// sources: kernel/guest/state.c kernel/guest/gtimer.c
#include "arch/x86/platform/pci.h"
#include "tests/unit/fake_platform.h"

// A device with a 4 KiB BAR, a 64-bit one for MSI-X, and an interrupt pin.
struct card {
    struct pci_function f;
    u32 last_write;
};

static u64 card_read(struct device *d, u32 region, u64 offset, u32 size)
{
    struct card *c = d->priv;
    if (region == 1)
        return offset < 2048 ? pci_msix_table_read(&c->f, offset, size)
                             : pci_msix_pba_read(&c->f, offset - 2048, size);
    return 0xca4d0000 + offset;
}

static void card_write(struct device *d, u32 region, u64 offset, u32 size, u64 value)
{
    struct card *c = d->priv;
    if (region == 1 && offset < 2048)
        pci_msix_table_write(&c->f, offset, size, value);
    else
        c->last_write = (u32)value;
}

static int card_init(struct device *d)
{
    struct card *c = d->priv;
    c->f.device = d;
    c->f.slot = 5;
    pci_describe(&c->f, 0x1af4, 0x1041, 0x020000, 1);
    pci_add_bar(&c->f, 0, 4096, false, 0);
    pci_add_bar(&c->f, 2, 4096, true, 1);
    pci_add_capability(&c->f, 9, 16);
    pci_add_msix(&c->f, 4, 2, 0, 2048);
    c->f.config[PCI_INTERRUPT_PIN] = 1;
    return pci_add_function(d->guest, &c->f);
}

static void card_reset(struct device *d)
{
    pci_reset_function(&((struct card *)d->priv)->f);
}

static void card_pause(struct device *d)
{
    (void)d;
}

static void card_fini(struct device *d)
{
    pci_remove_function(d->guest, &((struct card *)d->priv)->f);
}

static void card_resume(struct device *d)
{
    pci_resume_function(&((struct card *)d->priv)->f);
}

static const struct state_field card_fields[] = {
    PCI_FUNCTION_FIELDS(1, struct card, f),
    PCI_MSIX_FIELDS(10, struct card, f),
    FIELD_LAST,
};
static const struct state_table card_state = {
    .name = "card", .version = 1, .fields = card_fields, .struct_size = sizeof(struct card)};
static const struct device_ops card_device = {
    .name = "card",
    .state = &card_state,
    .priv_size = sizeof(struct card),
    .init = card_init,
    .fini = card_fini,
    .reset = card_reset,
    .read = card_read,
    .write = card_write,
    .pause = card_pause,
    .resume = card_resume,
};
static struct card *card;

static int with_card(void **state)
{
    pc_one(state);
    struct device *d = device_add(&guest, &card_device, 0);
    assert_non_null(d);
    card = d->priv;
    return 0;
}

static u32 address(u32 slot, u32 fn, u32 reg)
{
    return 0x80000000 | slot << 11 | fn << 8 | (reg & 0xfc);
}

static u32 get(u32 slot, u32 fn, u32 reg, u32 size)
{
    out32(0xcf8, address(slot, fn, reg));
    return (u32)bus_io_read(&guest, (u16)(0xcfc + (reg & 3)), size);
}

static void set(u32 slot, u32 fn, u32 reg, u32 size, u32 value)
{
    out32(0xcf8, address(slot, fn, reg));
    bus_io_write(&guest, (u16)(0xcfc + (reg & 3)), size, value);
}

static void bridges(void **state)
{
    (void)state;
    assert_int_equal(get(0, 0, 0, 4), 0x12378086);
    assert_int_equal(get(0, 0, 8, 4), 0x06000002);
    assert_int_equal(get(1, 0, 0, 4), 0x70008086);
    assert_int_equal(get(1, 0, 0xe, 1), 0x80);
    assert_int_equal(get(1, 3, 0, 4), 0x71138086);
    assert_int_equal(get(1, 3, 8, 1), 3);
    assert_int_equal(get(1, 3, 0x40, 4), 0x601);
    assert_int_equal(get(1, 1, 0, 4), 0xffffffff);
    assert_int_equal(get(2, 0, 0, 4), 0xffffffff);
    set(0, 0, 0, 4, 0);
    assert_int_equal(get(0, 0, 0, 4), 0x12378086);
    set(0, 0, 0x59, 1, 0x33);
    assert_int_equal(get(0, 0, 0x58, 4), 0x3300);
}

static void mechanism(void **state)
{
    (void)state;
    out32(0xcf8, 0x80000000);
    assert_int_equal(in32(0xcf8), 0x80000000);
    out32(0xcf8, 0xffffffff);
    assert_int_equal(in32(0xcf8), 0x80fffffc);
    assert_int_equal(in32(0xcfc), 0xffffffff); // bus 255
    out8(0xcfb, 1);
    assert_int_equal(in32(0xcf8), 0x80fffffc);
    out32(0xcf8, 0); // not enabled
    assert_int_equal(in32(0xcfc), 0xffffffff);
    out32(0xcf8, 0x80000000);
    assert_int_equal(bus_io_read(&guest, 0xcfe, 2), 0x1237);
    assert_int_equal(bus_io_read(&guest, 0xcfe, 4) & 0xffff, 0x1237);
}

static void bar_sizes_and_maps(void **state)
{
    (void)state;
    set(5, 0, 0x10, 4, 0xffffffff);
    assert_int_equal(get(5, 0, 0x10, 4), 0xfffff000);
    set(5, 0, 0x10, 4, 0xc0000000);
    assert_int_equal(bus_mmio_read(&guest, 0xc0000000, 4), 0xffffffff); // decoding is off
    set(5, 0, 4, 2, 2);
    assert_int_equal(bus_mmio_read(&guest, 0xc0000008, 4), 0xca4d0008);
    set(5, 0, 0x10, 4, 0xffffffff); // sized again while on
    assert_int_equal(bus_mmio_read(&guest, 0xc0000008, 4), 0xffffffff);
    set(5, 0, 0x10, 4, 0xc0100000);
    assert_int_equal(bus_mmio_read(&guest, 0xc0100004, 4), 0xca4d0004);
    assert_int_equal(bus_mmio_read(&guest, 0xc0000008, 4), 0xffffffff);
    set(5, 0, 0x10, 4, 0xfec00000); // over the IOAPIC: it is not mapped
    assert_int_equal(ioapic_get(1), 0x170020);
    set(5, 0, 0x10, 4, 0xc0200000);
    assert_int_equal(bus_mmio_read(&guest, 0xc0200004, 4), 0xca4d0004);
    set(5, 0, 4, 2, 0);
    assert_int_equal(bus_mmio_read(&guest, 0xc0200004, 4), 0xffffffff);
}

static void wide_bar(void **state)
{
    (void)state;
    set(5, 0, 0x18, 4, 0xffffffff);
    set(5, 0, 0x1c, 4, 0xffffffff);
    assert_int_equal(get(5, 0, 0x18, 4), 0xfffff004);
    assert_int_equal(get(5, 0, 0x1c, 4), 0xffffffff);
    set(5, 0, 0x18, 4, 0x40000000);
    set(5, 0, 0x1c, 4, 0x8);
    set(5, 0, 4, 2, 2);
    assert_int_equal(bus_mmio_read(&guest, 0x4000000c, 4), 0xffffffff);
    assert_int_equal(bus_mmio_read(&guest, 0x84000000cull, 4), 1); // masked entry
}

static void place_is_taken(void **state)
{
    (void)state;
    struct pci_function other = {.device = dev("card"), .slot = 5};
    assert_int_equal(pci_add_function(&guest, &other), E_EXIST);
}

static void capabilities(void **state)
{
    (void)state;
    assert_true(get(5, 0, 6, 2) & 0x10);
    u32 first = get(5, 0, 0x34, 1);
    assert_int_equal(get(5, 0, first, 1), 9);
    u32 second = get(5, 0, first + 1, 1);
    assert_int_equal(get(5, 0, second, 1), 0x11);
    assert_int_equal(get(5, 0, second + 1, 1), 0);
    assert_int_equal(get(5, 0, second + 2, 2), 3);
    assert_int_equal(get(5, 0, second + 4, 4), 2);
    assert_int_equal(get(5, 0, second + 8, 4), 2048 | 2);
}

static void intx(void **state)
{
    (void)state;
    apic_on(0);
    u32 gsi = pci_intx_gsi(5, 0);
    assert_int_equal(gsi, 21);
    ioapic_route(gsi, 0x8000 | 0x51);
    pci_set_intx(&card->f, true);
    assert_int_equal(take(0), 0x51);
    set(5, 0, 4, 2, 0x400); // INTx disabled
    apic_set(0xb0, 0);
    assert_int_equal(take(0), -1);
    set(5, 0, 4, 2, 0);
    assert_int_equal(take(0), 0x51);
    pci_set_intx(&card->f, false);
    apic_set(0xb0, 0);
    assert_int_equal(take(0), -1);
}

static void intx_through_the_pics(void **state)
{
    (void)state;
    pics_on(0xffff);
    out8(0x4d1, 0x0c);
    set(1, 0, 0x61, 1, 10); // slot 5, INTA: PIRQ B
    pci_set_intx(&card->f, true);
    assert_int_equal(take(0), 0x2a);
    out8(0xa0, 0x20);
    out8(0x20, 0x20);
    set(1, 0, 0x61, 1, 0x80);
    assert_int_equal(take(0), -1);
    set(1, 0, 0x61, 1, 13); // not a line a PIRQ may have
    assert_int_equal(take(0), -1);
    pci_set_intx(&card->f, false);
}

static void msix_on(void)
{
    set(5, 0, 0x18, 4, 0xc0400000);
    set(5, 0, 4, 2, 2);
    u32 cap = card->f.msix.cap;
    set(5, 0, cap + 2, 2, 0x8000);
    for (u32 i = 0; i < 4; i++) {
        bus_mmio_write(&guest, 0xc0400000 + i * 16, 8, 0xfee00000);
        bus_mmio_write(&guest, 0xc0400008 + i * 16, 4, 0x40 + 16 * i);
        bus_mmio_write(&guest, 0xc040000c + i * 16, 4, 0);
    }
}

static void msix(void **state)
{
    (void)state;
    apic_on(0);
    pci_msix_send(&card->f, 1); // not enabled
    msix_on();
    assert_int_equal(take(0), -1);
    assert_int_equal(bus_mmio_read(&guest, 0xc0400018, 4), 0x50);
    pci_msix_send(&card->f, 1);
    assert_int_equal(take(0), 0x50);
    pci_msix_send(&card->f, 9); // no such vector
    bus_mmio_write(&guest, 0xc040003c, 4, 1);
    pci_msix_send(&card->f, 3);
    assert_int_equal(take(0), -1);
    assert_int_equal(bus_mmio_read(&guest, 0xc0400800, 8), 8);
    bus_mmio_write(&guest, 0xc040003c, 4, 0);
    assert_int_equal(take(0), 0x70);
    assert_int_equal(bus_mmio_read(&guest, 0xc0400800, 4), 0);
    set(5, 0, card->f.msix.cap + 2, 2, 0xc000); // all masked
    pci_msix_send(&card->f, 3);
    apic_set(0xb0, 0);
    assert_int_equal(bus_mmio_read(&guest, 0xc0400800, 4), 8);
    set(5, 0, card->f.msix.cap + 2, 2, 0x8000);
    assert_int_equal(take(0), 0x70);
}

static void function_moves(void **state)
{
    (void)state;
    static u8 buf[8192];
    char err[200] = "";
    apic_on(0);
    msix_on();
    set(5, 0, 0x10, 4, 0xc0100000);
    bus_mmio_write(&guest, 0xc040003c, 4, 1);
    pci_msix_send(&card->f, 3);
    s64 bytes = state_save(&card_state, card, buf, sizeof(buf));
    pc_destroy(state);
    with_card(state);
    void *scratch = calloc(1, sizeof(struct card));
    assert_int_equal(state_check(&card_state, card, buf, (u64)bytes, scratch, err, sizeof(err)), 0);
    state_apply(&card_state, card, scratch);
    free(scratch);
    apic_on(0);
    resume_all();
    assert_int_equal(bus_mmio_read(&guest, 0xc0100004, 4), 0xca4d0004);
    assert_int_equal(take(0), -1);
    bus_mmio_write(&guest, 0xc040003c, 4, 0);
    assert_int_equal(take(0), 0x70);
}

static void bridges_move(void **state)
{
    (void)state;
    set(0, 0, 0x59, 1, 0x33);
    set(1, 0, 0x60, 1, 11);
    out32(0xcf8, 0x80000858);
    move_pc(0);
    assert_int_equal(in32(0xcf8), 0x80000858);
    assert_int_equal(get(0, 0, 0x59, 1), 0x33);
    assert_int_equal(get(1, 0, 0x60, 1), 11);
}

static void impossible_states_are_refused(void **state)
{
    (void)state;
    const struct state_table *t = dev("pci")->ops->state;
    u8 *copy = malloc(t->struct_size);
    for (const struct state_field *f = t->fields; f->kind != FIELD_END; f++) {
        memcpy(copy, dev("pci")->priv, t->struct_size);
        if (!strcmp(f->name, "address"))
            copy[f->offset] = 1;
        else if (!strcmp(f->name, "reset_control"))
            copy[f->offset] = 4;
        else
            copy[f->offset] ^= 1;
        assert_refused(t, copy, "bridges");
    }
    free(copy);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, pc_one, pc_destroy)
#define C(f) cmocka_unit_test_setup_teardown(f, with_card, pc_destroy)
    const struct CMUnitTest tests[] = {
        T(bridges),
        T(mechanism),
        C(bar_sizes_and_maps),
        C(wide_bar),
        C(place_is_taken),
        C(capabilities),
        C(intx),
        C(intx_through_the_pics),
        C(msix),
        C(function_moves),
        T(bridges_move),
        T(impossible_states_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
