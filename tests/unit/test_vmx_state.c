// SPDX-License-Identifier: MIT
// The checks of a vCPU's state before it reaches VM entry: good states of every mode pass, each
// single fault is refused by its own sentence.
// sources: arch/x86/vmx/state_check.c
#include "unit.h"

#include "arch/x86/vmx/state_check.h"
#include "arch/x86/vmx/vmcs.h"

static const struct vmx_limits limits = {
    .cr4_allowed = 0x3707ff, .spec_ctrl_allowed = 7, .nx = true, .rdtscp = true, .phys_bits = 39};
static struct vcpu_state s;

static void real_mode(void)
{
    memset(&s, 0, sizeof s);
    s.rflags = 2;
    s.cr0 = CR0_ET;
    s.pat = PAT_POWER_ON;
    s.dr6 = DR6_INIT;
    s.dr7 = DR7_FIXED1;
    for (int i = 0; i < SEG_COUNT; i++)
        s.seg[i] = (struct segment){.limit = 0xffff, .attr = 0x93};
    s.seg[SEG_CS].attr = 0x9b;
    s.seg[SEG_LDTR].attr = 0x82;
    s.seg[SEG_TR].attr = 0x8b;
}

static void protected_mode(void)
{
    real_mode();
    s.cr0 |= CR0_PE;
    for (int i = 0; i <= SEG_GS; i++)
        s.seg[i] = (struct segment){.limit = 0xffffffff, .selector = 16, .attr = 0xc93};
    s.seg[SEG_CS].attr = 0xc9b;
}

static void pae_mode(void)
{
    protected_mode();
    s.cr0 |= CR0_PG;
    s.cr4 |= CR4_PAE;
    s.pdpte[0] = 0x12001;
}

static void long_mode(void)
{
    protected_mode();
    s.cr0 |= CR0_PG;
    s.cr4 |= CR4_PAE;
    s.efer = EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE;
    s.seg[SEG_CS].attr = 0xa9b;
    s.seg[SEG_FS].base = 0xffff888000000000;
    s.rip = 0xffffffff81000000;
}

static void user_mode(void)
{
    long_mode();
    s.rip = 0x401000;
    s.rflags |= RFLAGS_IF;
    s.seg[SEG_CS] = (struct segment){.limit = 0xffffffff, .selector = 0x33, .attr = 0xafb};
    s.seg[SEG_SS] = (struct segment){.limit = 0xffffffff, .selector = 0x2b, .attr = 0xcf3};
    s.seg[SEG_DS].attr = s.seg[SEG_ES].attr = SEG_UNUSABLE;
    s.seg[SEG_LDTR].attr = SEG_UNUSABLE;
}

static void v86_mode(void)
{
    protected_mode();
    s.rflags |= RFLAGS_VM;
    for (int i = 0; i <= SEG_GS; i++)
        s.seg[i] =
            (struct segment){.base = 0x8000, .selector = 0x800, .limit = 0xffff, .attr = 0xf3};
}

static void assert_good(void)
{
    const char *wrong = vmx_check_state(&s, &limits);
    if (wrong)
        fail_msg("refused: %s", wrong);
}

static void assert_refused(const char *part)
{
    const char *wrong = vmx_check_state(&s, &limits);
    assert_non_null(wrong);
    if (!strstr(wrong, part))
        fail_msg("wanted \"%s\", got \"%s\"", part, wrong);
}

static void test_good_states(void **state)
{
    (void)state;
    void (*const modes[])(void) = {real_mode, protected_mode, pae_mode,
                                   long_mode, user_mode,      v86_mode};
    for (size_t i = 0; i < ARRAY_SIZE(modes); i++) {
        modes[i]();
        assert_good();
    }
}

#define REFUSED(mode, change, part)                                                                \
    do {                                                                                           \
        mode();                                                                                    \
        change;                                                                                    \
        assert_refused(part);                                                                      \
    } while (0)

