// SPDX-License-Identifier: MIT
// What a vCPU did last, and where its page tables lead: for the log, when its guest ended badly.
#include "arch/x86/svm/svm.h"
#include "kernel/guest/memory.h"
#include "kernel/lib.h"
#include "kernel/log.h"

#define PTE_PRESENT  BIT(0)
#define PTE_LARGE    BIT(7)
#define PTE_ADDRESS  0x000ffffffffff000ull
#define PAGE_FAULT   14
#define PF_PROTECTED BIT(0) // the error code's P: the page was there

void svm_trail_add(struct svm_vcpu *sv, u64 injected)
{
    const struct vmcb *b = sv->vmcb;
    sv->trail[sv->exit_seq % SVM_TRAIL] = (struct svm_trail){
        .code = b->exit_code,
        .info1 = b->exit_info1,
        .info2 = b->exit_info2,
        .vectoring = b->exit_int_info,
        .injected = injected,
        .rip = b->rip,
        .cpu = this_cpu()->index,
        .asid = b->asid,
        .tlb_control = b->tlb_control,
    };
}

static void dump_exits(const struct svm_vcpu *sv)
{
    u64 first = sv->exit_seq > SVM_TRAIL ? sv->exit_seq - SVM_TRAIL : 0;
    for (u64 n = first; n < sv->exit_seq; n++) {
        const struct svm_trail *t = &sv->trail[n % SVM_TRAIL];
        log_error("svm", "exit %llu: code %llx info %llx %llx int %llx rip %llx",
                  (unsigned long long)n, (unsigned long long)t->code, (unsigned long long)t->info1,
                  (unsigned long long)t->info2, (unsigned long long)t->vectoring,
                  (unsigned long long)t->rip);
        log_error("svm", "  entered on CPU %u asid %u flush %u with event %llx", t->cpu, t->asid,
                  t->tlb_control, (unsigned long long)t->injected);
    }
}

// A 64-bit walk without its permissions. Changes nothing, unlike guest_walk.
static bool dump_walk(const struct svm_vcpu *sv, u64 linear)
{
    u64 table = sv->vmcb->cr3 & PTE_ADDRESS;
    for (int level = 4; level >= 1; level--) {
        const u64 *entries = guest_page(sv->v->guest, table);
        if (!entries) {
            log_error("svm", "  level %d: its table %llx is not RAM", level,
                      (unsigned long long)table);
            return false;
        }
        u64 entry =
            __atomic_load_n(&entries[linear >> (12 + 9 * (level - 1)) & 511], __ATOMIC_RELAXED);
        log_error("svm", "  level %d: table %llx entry %llx", level, (unsigned long long)table,
                  (unsigned long long)entry);
        if (!(entry & PTE_PRESENT))
            return false;
        if (level <= 3 && (entry & PTE_LARGE))
            return true;
        table = entry & PTE_ADDRESS;
    }
    return true;
}

// The page fault that the CPU was to deliver, and what the tables say about it now.
static void dump_page_fault(const struct svm_vcpu *sv, const struct pending_event *e)
{
    if (!e->valid || e->type != EVENT_EXCEPTION || e->vector != PAGE_FAULT)
        return;
    log_error("svm", "page fault at %llx:", (unsigned long long)sv->vmcb->cr2);
    bool there = dump_walk(sv, sv->vmcb->cr2);
    if (!(e->error & PF_PROTECTED))
        log_error("svm", "the CPU found no page at %llx, where the guest's tables have %s",
                  (unsigned long long)sv->vmcb->cr2, there ? "one" : "none");
}

void svm_trail_dump(const struct svm_vcpu *sv)
{
    dump_exits(sv);
    if (!(sv->vmcb->efer & EFER_LMA) || !(sv->vmcb->cr0 & CR0_PG))
        return;
    log_error("svm", "rip:");
    dump_walk(sv, sv->vmcb->rip);
    dump_page_fault(sv, &sv->event);
    dump_page_fault(sv, &sv->exception);
}
