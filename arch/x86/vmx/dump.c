// SPDX-License-Identifier: MIT
// Everything about a vCPU into the log, for a guest that ended badly.
#include "arch/x86/vmx/vmx.h"
#include "kernel/lib.h"
#include "kernel/log.h"

struct named_field {
    u32 field;
    const char *name;
};

static const struct named_field fields[] = {
    {VMCS_EXIT_REASON, "exit reason"},
    {VMCS_QUALIFICATION, "qualification"},
    {VMCS_INSTRUCTION_ERROR, "instruction error"},
    {VMCS_GUEST_LINEAR, "linear address"},
    {VMCS_GUEST_PHYSICAL, "physical address"},
    {VMCS_EXIT_INTERRUPTION, "exit interruption"},
    {VMCS_EXIT_ERROR_CODE, "exit error code"},
    {VMCS_VECTORING_INFO, "vectoring"},
    {VMCS_VECTORING_ERROR, "vectoring error"},
    {VMCS_EXIT_INSN_LEN, "instruction length"},
    {VMCS_EXIT_INSN_INFO, "instruction info"},
    {VMCS_ENTRY_INTERRUPTION, "entry interruption"},
    {VMCS_ENTRY_ERROR_CODE, "entry error code"},
    {VMCS_ENTRY_INSN_LEN, "entry insn length"},
    {VMCS_INTERRUPTIBILITY, "interruptibility"},
    {VMCS_ACTIVITY, "activity"},
    {VMCS_PENDING_DEBUG, "pending debug"},
    {VMCS_GUEST_RIP, "rip"},
    {VMCS_GUEST_RSP, "rsp"},
    {VMCS_GUEST_RFLAGS, "rflags"},
    {VMCS_GUEST_CR0, "cr0"},
    {VMCS_CR0_SHADOW, "cr0 shadow"},
    {VMCS_CR0_MASK, "cr0 mask"},
    {VMCS_GUEST_CR3, "cr3"},
    {VMCS_GUEST_CR4, "cr4"},
    {VMCS_CR4_SHADOW, "cr4 shadow"},
    {VMCS_CR4_MASK, "cr4 mask"},
    {VMCS_GUEST_EFER, "efer"},
    {VMCS_GUEST_PAT, "pat"},
    {VMCS_GUEST_DR7, "dr7"},
    {VMCS_GUEST_DEBUGCTL, "debugctl"},
    {VMCS_GUEST_PDPTE0, "pdpte 0"},
    {VMCS_GUEST_PDPTE0 + 2, "pdpte 1"},
    {VMCS_GUEST_PDPTE0 + 4, "pdpte 2"},
    {VMCS_GUEST_PDPTE0 + 6, "pdpte 3"},
    {VMCS_GUEST_GDTR_BASE, "gdtr base"},
    {VMCS_GUEST_GDTR_LIMIT, "gdtr limit"},
    {VMCS_GUEST_IDTR_BASE, "idtr base"},
    {VMCS_GUEST_IDTR_LIMIT, "idtr limit"},
    {VMCS_GUEST_SYSENTER_CS, "sysenter cs"},
    {VMCS_GUEST_SYSENTER_ESP, "sysenter esp"},
    {VMCS_GUEST_SYSENTER_EIP, "sysenter eip"},
    {VMCS_PIN_CONTROLS, "pin controls"},
    {VMCS_PROC_CONTROLS, "proc controls"},
    {VMCS_PROC2_CONTROLS, "proc2 controls"},
    {VMCS_ENTRY_CONTROLS, "entry controls"},
    {VMCS_EXIT_CONTROLS, "exit controls"},
    {VMCS_EXCEPTION_BITMAP, "exception bitmap"},
    {VMCS_EPTP, "eptp"},
    {VMCS_VPID, "vpid"},
    {VMCS_TSC_OFFSET, "tsc offset"},
    {VMCS_TSC_MULTIPLIER, "tsc multiplier"},
    {VMCS_PML_INDEX, "pml index"},
    {VMCS_PREEMPTION_TIMER, "preemption timer"},
    {VMCS_HOST_CR0, "host cr0"},
    {VMCS_HOST_CR3, "host cr3"},
    {VMCS_HOST_CR4, "host cr4"},
    {VMCS_HOST_EFER, "host efer"},
    {VMCS_HOST_RSP, "host rsp"},
    {VMCS_HOST_RIP, "host rip"},
    {VMCS_HOST_GS_BASE, "host gs base"},
    {VMCS_HOST_TR_BASE, "host tr base"},
};

