// SPDX-License-Identifier: MIT
// Emulation of device accesses: the guest's page tables, faults, and operands over a page boundary.
// sources: kernel/guest/emulate.c kernel/guest/emu_alu.c kernel/guest/emu_insn.c
// sources: kernel/guest/emu_string.c kernel/guest/walk.c
// sources: $(ZYDIS_SRC)/src/Decoder.c $(ZYDIS_SRC)/src/DecoderData.c $(ZYDIS_SRC)/src/SharedData.c
// cflags: $(LIB_INCLUDES) $(LIB_CFLAGS) -isystem $(ZYDIS_SRC)/src
#include "fake_emulate.h"

static void test_page_faults(void **state)
{
    (void)state;
    v->gpr[GPR_RSI] = 0x9000;
    v->gpr[GPR_RDI] = DEVICE;
    put64(PAGE_TABLES + 0x3000 + 9 * 8, 0);
    RUN("\xa5"); // movsl from a page that is not present
    assert_int_equal(result, 0);
    assert_true(fake_exception.raised);
    assert_int_equal(fake_exception.vector, 14);
    assert_int_equal(fake_exception.error, 0);
    assert_int_equal(fake_regs.cr2, 0x9000);
    assert_int_equal(fake_regs.rip, CODE);
    fake_exception.raised = false;
    put64(PAGE_TABLES + 0x3000 + 9 * 8, 0x9000 | 5); // read-only, for users
    v->gpr[GPR_RSI] = DEVICE;
    v->gpr[GPR_RDI] = 0x9010;
    fake_regs.seg[SEG_SS].attr = 0xcf3; // CPL 3
    RUN("\xa5");
    assert_int_equal(fake_exception.vector, 14);
    assert_int_equal(fake_exception.error, 7); // present, write, user
    assert_int_equal(fake_regs.cr2, 0x9010);
}

static void test_repetition_stops_where_it_faults(void **state)
{
    (void)state;
    put64(PAGE_TABLES + 0x3000 + 9 * 8, 0);
    v->gpr[GPR_RSI] = 0x8ff8;
    v->gpr[GPR_RDI] = DEVICE;
    v->gpr[GPR_RCX] = 10;
    RUN("\xf3\xa5");
    assert_int_equal(fake_exception.vector, 14);
    assert_int_equal(fake_regs.cr2, 0x9000);
    assert_int_equal(v->gpr[GPR_RCX], 8);
    assert_int_equal(v->gpr[GPR_RSI], 0x9000);
    assert_int_equal(device_writes, 2);
}

static void test_accessed_and_dirty_bits(void **state)
{
    (void)state;
    u64 pte;
    v->gpr[GPR_RSI] = DEVICE;
    v->gpr[GPR_RDI] = 0x9000;
    RUN("\xa5");
    done(1);
    memcpy(&pte, ram + PAGE_TABLES + 0x3000 + 9 * 8, 8);
    assert_int_equal(pte & 0x60, 0x60);
    memcpy(&pte, ram + PAGE_TABLES + 0x5000, 8);
    assert_int_equal(pte & 0x60, 0x20); // read only
}

