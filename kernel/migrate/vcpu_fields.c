// SPDX-License-Identifier: MIT
// The field table of a vCPU's architectural state: what a STATE record of kind vCPU holds.
#include "kernel/guest/state.h"
#include "kernel/guest/vcpu_state.h"
#include "kernel/lib.h"
#include "kernel/migrate/sections.h"

#define NAMED(id_, name_, member_, max_)                                                           \
    {                                                                                              \
        name_, id_, FIELD_COPY, sizeof(((struct vcpu_state *)0)->member_), 1,                      \
            offsetof(struct vcpu_state, member_), 1, 0, max_                                       \
    }
#define U(id_, member_)           NAMED(id_, #member_, member_, 0)
#define RANGE(id_, member_, max_) NAMED(id_, #member_, member_, max_)
#define ARRAY(id_, member_)       FIELD_ARRAY(id_, FIELD_COPY, struct vcpu_state, member_, 1)
#define GPR(id_, name_, index_)   NAMED(id_, name_, gpr[index_], 0)

// Ids come in tens for each segment and event.
#define SEGMENT(id_, name_, index_)                                                                \
    NAMED(id_, name_ ".base", seg[index_].base, 0),                                                \
        NAMED(id_ + 1, name_ ".limit", seg[index_].limit, 0),                                      \
        NAMED(id_ + 2, name_ ".selector", seg[index_].selector, 0),                                \
        NAMED(id_ + 3, name_ ".attr", seg[index_].attr, 0x1fff)
#define EVENT(id_, member_)                                                                        \
    RANGE(id_, member_.valid, 1), RANGE(id_ + 1, member_.type, 6), U(id_ + 2, member_.vector),     \
        RANGE(id_ + 3, member_.has_error, 1), U(id_ + 4, member_.error),                           \
        RANGE(id_ + 5, member_.insn_len, 15)

static const struct state_field vcpu_fields[] = {
    U(2, rip),
    U(3, rflags),
    U(4, cr0),
    U(5, cr2),
    U(6, cr3),
    U(7, cr4),
    U(8, efer),
    U(9, xcr0),
    U(10, xss),
    ARRAY(11, dr),
    U(12, dr6),
    U(13, dr7),
    ARRAY(14, pdpte),
    U(15, gdtr_base),
    U(16, gdtr_limit),
    U(17, idtr_base),
    U(18, idtr_limit),
    SEGMENT(20, "es", SEG_ES),
    SEGMENT(30, "cs", SEG_CS),
    SEGMENT(40, "ss", SEG_SS),
    SEGMENT(50, "ds", SEG_DS),
    SEGMENT(60, "fs", SEG_FS),
    SEGMENT(70, "gs", SEG_GS),
    SEGMENT(80, "ldtr", SEG_LDTR),
    SEGMENT(90, "tr", SEG_TR),
    U(100, sysenter_cs),
    U(101, sysenter_esp),
    U(102, sysenter_eip),
    U(103, star),
    U(104, lstar),
    U(105, cstar),
    U(106, sfmask),
    U(107, kernel_gs_base),
    U(108, tsc_aux),
    U(109, pat),
    U(110, spec_ctrl),
    U(111, debugctl),
    U(112, tsc_adjust),
    U(113, misc_enable),
    U(114, mtrr_def_type),
    ARRAY(115, mtrr_fixed),
    ARRAY(116, mtrr_base),
    ARRAY(117, mtrr_mask),
    GPR(160, "rax", GPR_RAX),
    GPR(161, "rcx", GPR_RCX),
    GPR(162, "rdx", GPR_RDX),
    GPR(163, "rbx", GPR_RBX),
    GPR(164, "rsp", GPR_RSP),
    GPR(165, "rbp", GPR_RBP),
    GPR(166, "rsi", GPR_RSI),
    GPR(167, "rdi", GPR_RDI),
    GPR(168, "r8", GPR_R8),
    GPR(169, "r9", GPR_R9),
    GPR(170, "r10", GPR_R10),
    GPR(171, "r11", GPR_R11),
    GPR(172, "r12", GPR_R12),
    GPR(173, "r13", GPR_R13),
    GPR(174, "r14", GPR_R14),
    GPR(175, "r15", GPR_R15),
    RANGE(120, activity, VCPU_OFF),
    RANGE(121, sti_shadow, 1),
    RANGE(122, mov_ss_shadow, 1),
    RANGE(123, nmi_blocked, 1),
    RANGE(124, nmi_pending, 1),
    U(125, sipi_vector),
    U(126, pending_debug),
    EVENT(130, event),
    EVENT(140, exception),
    RANGE(150, xsave_size, XSAVE_AREA_MAX),
    FIELD_ARRAY(151, FIELD_BYTES, struct vcpu_state, xsave, 1),
    FIELD_LAST,
};

// The XSAVE area, the controls and what depends on the CPU are vcpu_check_state's.
static bool vcpu_check(const void *copy, char *err, size_t size)
{
    const struct vcpu_state *s = copy;
    if (!(s->xcr0 & 1)) {
        snprintf(err, size, "vcpu: XCR0 0x%llx lacks x87, which is always on (SDM 1 13.3)",
                 (unsigned long long)s->xcr0);
        return false;
    }
    if (!(s->rflags & 2)) {
        snprintf(err, size, "vcpu: RFLAGS 0x%llx lacks bit 1, which is always set (SDM 1 3.4.3)",
                 (unsigned long long)s->rflags);
        return false;
    }
    if (s->event.valid && s->event.type == 1) {
        snprintf(err, size, "vcpu: event type 1 does not exist (SDM 3C 24.8.3)");
        return false;
    }
    return true;
}

const struct state_table vcpu_table = {
    .name = "vcpu",
    .version = 1,
    .fields = vcpu_fields,
    .check = vcpu_check,
    .struct_size = sizeof(struct vcpu_state),
};
