// SPDX-License-Identifier: MIT
// The AMD backend's software parts: events and NMIs on their way in, instruction lengths, segments,
// and the rules of the guest's CPU.
// sources: arch/x86/svm/events.c arch/x86/svm/nmi.c arch/x86/svm/qemu.c arch/x86/svm/insn.c arch/x86/svm/segments.c arch/x86/svm/syscall.c
// sources: arch/x86/svm/trail.c arch/x86/guest_cpu.c
#include "tests/unit/unit.h"

#include <asm/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "arch/x86/features.h"
#include "arch/x86/guest_cpu.h"
#include "arch/x86/svm/svm.h"
#include "kernel/guest/memory.h"
#include "kernel/guest/walk.h"
#include "kernel/lib.h"
#include "kernel/log.h"

struct svm_caps svm_caps;
struct host_features host_features;
static struct cpu cpu;
static struct guest guest;
static struct vcpu vcpu;
static struct svm_vcpu sv;
static struct vmcb vmcb;
static unsigned kicks;
static u8 code[2 * 4096];
static bool second_page_missing;

void cpu_kick(u32 cpu_index)
{
    assert_int_equal(cpu_index, 0);
    kicks++;
}

void thread_keep_off(u64 cpus)
{
    fail_msg("guests are kept off %llx", (unsigned long long)cpus);
}

int guest_walk(struct guest *g, const struct paging *p, u64 linear, enum access a, u64 *gpa,
               u32 *error)
{
    (void)g;
    (void)p;
    assert_int_equal(a, ACCESS_FETCH);
    *error = 0;
    if (linear >= sizeof(code) || (second_page_missing && linear >= PAGE_SIZE))
        return E_INVAL;
    *gpa = linear;
    return 0;
}

int guest_read(struct guest *g, u64 gpa, void *buf, u64 bytes)
{
    (void)g;
    assert_true(gpa / PAGE_SIZE == (gpa + bytes - 1) / PAGE_SIZE);
    memcpy(buf, code + gpa, bytes);
    return 0;
}

static u64 tables[4][NP_ENTRIES] __attribute__((aligned(PAGE_SIZE)));
static char logged[4096];

void *guest_page(struct guest *g, u64 gpa)
{
    (void)g;
    return gpa / PAGE_SIZE < ARRAY_SIZE(tables) ? tables[gpa / PAGE_SIZE] : NULL;
}

void log_write(enum log_level level, const char *area, const char *fmt, ...)
{
    (void)level;
    (void)area;
    size_t used = strlen(logged);
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(logged + used, sizeof logged - used, fmt, ap);
    va_end(ap);
    strcat(logged, "\n");
}

static int begin(void **state)
{
    (void)state;
    memset(&sv, 0, sizeof(sv));
    memset(&vmcb, 0, sizeof(vmcb));
    memset(code, 0x90, sizeof(code));
    svm_caps = (struct svm_caps){.asids = 16};
    memset(tables, 0, sizeof(tables));
    logged[0] = 0;
    kicks = 0;
    second_page_missing = false;
    sv.v = &vcpu;
    sv.vmcb = &vmcb;
    vcpu.guest = &guest;
    vcpu.backend = &sv;
    vmcb.cr0 = CR0_PE;
    vmcb.rflags = RFLAGS_FIXED1 | RFLAGS_IF;
    cpu.self = &cpu;
    return (int)syscall(SYS_arch_prctl, ARCH_SET_GS, &cpu);
}

static bool intercepts(u32 exit_code)
{
    return vmcb.intercept[(exit_code - 0x60) / 32] >> (exit_code - 0x60) % 32 & 1;
}

static void enter(void)
{
    vmcb.event_inj = 0;
    if (sv.queued)
        svm_events_enter(&sv);
    if (sv.nmi_window)
        svm_nmi_enter(&sv);
}

static void test_interrupt_goes_in(void **state)
{
    (void)state;
    assert_true(svm_can_inject_irq(&vcpu));
    svm_inject_irq(&vcpu, 0x31);
    assert_false(svm_can_inject_irq(&vcpu));
    enter();
    assert_int_equal(vmcb.event_inj, EVENT_VALID | 0x31);
    assert_true(svm_can_inject_irq(&vcpu));
    enter();
    assert_int_equal(vmcb.event_inj, 0);
}

