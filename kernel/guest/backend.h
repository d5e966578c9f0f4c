// SPDX-License-Identifier: MIT
// What a vendor backend (arch/x86/vmx, arch/x86/svm) gives the rest. Chosen once at boot.
#ifndef SKIFF_GUEST_BACKEND_H
#define SKIFF_GUEST_BACKEND_H

#include "kernel/guest/exit.h"
#include "kernel/guest/vcpu_state.h"
#include "kernel/types.h"

struct guest;
struct vcpu;

struct backend_ops {
    const char *name; // "vmx", "svm"
    // True when this CPU has it. When false because firmware locked it off or a control is
    // missing, why gets one sentence.
    bool (*probe)(char *why, size_t size);
    int (*cpu_enable)(void);   // VMXON on this CPU
    void (*cpu_disable)(void); // before reboot and power-off

    // Guest address space: guest->backend is the backend's.
    int (*guest_create)(struct guest *g);
    void (*guest_destroy)(struct guest *g);
    int (*map_large)(struct guest *g, u64 gpa, u64 hpa); // 2 MiB, WB, RWX; 0 or E_NOMEM

    // Dirty logging (design rule 8). All from thread context.
    bool (*has_pml)(void);
    int (*dirty_start)(struct guest *g,
                       bool pml); // clear W at the top, flush; 0 or E_NOMEM/E_NOSUP
    void (*dirty_rearm)(struct guest *g, u64 gpa); // page is clean again: clear D, or W
    void (*dirty_flush)(struct guest *g);          // shoot down on every CPU; complete on return
    void (*dirty_drain)(struct guest *g);          // empties every vCPU's PML buffer into the log
    void (*dirty_stop)(struct guest *g);           // give write permission back, merge, flush

    // vCPU. vcpu->backend is the backend's. load/put bind to the current CPU (VMPTRLD, VMCLEAR).
    int (*vcpu_create)(struct vcpu *v);
    void (*vcpu_destroy)(struct vcpu *v);
    void (*vcpu_load)(struct vcpu *v);
    void (*vcpu_put)(struct vcpu *v);
    // Enters the guest until an exit the generic code must see; called with interrupts on, from the
    // vCPU's thread. v->gpr holds RAX..R15 (RSP is in the backend). Leaves at the latest at host
    // TSC value deadline_tsc, and at once when v->kick is set (checked with interrupts off).
    // The event that was cut short (vectoring) is kept inside and delivered at the next entry.
    void (*vcpu_run)(struct vcpu *v, u64 deadline_tsc, struct vm_exit *x);

    // State in and out while the vCPU is not running (GPRs included; XSAVE area, activity and
    // software-modelled MSRs are the generic code's).
    void (*get_state)(struct vcpu *v, struct vcpu_state *s);
    int (*set_state)(struct vcpu *v, const struct vcpu_state *s); // E_INVAL when not enterable
    // NULL when set_state would take it, else one sentence that says which register is wrong.
    const char *(*check_state)(struct vcpu *v, const struct vcpu_state *s);
    // Single registers for exit handlers.
    u64 (*get_rip)(struct vcpu *v);
    void (*set_rip)(struct vcpu *v, u64 rip);
    void (*skip_insn)(struct vcpu *v,
                      u32 len); // RIP += len, ends STI/MOV-SS shadows; handles #DB/TF
    void (*get_seg)(struct vcpu *v, enum seg s, struct segment *out);
    void (*get_paging)(struct vcpu *v, u64 *cr0, u64 *cr3, u64 *cr4, u64 *efer, u64 *rflags);
    u64 (*get_rsp)(struct vcpu *v);
    void (*set_rsp)(struct vcpu *v, u64 rsp);

    // Events. can_inject_irq: IF set, no shadow, nothing being injected.
    bool (*can_inject_irq)(struct vcpu *v);
    bool (*can_inject_nmi)(struct vcpu *v);
    void (*inject_irq)(struct vcpu *v, u8 vector);
    void (*inject_nmi)(struct vcpu *v);
    void (*inject_exception)(struct vcpu *v, u8 vector, bool has_error, u32 error);
    void (*want_irq_window)(struct vcpu *v, bool on);
    void (*want_nmi_window)(struct vcpu *v, bool on);

    // MSRs the hardware switches or holds in its control block (EFER, SYSENTER, FS/GS base, PAT,
    // STAR...). Return 0, E_NOENT when not the backend's, E_INVAL for a value that raises #GP.
    int (*get_msr)(struct vcpu *v, u32 index, u64 *value);
    int (*set_msr)(struct vcpu *v, u32 index, u64 value);

    // Guest TSC = host TSC * scale + offset (kernel/guest/clock.h sets both). scale 1<<48 is 1.0.
    // The largest scale the hardware can do; 0 without scaling, when scale is always 1.0.
    u64 (*tsc_scale_max)(void);
    // exits: RDTSC and RDTSCP come out as EXIT_RDTSC.
    void (*set_tsc)(struct vcpu *v, u64 scale, u64 offset, bool exits);
    void (*invalidate_guest_tlb)(struct vcpu *v);
    void (*dump)(struct vcpu *v); // everything, to the log
};

extern const struct backend_ops vmx_backend, svm_backend;
extern const struct backend_ops *backend; // the chosen one; NULL: no guests on this host
extern char backend_missing[160];         // why it is NULL

// Tries the backends in order and enables the one found on the boot CPU. Returns 0 or E_NOSUP.
int backend_init(void);

#endif
