// SPDX-License-Identifier: MIT
// A guest's nested page tables (APM 2 15.25) and its dirty log by write-protection.
#include "arch/x86/svm/svm.h"
#include "kernel/lib.h"
#include "kernel/mem.h"

#define NPT_PRESENT  BIT(0)
#define NPT_WRITE    BIT(1)
#define NPT_USER     BIT(2) // every access by a guest is a user access (APM 2 15.25.5)
#define NPT_ACCESSED BIT(5)
#define NPT_DIRTY    BIT(6)
#define NPT_LARGE    BIT(7)

// Accessed and dirty are set from the start: nobody reads them, and the CPU need not write them.
static const struct np_format npt = {
    .present = NPT_PRESENT,
    .write = NPT_WRITE,
    .dirty = NPT_DIRTY,
    .table = NPT_PRESENT | NPT_WRITE | NPT_USER | NPT_ACCESSED,
    .leaf = NPT_PRESENT | NPT_WRITE | NPT_USER | NPT_ACCESSED | NPT_DIRTY,
    .large = NPT_LARGE,
};

int svm_guest_create(struct guest *g)
{
    struct svm_guest *sg = kzalloc(sizeof *sg);
    if (!sg)
        return E_NOMEM;
    if (np_init(&sg->np, &npt, g, svm_flush_guest) < 0) {
        kfree(sg);
        return E_NOMEM;
    }
    sg->guest = g;
    g->backend = sg;
    return 0;
}

// The identifiers its vCPUs used are not used again before a flush, so nothing walks these tables.
void svm_guest_destroy(struct guest *g)
{
    struct svm_guest *sg = g->backend;
    if (!sg)
        return;
    assert(sg->vcpus == 0);
    np_fini(&sg->np);
    kfree(sg);
    g->backend = NULL;
}

int svm_map_large(struct guest *g, u64 gpa, u64 hpa)
{
    struct svm_guest *sg = g->backend;
    return np_map_large(&sg->np, gpa, hpa);
}

bool svm_has_pml(void)
{
    return false;
}

int svm_dirty_start(struct guest *g, bool pml)
{
    struct svm_guest *sg = g->backend;
    if (pml)
        return E_NOSUP;
    np_log_start(&sg->np, NP_LOG_WRITES);
    svm_flush_guest(g);
    return 0;
}

void svm_dirty_rearm(struct guest *g, u64 gpa)
{
    struct svm_guest *sg = g->backend;
    np_log_rearm(&sg->np, gpa);
}

// Every fault has told the log before its vCPU went on: there is no buffer to empty.
void svm_dirty_drain(struct guest *g)
{
    (void)g;
}

void svm_dirty_stop(struct guest *g)
{
    struct svm_guest *sg = g->backend;
    np_log_stop(&sg->np);
}

static void npf_fatal(const struct vmcb *b, const char *text, struct vm_exit *x)
{
    x->kind = EXIT_FATAL;
    x->fatal.code = b->exit_code;
    x->fatal.info = b->exit_info1;
    x->fatal.info2 = b->exit_info2;
    x->fatal.text = text;
}

void svm_exit_npf(struct svm_vcpu *sv, bool vectoring, struct vm_exit *x)
{
    const struct vmcb *b = sv->vmcb;
    u64 info = b->exit_info1, gpa = b->exit_info2;
    if (info & NPF_RESERVED) {
        npf_fatal(b, "nested page table entry with reserved bits", x);
        return;
    }
    // Walks of the guest's own page tables count as writes (APM 2 15.25.5).
    if (np_fault(&sv->sg->np, gpa, info & NPF_WRITE) == NP_FAULT_RETRY) {
        x->kind = EXIT_RETRY;
        return;
    }
    if (vectoring) {
        // No instruction to emulate: the guest's stack or descriptor tables are not in RAM.
        npf_fatal(b, "event delivery through memory that is not RAM", x);
        return;
    }
    x->kind = EXIT_MMIO;
    x->mmio.gpa = gpa;
    x->mmio.gva = 0;
    x->mmio.gva_valid = false;
    x->mmio.write = info & NPF_WRITE;
    x->mmio.fetch = info & NPF_FETCH;
}