static void test_qemu_delivers_an_interrupt_once(void **state)
{
    (void)state;
    svm_inject_irq(&vcpu, 0x31);
    enter();
    assert_int_equal(kicks, 0);
    svm_caps.qemu = true;
    svm_inject_exception(&vcpu, VECTOR_GP, true, 0);
    enter();
    assert_int_equal(kicks, 0);
    svm_inject_irq(&vcpu, 0x31);
    enter();
    assert_int_equal(kicks, 1);
}

static void test_qemu_steps_over_a_shadow(void **state)
{
    (void)state;
    assert_false(svm_qemu_shadow_enter(&sv));
    vmcb.int_state = INT_SHADOW;
    assert_true(svm_qemu_shadow_enter(&sv));
    assert_true(vmcb.rflags & RFLAGS_TF);
    assert_false(svm_rflags(&sv) & RFLAGS_TF);
    vmcb.int_state = 0; // an exit before the instruction, which has lost the shadow
    assert_false(svm_can_inject_irq(&vcpu));
    assert_true(svm_qemu_shadow_enter(&sv));
    vmcb.dr6 = DR6_BS;
    assert_true(svm_step_ends(&sv));
    assert_false(vmcb.rflags & RFLAGS_TF);
    assert_true(svm_can_inject_irq(&vcpu));
}

static void test_dump_walks_to_the_page_that_faulted(void **state)
{
    (void)state;
    const u64 bad = 0xffffffff81000123;
    vmcb.efer = EFER_LMA;
    vmcb.cr0 |= CR0_PG;
    vmcb.cr2 = bad;
    sv.event = (struct pending_event){
        .valid = 1, .type = EVENT_EXCEPTION, .vector = 14, .has_error = 1, .error = 0x10};
    tables[0][511] = 0x1000 | BIT(0);
    tables[1][510] = 0x2000 | BIT(0);
    svm_trail_dump(&sv);
    assert_non_null(strstr(logged, "level 2: table 2000 entry 0"));
    assert_non_null(
        strstr(logged, "no page at ffffffff81000123, where the guest's tables have none"));
    tables[2][8] = 0x40000000 | BIT(0) | BIT(7);
    svm_trail_dump(&sv);
    assert_non_null(
        strstr(logged, "no page at ffffffff81000123, where the guest's tables have one"));
    tables[1][510] = 0x9000 | BIT(0);
    svm_trail_dump(&sv);
    assert_non_null(strstr(logged, "level 2: its table 9000 is not RAM"));
}

static void test_dump_tells_the_last_exits(void **state)
{
    (void)state;
    for (; sv.exit_seq < SVM_TRAIL + 3; sv.exit_seq++) {
        vmcb.rip = 0x1000 + sv.exit_seq;
        svm_trail_add(&sv, EVENT_VALID | 0x31);
    }
    svm_trail_dump(&sv);
    assert_null(strstr(logged, "rip 1002"));
    assert_non_null(strstr(logged, "exit 3: code 0 info 0 0 int 0 rip 1003"));
    assert_non_null(strstr(logged, "with event 80000031"));
    assert_non_null(strstr(logged, "rip 100a"));
}

static void test_interrupt_must_wait(void **state)
{
    (void)state;
    vmcb.int_state = INT_SHADOW;
    assert_false(svm_can_inject_irq(&vcpu));
    vmcb.int_state = 0;
    vmcb.rflags &= ~RFLAGS_IF;
    assert_false(svm_can_inject_irq(&vcpu));
    svm_want_irq_window(&vcpu, true);
    assert_true(intercepts(SVM_EXIT_VINTR));
    assert_true(sv.window_open);
    svm_want_irq_window(&vcpu, false);
    assert_false(intercepts(SVM_EXIT_VINTR));
    assert_false(sv.window_open);
}

static void test_cut_short_is_delivered_again(void **state)
{
    (void)state;
    vmcb.exit_int_info = EVENT_VALID | EVENT_EXCEPTION << 8 | EVENT_HAS_ERROR | 14 | 7ull << 32;
    svm_events_keep_vectoring(&sv);
    enter();
    assert_int_equal(vmcb.event_inj, vmcb.exit_int_info);
    // INT n and INT3 run again instead.
    vmcb.exit_int_info = EVENT_VALID | EVENT_SOFT << 8 | 0x80;
    svm_events_keep_vectoring(&sv);
    vmcb.exit_int_info = EVENT_VALID | EVENT_EXCEPTION << 8 | VECTOR_BP;
    svm_events_keep_vectoring(&sv);
    assert_false(sv.queued);
}

