// SPDX-License-Identifier: MIT
// The VT-x backend's own structures and the functions its files share.
#ifndef SKIFF_VMX_VMX_H
#define SKIFF_VMX_VMX_H

#include "arch/x86/cpu.h"
#include "arch/x86/nested_paging.h"
#include "arch/x86/vmx/vmcs.h"
#include "kernel/guest/guest.h"
#include "kernel/time.h"
#include "kernel/types.h"

#define unlikely(x) __builtin_expect(!!(x), 0)

// What this host's VT-x can do and the controls made of it; written once by vmx_caps_find.
struct vmx_caps {
    u32 revision; // first word of every VMCS and VMXON region
    u32 pin, proc, proc2, exit, entry;
    u64 slice_ticks; // host TSC ticks in a millisecond
    u8 timer_shift;  // the preemption timer counts TSC >> timer_shift
    bool preemption_timer, pml, tsc_scaling, rdtscp, spec_ctrl;
    u64 cr0_fixed0, cr4_fixed1;
    u64 spec_ctrl_bits; // bits of IA32_SPEC_CTRL that exist
};
extern struct vmx_caps vmx_caps;

struct vmx_vcpu;

// That CPU's own.
struct vmx_cpu {
    u64 vmxon_pa;
    struct vmx_vcpu *current; // whose VMCS is current and active here; NULL: none
};

// Constant, or as each field says; np has a lock.
struct vmx_guest {
    struct guest *guest;
    struct nested_paging np;
    u64 eptp;
    u32 vcpus;
    volatile u64 flush_gen;         // grows with each shoot-down
    volatile u64 cpu_gen[MAX_CPUS]; // generation each CPU has flushed up to; written by that CPU
};

// Work for the next entry, set by anyone, taken by the vCPU.
enum vmx_request { VMX_REQ_TLB = 1 << 0, VMX_REQ_PML = 1 << 1 };

// Registers that the VMCS does not switch: in the CPU while loaded, here otherwise.
struct vmx_lazy {
    u64 star, lstar, cstar, sfmask, kernel_gs_base, tsc_aux, spec_ctrl;
    u64 cr2, dr[4], dr6;
};

// The vCPU thread's own, on the CPU it is loaded on; while it is parked, whoever holds the guest.
// Others set requests and read exit_seq.
struct vmx_vcpu {
    u64 host_rsp; // value of VMCS_HOST_RSP; offset known to enter.S
    u64 launched; // VMRESUME instead of VMLAUNCH; offset known to enter.S
    struct vcpu *v;
    struct vmx_guest *vg;
    u64 vmcs_pa;
    u64 *pml; // 512 guest-physical addresses; NULL without PML
    bool pml_on;
    bool queued;       // event, exception or triple_fault is set
    bool triple_fault; // made by merging exceptions
    bool irq_window_wanted;
    volatile u32 requests; // enum vmx_request
    u32 proc, proc2;       // controls as they are in the VMCS
    u16 vpid;
    u32 host_cpu; // CPU whose host state the VMCS holds, and whose TLB knows the VPID; ~0: none
    volatile u64 exit_seq;          // exits so far; others wait for it to change
    u64 cr4_allowed;                // bits the guest may set
    struct pending_event event;     // cut short, or given by inject_irq / inject_nmi
    struct pending_event exception; // given by inject_exception; goes first
    struct vmx_lazy lazy;
    struct ktimer slice; // stands in for the preemption timer where there is none
    u64 slice_deadline;
    u64 deadline_tsc; // of the entry that goes on or was the last
};
static_assert(offsetof(struct vmx_vcpu, host_rsp) == 0, "enter.S");
static_assert(offsetof(struct vmx_vcpu, launched) == 8, "enter.S");

static inline u64 vmread(u32 field)
{
    u64 value;
    __asm__ volatile("vmread %1, %0" : "=r"(value) : "r"((u64)field) : "cc");
    return value;
}
static inline void vmwrite(u32 field, u64 value)
{
    __asm__ volatile("vmwrite %1, %0" : : "r"((u64)field), "rm"(value) : "cc", "memory");
}
// False when this CPU has no such field or no VMCS is current.
static inline bool vmread_try(u32 field, u64 *value)
{
    bool failed;
    __asm__ volatile("vmread %2, %1" : "=@ccbe"(failed), "=r"(*value) : "r"((u64)field));
    return !failed;
}

static inline struct vmx_vcpu *vmx_of(struct vcpu *v)
{
    return v->backend;
}

