// SPDX-License-Identifier: MIT
// MSRs that the hardware holds for the guest, and the bitmap of those it may touch by itself.
#include "arch/x86/vmx/vmx.h"
#include "arch/x86/vmx/state_check.h"
#include "kernel/lib.h"
#include "kernel/mem.h"

u64 vmx_msr_bitmap_pa, vmx_level_msr_bitmap_pa;

enum { READ = 1, WRITE = 2 };
static const struct {
    u32 msr;
    u8 access;
} direct[] = {
    {MSR_SYSENTER_CS, READ | WRITE},
    {MSR_SYSENTER_ESP, READ | WRITE},
    {MSR_SYSENTER_EIP, READ | WRITE},
    {MSR_PAT, READ},
    {MSR_EFER, READ},
    {MSR_STAR, READ | WRITE},
    {MSR_LSTAR, READ | WRITE},
    {MSR_CSTAR, READ | WRITE},
    {MSR_SFMASK, READ | WRITE},
    {MSR_FS_BASE, READ | WRITE},
    {MSR_GS_BASE, READ | WRITE},
    {MSR_KERNEL_GS_BASE, READ | WRITE},
};

// SDM 3C 24.6.9: four 1 KiB maps, a set bit exits.
static void allow(u8 *map, u32 msr, u8 access)
{
    u32 high = msr >= 0xc0000000 ? 1024 : 0, n = msr & 0x1fff;
    if (access & READ)
        map[high + n / 8] &= ~(1u << n % 8);
    if (access & WRITE)
        map[2048 + high + n / 8] &= ~(1u << n % 8);
}

static u64 bitmap_new(bool level)
{
    u64 pa = page_alloc(0);
    if (!pa)
        return 0;
    u8 *map = phys_ptr(pa);
    memset(map, 0xff, PAGE_SIZE);
    for (size_t i = 0; i < ARRAY_SIZE(direct); i++)
        allow(map, direct[i].msr, direct[i].access);
    if (vmx_caps.rdtscp)
        allow(map, MSR_TSC_AUX, READ | WRITE);
    if (vmx_caps.spec_ctrl && !level) // no CPU level shows it
        allow(map, MSR_SPEC_CTRL, READ | WRITE);
    return pa;
}

int vmx_msr_init(void)
{
    if (vmx_level_msr_bitmap_pa)
        return 0;
    vmx_msr_bitmap_pa = bitmap_new(false);
    vmx_level_msr_bitmap_pa = bitmap_new(true);
    return vmx_msr_bitmap_pa && vmx_level_msr_bitmap_pa ? 0 : E_NOMEM; // at boot: no guests then
}

// The host makes no system calls, has one GS base and no use for TSC_AUX: these are the guest's for
// as long as it is loaded.
void vmx_lazy_load(const struct vmx_lazy *l)
{
    wrmsr(MSR_STAR, l->star);
    wrmsr(MSR_LSTAR, l->lstar);
    wrmsr(MSR_CSTAR, l->cstar);
    wrmsr(MSR_SFMASK, l->sfmask);
    wrmsr(MSR_KERNEL_GS_BASE, l->kernel_gs_base);
    if (vmx_caps.rdtscp)
        wrmsr(MSR_TSC_AUX, l->tsc_aux);
    if (vmx_caps.spec_ctrl)
        wrmsr(MSR_SPEC_CTRL, l->spec_ctrl);
    __asm__ volatile("mov %0, %%cr2" : : "r"(l->cr2));
    __asm__ volatile("mov %0, %%dr0" : : "r"(l->dr[0]));
    __asm__ volatile("mov %0, %%dr1" : : "r"(l->dr[1]));
    __asm__ volatile("mov %0, %%dr2" : : "r"(l->dr[2]));
    __asm__ volatile("mov %0, %%dr3" : : "r"(l->dr[3]));
    __asm__ volatile("mov %0, %%dr6" : : "r"(l->dr6));
}

void vmx_lazy_save(struct vmx_lazy *l)
{
    l->star = rdmsr(MSR_STAR);
    l->lstar = rdmsr(MSR_LSTAR);
    l->cstar = rdmsr(MSR_CSTAR);
    l->sfmask = rdmsr(MSR_SFMASK);
    l->kernel_gs_base = rdmsr(MSR_KERNEL_GS_BASE);
    if (vmx_caps.rdtscp)
        l->tsc_aux = rdmsr(MSR_TSC_AUX);
    if (vmx_caps.spec_ctrl) {
        l->spec_ctrl = rdmsr(MSR_SPEC_CTRL);
        wrmsr(MSR_SPEC_CTRL, 0);
    }
    __asm__ volatile("mov %%cr2, %0" : "=r"(l->cr2));
    __asm__ volatile("mov %%dr0, %0" : "=r"(l->dr[0]));
    __asm__ volatile("mov %%dr1, %0" : "=r"(l->dr[1]));
    __asm__ volatile("mov %%dr2, %0" : "=r"(l->dr[2]));
    __asm__ volatile("mov %%dr3, %0" : "=r"(l->dr[3]));
    __asm__ volatile("mov %%dr6, %0" : "=r"(l->dr6));
}

