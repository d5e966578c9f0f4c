// SPDX-License-Identifier: MIT
// Controls wanted against controls this CPU allows (SDM 3C appendix A); what is missing is named.
#include "arch/x86/vmx/vmx.h"
#include "kernel/lib.h"

struct vmx_caps vmx_caps;

enum group { PIN, PROC, PROC2, EXIT, ENTRY, GROUPS };
enum need {
    NEED,   // no guest without it
    LIKE,   // used where there is one
    REJECT, // must be possible to leave off
};

struct wanted_control {
    u8 group, bit, need;
    const char *name;
};

static const struct wanted_control wanted[] = {
    {PIN, 0, NEED, "external-interrupt exiting"},
    {PIN, 3, NEED, "NMI exiting"},
    {PIN, 5, NEED, "virtual NMIs"},
    {PIN, 6, LIKE, "preemption timer"},
    {PROC, 3, NEED, "TSC offsetting"},
    {PROC, 7, NEED, "HLT exiting"},
    {PROC, 9, REJECT, "INVLPG exiting off"},
    {PROC, 10, NEED, "MWAIT exiting"},
    {PROC, 11, NEED, "RDPMC exiting"},
    {PROC, 12, REJECT, "RDTSC exiting off"},
    {PROC, 15, REJECT, "CR3-load exiting off"},
    {PROC, 16, REJECT, "CR3-store exiting off"},
    {PROC, 19, NEED, "CR8-load exiting"},
    {PROC, 20, NEED, "CR8-store exiting"},
    {PROC, 23, REJECT, "MOV-DR exiting off"},
    {PROC, 24, NEED, "unconditional I/O exiting"},
    {PROC, 28, NEED, "MSR bitmaps"},
    {PROC, 29, NEED, "MONITOR exiting"},
    {PROC, 31, NEED, "secondary controls"},
    {PROC2, 1, NEED, "EPT"},
    {PROC2, 3, LIKE, "RDTSCP"},
    {PROC2, 5, NEED, "VPID"},
    {PROC2, 6, NEED, "WBINVD exiting"},
    {PROC2, 7, NEED, "unrestricted guest"},
    {PROC2, 10, LIKE, "PAUSE-loop exiting"},
    {PROC2, 12, LIKE, "INVPCID"},
    {PROC2, 15, LIKE, "ENCLS exiting"},
    {PROC2, 17, LIKE, "PML"},
    {PROC2, 25, LIKE, "TSC scaling"},
    {EXIT, 2, NEED, "save debug controls"},
    {EXIT, 9, NEED, "64-bit host"},
    {EXIT, 15, NEED, "acknowledge interrupt on exit"},
    {EXIT, 19, NEED, "load PAT on exit"},
    {EXIT, 20, NEED, "save EFER on exit"},
    {EXIT, 21, NEED, "load EFER on exit"},
    {ENTRY, 2, NEED, "load debug controls"},
    {ENTRY, 9, NEED, "IA-32e mode guest"},
    {ENTRY, 14, NEED, "load PAT on entry"},
    {ENTRY, 15, NEED, "load EFER on entry"},
};

static const struct {
    u64 bit;
    const char *name;
} wanted_ept[] = {
    {EPT_VPID_WALK4, "4-level EPT"},  {EPT_VPID_WB, "write-back EPT"},
    {EPT_VPID_2M, "2 MiB EPT pages"}, {EPT_VPID_AD, "EPT accessed and dirty flags"},
    {EPT_VPID_INVEPT, "INVEPT"},      {EPT_VPID_INVEPT_ONE, "single-context INVEPT"},
    {EPT_VPID_INVVPID, "INVVPID"},    {EPT_VPID_INVVPID_ONE, "single-context INVVPID"},
};