static void test_control_registers(void **state)
{
    (void)state;
    REFUSED(real_mode, s.cr0 |= BIT(32), "CR0 has reserved");
    REFUSED(real_mode, s.cr0 |= CR0_PG, "paging without protection");
    REFUSED(real_mode, s.cr0 |= CR0_NW, "NW without CD");
    REFUSED(real_mode, s.cr4 |= CR4_VMXE, "CR4 has a bit");
    REFUSED(long_mode, s.cr4 |= BIT(12), "CR4 has a bit");
    REFUSED(long_mode, s.efer &= ~EFER_LMA, "EFER.LMA");
    REFUSED(long_mode, s.cr0 &= ~CR0_PG, "EFER.LMA");
    REFUSED(long_mode, s.efer |= BIT(1), "EFER has a bit");
    REFUSED(long_mode, s.cr4 &= ~CR4_PAE, "without CR4.PAE");
    REFUSED(protected_mode, s.cr4 |= CR4_PCIDE, "PCIDE");
    REFUSED(long_mode, s.cr3 = BIT(39), "CR3");
    REFUSED(pae_mode, s.pdpte[3] = 3, "PAE");
    REFUSED(pae_mode, s.pdpte[1] = BIT(40) | 1, "PAE");
}

static void test_msrs(void **state)
{
    (void)state;
    REFUSED(long_mode, s.lstar = BIT(47), "canonical");
    REFUSED(long_mode, s.kernel_gs_base = BIT(63), "canonical");
    REFUSED(long_mode, s.sysenter_eip = BIT(50), "canonical");
    REFUSED(long_mode, s.sfmask = BIT(32), "upper half");
    REFUSED(long_mode, s.pat = 2, "PAT");
    REFUSED(long_mode, s.pat = 0xff, "PAT");
    REFUSED(long_mode, s.spec_ctrl = 8, "SPEC_CTRL");
    REFUSED(long_mode, s.debugctl = 1, "DEBUGCTL");
    REFUSED(long_mode, s.dr6 |= BIT(32), "DR6");
    REFUSED(long_mode, s.dr7 |= BIT(40), "DR7");
    struct vmx_limits old = limits;
    old.rdtscp = false;
    long_mode();
    s.tsc_aux = 1;
    assert_good();
    assert_non_null(strstr(vmx_check_state(&s, &old), "RDTSCP"));
}

static void test_flags_and_rip(void **state)
{
    (void)state;
    REFUSED(real_mode, s.rflags = 0, "RFLAGS");
    REFUSED(real_mode, s.rflags |= BIT(3), "RFLAGS");
    REFUSED(real_mode, s.rflags |= BIT(22), "RFLAGS");
    REFUSED(real_mode, s.rflags |= RFLAGS_VM, "RFLAGS.VM");
    REFUSED(long_mode, s.rflags |= RFLAGS_VM, "RFLAGS.VM");
    REFUSED(protected_mode, s.rip = BIT(32), "RIP");
    REFUSED(long_mode, s.rip = BIT(47), "RIP");
}

static void test_segments(void **state)
{
    (void)state;
    REFUSED(long_mode, s.seg[SEG_CS].attr |= SEG_UNUSABLE, "CS is not");
    REFUSED(long_mode, s.seg[SEG_CS].attr &= ~BIT(7), "CS is not");
    REFUSED(long_mode, s.seg[SEG_CS].attr |= BIT(10), "64-bit and 32-bit");
    REFUSED(long_mode, s.seg[SEG_CS].attr ^= 2 ^ 8, "CS");
    REFUSED(long_mode, s.seg[SEG_CS].limit = 0xffff0, "CS is not");
    REFUSED(long_mode, s.seg[SEG_CS].base = BIT(32), "CS has a base");
    REFUSED(user_mode, s.seg[SEG_SS].attr &= ~0x60, "privilege");
    REFUSED(long_mode, s.seg[SEG_SS].attr |= 8, "SS is not");
    REFUSED(real_mode, s.seg[SEG_SS].attr |= 0x20, "CS and SS differ");
    REFUSED(long_mode, s.seg[SEG_DS].attr &= ~1, "not accessed");
    REFUSED(long_mode, s.seg[SEG_ES].base = BIT(33), "above 4 GiB");
    REFUSED(long_mode, s.seg[SEG_GS].base = BIT(47), "canonical");
    REFUSED(user_mode, s.seg[SEG_FS].base = BIT(62), "canonical");
    REFUSED(long_mode, s.seg[SEG_GS].attr |= BIT(13), "reserved attributes");
    REFUSED(v86_mode, s.seg[SEG_GS].limit = 0xfffff, "virtual-8086");
}

