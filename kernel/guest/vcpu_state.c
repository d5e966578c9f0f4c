// SPDX-License-Identifier: MIT
// The full architectural state of a parked vCPU, out and in: the backend's registers, the XSAVE
// area of its thread, and what is modelled in software.
#include "arch/x86/cpu.h"
#include "kernel/guest/cpuid.h"
#include "kernel/guest/msr.h"
#include "kernel/guest/vcpu.h"
#include "kernel/guest/xsave_area.h"
#include "kernel/lib.h"

#define MISC_ENABLE_VALID (BIT(0) | BIT(11) | BIT(12))

void vcpu_save_state(struct vcpu *v, struct vcpu_state *s)
{
    memset(s, 0, sizeof(*s));
    backend->get_state(v, s);
    s->xcr0 = v->xcr0;
    s->xss = v->xss;
    s->tsc_adjust = v->tsc_adjust;
    s->misc_enable = v->misc_enable;
    s->mtrr_def_type = v->mtrr_def_type;
    memcpy(s->mtrr_fixed, v->mtrr_fixed, sizeof(s->mtrr_fixed));
    memcpy(s->mtrr_base, v->mtrr_base, sizeof(s->mtrr_base));
    memcpy(s->mtrr_mask, v->mtrr_mask, sizeof(s->mtrr_mask));
    s->activity = v->activity;
    s->nmi_pending = v->nmi_pending;
    s->sipi_vector = v->sipi_vector;
    xsave_take(v, s);
}

static const char *check_modelled(const struct guest *g, const struct vcpu_state *s)
{
    if (!cpuid_xcr0_valid(g, s->xcr0))
        return "XCR0 has components the guest does not have, or an impossible combination";
    if (s->xss)
        return "IA32_XSS is not zero, and this version gives guests no XSAVES";
    if (s->misc_enable & ~MISC_ENABLE_VALID)
        return "IA32_MISC_ENABLE has bits no guest can set";
    if (!mtrr_valid(s->mtrr_def_type, s->mtrr_fixed, s->mtrr_base, s->mtrr_mask))
        return "an MTRR holds a value that cannot be written to it";
    if (s->activity > VCPU_OFF)
        return "the activity state is unknown";
    if (s->nmi_pending > 1)
        return "the pending-NMI flag is neither 0 nor 1";
    return NULL;
}

int vcpu_check_state(struct vcpu *v, const struct vcpu_state *s, char *err, size_t size)
{
    const char *wrong = check_modelled(v->guest, s);
    if (!wrong)
        wrong = xsave_check(v->guest, s);
    if (!wrong)
        wrong = backend->check_state(v, s);
    if (!wrong)
        return 0;
    snprintf(err, size, "vCPU %u: %s", v->index, wrong);
    return E_INVAL;
}

int vcpu_load_state(struct vcpu *v, const struct vcpu_state *s)
{
    int error = backend->set_state(v, s);
    if (error)
        return error;
    v->xcr0 = s->xcr0;
    v->xss = s->xss;
    v->tsc_adjust = s->tsc_adjust;
    v->misc_enable = s->misc_enable;
    v->mtrr_def_type = s->mtrr_def_type;
    memcpy(v->mtrr_fixed, s->mtrr_fixed, sizeof(v->mtrr_fixed));
    memcpy(v->mtrr_base, s->mtrr_base, sizeof(v->mtrr_base));
    memcpy(v->mtrr_mask, s->mtrr_mask, sizeof(v->mtrr_mask));
    v->activity = s->activity;
    v->nmi_pending = s->nmi_pending;
    v->sipi_vector = s->sipi_vector;
    u32 bytes = MIN(s->xsave_size, host_features.xsave_size);
    memset(v->xsave, 0, host_features.xsave_size);
    memcpy(v->xsave, s->xsave, bytes);
    return 0;
}
