// SPDX-License-Identifier: MIT
// MSR policy: a table of what a guest may read and write; everything else raises #GP.
#include "kernel/guest/msr.h"

#include "arch/x86/cpu.h"
#include "kernel/guest/cpuid.h"
#include "kernel/guest/kvmclock.h"
#include "kernel/guest/vcpu.h"
#include "kernel/lib.h"
#include "kernel/log.h"

#define MSR_TSC            0x10
#define MSR_PLATFORM_ID    0x17
#define MSR_APIC_BASE      0x1b
#define MSR_EBL_CR_POWERON 0x2a
#define MSR_TSC_ADJUST     0x3b
#define MSR_SPEC_CTRL      0x48
#define MSR_PRED_CMD       0x49
#define MSR_BIOS_UPDT_TRIG 0x79
#define MSR_BIOS_SIGN_ID   0x8b
#define MSR_MTRRCAP        0xfe
#define MSR_MCG_CAP        0x179
#define MSR_MCG_STATUS     0x17a
#define MSR_MISC_ENABLE    0x1a0
#define MSR_DEBUGCTL       0x1d9
#define MSR_MTRR_FIRST     0x200
#define MSR_MTRR_LAST      0x26f
#define MSR_MTRR_DEF_TYPE  0x2ff
#define MSR_TSC_DEADLINE   0x6e0
#define MSR_X2APIC_FIRST   0x800
#define MSR_X2APIC_LAST    0x8ff
#define MSR_EFER           0xc0000080

#define MISC_FAST_STRINGS  BIT(0)
#define MISC_NO_BTS        BIT(11)
#define MISC_NO_PEBS       BIT(12)
#define DEBUGCTL_LBR       BIT(0) // accepted and dropped: its records are not here
#define DEBUGCTL_BTF       BIT(1)
#define MICROCODE_REVISION (1ull << 32) // SDM 3A 9.11.7.1: in the upper half
#define EFER_SCE           BIT(0)
#define EFER_LME           BIT(8)
#define EFER_LMA           BIT(10)
#define EFER_NXE           BIT(11)
#define CR0_PG             BIT(31)

struct msr_rule {
    u32 first, last;
    int (*read)(struct vcpu *v, u32 index, u64 *value);
    int (*write)(struct vcpu *v, u32 index, u64 value);
};

static int read_zero(struct vcpu *v, u32 index, u64 *value)
{
    (void)v, (void)index;
    *value = 0;
    return 0;
}

static int deny_read(struct vcpu *v, u32 index, u64 *value)
{
    (void)v, (void)index;
    *value = 0;
    return E_INVAL;
}

static int deny_write(struct vcpu *v, u32 index, u64 value)
{
    (void)v, (void)index, (void)value;
    return E_INVAL;
}

static int ignore_write(struct vcpu *v, u32 index, u64 value)
{
    (void)v, (void)index, (void)value;
    return 0;
}

static int zero_only(struct vcpu *v, u32 index, u64 value)
{
    (void)v, (void)index;
    return value ? E_INVAL : 0;
}

static int read_tsc(struct vcpu *v, u32 index, u64 *value)
{
    (void)index;
    *value = guest_clock_sample(v->guest).tsc + v->tsc_adjust;
    return 0;
}

// A step of one vCPU's TSC leaves the guest's clock alone (SDM 3B 17.17.3).
static int write_tsc(struct vcpu *v, u32 index, u64 value)
{
    (void)index;
    v->tsc_adjust = value - guest_clock_sample(v->guest).tsc;
    vcpu_apply_tsc(v);
    return 0;
}

static int read_tsc_adjust(struct vcpu *v, u32 index, u64 *value)
{
    (void)index;
    *value = v->tsc_adjust;
    return 0;
}

static int write_tsc_adjust(struct vcpu *v, u32 index, u64 value)
{
    (void)index;
    v->tsc_adjust = value;
    vcpu_apply_tsc(v);
    return 0;
}

static int write_pred_cmd(struct vcpu *v, u32 index, u64 value)
{
    if (!cpuid_has(v->guest, 7, 3, 26) || (value & ~1ull))
        return E_INVAL;
    if (value)
        wrmsr(index, value); // the barrier is the host CPU's
    return 0;
}

static int read_microcode(struct vcpu *v, u32 index, u64 *value)
{
    (void)v, (void)index;
    *value = MICROCODE_REVISION;
    return 0;
}

static int read_misc_enable(struct vcpu *v, u32 index, u64 *value)
{
    (void)index;
    *value = v->misc_enable;
    return 0;
}

static int write_misc_enable(struct vcpu *v, u32 index, u64 value)
{
    (void)index;
    // The other bits switch what this guest does not have; they stay as they are.
    v->misc_enable = (v->misc_enable & ~MISC_FAST_STRINGS) | (value & MISC_FAST_STRINGS);
    return 0;
}

static int read_debugctl(struct vcpu *v, u32 index, u64 *value)
{
    *value = 0;
    int error = backend->get_msr(v, index, value);
    return error == E_NOENT ? 0 : error;
}

static int write_debugctl(struct vcpu *v, u32 index, u64 value)
{
    if (value & ~(DEBUGCTL_LBR | DEBUGCTL_BTF))
        return E_INVAL;
    if (v->guest->config.cpu != CPU_HOST) // AMD has no such thing: dropped on every host
        return 0;
    int error = backend->set_msr(v, index, value & DEBUGCTL_BTF);
    return error == E_NOENT ? 0 : error;
}

static bool shows_spec_ctrl(const struct vcpu *v)
{
    const struct guest *g = v->guest;
    return cpuid_has(g, 7, 3, 26) || cpuid_has(g, 7, 3, 27) || cpuid_has(g, 7, 3, 31);
}