static void test_no_execute_and_supervisor_checks(void **state)
{
    (void)state;
    struct paging p = {.cr0 = fake_regs.cr0, .cr3 = fake_regs.cr3, .cr4 = fake_regs.cr4,
                       .efer = fake_regs.efer};
    u64 gpa;
    u32 error = 0;
    put64(PAGE_TABLES + 0x3000 + 9 * 8, 0x9000 | 7 | BIT(63));
    assert_int_equal(guest_walk(&fake_guest, &p, 0x9123, ACCESS_READ, &gpa, &error), 0);
    assert_int_equal(gpa, 0x9123);
    assert_int_equal(guest_walk(&fake_guest, &p, 0x9000, ACCESS_FETCH, &gpa, &error), E_INVAL);
    assert_int_equal(error, PF_PRESENT | PF_FETCH);
    p.cr4 |= BIT(20); // SMEP
    assert_int_equal(guest_walk(&fake_guest, &p, 0x8000, ACCESS_FETCH, &gpa, &error), E_INVAL);
    p.cr4 |= BIT(21); // SMAP
    assert_int_equal(guest_walk(&fake_guest, &p, 0x8000, ACCESS_READ, &gpa, &error), E_INVAL);
    p.rflags |= BIT(18); // AC
    assert_int_equal(guest_walk(&fake_guest, &p, 0x8000, ACCESS_READ, &gpa, &error), 0);
    put64(PAGE_TABLES + 0x3000 + 9 * 8, 0x9000 | 1);
    p.user = true;
    assert_int_equal(guest_walk(&fake_guest, &p, 0x9000, ACCESS_READ, &gpa, &error), E_INVAL);
    assert_int_equal(error, PF_PRESENT | PF_USER);
    p.user = false;
    assert_int_equal(guest_walk(&fake_guest, &p, 0x9000, ACCESS_WRITE, &gpa, &error), E_INVAL);
    p.cr0 &= ~BIT(16); // without WP supervisors write anything
    assert_int_equal(guest_walk(&fake_guest, &p, 0x9000, ACCESS_WRITE, &gpa, &error), 0);
}

static void test_large_pages_and_other_modes(void **state)
{
    (void)state;
    struct paging p = {.cr0 = fake_regs.cr0, .cr3 = fake_regs.cr3, .cr4 = BIT(5), .efer = 0xd00};
    u64 gpa;
    u32 error = 0;
    put64(PAGE_TABLES + 0x2008, 0x12600000 | 0x87); // 2 MiB
    assert_int_equal(guest_walk(&fake_guest, &p, 0x212345, ACCESS_READ, &gpa, &error), 0);
    assert_int_equal(gpa, 0x12612345);
    put64(PAGE_TABLES + 0x1010, 0x180000000ull | 0x87); // 1 GiB
    assert_int_equal(guest_walk(&fake_guest, &p, 0x80012345, ACCESS_READ, &gpa, &error), 0);
    assert_int_equal(gpa, 0x180012345ull);
    p.efer = 0; // PAE: the table of four, then two levels
    p.cr3 = 0x20020;
    put64(0x20028, (PAGE_TABLES + 0x2000) | 1);
    assert_int_equal(guest_walk(&fake_guest, &p, 0x40212345, ACCESS_READ, &gpa, &error), 0);
    assert_int_equal(gpa, 0x12612345);
    assert_int_equal(guest_walk(&fake_guest, &p, 0x80000000, ACCESS_READ, &gpa, &error), E_INVAL);
    p.cr4 = BIT(4); // 32-bit with 4 MiB pages
    p.cr3 = 0x30000;
    put32(0x30004, 0x31000 | 7);
    put32(0x31000 + 5 * 4, 0xfee00000 | 7);
    put32(0x30008, 0x00c00000 | 1 << 13 | 0x87); // with address bit 32
    assert_int_equal(guest_walk(&fake_guest, &p, 0x405678, ACCESS_READ, &gpa, &error), 0);
    assert_int_equal(gpa, 0xfee00678);
    assert_int_equal(guest_walk(&fake_guest, &p, 0x812345, ACCESS_READ, &gpa, &error), 0);
    assert_int_equal(gpa, 0x100c12345ull);
    p.cr0 = 1;
    assert_int_equal(guest_walk(&fake_guest, &p, 0xfee00030, ACCESS_READ, &gpa, &error), 0);
    assert_int_equal(gpa, 0xfee00030);
}

