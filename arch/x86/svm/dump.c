// SPDX-License-Identifier: MIT
// Everything about a vCPU into the log, for a guest that ended badly.
#include "arch/x86/svm/svm.h"
#include "kernel/lib.h"
#include "kernel/log.h"

struct named_field {
    u16 offset;
    u8 size;
    const char *name;
};

#define FIELD_OF(member, name)                                                                     \
    {                                                                                              \
        offsetof(struct vmcb, member), sizeof(((struct vmcb *)0)->member), name                    \
    }
static const struct named_field fields[] = {
    FIELD_OF(exit_code, "exit code"),
    FIELD_OF(exit_info1, "exit info 1"),
    FIELD_OF(exit_info2, "exit info 2"),
    FIELD_OF(exit_int_info, "exit int info"),
    FIELD_OF(event_inj, "event injection"),
    FIELD_OF(int_ctl, "interrupt control"),
    FIELD_OF(int_state, "interrupt shadow"),
    FIELD_OF(next_rip, "next rip"),
    FIELD_OF(rip, "rip"),
    FIELD_OF(rsp, "rsp"),
    FIELD_OF(rflags, "rflags"),
    FIELD_OF(cpl, "cpl"),
    FIELD_OF(cr0, "cr0"),
    FIELD_OF(cr2, "cr2"),
    FIELD_OF(cr3, "cr3"),
    FIELD_OF(cr4, "cr4"),
    FIELD_OF(efer, "efer"),
    FIELD_OF(dr6, "dr6"),
    FIELD_OF(dr7, "dr7"),
    FIELD_OF(g_pat, "pat"),
    FIELD_OF(gdtr.base, "gdtr base"),
    FIELD_OF(gdtr.limit, "gdtr limit"),
    FIELD_OF(idtr.base, "idtr base"),
    FIELD_OF(idtr.limit, "idtr limit"),
    FIELD_OF(star, "star"),
    FIELD_OF(lstar, "lstar"),
    FIELD_OF(cstar, "cstar"),
    FIELD_OF(sfmask, "sfmask"),
    FIELD_OF(kernel_gs_base, "kernel gs base"),
    FIELD_OF(sysenter_cs, "sysenter cs"),
    FIELD_OF(sysenter_esp, "sysenter esp"),
    FIELD_OF(sysenter_eip, "sysenter eip"),
    FIELD_OF(intercept, "intercepts"),
    FIELD_OF(intercept_exceptions, "exceptions"),
    FIELD_OF(intercept_cr_write, "cr write"),
    FIELD_OF(n_cr3, "nested cr3"),
    FIELD_OF(asid, "asid"),
    FIELD_OF(tlb_control, "tlb control"),
    FIELD_OF(tsc_offset, "tsc offset"),
};
#undef FIELD_OF

static const char *const gpr_names[GPR_COUNT] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp",
                                                 "rsi", "rdi", "r8",  "r9",  "r10", "r11",
                                                 "r12", "r13", "r14", "r15"};
static const char *const seg_names[SEG_COUNT] = {"es", "cs", "ss", "ds", "fs", "gs", "ldtr", "tr"};

static void dump_gprs(const struct svm_vcpu *sv)
{
    u64 r[GPR_COUNT];
    memcpy(r, sv->v->gpr, sizeof r);
    r[GPR_RSP] = sv->vmcb->rsp;
    for (int i = 0; i < GPR_COUNT; i += 4)
        log_error("svm", "%-4s%016llx  %-4s%016llx  %-4s%016llx  %-4s%016llx", gpr_names[i],
                  (unsigned long long)r[i], gpr_names[i + 1], (unsigned long long)r[i + 1],
                  gpr_names[i + 2], (unsigned long long)r[i + 2], gpr_names[i + 3],
                  (unsigned long long)r[i + 3]);
}

static void dump_segments(const struct svm_vcpu *sv)
{
    for (int i = 0; i < SEG_COUNT; i++) {
        struct segment s;
        svm_segment_read(sv, i, &s);
        log_error("svm", "%-5s selector %04x base %016llx limit %08x attr %04x%s", seg_names[i],
                  s.selector, (unsigned long long)s.base, s.limit, s.attr,
                  s.attr & SEG_UNUSABLE ? " unusable" : "");
    }
}

static void dump_fields(const struct svm_vcpu *sv)
{
    char line[120];
    size_t used = 0;
    for (size_t i = 0; i < ARRAY_SIZE(fields); i++) {
        u64 value = 0;
        memcpy(&value, (const u8 *)sv->vmcb + fields[i].offset, fields[i].size);
        used += snprintf(line + used, sizeof line - used, "%-19s%-18llx", fields[i].name,
                         (unsigned long long)value);
        if (used > 80 || i + 1 == ARRAY_SIZE(fields)) {
            log_error("svm", "%s", line);
            used = 0;
        }
    }
}

static void dump_event(const char *what, const struct pending_event *e)
{
    if (e->valid)
        log_error("svm", "%s: type %u vector %u error %s%x", what, e->type, e->vector,
                  e->has_error ? "" : "none ", e->error);
}

void svm_dump(struct vcpu *v)
{
    const struct svm_vcpu *sv = svm_of(v);
    log_error("svm", "guest %s vCPU %u after %llu exits%s%s", v->guest->name, v->index,
              (unsigned long long)sv->exit_seq, sv->nmi_blocked ? ", NMIs blocked" : "",
              sv->step ? ", stepping" : "");
    dump_gprs(sv);
    dump_segments(sv);
    dump_fields(sv);
    dump_event("pending event", &sv->event);
    dump_event("pending exception", &sv->exception);
    svm_trail_dump(sv);
}