static int read_spec_ctrl(struct vcpu *v, u32 index, u64 *value)
{
    return shows_spec_ctrl(v) ? backend->get_msr(v, index, value) : E_INVAL;
}

static int write_spec_ctrl(struct vcpu *v, u32 index, u64 value)
{
    return shows_spec_ctrl(v) ? backend->set_msr(v, index, value) : E_INVAL;
}

static int read_backend(struct vcpu *v, u32 index, u64 *value)
{
    return backend->get_msr(v, index, value);
}

static int write_efer(struct vcpu *v, u32 index, u64 value)
{
    u64 cr0, efer;
    u64 allowed = EFER_SCE | EFER_LME | EFER_LMA;
    if (cpuid_has(v->guest, 0x80000001, 3, 20))
        allowed |= EFER_NXE;
    backend->get_paging(v, &cr0, NULL, NULL, &efer, NULL);
    if (value & ~allowed)
        return E_INVAL;
    if ((cr0 & CR0_PG) && ((value ^ efer) & EFER_LME))
        return E_INVAL; // SDM 3A 4.1.3
    return backend->set_msr(v, index, (value & ~EFER_LMA) | (efer & EFER_LMA));
}

// What is written often comes first. What is not here is asked of the backend, then denied.
static const struct msr_rule rules[] = {
    {MSR_TSC_DEADLINE, MSR_TSC_DEADLINE, platform_rdmsr, platform_wrmsr},
    {MSR_X2APIC_FIRST, MSR_X2APIC_LAST, platform_rdmsr, platform_wrmsr},
    {MSR_APIC_BASE, MSR_APIC_BASE, platform_rdmsr, platform_wrmsr},
    {MSR_EFER, MSR_EFER, read_backend, write_efer},
    {MSR_TSC, MSR_TSC, read_tsc, write_tsc},
    {MSR_TSC_ADJUST, MSR_TSC_ADJUST, read_tsc_adjust, write_tsc_adjust},
    {MSR_SPEC_CTRL, MSR_SPEC_CTRL, read_spec_ctrl, write_spec_ctrl},
    {MSR_PRED_CMD, MSR_PRED_CMD, deny_read, write_pred_cmd},
    {MSR_MISC_ENABLE, MSR_MISC_ENABLE, read_misc_enable, write_misc_enable},
    {MSR_MTRRCAP, MSR_MTRRCAP, mtrr_read, mtrr_write},
    {MSR_MTRR_FIRST, MSR_MTRR_LAST, mtrr_read, mtrr_write},
    {MSR_MTRR_DEF_TYPE, MSR_MTRR_DEF_TYPE, mtrr_read, mtrr_write},
    {MSR_BIOS_SIGN_ID, MSR_BIOS_SIGN_ID, read_microcode, ignore_write},
    {MSR_BIOS_UPDT_TRIG, MSR_BIOS_UPDT_TRIG, deny_read, ignore_write},
    {MSR_PLATFORM_ID, MSR_PLATFORM_ID, read_zero, deny_write},
    {MSR_EBL_CR_POWERON, MSR_EBL_CR_POWERON, read_zero, ignore_write},
    {MSR_MCG_CAP, MSR_MCG_CAP, read_zero, deny_write}, // no banks
    {MSR_MCG_STATUS, MSR_MCG_STATUS, read_zero, zero_only},
    {MSR_KVM_WALL_CLOCK_NEW, MSR_KVM_SYSTEM_TIME_NEW, kvmclock_rdmsr, kvmclock_wrmsr},
    {MSR_DEBUGCTL, MSR_DEBUGCTL, read_debugctl, write_debugctl},
};

static const struct msr_rule *find(u32 index)
{
    for (u32 i = 0; i < ARRAY_SIZE(rules); i++)
        if (index - rules[i].first <= rules[i].last - rules[i].first)
            return &rules[i];
    return NULL;
}

// Once for each MSR of a guest, and for so many MSRs only: a guest may try them all.
static void log_denied(struct vcpu *v, const char *what, u32 index, u64 value)
{
    struct guest *g = v->guest;
    for (u32 i = 0; i < g->msr_logged_count; i++)
        if (g->msr_logged[i] == index)
            return;
    if (g->msr_logged_count == ARRAY_SIZE(g->msr_logged))
        return;
    g->msr_logged[g->msr_logged_count++] = index;
    guest_log(LOG_INFO, g, "%s of MSR 0x%x (0x%llx) raises #GP", what, index,
              (unsigned long long)value);
}

int msr_read(struct vcpu *v, u32 index, u64 *value)
{
    const struct msr_rule *r = find(index);
    int error = r ? r->read(v, index, value) : backend->get_msr(v, index, value);
    if (error == E_NOENT)
        error = msr_amd_read(v, index, value);
    if (!error)
        return 0;
    log_denied(v, "read", index, 0);
    return E_INVAL;
}

int msr_write(struct vcpu *v, u32 index, u64 value)
{
    const struct msr_rule *r = find(index);
    int error = r ? r->write(v, index, value) : backend->set_msr(v, index, value);
    if (error == E_NOENT)
        error = msr_amd_write(v, index, value);
    if (!error)
        return 0;
    log_denied(v, "write", index, value);
    return E_INVAL;
}

void msr_reset(struct vcpu *v)
{
    u64 host = v->guest->config.cpu == CPU_HOST ? host_misc_enable() : ~0ull;
    v->misc_enable = MISC_NO_BTS | MISC_NO_PEBS | (host & MISC_FAST_STRINGS);
    v->tsc_adjust = 0;
    mtrr_reset(v);
}