// caps.c
bool vmx_caps_find(char *why, size_t size);
// cpu.c
bool vmx_probe(char *why, size_t size);
int vmx_cpu_enable(void);
void vmx_cpu_disable(void);
static inline struct vmx_cpu *vmx_this_cpu(void)
{
    return this_cpu()->backend;
}
void vmx_vmptrld(u64 vmcs_pa);
void vmx_vmclear(u64 vmcs_pa);
// vcpu.c
int vmx_vcpu_create(struct vcpu *v);
void vmx_vcpu_destroy(struct vcpu *v);
void vmx_vcpu_load(struct vcpu *v);
void vmx_vcpu_put(struct vcpu *v);
// Makes v's VMCS current for a few field accesses and returns what to give to vmx_access_end; costs
// nothing when v is loaded here. No thread switch in between.
struct vmx_vcpu *vmx_access_begin_slow(struct vmx_vcpu *vx);
void vmx_access_end_slow(struct vmx_vcpu *vx, struct vmx_vcpu *before);
static inline struct vmx_vcpu *vmx_access_begin(struct vmx_vcpu *vx)
{
    if (vmx_this_cpu()->current == vx)
        return vx;
    return vmx_access_begin_slow(vx);
}
static inline void vmx_access_end(struct vmx_vcpu *vx, struct vmx_vcpu *before)
{
    if (before != vx)
        vmx_access_end_slow(vx, before);
}
static inline bool vmx_is_loaded(const struct vmx_vcpu *vx)
{
    return vmx_this_cpu()->current == vx;
}
// Changes a primary processor-based control; VMCS current.
void vmx_proc_bit(struct vmx_vcpu *vx, u32 bit, bool on);
// vmcs_init.c
void vmx_vmcs_init(struct vmx_vcpu *vx);
void vmx_host_state_write(void);
// enter.S; goes on in one of the other two, interrupts off. how: SDM 3C 30.2.
void vmx_enter(u64 *gpr, struct vmx_vcpu *vx, struct vm_exit *x);
void vmx_exited(struct vmx_vcpu *vx, struct vm_exit *x);
enum { VMX_FAIL_INVALID = 1, VMX_FAIL_VALID = 2 };
void vmx_refused(struct vmx_vcpu *vx, struct vm_exit *x, u32 how);
extern const char vmx_exit_entry[];
// run.c
void vmx_vcpu_run(struct vcpu *v, u64 deadline_tsc, struct vm_exit *x);
// exit.c
void vmx_exit_decode(struct vmx_vcpu *vx, struct vm_exit *x, u32 reason);
void vmx_skip_insn(struct vcpu *v, u32 len);
// control_regs.c
void vmx_exit_cr_access(struct vmx_vcpu *vx, struct vm_exit *x);
u64 vmx_cr0_get(void); // as the guest sees it; VMCS current
u64 vmx_cr4_get(void);
void vmx_cr0_write(u64 value); // fields only, no checks
void vmx_cr4_write(const struct vmx_vcpu *vx, u64 value);
u64 vmx_cr4_allowed(const struct guest *g);
#define VMX_CR0_MASK (CR0_NE | CR0_CD | CR0_NW) // bits the guest sees through the shadow
// events.c
bool vmx_can_inject_irq(struct vcpu *v);
bool vmx_can_inject_nmi(struct vcpu *v);
void vmx_inject_irq(struct vcpu *v, u8 vector);
void vmx_inject_nmi(struct vcpu *v);
void vmx_inject_exception(struct vcpu *v, u8 vector, bool has_error, u32 error);
void vmx_want_irq_window(struct vcpu *v, bool on);
void vmx_want_nmi_window(struct vcpu *v, bool on);
void vmx_events_enter(struct vmx_vcpu *vx);          // writes the next event into the VMCS
bool vmx_events_keep_vectoring(struct vmx_vcpu *vx); // true when a delivery was cut short
void vmx_events_changed(struct vmx_vcpu *vx); // after event or exception was set from outside
bool vmx_exit_exception(struct vmx_vcpu *vx); // false: not one that is looked at
// msr.c
int vmx_msr_init(void);
extern u64 vmx_msr_bitmap_pa, vmx_level_msr_bitmap_pa; // the other is for guests on a CPU level
int vmx_get_msr(struct vcpu *v, u32 index, u64 *value);
int vmx_set_msr(struct vcpu *v, u32 index, u64 value);
void vmx_lazy_load(const struct vmx_lazy *l);
void vmx_lazy_save(struct vmx_lazy *l);
// state.c, segments.c
void vmx_get_state(struct vcpu *v, struct vcpu_state *s);
int vmx_set_state(struct vcpu *v, const struct vcpu_state *s);
const char *vmx_check_state_op(struct vcpu *v, const struct vcpu_state *s);
void vmx_segment_read(enum seg i, struct segment *out);
void vmx_segment_write(enum seg i, const struct segment *s);
// ept.c
int vmx_guest_create(struct guest *g);
void vmx_guest_destroy(struct guest *g);
int vmx_map_large(struct guest *g, u64 gpa, u64 hpa);
bool vmx_has_pml(void);
int vmx_dirty_start(struct guest *g, bool pml);
void vmx_dirty_rearm(struct guest *g, u64 gpa);
void vmx_dirty_stop(struct guest *g);
// pml.c
void vmx_pml_drain(struct vmx_vcpu *vx); // VMCS current, not in the guest
void vmx_pml_sync(struct vmx_vcpu *vx);  // the control follows the log
void vmx_dirty_drain(struct guest *g);
// tlb.c
void vmx_flush_guest(struct guest *g); // INVEPT everywhere, complete on return
void vmx_flush_ept_here(struct vmx_guest *vg);
void vmx_flush_vpid(u16 vpid);
void vmx_invalidate_guest_tlb(struct vcpu *v);
u16 vmx_vpid_alloc(void); // 0: none left
void vmx_vpid_free(u16 vpid);
void vmx_wait_exit(struct vcpu *v); // until v has been out of the guest once
void vmx_request(struct vmx_vcpu *vx, u32 bits);
// dump.c
void vmx_dump(struct vcpu *v);
const char *vmx_instruction_error(u64 code);

#endif
