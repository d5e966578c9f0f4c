// SPDX-License-Identifier: MIT
// The AMD-V backend's operations, and the small ones among them.
#include "arch/x86/svm/svm.h"

static u64 get_rip(struct vcpu *v)
{
    return svm_of(v)->vmcb->rip;
}
static void set_rip(struct vcpu *v, u64 rip)
{
    svm_of(v)->vmcb->rip = rip;
}
static u64 get_rsp(struct vcpu *v)
{
    return svm_of(v)->vmcb->rsp;
}
static void set_rsp(struct vcpu *v, u64 rsp)
{
    svm_of(v)->vmcb->rsp = rsp;
}
static void get_seg(struct vcpu *v, enum seg s, struct segment *out)
{
    svm_segment_read(svm_of(v), s, out);
}

static void put(u64 *out, u64 value)
{
    if (out)
        *out = value;
}

// A NULL pointer: not wanted.
static void get_paging(struct vcpu *v, u64 *cr0, u64 *cr3, u64 *cr4, u64 *efer, u64 *rflags)
{
    const struct svm_vcpu *sv = svm_of(v);
    put(cr0, sv->vmcb->cr0);
    put(cr3, sv->vmcb->cr3);
    put(cr4, sv->cr4);
    put(efer, sv->vmcb->efer & ~EFER_SVME);
    put(rflags, svm_rflags(sv));
}

// The hardware has 8 integer and 32 fractional bits (APM 2 15.30.5); scale has 48 of these.
static u64 tsc_scale_max(void)
{
    return svm_caps.tsc_scaling ? (1ull << 56) - 1 : 0;
}

static void set_tsc(struct vcpu *v, u64 scale, u64 offset, bool exits)
{
    struct svm_vcpu *sv = svm_of(v);
    sv->vmcb->tsc_offset = offset;
    sv->tsc_ratio = scale >> 16;
    vmcb_intercept(sv->vmcb, SVM_EXIT_RDTSC, exits);
    vmcb_intercept(sv->vmcb, SVM_EXIT_RDTSCP, exits || !svm_caps.rdtscp);
    if (svm_caps.tsc_scaling && svm_is_loaded(sv))
        wrmsr(MSR_TSC_RATIO, sv->tsc_ratio);
}

const struct backend_ops svm_backend = {
    .name = "svm",
    .probe = svm_probe,
    .cpu_enable = svm_cpu_enable,
    .cpu_disable = svm_cpu_disable,
    .guest_create = svm_guest_create,
    .guest_destroy = svm_guest_destroy,
    .map_large = svm_map_large,
    .has_pml = svm_has_pml,
    .dirty_start = svm_dirty_start,
    .dirty_rearm = svm_dirty_rearm,
    .dirty_flush = svm_flush_guest,
    .dirty_drain = svm_dirty_drain,
    .dirty_stop = svm_dirty_stop,
    .vcpu_create = svm_vcpu_create,
    .vcpu_destroy = svm_vcpu_destroy,
    .vcpu_load = svm_vcpu_load,
    .vcpu_put = svm_vcpu_put,
    .vcpu_run = svm_vcpu_run,
    .get_state = svm_get_state,
    .set_state = svm_set_state,
    .check_state = svm_check_state,
    .get_rip = get_rip,
    .set_rip = set_rip,
    .skip_insn = svm_skip_insn,
    .get_seg = get_seg,
    .get_paging = get_paging,
    .get_rsp = get_rsp,
    .set_rsp = set_rsp,
    .can_inject_irq = svm_can_inject_irq,
    .can_inject_nmi = svm_can_inject_nmi,
    .inject_irq = svm_inject_irq,
    .inject_nmi = svm_inject_nmi,
    .inject_exception = svm_inject_exception,
    .want_irq_window = svm_want_irq_window,
    .want_nmi_window = svm_want_nmi_window,
    .get_msr = svm_get_msr,
    .set_msr = svm_set_msr,
    .tsc_scale_max = tsc_scale_max,
    .set_tsc = set_tsc,
    .invalidate_guest_tlb = svm_invalidate_guest_tlb,
    .dump = svm_dump,
};
