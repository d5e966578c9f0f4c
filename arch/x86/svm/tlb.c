// SPDX-License-Identifier: MIT
// Address space identifiers and the invalidation of what CPUs cached under them (APM 2 15.16).
#include "arch/x86/svm/svm.h"
#include "kernel/lib.h"

// A fresh identifier has nothing cached under it. When a CPU has given out all, everything is
// flushed and each vCPU gets another one at its next entry there.
static void asid_take(struct svm_vcpu *sv, struct svm_cpu *c)
{
    if (c->next_asid >= svm_caps.asids) {
        c->asid_gen++;
        c->next_asid = 1; // 0 is the host's
        sv->vmcb->tlb_control = TLB_FLUSH_ALL;
    }
    sv->vmcb->asid = c->next_asid++;
    sv->asid_gen = c->asid_gen;
    sv->host_cpu = this_cpu()->index;
}

void svm_tlb_enter(struct svm_vcpu *sv)
{
    struct svm_cpu *c = svm_this_cpu();
    sv->vmcb->tlb_control = TLB_FLUSH_NONE;
    // Read before it is acted upon: a shoot-down that starts meanwhile is not taken for done.
    u64 gen = sv->sg->flush_gen;
    bool flush = __atomic_exchange_n(&sv->flush_wanted, false, __ATOMIC_SEQ_CST);
    flush |= sv->flushed_gen != gen;
    sv->flushed_gen = gen;
    if (sv->host_cpu != this_cpu()->index || sv->asid_gen != c->asid_gen)
        asid_take(sv, c);
    else if (flush && svm_caps.flush_by_asid)
        sv->vmcb->tlb_control = TLB_FLUSH_ASID;
    else if (flush)
        asid_take(sv, c);
}

// VMRUN refused to enter, so a flush asked of it may not have happened.
void svm_tlb_failed(struct svm_vcpu *sv)
{
    svm_this_cpu()->next_asid = svm_caps.asids;
    sv->host_cpu = ~0u;
}

static void wait_exit(struct vcpu *v)
{
    struct svm_vcpu *sv = svm_of(v);
    u64 seq = sv->exit_seq;
    if (!v->in_guest || v->cpu == this_cpu()->index)
        return;
    cpu_kick(v->cpu);
    while (v->in_guest && sv->exit_seq == seq)
        cpu_relax();
}

// A vCPU that is not in the guest flushes before it is next; one that is gets thrown out.
void svm_flush_guest(struct guest *g)
{
    struct svm_guest *sg = g->backend;
    __atomic_add_fetch(&sg->flush_gen, 1, __ATOMIC_SEQ_CST);
    for (u32 i = 0; i < g->vcpu_count; i++)
        if (g->vcpu[i] && g->vcpu[i]->backend)
            wait_exit(g->vcpu[i]);
}

void svm_invalidate_guest_tlb(struct vcpu *v)
{
    __atomic_store_n(&svm_of(v)->flush_wanted, true, __ATOMIC_SEQ_CST);
}