static void test_tables(void **state)
{
    (void)state;
    REFUSED(long_mode, s.seg[SEG_TR].attr = 0x89, "TR"); // available, not busy
    REFUSED(long_mode, s.seg[SEG_TR].attr = 0x83, "TR"); // 16-bit in long mode
    REFUSED(long_mode, s.seg[SEG_TR].attr |= SEG_UNUSABLE, "TR");
    REFUSED(long_mode, s.seg[SEG_TR].selector = 4, "TR");
    REFUSED(long_mode, s.seg[SEG_LDTR].attr = 0x8b, "LDTR");
    REFUSED(long_mode, s.gdtr_base = BIT(47), "GDTR");
    REFUSED(long_mode, s.idtr_limit = 0x10000, "64 KiB");
    protected_mode();
    s.seg[SEG_TR].attr = 0x83;
    assert_good();
}

// What a guest on a CPU level is in must be something that the other vendor's CPU can be in too.
static void test_one_form(void **state)
{
    (void)state;
    user_mode();
    s.pdpte[2] = 0x1234; // left over from PAE paging
    s.event = (struct pending_event){.valid = 1, .type = INTR_SOFT_INTERRUPT, .vector = 0x80};
    s.event.insn_len = 2;
    s.rflags |= RFLAGS_TF;
    s.pending_debug = PENDING_DEBUG_BS;
    vmx_tidy_state(&s, false);
    assert_int_equal(s.pdpte[2], 0);
    assert_false(s.event.valid);
    assert_int_equal(s.pending_debug, PENDING_DEBUG_BS);
    assert_good();
    vmx_tidy_state(&s, true);
    assert_int_equal(s.pending_debug, 0);
    assert_int_equal(s.dr6, DR6_INIT | PENDING_DEBUG_BS);
    assert_true(s.exception.valid && s.exception.vector == 1 && !s.exception.has_error);
    assert_good();
    user_mode();
    s.mov_ss_shadow = 1;
    s.rflags |= RFLAGS_TF;
    s.pending_debug = PENDING_DEBUG_BS; // held back by the shadow
    vmx_tidy_state(&s, true);
    assert_true(s.sti_shadow && !s.mov_ss_shadow);
    assert_int_equal(s.pending_debug, PENDING_DEBUG_BS);
    assert_good();
    pae_mode();
    s.pdpte[2] = 0x1001;
    vmx_tidy_state(&s, true);
    assert_int_equal(s.pdpte[2], 0x1001);
}

static void test_shadows(void **state)
{
    (void)state;
    REFUSED(user_mode, s.sti_shadow = s.mov_ss_shadow = 1, "at once");
    REFUSED(long_mode, s.sti_shadow = 1, "interrupts off");
    REFUSED(user_mode, s.pending_debug = BIT(16), "reserved");
    user_mode();
    s.sti_shadow = 1;
    assert_good();
    s.rflags |= RFLAGS_TF;
    assert_refused("single step");
    s.pending_debug = PENDING_DEBUG_BS;
    assert_good();
}

static void set_event(u8 type, u8 vector, bool has_error, u32 error, u32 len)
{
    s.event = (struct pending_event){1, type, vector, has_error, error, len};
}

static void test_events(void **state)
{
    (void)state;
    REFUSED(long_mode, set_event(1, 0, false, 0, 0), "type");
    REFUSED(long_mode, set_event(7, 0, false, 0, 0), "type");
    REFUSED(long_mode, set_event(2, 3, false, 0, 0), "NMI");
    REFUSED(long_mode, set_event(3, 32, false, 0, 0), "above 31");
    REFUSED(long_mode, set_event(3, 6, true, 0, 0), "can't have");
    REFUSED(long_mode, set_event(3, 14, false, 0, 0), "lacks");
    REFUSED(long_mode, set_event(3, 14, true, 0x10000, 0), "reserved bits");
    REFUSED(long_mode, set_event(4, 0x80, false, 0, 0), "length");
    REFUSED(long_mode, set_event(6, 3, false, 0, 16), "length");
    long_mode();
    set_event(3, 14, true, 0x15, 0);
    assert_good();
    set_event(0, 0x41, false, 0, 0); // waits for IF
    assert_good();
    set_event(4, 0x80, false, 0, 2);
    assert_good();
    s.exception = s.event;
    assert_refused("is an interrupt");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good_states), cmocka_unit_test(test_control_registers),
        cmocka_unit_test(test_msrs),        cmocka_unit_test(test_flags_and_rip),
        cmocka_unit_test(test_segments),    cmocka_unit_test(test_tables),
        cmocka_unit_test(test_shadows),     cmocka_unit_test(test_events),
        cmocka_unit_test(test_one_form),     cmocka_unit_test(test_events),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
