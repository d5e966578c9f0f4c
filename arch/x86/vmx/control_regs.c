// SPDX-License-Identifier: MIT
// CR0, CR4 and CR8: what the guest sees of them, and its writes to the bits that are not its own
// (SDM 3C 24.6.6, 25.1.3; SDM 3A 2.5).
#include "arch/x86/vmx/vmx.h"
#include "kernel/guest/memory.h"
#include "kernel/lib.h"

// CR4 bits a guest may own, each with the CPUID bit that announces it (leaf 0: always).
static const struct {
    u8 bit;
    u8 leaf;
    u8 reg; // 0 EAX .. 3 EDX
    u8 cpuid_bit;
} cr4_bits[] = {
    {0, 1, 3, 1},   // VME
    {1, 1, 3, 1},   // PVI
    {2, 1, 3, 4},   // TSD
    {3, 1, 3, 2},   // DE
    {4, 1, 3, 3},   // PSE
    {5, 1, 3, 6},   // PAE
    {6, 0, 0, 0},   // MCE: machine checks stay the host's, the bit is only shown
    {7, 1, 3, 13},  // PGE
    {8, 0, 0, 0},   // PCE: RDPMC exits
    {9, 1, 3, 24},  // OSFXSR
    {10, 1, 3, 25}, // OSXMMEXCPT
    {11, 7, 2, 2},  // UMIP
    {16, 7, 1, 0},  // FSGSBASE
    {17, 1, 2, 17}, // PCIDE
    {18, 1, 2, 26}, // OSXSAVE
    {20, 7, 1, 7},  // SMEP
    {21, 7, 1, 20}, // SMAP
    {22, 7, 2, 3},  // PKE
};

static bool guest_has(const struct guest *g, u32 leaf, u32 reg, u32 bit)
{
    for (u32 i = 0; i < g->cpuid_count; i++) {
        const struct cpuid_entry *e = &g->cpuid[i];
        u32 r[4] = {e->eax, e->ebx, e->ecx, e->edx};
        if (e->leaf == leaf && e->sub == 0)
            return r[reg] >> bit & 1;
    }
    return false;
}

u64 vmx_cr4_allowed(const struct guest *g)
{
    u64 allowed = 0;
    for (size_t i = 0; i < ARRAY_SIZE(cr4_bits); i++)
        if (!cr4_bits[i].leaf || g->cpuid_count == 0 ||
            guest_has(g, cr4_bits[i].leaf, cr4_bits[i].reg, cr4_bits[i].cpuid_bit))
            allowed |= BIT(cr4_bits[i].bit);
    return allowed & vmx_caps.cr4_fixed1;
}

// Bits the guest reads from the shadow and exits for when it changes them.
static u64 cr4_mask(const struct vmx_vcpu *vx)
{
    return ~(vx->cr4_allowed & ~CR4_MCE);
}

u64 vmx_cr0_get(void)
{
    return (vmread(VMCS_GUEST_CR0) & ~VMX_CR0_MASK) | (vmread(VMCS_CR0_SHADOW) & VMX_CR0_MASK);
}

u64 vmx_cr4_get(void)
{
    u64 mask = vmread(VMCS_CR4_MASK);
    return (vmread(VMCS_GUEST_CR4) & ~mask) | (vmread(VMCS_CR4_SHADOW) & mask);
}

// CD and NW would stay set in the CPU after an exit, so the guest only believes in them.
void vmx_cr0_write(u64 value)
{
    u64 fixed = vmx_caps.cr0_fixed0 & ~(CR0_PE | CR0_PG); // free in an unrestricted guest
    vmwrite(VMCS_GUEST_CR0, (value & ~(CR0_CD | CR0_NW)) | fixed | CR0_NE | CR0_ET);
    vmwrite(VMCS_CR0_SHADOW, value);
}

void vmx_cr4_write(const struct vmx_vcpu *vx, u64 value)
{
    vmwrite(VMCS_CR4_MASK, cr4_mask(vx));
    vmwrite(VMCS_GUEST_CR4, (value & vx->cr4_allowed) | CR4_VMXE | CR4_MCE);
    vmwrite(VMCS_CR4_SHADOW, value);
}

// SDM 3A 4.4.1: a MOV to CR0 or CR4 that changes how PAE pages loads the four pointers.
static bool pdpte_load(struct vmx_vcpu *vx)
{
    u64 pdpte[4];
    u64 reserved = 0x1e6 | ~(BIT(host_features.phys_bits) - 1);
    if (guest_read(vx->v->guest, vmread(VMCS_GUEST_CR3) & 0xffffffe0, pdpte, sizeof pdpte) < 0)
        return false;
    for (int i = 0; i < 4; i++)
        if ((pdpte[i] & 1) && (pdpte[i] & reserved))
            return false;
    for (int i = 0; i < 4; i++)
        vmwrite(VMCS_GUEST_PDPTE0 + 2 * i, pdpte[i]);
    return true;
}

