// SPDX-License-Identifier: MIT
// First contents of a VMCS, and the host state each CPU puts into it (SDM 3C 24.4 to 24.8).
#include "arch/x86/vmx/vmx.h"
#include "kernel/lib.h"

struct __attribute__((packed)) table_register {
    u16 limit;
    u64 base;
};
static_assert(sizeof(struct table_register) == 10, "SDM 3A 2.4");

static u64 tss_base(u64 gdt, u16 selector)
{
    const u32 *d = (const u32 *)(uintptr_t)(gdt + selector); // SDM 3A 7.2.3, 64-bit descriptor
    return (d[0] >> 16) | (u64)(d[1] & 0xff) << 16 | (d[1] & 0xff000000u) | (u64)d[2] << 32;
}

// VM entry wants selectors without RPL and TI (SDM 3C 26.2.3).
#define WRITE_HOST_SELECTOR(field, reg)                                                            \
    do {                                                                                           \
        u16 _s;                                                                                    \
        __asm__("mov %%" reg ", %0" : "=r"(_s));                                                   \
        vmwrite(field, _s & ~7u);                                                                  \
    } while (0)

static void host_tables_write(void)
{
    struct table_register gdtr, idtr;
    u16 tr;
    __asm__ volatile("sgdt %0" : "=m"(gdtr));
    __asm__ volatile("sidt %0" : "=m"(idtr));
    __asm__ volatile("str %0" : "=r"(tr));
    vmwrite(VMCS_HOST_TR, tr & ~7u);
    vmwrite(VMCS_HOST_TR_BASE, tss_base(gdtr.base, tr & ~7u));
    vmwrite(VMCS_HOST_GDTR_BASE, gdtr.base);
    vmwrite(VMCS_HOST_IDTR_BASE, idtr.base);
}

// For the CPU this runs on.
void vmx_host_state_write(void)
{
    vmwrite(VMCS_HOST_CR0, read_cr0());
    vmwrite(VMCS_HOST_CR3, read_cr3());
    vmwrite(VMCS_HOST_CR4, read_cr4());
    WRITE_HOST_SELECTOR(VMCS_HOST_ES, "es");
    WRITE_HOST_SELECTOR(VMCS_HOST_CS, "cs");
    WRITE_HOST_SELECTOR(VMCS_HOST_SS, "ss");
    WRITE_HOST_SELECTOR(VMCS_HOST_DS, "ds");
    WRITE_HOST_SELECTOR(VMCS_HOST_FS, "fs");
    WRITE_HOST_SELECTOR(VMCS_HOST_GS, "gs");
    host_tables_write();
    vmwrite(VMCS_HOST_FS_BASE, rdmsr(MSR_FS_BASE));
    vmwrite(VMCS_HOST_GS_BASE, rdmsr(MSR_GS_BASE));
    vmwrite(VMCS_HOST_EFER, rdmsr(MSR_EFER));
    vmwrite(VMCS_HOST_PAT, rdmsr(MSR_PAT));
    vmwrite(VMCS_HOST_SYSENTER_CS, 0); // the host makes no system calls
    vmwrite(VMCS_HOST_SYSENTER_ESP, 0);
    vmwrite(VMCS_HOST_SYSENTER_EIP, 0);
    vmwrite(VMCS_HOST_RIP, (u64)(uintptr_t)vmx_exit_entry);
}

// A guest's kernel that spins for longer than a lock is held by a vCPU that runs, in TSC ticks,
// waits for one that does not: PAUSEs not further apart than the gap are one loop (SDM 3C 25.1.3).
#define PLE_GAP    512
#define PLE_WINDOW 32768

