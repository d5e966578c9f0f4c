// SPDX-License-Identifier: MIT
// A vCPU's VMCB: made, bound to the CPU its thread runs on, given back (APM 2 15.5).
#include "arch/x86/guest_cpu.h"
#include "arch/x86/svm/svm.h"
#include "kernel/lib.h"
#include "kernel/mem.h"

#define TSC_RATIO_ONE (1ull << 32)
// PAUSEs of one loop, not further apart than so many cycles, before one exits: longer than a lock
// is held by a vCPU that runs.
#define PAUSE_COUNT     1000
#define PAUSE_THRESHOLD 512

static const u8 intercepts[] = {
    SVM_EXIT_INTR,    SVM_EXIT_NMI,         SVM_EXIT_INIT,       SVM_EXIT_RDPMC,   SVM_EXIT_CPUID,
    SVM_EXIT_RSM,     SVM_EXIT_INVD,        SVM_EXIT_HLT,        SVM_EXIT_INVLPGA, SVM_EXIT_IOIO,
    SVM_EXIT_MSR,     SVM_EXIT_SHUTDOWN,    SVM_EXIT_VMRUN,      SVM_EXIT_VMMCALL, SVM_EXIT_VMLOAD,
    SVM_EXIT_VMSAVE,  SVM_EXIT_STGI,        SVM_EXIT_CLGI,       SVM_EXIT_SKINIT,  SVM_EXIT_WBINVD,
    SVM_EXIT_MONITOR, SVM_EXIT_MWAIT,       SVM_EXIT_MWAIT_COND, SVM_EXIT_XSETBV,  SVM_EXIT_RDPRU,
    SVM_EXIT_INVLPGB, SVM_EXIT_INVLPGB + 1, SVM_EXIT_MCOMMIT,    SVM_EXIT_TLBSYNC,
};

static void controls_init(struct svm_vcpu *sv)
{
    struct vmcb *b = sv->vmcb;
    for (size_t i = 0; i < ARRAY_SIZE(intercepts); i++)
        vmcb_intercept(b, intercepts[i], true);
    vmcb_intercept(b, SVM_EXIT_RDTSCP, !svm_caps.rdtscp);
    b->intercept_cr_read = BIT(4);
    b->intercept_cr_write = BIT(4);
    // A guest whose handlers raise #DB or #AC again while these are delivered would keep the CPU
    // for ever. A machine check is the host's.
    b->intercept_exceptions = BIT(VECTOR_DB) | BIT(VECTOR_AC) | BIT(VECTOR_MC);
    if (svm_caps.pause_filter)
        b->pause_count = PAUSE_COUNT;
    if (svm_caps.pause_threshold)
        b->pause_threshold = PAUSE_THRESHOLD;
    b->iopm_pa = svm_iopm_pa;
    b->msrpm_pa = sv->level ? svm_level_msrpm_pa : svm_msrpm_pa;
    if (sv->level)
        b->intercept_exceptions |= BIT(VECTOR_UD) | BIT(VECTOR_SS);
    b->int_ctl = V_INTR_MASKING;
    b->np_enable = 1;
    b->n_cr3 = sv->sg->np.root;
}

// Enterable, though nothing useful: the generic code sets a real state before the first run.
static void registers_init(struct svm_vcpu *sv)
{
    struct vmcb *b = sv->vmcb;
    struct vmcb_segment *data[] = {&b->es, &b->ss, &b->ds, &b->fs, &b->gs};
    for (size_t i = 0; i < ARRAY_SIZE(data); i++)
        *data[i] = (struct vmcb_segment){.attr = 0x93, .limit = 0xffff};
    b->cs = (struct vmcb_segment){
        .selector = 0xf000, .attr = 0x9b, .limit = 0xffff, .base = 0xffff0000};
    b->gdtr.limit = b->idtr.limit = 0xffff;
    b->ldtr = (struct vmcb_segment){.attr = 0x82, .limit = 0xffff};
    b->tr = (struct vmcb_segment){.attr = 0x8b, .limit = 0xffff};
    b->cr0 = CR0_ET | CR0_NW | CR0_CD;
    b->efer = EFER_SVME;
    b->rip = 0xfff0;
    b->rflags = RFLAGS_FIXED1;
    b->dr6 = DR6_INIT;
    b->dr7 = DR7_FIXED1;
    b->g_pat = PAT_POWER_ON;
    svm_cr4_set(sv, 0);
}

int svm_vcpu_create(struct vcpu *v)
{
    struct svm_vcpu *sv = kzalloc(sizeof *sv);
    u64 pa = page_alloc_zero(0);
    if (!sv || !pa) {
        kfree(sv);
        if (pa)
            page_free(pa, 0);
        return E_NOMEM;
    }
    sv->v = v;
    sv->sg = v->guest->backend;
    sv->vmcb = phys_ptr(pa);
    sv->vmcb_pa = pa;
    sv->host_cpu = ~0u;
    sv->slice_deadline = ~0ull;
    sv->tsc_ratio = TSC_RATIO_ONE;
    sv->cr4_allowed = guest_cr4_allowed(v->guest);
    sv->level = v->guest->config.cpu != CPU_HOST;
    controls_init(sv);
    registers_init(sv);
    sv->sg->vcpus++;
    v->backend = sv;
    return 0;
}

void svm_vcpu_destroy(struct vcpu *v)
{
    struct svm_vcpu *sv = svm_of(v);
    if (!sv)
        return;
    assert(!svm_is_loaded(sv) && !v->in_guest);
    ktimer_cancel(&sv->slice);
    sv->sg->vcpus--;
    page_free(sv->vmcb_pa, 0);
    kfree(sv);
    v->backend = NULL;
}

void svm_vcpu_load(struct vcpu *v)
{
    struct svm_vcpu *sv = svm_of(v);
    struct svm_cpu *c = svm_this_cpu();
    assert(!c->current);
    u64 flags = irq_save();
    c->current = sv;
    if (svm_caps.tsc_scaling)
        wrmsr(MSR_TSC_RATIO, sv->tsc_ratio);
    svm_lazy_load(&sv->lazy);
    v->cpu = this_cpu()->index;
    irq_restore(flags);
}

void svm_vcpu_put(struct vcpu *v)
{
    struct svm_vcpu *sv = svm_of(v);
    assert(svm_is_loaded(sv));
    u64 flags = irq_save();
    svm_lazy_save(&sv->lazy);
    svm_this_cpu()->current = NULL;
    // Its timer would disturb whoever runs next for nothing.
    ktimer_cancel(&sv->slice);
    sv->slice_deadline = ~0ull;
    irq_restore(flags);
}