static void test_tables_outside_ram_are_not_followed(void **state)
{
    (void)state;
    struct paging p = {.cr0 = fake_regs.cr0, .cr3 = 0xfee00000, .cr4 = BIT(5), .efer = 0xd00};
    u64 gpa;
    u32 error = 0;
    assert_int_equal(guest_walk(&fake_guest, &p, 0, ACCESS_READ, &gpa, &error), E_INVAL);
    p.cr3 = PAGE_TABLES;
    put64(PAGE_TABLES, 0x000fffffffff0000ull | 7);
    assert_int_equal(guest_walk(&fake_guest, &p, 0, ACCESS_READ, &gpa, &error), E_INVAL);
}

static void test_over_a_page_boundary(void **state)
{
    (void)state;
    // 0x40000ffe: two bytes of the device, two of RAM page 9
    put64(PAGE_TABLES + 0x5008, 0x9000 | 7);
    v->gpr[GPR_RBX] = DEVICE + 0xffe;
    v->gpr[GPR_RAX] = 0xaabbccdd;
    RUN("\x89\x03");
    done(2);
    assert_int_equal(device_writes, 2);
    assert_int_equal(device_written, 0xcc);
    assert_int_equal(ram[0x9000], 0xbb);
    assert_int_equal(ram[0x9001], 0xaa);
    fake_regs.rip = CODE;
    device_value = 0x11;
    RUN("\x8b\x13");
    assert_int_equal(v->gpr[GPR_RDX], 0xaabb1111);
    fake_regs.rip = CODE;
    put64(PAGE_TABLES + 0x5008, 0);
    device_writes = 0;
    RUN("\x89\x03");
    assert_int_equal(fake_exception.vector, 14);
    assert_int_equal(device_writes, 0); // all of it or nothing
}

static void test_code_over_a_page_boundary(void **state)
{
    (void)state;
    struct vm_exit x = {.kind = EXIT_MMIO};
    v->gpr[GPR_RBX] = DEVICE;
    fake_regs.rip = 0x1ffe;
    memcpy(ram + 0x1ffe, "\xc7\x03\x44\x33\x22\x11", 6);
    assert_int_equal(emulate_mmio(v, &x, why, sizeof(why)), 0);
    assert_int_equal(device_written, 0x11223344);
    assert_int_equal(fake_regs.rip, 0x2004);
    put64(PAGE_TABLES + 0x3000 + 2 * 8, 0); // the second page goes
    fake_regs.rip = 0x1ffe;
    assert_int_equal(emulate_mmio(v, &x, why, sizeof(why)), 0);
    assert_int_equal(fake_exception.vector, 14);
    assert_int_equal(fake_regs.cr2, 0x2000);
    fake_exception.raised = false;
    memcpy(ram + 0x1ffe, "\x89\x03", 2); // ends at the boundary: the next page does not matter
    assert_int_equal(emulate_mmio(v, &x, why, sizeof(why)), 0);
    assert_false(fake_exception.raised);
}

static void test_the_exits_own_translation_is_used(void **state)
{
    (void)state;
    v->gpr[GPR_RBX] = 0x7fff00000010ull; // in no page table of this test
    v->gpr[GPR_RAX] = 1;
    run_at("\x89\x03", 2, true, 0x7fff00000010ull);
    done(2);
    assert_int_equal(device_gpa, DEVICE_GPA + 0x10);
}

static void test_not_canonical(void **state)
{
    (void)state;
    v->gpr[GPR_RBX] = 0x800000000000ull;
    RUN("\x89\x03");
    assert_int_equal(result, 0);
    assert_int_equal(fake_exception.vector, 13);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup(name, setup)
        T(test_page_faults),
        T(test_repetition_stops_where_it_faults),
        T(test_accessed_and_dirty_bits),
        T(test_no_execute_and_supervisor_checks),
        T(test_large_pages_and_other_modes),
        T(test_tables_outside_ram_are_not_followed),
        T(test_over_a_page_boundary),
        T(test_code_over_a_page_boundary),
        T(test_the_exits_own_translation_is_used),
        T(test_not_canonical),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