static void test_exception_before_interrupt(void **state)
{
    (void)state;
    svm_inject_irq(&vcpu, 0x40);
    svm_inject_exception(&vcpu, 14, true, 2);
    enter();
    assert_int_equal(vmcb.event_inj,
                     EVENT_VALID | EVENT_EXCEPTION << 8 | EVENT_HAS_ERROR | 14 | 2ull << 32);
    assert_true(vmcb.rflags & RFLAGS_RF);
    // In the handler, interrupts off: the interrupt waits for its window.
    vmcb.rflags &= ~RFLAGS_IF;
    enter();
    assert_int_equal(vmcb.event_inj, 0);
    assert_true(intercepts(SVM_EXIT_VINTR));
    vmcb.rflags |= RFLAGS_IF;
    enter();
    assert_int_equal(vmcb.event_inj, EVENT_VALID | 0x40);
    assert_false(intercepts(SVM_EXIT_VINTR));
}

static void test_faults_meet(void **state)
{
    (void)state;
    vmcb.exit_int_info = EVENT_VALID | EVENT_EXCEPTION << 8 | EVENT_HAS_ERROR | 14;
    svm_events_keep_vectoring(&sv);
    svm_inject_exception(&vcpu, 13, true, 0);
    assert_int_equal(sv.exception.vector, VECTOR_DF);
    assert_false(sv.event.valid);
    svm_inject_exception(&vcpu, 14, true, 0);
    assert_true(sv.triple_fault);
}

static void test_no_error_code_in_real_mode(void **state)
{
    (void)state;
    vmcb.cr0 = 0;
    svm_inject_exception(&vcpu, 13, true, 0);
    enter();
    assert_int_equal(vmcb.event_inj, EVENT_VALID | EVENT_EXCEPTION << 8 | 13);
}

static void test_nmi_blocks_until_iret_is_over(void **state)
{
    (void)state;
    struct vm_exit x;
    svm_inject_nmi(&vcpu);
    enter();
    assert_int_equal(vmcb.event_inj, EVENT_VALID | EVENT_NMI << 8 | 2);
    assert_true(intercepts(SVM_EXIT_IRET));
    assert_false(svm_can_inject_nmi(&vcpu));
    svm_exit_iret(&sv, &x);
    assert_int_equal(x.kind, EXIT_RETRY);
    assert_false(intercepts(SVM_EXIT_IRET));
    assert_true(vmcb.rflags & RFLAGS_TF);
    assert_false(svm_rflags(&sv) & RFLAGS_TF);
    assert_false(svm_can_inject_nmi(&vcpu));
    vmcb.rflags = RFLAGS_FIXED1; // what the IRET has loaded
    vmcb.dr6 = DR6_INIT | DR6_BS;
    assert_true(svm_step_ends(&sv));
    assert_int_equal(vmcb.dr6, DR6_INIT);
    assert_true(svm_can_inject_nmi(&vcpu));
}

static void test_step_of_a_guest_that_steps_itself(void **state)
{
    (void)state;
    struct vm_exit x;
    svm_nmi_block(&sv, true);
    vmcb.rflags |= RFLAGS_TF;
    svm_exit_iret(&sv, &x);
    assert_true(svm_rflags(&sv) & RFLAGS_TF);
    assert_false(svm_step_ends(&sv)); // the #DB is the guest's too
    assert_true(svm_can_inject_nmi(&vcpu));
}

static void test_event_cancels_a_step(void **state)
{
    (void)state;
    struct vm_exit x;
    svm_nmi_block(&sv, true);
    svm_exit_iret(&sv, &x);
    svm_inject_exception(&vcpu, 13, true, 0);
    enter();
    assert_int_equal(sv.step, STEP_NONE);
    assert_false(vmcb.rflags & RFLAGS_TF);
    assert_true(intercepts(SVM_EXIT_IRET));
    assert_false(svm_can_inject_nmi(&vcpu));
}