static const char *const gpr_names[GPR_COUNT] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp",
                                                 "rsi", "rdi", "r8",  "r9",  "r10", "r11",
                                                 "r12", "r13", "r14", "r15"};
static const char *const seg_names[SEG_COUNT] = {"es", "cs", "ss", "ds", "fs", "gs", "ldtr", "tr"};

static void dump_gprs(const struct vcpu *v)
{
    for (int i = 0; i < GPR_COUNT; i += 4)
        log_error("vmx", "%-4s%016llx  %-4s%016llx  %-4s%016llx  %-4s%016llx", gpr_names[i],
                  (unsigned long long)(i == GPR_RSP ? vmread(VMCS_GUEST_RSP) : v->gpr[i]),
                  gpr_names[i + 1], (unsigned long long)v->gpr[i + 1], gpr_names[i + 2],
                  (unsigned long long)v->gpr[i + 2], gpr_names[i + 3],
                  (unsigned long long)v->gpr[i + 3]);
}

static void dump_segments(void)
{
    for (int i = 0; i < SEG_COUNT; i++) {
        struct segment s;
        vmx_segment_read(i, &s);
        log_error("vmx", "%-5s selector %04x base %016llx limit %08x attr %04x%s", seg_names[i],
                  s.selector, (unsigned long long)s.base, s.limit, s.attr,
                  s.attr & SEG_UNUSABLE ? " unusable" : "");
    }
}

static void dump_fields(void)
{
    char line[120];
    size_t used = 0;
    for (size_t i = 0; i < ARRAY_SIZE(fields); i++) {
        u64 value;
        if (!vmread_try(fields[i].field, &value)) // a field this CPU does not have
            continue;
        used += snprintf(line + used, sizeof line - used, "%-19s%-18llx", fields[i].name,
                         (unsigned long long)value);
        if (used > 80) {
            log_error("vmx", "%s", line);
            used = 0;
        }
    }
    if (used)
        log_error("vmx", "%s", line);
}

static void dump_event(const char *what, const struct pending_event *e)
{
    if (e->valid)
        log_error("vmx", "%s: type %u vector %u error %s%x", what, e->type, e->vector,
                  e->has_error ? "" : "none ", e->error);
}

void vmx_dump(struct vcpu *v)
{
    struct vmx_vcpu *vx = vmx_of(v);
    struct vmx_vcpu *before = vmx_access_begin(vx);
    log_error("vmx", "guest %s vCPU %u after %llu exits", v->guest->name, v->index,
              (unsigned long long)vx->exit_seq);
    dump_gprs(v);
    dump_segments();
    dump_fields();
    vmx_access_end(vx, before);
    dump_event("pending event", &vx->event);
    dump_event("pending exception", &vx->exception);
    log_error("vmx", "cr2 %llx star %llx lstar %llx sfmask %llx kernel gs base %llx",
              (unsigned long long)vx->lazy.cr2, (unsigned long long)vx->lazy.star,
              (unsigned long long)vx->lazy.lstar, (unsigned long long)vx->lazy.sfmask,
              (unsigned long long)vx->lazy.kernel_gs_base);
}

// SDM 3C table 30-1, those that VM entry can give.
const char *vmx_instruction_error(u64 code)
{
    switch (code) {
    case 4:
        return "VMLAUNCH with a VMCS that is not clear";
    case 5:
        return "VMRESUME with a VMCS that is not launched";
    case 7:
        return "VM entry with invalid control fields";
    case 8:
        return "VM entry with invalid host-state fields";
    case 26:
        return "VM entry with events blocked by MOV SS";
    default:
        return "VM entry failed";
    }
}
