// SPDX-License-Identifier: MIT
// The Intel VT-x backend's operations, and the small ones among them.
#include "arch/x86/vmx/vmx.h"
#include "kernel/lib.h"

static u64 field_get(struct vcpu *v, u32 field)
{
    struct vmx_vcpu *vx = vmx_of(v);
    struct vmx_vcpu *before = vmx_access_begin(vx);
    u64 value = vmread(field);
    vmx_access_end(vx, before);
    return value;
}

static void field_set(struct vcpu *v, u32 field, u64 value)
{
    struct vmx_vcpu *vx = vmx_of(v);
    struct vmx_vcpu *before = vmx_access_begin(vx);
    vmwrite(field, value);
    vmx_access_end(vx, before);
}

static u64 get_rip(struct vcpu *v)
{
    return field_get(v, VMCS_GUEST_RIP);
}
static void set_rip(struct vcpu *v, u64 rip)
{
    field_set(v, VMCS_GUEST_RIP, rip);
}
static u64 get_rsp(struct vcpu *v)
{
    return field_get(v, VMCS_GUEST_RSP);
}
static void set_rsp(struct vcpu *v, u64 rsp)
{
    field_set(v, VMCS_GUEST_RSP, rsp);
}

static void get_seg(struct vcpu *v, enum seg s, struct segment *out)
{
    struct vmx_vcpu *vx = vmx_of(v);
    struct vmx_vcpu *before = vmx_access_begin(vx);
    vmx_segment_read(s, out);
    vmx_access_end(vx, before);
}

static void put(u64 *out, u64 value)
{
    if (out)
        *out = value;
}

// A NULL pointer: not wanted.
static void get_paging(struct vcpu *v, u64 *cr0, u64 *cr3, u64 *cr4, u64 *efer, u64 *rflags)
{
    struct vmx_vcpu *vx = vmx_of(v);
    struct vmx_vcpu *before = vmx_access_begin(vx);
    put(cr0, vmx_cr0_get());
    put(cr3, vmread(VMCS_GUEST_CR3));
    put(cr4, vmx_cr4_get());
    put(efer, vmread(VMCS_GUEST_EFER));
    put(rflags, vmread(VMCS_GUEST_RFLAGS));
    vmx_access_end(vx, before);
}

// The hardware has 16 integer and 48 fractional bits (SDM 3C 24.6.5).
static u64 tsc_scale_max(void)
{
    return vmx_caps.tsc_scaling ? ~0ull : 0;
}

static void set_tsc(struct vcpu *v, u64 scale, u64 offset, bool exits)
{
    struct vmx_vcpu *vx = vmx_of(v);
    struct vmx_vcpu *before = vmx_access_begin(vx);
    vmwrite(VMCS_TSC_OFFSET, offset);
    if (vmx_caps.tsc_scaling)
        vmwrite(VMCS_TSC_MULTIPLIER, scale);
    vmx_proc_bit(vx, PROC_RDTSC_EXITING, exits);
    vmx_access_end(vx, before);
}

const struct backend_ops vmx_backend = {
    .name = "vmx",
    .probe = vmx_probe,
    .cpu_enable = vmx_cpu_enable,
    .cpu_disable = vmx_cpu_disable,
    .guest_create = vmx_guest_create,
    .guest_destroy = vmx_guest_destroy,
    .map_large = vmx_map_large,
    .has_pml = vmx_has_pml,
    .dirty_start = vmx_dirty_start,
    .dirty_rearm = vmx_dirty_rearm,
    .dirty_flush = vmx_flush_guest,
    .dirty_drain = vmx_dirty_drain,
    .dirty_stop = vmx_dirty_stop,
    .vcpu_create = vmx_vcpu_create,
    .vcpu_destroy = vmx_vcpu_destroy,
    .vcpu_load = vmx_vcpu_load,
    .vcpu_put = vmx_vcpu_put,
    .vcpu_run = vmx_vcpu_run,
    .get_state = vmx_get_state,
    .set_state = vmx_set_state,
    .check_state = vmx_check_state_op,
    .get_rip = get_rip,
    .set_rip = set_rip,
    .skip_insn = vmx_skip_insn,
    .get_seg = get_seg,
    .get_paging = get_paging,
    .get_rsp = get_rsp,
    .set_rsp = set_rsp,
    .can_inject_irq = vmx_can_inject_irq,
    .can_inject_nmi = vmx_can_inject_nmi,
    .inject_irq = vmx_inject_irq,
    .inject_nmi = vmx_inject_nmi,
    .inject_exception = vmx_inject_exception,
    .want_irq_window = vmx_want_irq_window,
    .want_nmi_window = vmx_want_nmi_window,
    .get_msr = vmx_get_msr,
    .set_msr = vmx_set_msr,
    .tsc_scale_max = tsc_scale_max,
    .set_tsc = set_tsc,
    .invalidate_guest_tlb = vmx_invalidate_guest_tlb,
    .dump = vmx_dump,
};