static void test_nmi_window(void **state)
{
    (void)state;
    // Behind an event that is being injected: leaves at once.
    svm_want_nmi_window(&vcpu, true);
    svm_inject_irq(&vcpu, 0x50);
    enter();
    assert_int_equal(kicks, 1);
    // In a shadow: one step.
    vmcb.int_state = INT_SHADOW;
    enter();
    assert_int_equal(kicks, 1);
    assert_int_equal(sv.step, STEP_SHADOW);
    vmcb.int_state = 0;
    assert_true(svm_step_ends(&sv));
    assert_false(vmcb.rflags & RFLAGS_TF);
    // Blocked: the IRET's exit is waited for.
    svm_nmi_block(&sv, true);
    enter();
    assert_int_equal(sv.step, STEP_NONE);
}

static void set_code(u64 at, const char *bytes, size_t n)
{
    memcpy(code + at, bytes, n);
    vmcb.rip = at;
    vmcb.insn_bytes_count = 0;
}
#define CODE(at, bytes) set_code(at, bytes, sizeof(bytes) - 1)

static void long_mode(void)
{
    vmcb.efer = EFER_SVME | EFER_LMA | EFER_LME;
    vmcb.cs.attr = 0xa9b & ~0x800;
}

static void test_instruction_length(void **state)
{
    (void)state;
    long_mode();
    CODE(0x10, "\x0f\xa2");
    assert_int_equal(svm_insn_len(&sv, 2), 2);
    CODE(0x10, "\x66\x2e\x48\x0f\xa2");
    assert_int_equal(svm_insn_len(&sv, 2), 5);
    CODE(0x10, "\xf3\x90");
    assert_int_equal(svm_insn_len(&sv, 1), 2);
    CODE(0xffe, "\x2e\x2e\x0f\x30"); // across a page
    assert_int_equal(svm_insn_len(&sv, 2), 4);
    second_page_missing = true;
    assert_int_equal(svm_insn_len(&sv, 2), 0);
    CODE(0xffe, "\x0f\x30"); // ends with its page
    assert_int_equal(svm_insn_len(&sv, 2), 2);
    CODE(0x40, "\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66");
    assert_int_equal(svm_insn_len(&sv, 1), 0);
    vmcb.rip = 0x123456789000;
    assert_int_equal(svm_insn_len(&sv, 1), 0);
    // 40h to 4Fh are no prefixes outside 64-bit code.
    vmcb.efer = EFER_SVME;
    vmcb.cs.base = 0x10;
    CODE(0x20, "\x66\x0f\xa2");
    memcpy(code + 0x30, "\x66\x0f\xa2", 3);
    assert_int_equal(svm_insn_len(&sv, 2), 3);
}

static void test_next_rip(void **state)
{
    (void)state;
    svm_caps.next_rip = true;
    vmcb.rip = 0xfffffffff0;
    vmcb.next_rip = 0xfffffffff3;
    assert_int_equal(svm_insn_len(&sv, 2), 3);
}

static void test_mov_cr(void **state)
{
    (void)state;
    u8 gpr, len;
    long_mode();
    CODE(0x10, "\x0f\x22\xe0"); // mov %rax, %cr4
    assert_true(svm_insn_mov_cr(&sv, &gpr, &len));
    assert_int_equal(gpr, GPR_RAX);
    assert_int_equal(len, 3);
    CODE(0x10, "\x41\x0f\x20\xe7"); // mov %cr4, %r15
    assert_true(svm_insn_mov_cr(&sv, &gpr, &len));
    assert_int_equal(gpr, GPR_R15);
    assert_int_equal(len, 4);
    CODE(0x10, "\x44\x0f\x22\xc1"); // mov %rcx, %cr8
    assert_true(svm_insn_mov_cr(&sv, &gpr, &len));
    assert_int_equal(gpr, GPR_RCX);
    CODE(0x10, "\x41\x66\x0f\x22\xe0"); // a REX that does not count
    assert_true(svm_insn_mov_cr(&sv, &gpr, &len));
    assert_int_equal(gpr, GPR_RAX);
    assert_int_equal(len, 5);
    CODE(0x10, "\x0f\xa2\x00");
    assert_false(svm_insn_mov_cr(&sv, &gpr, &len));
}

