// SPDX-License-Identifier: MIT
// A vCPU's VMCS: made, bound to the CPU its thread runs on, given back (SDM 3C 24.11).
#include "arch/x86/vmx/vmx.h"
#include "kernel/lib.h"
#include "kernel/mem.h"

static int alloc_pages(struct vmx_vcpu *vx)
{
    vx->vmcs_pa = page_alloc_zero(0);
    if (!vx->vmcs_pa)
        return E_NOMEM;
    *(u32 *)phys_ptr(vx->vmcs_pa) = vmx_caps.revision;
    if (!vmx_caps.pml)
        return 0;
    u64 pml = page_alloc_zero(0);
    vx->pml = pml ? phys_ptr(pml) : NULL;
    return pml ? 0 : E_NOMEM;
}

static void free_vcpu(struct vmx_vcpu *vx)
{
    if (vx->vpid)
        vmx_vpid_free(vx->vpid);
    if (vx->pml)
        page_free(ptr_phys(vx->pml), 0);
    if (vx->vmcs_pa)
        page_free(vx->vmcs_pa, 0);
    kfree(vx);
}

int vmx_vcpu_create(struct vcpu *v)
{
    struct vmx_vcpu *vx = kzalloc(sizeof *vx);
    if (!vx)
        return E_NOMEM;
    vx->v = v;
    vx->vg = v->guest->backend;
    vx->vpid = vmx_vpid_alloc();
    if (!vx->vpid || alloc_pages(vx) < 0) {
        free_vcpu(vx);
        return E_NOMEM;
    }
    vx->host_cpu = ~0u;
    vx->proc = vmx_caps.proc;
    vx->proc2 = vmx_caps.proc2;
    vx->cr4_allowed = vmx_cr4_allowed(v->guest);
    vx->lazy.dr6 = DR6_INIT;
    if (vx->vg->np.logging == NP_LOG_DIRTY_FLAGS)
        vx->requests = VMX_REQ_PML;
    vmx_vmclear(vx->vmcs_pa); // SDM 3C 24.11.3: before the first VMPTRLD
    struct vmx_vcpu *before = vmx_access_begin(vx);
    vmx_vmcs_init(vx);
    vmx_access_end(vx, before);
    vx->vg->vcpus++;
    v->backend = vx;
    return 0;
}

void vmx_vcpu_destroy(struct vcpu *v)
{
    struct vmx_vcpu *vx = vmx_of(v);
    if (!vx)
        return;
    assert(!vmx_is_loaded(vx) && !v->in_guest);
    ktimer_cancel(&vx->slice);
    vx->vg->vcpus--;
    free_vcpu(vx);
    v->backend = NULL;
}

void vmx_proc_bit(struct vmx_vcpu *vx, u32 bit, bool on)
{
    u32 proc = on ? vx->proc | bit : vx->proc & ~bit;
    if (proc == vx->proc)
        return;
    vx->proc = proc;
    vmwrite(VMCS_PROC_CONTROLS, proc);
}

struct vmx_vcpu *vmx_access_begin_slow(struct vmx_vcpu *vx)
{
    struct vmx_vcpu *before = vmx_this_cpu()->current;
    vmx_vmptrld(vx->vmcs_pa);
    return before;
}

void vmx_access_end_slow(struct vmx_vcpu *vx, struct vmx_vcpu *before)
{
    vmx_vmclear(vx->vmcs_pa);
    vx->launched = 0;
    if (before)
        vmx_vmptrld(before->vmcs_pa);
}

void vmx_vcpu_load(struct vcpu *v)
{
    struct vmx_vcpu *vx = vmx_of(v);
    struct vmx_cpu *c = vmx_this_cpu();
    assert(!c->current);
    u64 flags = irq_save();
    vmx_vmptrld(vx->vmcs_pa);
    c->current = vx;
    if (vx->host_cpu != this_cpu()->index) {
        // New here, or back after another CPU: translations under this VPID may be old.
        vmx_host_state_write();
        vmx_flush_vpid(vx->vpid);
        vx->host_cpu = this_cpu()->index;
    }
    vmx_lazy_load(&vx->lazy);
    v->cpu = this_cpu()->index;
    irq_restore(flags);
}

void vmx_vcpu_put(struct vcpu *v)
{
    struct vmx_vcpu *vx = vmx_of(v);
    assert(vmx_is_loaded(vx));
    u64 flags = irq_save();
    vmx_lazy_save(&vx->lazy);
    vmx_vmclear(vx->vmcs_pa);
    vx->launched = 0;
    vmx_this_cpu()->current = NULL;
    if (!vmx_caps.preemption_timer) {
        ktimer_cancel(&vx->slice);
        vx->slice_deadline = 0;
    }
    irq_restore(flags);
}
