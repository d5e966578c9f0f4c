// SPDX-License-Identifier: MIT
// The field table of a vCPU's architectural state: what a STATE record of kind vCPU holds.
#include "kernel/guest/state.h"
#include "kernel/guest/vcpu_state.h"
#include "kernel/lib.h"
#include "kernel/migrate/sections.h"

#define U(id_, member_)           FIELD(id_, FIELD_COPY, struct vcpu_state, member_, 1, 0, 0)
#define RANGE(id_, member_, max_) FIELD(id_, FIELD_COPY, struct vcpu_state, member_, 1, 0, max_)
#define ARRAY(id_, member_)       FIELD_ARRAY(id_, FIELD_COPY, struct vcpu_state, member_, 1)

// Ids come in tens for each segment and event.
#define SEGMENT(id_, index_)                                                                       \
    U(id_, seg[index_].base), U(id_ + 1, seg[index_].limit), U(id_ + 2, seg[index_].selector),     \
        RANGE(id_ + 3, seg[index_].attr, 0x1fff)
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
    SEGMENT(20, SEG_ES),
    SEGMENT(30, SEG_CS),
    SEGMENT(40, SEG_SS),
    SEGMENT(50, SEG_DS),
    SEGMENT(60, SEG_FS),
    SEGMENT(70, SEG_GS),
    SEGMENT(80, SEG_LDTR),
    SEGMENT(90, SEG_TR),
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
    U(160, gpr[GPR_RAX]),
    U(161, gpr[GPR_RCX]),
    U(162, gpr[GPR_RDX]),
    U(163, gpr[GPR_RBX]),
    U(164, gpr[GPR_RSP]),
    U(165, gpr[GPR_RBP]),
    U(166, gpr[GPR_RSI]),
    U(167, gpr[GPR_RDI]),
    U(168, gpr[GPR_R8]),
    U(169, gpr[GPR_R9]),
    U(170, gpr[GPR_R10]),
    U(171, gpr[GPR_R11]),
    U(172, gpr[GPR_R12]),
    U(173, gpr[GPR_R13]),
    U(174, gpr[GPR_R14]),
    U(175, gpr[GPR_R15]),
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
