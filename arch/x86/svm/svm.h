// SPDX-License-Identifier: MIT
// The AMD-V backend's own structures and the functions its files share.
#ifndef SKIFF_SVM_SVM_H
#define SKIFF_SVM_SVM_H

#include "arch/x86/cpu.h"
#include "arch/x86/msr.h"
#include "arch/x86/nested_paging.h"
#include "arch/x86/svm/vmcb.h"
#include "kernel/guest/guest.h"
#include "kernel/time.h"
#include "kernel/types.h"

#define unlikely(x) __builtin_expect(!!(x), 0)

// Registers the backend looks into (APM 2 3.1, 3.2, 13.1).
#define CR0_PE        BIT(0)
#define CR0_ET        BIT(4)
#define CR0_PG        BIT(31)
#define CR4_PSE       BIT(4)
#define EFER_SCE      BIT(0)
#define EFER_LME      BIT(8)
#define EFER_LMA      BIT(10)
#define EFER_SVME     BIT(12)
#define RFLAGS_FIXED1 BIT(1)
#define RFLAGS_TF     BIT(8)
#define RFLAGS_IF     BIT(9)
#define RFLAGS_RF     BIT(16)
#define DR6_BS        BIT(14)
#define DR6_INIT      0xffff0ff0ull
#define DR7_FIXED1    BIT(10)
#define CS_LONG       BIT(9) // in a segment's attributes
#define CS_DEFAULT32  BIT(10)

#define MSR_SPEC_CTRL      0x48
#define MSR_SYSENTER_CS    0x174
#define MSR_SYSENTER_ESP   0x175
#define MSR_SYSENTER_EIP   0x176
#define MSR_STAR           0xc0000081
#define MSR_LSTAR          0xc0000082
#define MSR_CSTAR          0xc0000083
#define MSR_SFMASK         0xc0000084
#define MSR_FS_BASE        0xc0000100
#define MSR_KERNEL_GS_BASE 0xc0000102
#define MSR_TSC_AUX        0xc0000103
#define MSR_TSC_RATIO      0xc0000104
#define MSR_VM_CR          0xc0010114
#define MSR_VM_HSAVE_PA    0xc0010117
#define VM_CR_LOCK         BIT(3)
#define VM_CR_SVMDIS       BIT(4)

#define VECTOR_DB  1
#define VECTOR_NMI 2
#define VECTOR_BP  3
#define VECTOR_OF  4
#define VECTOR_UD  6
#define VECTOR_DF  8
#define VECTOR_SS  12
#define VECTOR_GP  13
#define VECTOR_AC  17
#define VECTOR_MC  18

// What this host's SVM can do; written once by svm_probe.
struct svm_caps {
    u32 asids; // address space identifiers, the host's 0 included
    bool next_rip, flush_by_asid, decode_assists, tsc_scaling, rdtscp;
    bool pause_filter, pause_threshold;
    bool qemu;          // the CPU is QEMU's own emulation, with its faults
    u64 spec_ctrl_bits; // bits of SPEC_CTRL that exist
};
extern struct svm_caps svm_caps;

struct svm_vcpu;

// That CPU's own.
struct svm_cpu {
    u64 hsave_pa; // the CPU's own save area (APM 2 15.30.4)
    u64 host_pa;  // VMSAVE of the host's FS, GS, TR, LDTR and system call registers
    u32 next_asid;
    u64 asid_gen; // grows when all identifiers have been given out
    struct svm_vcpu *current;
};

// Constant, or as each field says; np has a lock.
struct svm_guest {
    struct guest *guest;
    struct nested_paging np;
    u32 vcpus;
    volatile u64 flush_gen; // grows with each shoot-down
};

// Registers that neither VMRUN nor VMLOAD switch: in the CPU while loaded, here otherwise.
struct svm_lazy {
    u64 tsc_aux, spec_ctrl;
    u64 dr[4];
};

// System call MSRs as a guest on a CPU level wrote them, in full.
struct svm_syscall {
    u64 sysenter_cs, sysenter_esp, sysenter_eip, cstar;
};

// One instruction is let through with TF set: NMIs are possible behind it.
enum svm_step { STEP_NONE, STEP_IRET, STEP_SHADOW };