static u64 *lazy_msr(struct vmx_lazy *l, u32 index)
{
    switch (index) {
    case MSR_STAR:
        return &l->star;
    case MSR_LSTAR:
        return &l->lstar;
    case MSR_CSTAR:
        return &l->cstar;
    case MSR_SFMASK:
        return &l->sfmask;
    case MSR_KERNEL_GS_BASE:
        return &l->kernel_gs_base;
    case MSR_TSC_AUX:
        return vmx_caps.rdtscp ? &l->tsc_aux : NULL;
    case MSR_SPEC_CTRL:
        return vmx_caps.spec_ctrl ? &l->spec_ctrl : NULL;
    }
    return NULL;
}

// VMCS field of an MSR, 0 when it has none (0 is the VPID's encoding).
static u32 msr_field(u32 index)
{
    switch (index) {
    case MSR_EFER:
        return VMCS_GUEST_EFER;
    case MSR_PAT:
        return VMCS_GUEST_PAT;
    case MSR_FS_BASE:
        return VMCS_GUEST_BASE + 2 * SEG_FS;
    case MSR_GS_BASE:
        return VMCS_GUEST_BASE + 2 * SEG_GS;
    case MSR_SYSENTER_CS:
        return VMCS_GUEST_SYSENTER_CS;
    case MSR_SYSENTER_ESP:
        return VMCS_GUEST_SYSENTER_ESP;
    case MSR_SYSENTER_EIP:
        return VMCS_GUEST_SYSENTER_EIP;
    case MSR_DEBUGCTL:
        return VMCS_GUEST_DEBUGCTL;
    }
    return 0;
}

int vmx_get_msr(struct vcpu *v, u32 index, u64 *value)
{
    struct vmx_vcpu *vx = vmx_of(v);
    u64 *lazy = lazy_msr(&vx->lazy, index);
    u32 field = msr_field(index);
    if (lazy) {
        *value = vmx_is_loaded(vx) ? rdmsr(index) : *lazy;
        return 0;
    }
    if (!field)
        return E_NOENT;
    struct vmx_vcpu *before = vmx_access_begin(vx);
    *value = vmread(field);
    vmx_access_end(vx, before);
    return 0;
}

static bool value_ok(u32 index, u64 value)
{
    switch (index) {
    case MSR_LSTAR:
    case MSR_CSTAR:
    case MSR_KERNEL_GS_BASE:
    case MSR_FS_BASE:
    case MSR_GS_BASE:
    case MSR_SYSENTER_ESP:
    case MSR_SYSENTER_EIP:
        return vmx_canonical(value);
    case MSR_SFMASK:
    case MSR_TSC_AUX:
    case MSR_SYSENTER_CS:
        return value >> 32 == 0;
    case MSR_SPEC_CTRL:
        return !(value & ~vmx_caps.spec_ctrl_bits);
    case MSR_PAT:
        return vmx_pat_ok(value);
    case MSR_DEBUGCTL:
        return !(value & ~DEBUGCTL_BTF);
    }
    return true;
}

// SDM 3A 2.2.1: LMA is read-only and LME is fixed while paging is on.
static int efer_set(struct vmx_vcpu *vx, u64 value)
{
    u64 old = vmread(VMCS_GUEST_EFER);
    u64 writable = EFER_SCE | EFER_LME | (host_features.nx ? EFER_NXE : 0);
    if (value & ~(writable | EFER_LMA))
        return E_INVAL;
    if (((old ^ value) & EFER_LME) && (vmx_cr0_get() & CR0_PG))
        return E_INVAL;
    vmwrite(VMCS_GUEST_EFER, (value & writable) | (old & EFER_LMA));
    if ((old ^ value) & EFER_NXE)
        vmx_request(vx, VMX_REQ_TLB);
    return 0;
}

int vmx_set_msr(struct vcpu *v, u32 index, u64 value)
{
    struct vmx_vcpu *vx = vmx_of(v);
    u64 *lazy = lazy_msr(&vx->lazy, index);
    u32 field = msr_field(index);
    if (!lazy && !field)
        return E_NOENT;
    if (!value_ok(index, value))
        return E_INVAL;
    if (lazy) {
        *lazy = value;
        if (vmx_is_loaded(vx))
            wrmsr(index, value);
        return 0;
    }
    int result = 0;
    struct vmx_vcpu *before = vmx_access_begin(vx);
    if (index == MSR_EFER)
        result = efer_set(vx, value);
    else
        vmwrite(field, value);
    vmx_access_end(vx, before);
    return result;
}