static bool code_is_64bit(u64 efer)
{
    return (efer & EFER_LMA) && (vmread(VMCS_GUEST_RIGHTS + 2 * SEG_CS) & BIT(13));
}

static bool cr0_allowed(u64 value, u64 cr4, u64 efer)
{
    bool pg = value & CR0_PG;
    if (value >> 32 || (pg && !(value & CR0_PE)) || ((value & CR0_NW) && !(value & CR0_CD)))
        return false;
    if (!pg)
        return !code_is_64bit(efer) && !(cr4 & CR4_PCIDE);
    if (!(efer & EFER_LME) || (efer & EFER_LMA))
        return true;
    // Going to long mode: SDM 3A 9.8.5.
    u64 tr_type = vmread(VMCS_GUEST_RIGHTS + 2 * SEG_TR) & 0xf;
    bool cs_l = vmread(VMCS_GUEST_RIGHTS + 2 * SEG_CS) & BIT(13);
    return (cr4 & CR4_PAE) && tr_type == 0xb && !cs_l;
}

static void long_mode_set(bool on)
{
    u64 efer = vmread(VMCS_GUEST_EFER), entry = vmread(VMCS_ENTRY_CONTROLS);
    vmwrite(VMCS_GUEST_EFER, on ? efer | EFER_LMA : efer & ~EFER_LMA);
    vmwrite(VMCS_ENTRY_CONTROLS, on ? entry | ENTRY_IA32E : entry & ~ENTRY_IA32E);
}

static bool mov_to_cr0(struct vmx_vcpu *vx, u64 value)
{
    const u64 defined = 0xe005003f; // PE MP EM TS ET NE WP AM NW CD PG; others are ignored
    u64 old = vmx_cr0_get(), cr4 = vmx_cr4_get(), efer = vmread(VMCS_GUEST_EFER);
    if (!cr0_allowed(value, cr4, efer))
        return false;
    value = (value & defined) | CR0_ET;
    bool lma = (value & CR0_PG) && (efer & EFER_LME);
    bool pae = (value & CR0_PG) && (cr4 & CR4_PAE) && !lma;
    if (pae && ((old ^ value) & (CR0_PG | CR0_CD | CR0_NW)) && !pdpte_load(vx))
        return false;
    if ((old ^ value) & CR0_PG)
        long_mode_set(lma);
    vmx_cr0_write(value);
    vmx_request(vx, VMX_REQ_TLB);
    return true;
}

static bool mov_to_cr4(struct vmx_vcpu *vx, u64 value)
{
    u64 old = vmx_cr4_get(), cr0 = vmx_cr0_get(), efer = vmread(VMCS_GUEST_EFER);
    if (value & ~vx->cr4_allowed)
        return false;
    if ((efer & EFER_LMA) && !(value & CR4_PAE))
        return false;
    if ((value & ~old & CR4_PCIDE) && (!(efer & EFER_LMA) || (vmread(VMCS_GUEST_CR3) & 0xfff)))
        return false;
    bool pae = (cr0 & CR0_PG) && (value & CR4_PAE) && !(efer & EFER_LMA);
    if (pae && ((old ^ value) & (CR4_PAE | CR4_PGE | CR4_PSE | CR4_SMEP)) && !pdpte_load(vx))
        return false;
    vmx_cr4_write(vx, value);
    vmx_request(vx, VMX_REQ_TLB);
    return true;
}

void vmx_exit_cr_access(struct vmx_vcpu *vx, struct vm_exit *x)
{
    u64 q = vmread(VMCS_QUALIFICATION); // SDM 3C table 27-3
    u32 number = q & 15, type = q >> 4 & 3, gpr = q >> 8 & 15;
    u32 len = vmread(VMCS_EXIT_INSN_LEN);
    if (number == 8) {
        x->kind = EXIT_CR8;
        x->insn_len = len;
        x->cr8.gpr = gpr;
        x->cr8.write = type == 0;
        return;
    }
    if (type != 0 || (number != 0 && number != 4)) {
        x->kind = EXIT_FATAL; // reads, CLTS and LMSW touch no bit of ours and never exit
        x->fatal.code = REASON_CR_ACCESS;
        x->fatal.info = q;
        x->fatal.info2 = 0;
        x->fatal.text = "exit for a control register access nobody asked for";
        return;
    }
    u64 value = gpr == GPR_RSP ? vmread(VMCS_GUEST_RSP) : vx->v->gpr[gpr];
    if (!code_is_64bit(vmread(VMCS_GUEST_EFER)))
        value = (u32)value;
    x->kind = EXIT_RETRY;
    if (number == 0 ? mov_to_cr0(vx, value) : mov_to_cr4(vx, value))
        vmx_skip_insn(vx->v, len);
    else
        vmx_inject_exception(vx->v, VECTOR_GP, true, 0);
}