#define SVM_TRAIL 8
// An exit, and the entry before it.
struct svm_trail {
    u64 code, info1, info2, vectoring, injected, rip;
    u32 cpu, asid;
    u8 tlb_control;
};

// The vCPU thread's own, on the CPU it is loaded on; while it is parked, whoever holds the guest.
// Others set flush_wanted and read exit_seq.
struct svm_vcpu {
    struct vcpu *v;
    struct svm_guest *sg;
    struct vmcb *vmcb;
    u64 vmcb_pa;
    u32 host_cpu;    // CPU whose identifier the VMCB holds; ~0: none
    u64 asid_gen;    // of that CPU, when the identifier was given
    u64 flushed_gen; // shoot-downs of the guest this vCPU has taken part in
    volatile bool flush_wanted;
    volatile u64 exit_seq;          // exits so far; others wait for it to change
    bool queued;                    // event, exception or triple_fault is set
    bool triple_fault;              // made by merging exceptions
    bool irq_window, nmi_window;    // wanted
    bool window_open;               // V_IRQ waits for the moment the guest can take an interrupt
    bool nmi_blocked;               // from an NMI until the end of the next IRET
    u8 step;                        // enum svm_step
    bool step_tf;                   // TF is the guest's own as well
    u8 tpr;                         // what was put into V_TPR
    u64 cr4;                        // as the guest sees it
    u64 cr4_allowed;                // bits the guest may set
    u64 tsc_ratio;                  // 8.32 fixed point
    struct pending_event event;     // cut short, or given by inject_irq / inject_nmi
    struct pending_event exception; // given by inject_exception; goes first
    struct svm_lazy lazy;
    bool level; // on a CPU level, which is Intel's
    struct svm_syscall sys;
    struct ktimer slice;               // ends the guest's turn: SVM has no timer of its own
    u64 slice_deadline;                // host TSC; ~0: not armed
    struct svm_trail trail[SVM_TRAIL]; // of exit n at n % SVM_TRAIL
};

static inline struct svm_vcpu *svm_of(struct vcpu *v)
{
    return v->backend;
}