static void test_segments(void **state)
{
    (void)state;
    struct segment s;
    vmcb.cpl = 3;
    vmcb.ss = (struct vmcb_segment){0x2b, 0xc93, 0xffffffff, 0};
    svm_segment_read(&sv, SEG_SS, &s);
    assert_int_equal(s.attr, 0xcf3); // privilege level as the CPU keeps it
    vmcb.ds = (struct vmcb_segment){0, 0, 0, 0};
    svm_segment_read(&sv, SEG_DS, &s);
    assert_true(s.attr & SEG_UNUSABLE);
    svm_segment_write(&sv, SEG_DS, &s);
    assert_int_equal(vmcb.ds.attr, 0);
    vmcb.tr = (struct vmcb_segment){0x40, 0x089, 0x67, 0x1000};
    svm_segment_read(&sv, SEG_TR, &s);
    assert_int_equal(s.attr, 0x8b);
    s = (struct segment){.base = 5, .limit = 6, .selector = 7, .attr = SEG_UNUSABLE | 0xf3};
    svm_segment_write(&sv, SEG_FS, &s);
    assert_int_equal(vmcb.fs.attr, 0x73); // not present: unusable
    assert_int_equal(vmcb.fs.base, 5);
}

// What a guest that sees an Intel CPU expects of SYSENTER and SYSEXIT, where they raise #UD.
static void test_system_calls_on_a_level(void **state)
{
    (void)state;
    sv.sys = (struct svm_syscall){0x10, 0xfffffe0000003000, 0xffffffff81a01000, 0};
    vmcb.efer = EFER_LMA | EFER_SVME;
    vmcb.cs.attr = 0xcfb; // a 32-bit program
    vmcb.cpl = 3;
    vmcb.rip = 0x10;
    CODE(0x10, "\x0f\x34");
    assert_false(svm_syscall_emulate(&sv)); // an AMD guest's own business
    sv.level = true;
    vmcb.lstar = 0xffffffff81a00000;
    svm_syscall_load(&sv);
    assert_int_equal(vmcb.cstar, vmcb.lstar);
    assert_int_equal(*svm_level_msr(&sv, MSR_CSTAR), 0);
    sv.sys.cstar = 0xffffffff81a02000;
    svm_syscall_load(&sv);
    assert_int_equal(vmcb.cstar, 0xffffffff81a02000);
    assert_true(svm_syscall_emulate(&sv));
    assert_int_equal(vmcb.rip, 0xffffffff81a01000);
    assert_int_equal(vmcb.rsp, 0xfffffe0000003000);
    assert_int_equal(vmcb.cpl, 0);
    assert_int_equal(vmcb.cs.selector, 0x10);
    assert_int_equal(vmcb.cs.attr, 0xa9b);
    assert_int_equal(vmcb.ss.selector, 0x18);
    assert_int_equal(vmcb.ss.attr, 0xc93);
    assert_false(vmcb.rflags & RFLAGS_IF);
    vmcb.rip = 0x10;
    CODE(0x10, "\x0f\x35"); // back to 32-bit code
    vcpu.gpr[GPR_RDX] = 0x1234, vcpu.gpr[GPR_RCX] = 0x7fff0000;
    assert_true(svm_syscall_emulate(&sv));
    assert_int_equal(vmcb.rip, 0x1234);
    assert_int_equal(vmcb.rsp, 0x7fff0000);
    assert_int_equal(vmcb.cs.selector, 0x23);
    assert_int_equal(vmcb.cs.attr, 0xcfb);
    assert_int_equal(vmcb.ss.selector, 0x2b);
    assert_int_equal(vmcb.cpl, 3);
    vmcb.rip = 0x10;
    assert_true(svm_syscall_emulate(&sv)); // SYSEXIT is the kernel's
    assert_true(sv.exception.valid && sv.exception.vector == VECTOR_GP);
    CODE(0x10, "\x0f\x0b"); // UD2
    assert_false(svm_syscall_emulate(&sv));
    vmcb.star = 0x0023001000000000;
    vmcb.ss = (struct vmcb_segment){0x2b, 0, 0, 0}; // as SYSRET leaves it here after an interrupt
    assert_true(svm_sysret_repair(&sv));
    assert_int_equal(vmcb.ss.attr, 0xcf3);
    assert_int_equal(vmcb.ss.limit, 0xffffffff);
    assert_false(svm_sysret_repair(&sv)); // a #SS of its own
}