static void init_controls(struct vmx_vcpu *vx)
{
    vmwrite(VMCS_PIN_CONTROLS, vmx_caps.pin);
    vmwrite(VMCS_PROC_CONTROLS, vx->proc);
    vmwrite(VMCS_PROC2_CONTROLS, vx->proc2);
    if (vx->proc2 & PROC2_PAUSE_LOOP) {
        vmwrite(VMCS_PLE_GAP, PLE_GAP);
        vmwrite(VMCS_PLE_WINDOW, PLE_WINDOW);
    }
    vmwrite(VMCS_EXIT_CONTROLS, vmx_caps.exit);
    vmwrite(VMCS_ENTRY_CONTROLS, vmx_caps.entry);
    // Machine checks are the host's. #DB and #AC can be raised again by their own delivery, without
    // end and without an interrupt getting through, so they are looked at and passed on.
    vmwrite(VMCS_EXCEPTION_BITMAP, BIT(VECTOR_MC) | BIT(VECTOR_DB) | BIT(VECTOR_AC));
    vmwrite(VMCS_PF_MASK, 0);
    vmwrite(VMCS_PF_MATCH, 0);
    vmwrite(VMCS_CR3_TARGET_COUNT, 0);
    vmwrite(VMCS_EXIT_MSR_STORE_COUNT, 0);
    vmwrite(VMCS_EXIT_MSR_LOAD_COUNT, 0);
    vmwrite(VMCS_ENTRY_MSR_LOAD_COUNT, 0);
    vmwrite(VMCS_ENTRY_INTERRUPTION, 0);
}

static void init_memory(struct vmx_vcpu *vx)
{
    vmwrite(VMCS_VPID, vx->vpid);
    vmwrite(VMCS_EPTP, vx->vg->eptp);
    bool level = vx->v->guest->config.cpu != CPU_HOST;
    vmwrite(VMCS_MSR_BITMAP, level ? vmx_level_msr_bitmap_pa : vmx_msr_bitmap_pa);
    vmwrite(VMCS_LINK_POINTER, ~0ull);
    vmwrite(VMCS_TSC_OFFSET, 0);
    if (vmx_caps.tsc_scaling)
        vmwrite(VMCS_TSC_MULTIPLIER, 1ull << 48);
    if (vmx_caps.proc2 & PROC2_ENCLS)
        vmwrite(VMCS_ENCLS_EXITING, ~0ull);
    if (vx->pml) {
        vmwrite(VMCS_PML_ADDRESS, (u64)(uintptr_t)vx->pml);
        vmwrite(VMCS_PML_INDEX, 511);
    }
}

// Power-on registers (SDM 3A table 9-1), so that every field holds something an entry accepts.
static void init_guest(struct vmx_vcpu *vx)
{
    for (int i = 0; i < SEG_COUNT; i++) {
        struct segment s = {.limit = 0xffff, .attr = 0x93};
        if (i == SEG_CS)
            s = (struct segment){
                .base = 0xffff0000, .limit = 0xffff, .selector = 0xf000, .attr = 0x9b};
        if (i == SEG_LDTR)
            s.attr = 0x82;
        if (i == SEG_TR)
            s.attr = 0x8b;
        vmx_segment_write(i, &s);
    }
    vmwrite(VMCS_GUEST_GDTR_BASE, 0);
    vmwrite(VMCS_GUEST_GDTR_LIMIT, 0xffff);
    vmwrite(VMCS_GUEST_IDTR_BASE, 0);
    vmwrite(VMCS_GUEST_IDTR_LIMIT, 0xffff);
    vmwrite(VMCS_CR0_MASK, VMX_CR0_MASK);
    vmx_cr0_write(CR0_CD | CR0_NW | CR0_ET);
    vmx_cr4_write(vx, 0);
    vmwrite(VMCS_GUEST_CR3, 0);
    vmwrite(VMCS_GUEST_DR7, DR7_FIXED1);
    vmwrite(VMCS_GUEST_RSP, 0);
    vmwrite(VMCS_GUEST_RIP, 0xfff0);
    vmwrite(VMCS_GUEST_RFLAGS, RFLAGS_FIXED1);
    vmwrite(VMCS_GUEST_EFER, 0);
    vmwrite(VMCS_GUEST_PAT, 0x0007040600070406ull); // SDM 3A 11.12.4
    vmwrite(VMCS_GUEST_DEBUGCTL, 0);
    vmwrite(VMCS_GUEST_SYSENTER_CS, 0);
    vmwrite(VMCS_GUEST_SYSENTER_ESP, 0);
    vmwrite(VMCS_GUEST_SYSENTER_EIP, 0);
    vmwrite(VMCS_INTERRUPTIBILITY, 0);
    vmwrite(VMCS_ACTIVITY, 0);
    vmwrite(VMCS_PENDING_DEBUG, 0);
    for (int i = 0; i < 4; i++)
        vmwrite(VMCS_GUEST_PDPTE0 + 2 * i, 0);
}

// The VMCS is current. Host state follows at the first load.
void vmx_vmcs_init(struct vmx_vcpu *vx)
{
    init_controls(vx);
    init_memory(vx);
    init_guest(vx);
}