// cpu.c
bool svm_probe(char *why, size_t size);
int svm_cpu_enable(void);
void svm_cpu_disable(void);
static inline struct svm_cpu *svm_this_cpu(void)
{
    return this_cpu()->backend;
}
static inline bool svm_is_loaded(const struct svm_vcpu *sv)
{
    return svm_this_cpu()->current == sv;
}
// maps.c
int svm_maps_init(void);
extern u64 svm_msrpm_pa, svm_level_msrpm_pa, svm_iopm_pa;
// vcpu.c
int svm_vcpu_create(struct vcpu *v);
void svm_vcpu_destroy(struct vcpu *v);
void svm_vcpu_load(struct vcpu *v);
void svm_vcpu_put(struct vcpu *v);
// enter.S
void svm_enter(u64 *gpr, u64 vmcb_pa, u64 host_pa);
// run.c
void svm_vcpu_run(struct vcpu *v, u64 deadline_tsc, struct vm_exit *x);
// exit.c
void svm_exit_decode(struct svm_vcpu *sv, struct vm_exit *x);
void svm_skip_insn(struct vcpu *v, u32 len);
// insn.c
// Length of the instruction that exited, opcode_len without its prefixes; 0 when it can't be read.
u32 svm_insn_len(struct svm_vcpu *sv, u32 opcode_len);
// Whether the instruction's first two bytes behind its prefixes are these. Reads the guest's
// memory.
bool svm_insn_is(struct svm_vcpu *sv, u8 first, u8 second, u8 *rex);
// A MOV between a control register and a general one. False when it can't be read.
bool svm_insn_mov_cr(struct svm_vcpu *sv, u8 *gpr, u8 *len);
// control_regs.c
void svm_cr4_set(struct svm_vcpu *sv, u64 value); // no checks
void svm_exit_cr4(struct svm_vcpu *sv, bool write, struct vm_exit *x);
void svm_exit_cr8(struct svm_vcpu *sv, struct vm_exit *x);
// events.c
bool svm_can_inject_irq(struct vcpu *v);
bool svm_can_inject_nmi(struct vcpu *v);
void svm_inject_irq(struct vcpu *v, u8 vector);
void svm_inject_nmi(struct vcpu *v);
void svm_inject_exception(struct vcpu *v, u8 vector, bool has_error, u32 error);
void svm_want_irq_window(struct vcpu *v, bool on);
void svm_events_enter(struct svm_vcpu *sv); // writes the next event into the VMCB
void svm_events_keep_vectoring(struct svm_vcpu *sv);
void svm_events_changed(struct svm_vcpu *sv); // after event or exception was set from outside
void svm_exception_reflect(struct svm_vcpu *sv, u8 vector);
bool svm_event_repeats(const struct pending_event *e); // its instruction is run again instead
// An interrupt shadow is on, or stepped over.
static inline bool svm_in_shadow(const struct svm_vcpu *sv)
{
    return (sv->vmcb->int_state & INT_SHADOW) || sv->step == STEP_SHADOW;
}
// nmi.c
void svm_want_nmi_window(struct vcpu *v, bool on);
void svm_nmi_block(struct svm_vcpu *sv, bool blocked);
void svm_nmi_enter(struct svm_vcpu *sv); // right before the entry, after svm_events_enter
void svm_exit_iret(struct svm_vcpu *sv, struct vm_exit *x);
void svm_step_start(struct svm_vcpu *sv, enum svm_step why);
// A #DB exit that only ended a step of ours.
bool svm_step_ends(struct svm_vcpu *sv);
void svm_step_cancel(struct svm_vcpu *sv); // an event goes in first
void svm_step_done(struct svm_vcpu *sv);
u64 svm_rflags(const struct svm_vcpu *sv); // without a TF of ours
// qemu.c: called where svm_caps.qemu says so
bool svm_qemu_probe(void);                                 // whether QEMU emulates this CPU
void svm_qemu_deliver_once(const struct pending_event *e); // that goes in with this entry
bool svm_qemu_shadow_enter(struct svm_vcpu *sv);           // whether interrupts must not come yet
void svm_qemu_exit(struct svm_vcpu *sv);                   // after each exit, interrupts off
// msr.c
int svm_get_msr(struct vcpu *v, u32 index, u64 *value);
int svm_set_msr(struct vcpu *v, u32 index, u64 value);
void svm_lazy_load(const struct svm_lazy *l);
void svm_lazy_save(struct svm_lazy *l);
// syscall.c
u64 *svm_level_msr(struct svm_vcpu *sv, u32 index); // NULL: not one of svm_syscall
void svm_syscall_load(struct svm_vcpu *sv);         // after a change of sv->sys or LSTAR
bool svm_syscall_emulate(struct svm_vcpu *sv);      // a #UD; false: it is the guest's
bool svm_sysret_repair(struct svm_vcpu *sv);        // a #SS; the same
// state.c, segments.c
void svm_get_state(struct vcpu *v, struct vcpu_state *s);
int svm_set_state(struct vcpu *v, const struct vcpu_state *s);
const char *svm_check_state(struct vcpu *v, const struct vcpu_state *s);
void svm_segment_read(const struct svm_vcpu *sv, enum seg i, struct segment *out);
void svm_segment_write(struct svm_vcpu *sv, enum seg i, const struct segment *s);
// npt.c
int svm_guest_create(struct guest *g);
void svm_guest_destroy(struct guest *g);
int svm_map_large(struct guest *g, u64 gpa, u64 hpa);
bool svm_has_pml(void);
int svm_dirty_start(struct guest *g, bool pml);
void svm_dirty_rearm(struct guest *g, u64 gpa);
void svm_dirty_drain(struct guest *g);
void svm_dirty_stop(struct guest *g);
void svm_exit_npf(struct svm_vcpu *sv, bool vectoring, struct vm_exit *x);
// tlb.c
void svm_flush_guest(struct guest *g);   // complete on return
void svm_tlb_enter(struct svm_vcpu *sv); // nothing may come between this and the entry
void svm_tlb_failed(struct svm_vcpu *sv);
void svm_invalidate_guest_tlb(struct vcpu *v);
// trail.c
void svm_trail_add(struct svm_vcpu *sv, u64 injected); // before exit_seq counts the exit
void svm_trail_dump(const struct svm_vcpu *sv);
// dump.c
void svm_dump(struct vcpu *v);

#endif