static void test_exceptions_that_meet(void **state)
{
    (void)state;
    assert_int_equal(exceptions_meet(0, 13), EXCEPTION_DOUBLE_FAULT);
    assert_int_equal(exceptions_meet(13, 14), EXCEPTION_ALONE);
    assert_int_equal(exceptions_meet(14, 14), EXCEPTION_DOUBLE_FAULT);
    assert_int_equal(exceptions_meet(14, 13), EXCEPTION_DOUBLE_FAULT);
    assert_int_equal(exceptions_meet(1, 14), EXCEPTION_ALONE);
    assert_int_equal(exceptions_meet(8, 13), EXCEPTION_TRIPLE_FAULT);
    assert_int_equal(exceptions_meet(8, 14), EXCEPTION_TRIPLE_FAULT);
    assert_int_equal(exceptions_meet(8, 1), EXCEPTION_ALONE);
    assert_true(exception_pushes_error(17));
    assert_false(exception_pushes_error(6));
}

static void test_cr4_rules(void **state)
{
    (void)state;
    guest.cpuid_count = 2;
    guest.cpuid[0] = (struct cpuid_entry){.leaf = 1, .edx = BIT(6) | BIT(13), .ecx = BIT(17)};
    guest.cpuid[1] = (struct cpuid_entry){.leaf = 7, .ebx = BIT(7)};
    u64 allowed = guest_cr4_allowed(&guest);
    assert_int_equal(allowed, BIT(5) | BIT(6) | BIT(7) | BIT(8) | BIT(17) | BIT(20));
    assert_false(guest_cr4_write_valid(0, BIT(21), allowed, 0, 0));
    assert_true(guest_cr4_write_valid(0, BIT(20), allowed, 0, 0));
    assert_false(guest_cr4_write_valid(BIT(5), 0, allowed, 0, EFER_LMA));
    assert_false(guest_cr4_write_valid(BIT(5), BIT(5) | BIT(17), allowed, 0, 0));
    assert_false(guest_cr4_write_valid(BIT(5), BIT(5) | BIT(17), allowed, 1, EFER_LMA));
    assert_true(guest_cr4_write_valid(BIT(5), BIT(5) | BIT(17), allowed, 0x1000, EFER_LMA));
    assert_true(guest_cr4_write_valid(BIT(17) | BIT(5), BIT(5) | BIT(17), allowed, 1, EFER_LMA));
}

static void test_efer_rules(void **state)
{
    (void)state;
    u64 writable = EFER_SCE | EFER_LME;
    assert_true(guest_efer_write_valid(0, EFER_LME, writable, 0));
    assert_false(guest_efer_write_valid(0, EFER_LME, writable, CR0_PG));
    assert_false(guest_efer_write_valid(0, EFER_SVME, writable, 0));
    assert_true(guest_efer_write_valid(EFER_LME | EFER_LMA, EFER_LME | EFER_SCE, writable, CR0_PG));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_interrupt_goes_in, begin),
        cmocka_unit_test_setup(test_qemu_delivers_an_interrupt_once, begin),
        cmocka_unit_test_setup(test_qemu_steps_over_a_shadow, begin),
        cmocka_unit_test_setup(test_dump_walks_to_the_page_that_faulted, begin),
        cmocka_unit_test_setup(test_dump_tells_the_last_exits, begin),
        cmocka_unit_test_setup(test_interrupt_must_wait, begin),
        cmocka_unit_test_setup(test_cut_short_is_delivered_again, begin),
        cmocka_unit_test_setup(test_exception_before_interrupt, begin),
        cmocka_unit_test_setup(test_faults_meet, begin),
        cmocka_unit_test_setup(test_no_error_code_in_real_mode, begin),
        cmocka_unit_test_setup(test_nmi_blocks_until_iret_is_over, begin),
        cmocka_unit_test_setup(test_step_of_a_guest_that_steps_itself, begin),
        cmocka_unit_test_setup(test_event_cancels_a_step, begin),
        cmocka_unit_test_setup(test_nmi_window, begin),
        cmocka_unit_test_setup(test_instruction_length, begin),
        cmocka_unit_test_setup(test_next_rip, begin),
        cmocka_unit_test_setup(test_mov_cr, begin),
        cmocka_unit_test_setup(test_segments, begin),
        cmocka_unit_test_setup(test_system_calls_on_a_level, begin),
        cmocka_unit_test_setup(test_exceptions_that_meet, begin),
        cmocka_unit_test_setup(test_cr4_rules, begin),
        cmocka_unit_test_setup(test_efer_rules, begin),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
