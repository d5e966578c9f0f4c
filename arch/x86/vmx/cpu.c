// SPDX-License-Identifier: MIT
// VT-x on one CPU: found, unlocked, switched on and off (SDM 3C 23.6 to 23.8).
#include "arch/x86/vmx/vmx.h"
#include "kernel/lib.h"
#include "kernel/log.h"
#include "kernel/mem.h"

bool vmx_probe(char *why, size_t size)
{
    u32 r[4];
    cpuid(1, 0, r);
    if (!(r[2] & BIT(5))) {
        snprintf(why, size, "this CPU has no VT-x (CPUID.1:ECX.VMX is 0)");
        return false;
    }
    u64 fc = rdmsr(MSR_FEATURE_CONTROL);
    if ((fc & FEATURE_CONTROL_LOCK) && !(fc & FEATURE_CONTROL_VMXON)) {
        snprintf(why, size,
                 "VT-x is locked off by firmware: switch \"Intel Virtualization Technology\" on in "
                 "its setup");
        return false;
    }
    return vmx_caps_find(why, size);
}

static u64 region_alloc(void)
{
    u64 pa = page_alloc_zero(0);
    if (pa)
        *(u32 *)phys_ptr(pa) = vmx_caps.revision; // SDM 3C 24.2, 24.11.5
    return pa;
}

static bool vmxon(u64 pa)
{
    bool failed;
    __asm__ volatile("vmxon %1" : "=@ccbe"(failed) : "m"(pa) : "memory");
    return !failed;
}

int vmx_cpu_enable(void)
{
    struct vmx_cpu *c = kzalloc(sizeof *c);
    u64 pa = region_alloc();
    if (!c || !pa) {
        kfree(c);
        if (pa)
            page_free(pa, 0);
        return E_NOMEM;
    }
    u64 fc = rdmsr(MSR_FEATURE_CONTROL);
    if (!(fc & FEATURE_CONTROL_LOCK))
        wrmsr(MSR_FEATURE_CONTROL, fc | FEATURE_CONTROL_LOCK | FEATURE_CONTROL_VMXON);
    write_cr0((read_cr0() | rdmsr(MSR_VMX_CR0_FIXED0)) & rdmsr(MSR_VMX_CR0_FIXED1));
    write_cr4((read_cr4() | rdmsr(MSR_VMX_CR4_FIXED0)) & rdmsr(MSR_VMX_CR4_FIXED1));
    if (!vmxon(pa)) {
        log_error("vmx", "VMXON failed on CPU %u (revision %x, feature control %llx)",
                  this_cpu()->index, vmx_caps.revision, (unsigned long long)fc);
        write_cr4(read_cr4() & ~CR4_VMXE);
        page_free(pa, 0);
        kfree(c);
        return E_NOSUP;
    }
    c->vmxon_pa = pa;
    this_cpu()->backend = c;
    return vmx_msr_init();
}

// Called on the way to a reset: nothing is freed, and a vCPU may still be loaded.
void vmx_cpu_disable(void)
{
    struct vmx_cpu *c = vmx_this_cpu();
    if (!c)
        return;
    if (c->current)
        vmx_vmclear(c->current->vmcs_pa);
    c->current = NULL;
    __asm__ volatile("vmxoff" : : : "cc", "memory");
    write_cr4(read_cr4() & ~CR4_VMXE);
    this_cpu()->backend = NULL;
}

void vmx_vmptrld(u64 vmcs_pa)
{
    bool failed;
    __asm__ volatile("vmptrld %1" : "=@ccbe"(failed) : "m"(vmcs_pa) : "memory");
    assert(!failed);
}

void vmx_vmclear(u64 vmcs_pa)
{
    bool failed;
    __asm__ volatile("vmclear %1" : "=@ccbe"(failed) : "m"(vmcs_pa) : "memory");
    assert(!failed);
}