static void capability_msrs(u64 out[GROUPS])
{
    bool exact = rdmsr(MSR_VMX_BASIC) & VMX_BASIC_TRUE;
    out[PIN] = rdmsr(exact ? MSR_VMX_TRUE_PIN : MSR_VMX_PIN);
    out[PROC] = rdmsr(exact ? MSR_VMX_TRUE_PROC : MSR_VMX_PROC);
    out[EXIT] = rdmsr(exact ? MSR_VMX_TRUE_EXIT : MSR_VMX_EXIT);
    out[ENTRY] = rdmsr(exact ? MSR_VMX_TRUE_ENTRY : MSR_VMX_ENTRY);
    bool has_proc2 = out[PROC] >> 32 & BIT(31);
    out[PROC2] = has_proc2 ? rdmsr(MSR_VMX_PROC2) : 0;
}

// High half: bits that may be 1; low half: bits that must be (SDM 3C A.3). Returns the name of the
// first control that can't be as it has to be, NULL when all can.
static const char *choose(const u64 cap[GROUPS], u32 value[GROUPS])
{
    for (int g = 0; g < GROUPS; g++)
        value[g] = (u32)cap[g];
    for (size_t i = 0; i < ARRAY_SIZE(wanted); i++) {
        const struct wanted_control *w = &wanted[i];
        bool may_be_1 = cap[w->group] >> 32 & BIT(w->bit);
        bool must_be_1 = cap[w->group] & BIT(w->bit);
        if (w->need == REJECT ? must_be_1 : w->need == NEED && !may_be_1)
            return w->name;
        if (w->need != REJECT && may_be_1)
            value[w->group] |= BIT(w->bit);
    }
    // Set by hardware and by CR0.PG changes, not at creation.
    value[ENTRY] &= ~ENTRY_IA32E;
    return NULL;
}

static const char *missing_ept(void)
{
    u64 cap = rdmsr(MSR_VMX_EPT_VPID);
    for (size_t i = 0; i < ARRAY_SIZE(wanted_ept); i++)
        if (!(cap & wanted_ept[i].bit))
            return wanted_ept[i].name;
    return NULL;
}

// IA32_SPEC_CTRL exists when CPUID.7.0:EDX says so (SDM 2A CPUID, SDM 4 table 2-2).
static u64 spec_ctrl_bits(void)
{
    u32 r[4];
    cpuid(0, 0, r);
    if (r[0] < 7)
        return 0;
    cpuid(7, 0, r);
    return (r[3] & BIT(26) ? BIT(0) : 0) | (r[3] & BIT(27) ? BIT(1) : 0) |
           (r[3] & BIT(31) ? BIT(2) : 0);
}

bool vmx_caps_find(char *why, size_t size)
{
    u64 cap[GROUPS];
    u32 value[GROUPS];
    capability_msrs(cap);
    const char *missing = choose(cap, value);
    if (!missing)
        missing = missing_ept();
    if (missing) {
        snprintf(why, size, "VT-x of this CPU lacks \"%s\", which Skiff needs to run guests",
                 missing);
        return false;
    }
    // Off until a guest's log is started.
    bool pml = value[PROC2] & PROC2_PML;
    value[PROC2] &= ~PROC2_PML;
    vmx_caps = (struct vmx_caps){
        .revision = rdmsr(MSR_VMX_BASIC) & 0x7fffffff,
        .pin = value[PIN],
        .proc = value[PROC],
        .proc2 = value[PROC2],
        .exit = value[EXIT],
        .entry = value[ENTRY],
        .slice_ticks = host_tsc_hz / 1000,
        .timer_shift = rdmsr(MSR_VMX_MISC) & 0x1f,
        .preemption_timer = value[PIN] & PIN_PREEMPTION_TIMER,
        .pml = pml,
        .tsc_scaling = value[PROC2] & PROC2_TSC_SCALING,
        .rdtscp = value[PROC2] & PROC2_RDTSCP,
        .cr0_fixed0 = rdmsr(MSR_VMX_CR0_FIXED0),
        .cr4_fixed1 = rdmsr(MSR_VMX_CR4_FIXED1),
        .spec_ctrl_bits = spec_ctrl_bits(),
    };
    vmx_caps.spec_ctrl = vmx_caps.spec_ctrl_bits != 0;
    return true;
}
