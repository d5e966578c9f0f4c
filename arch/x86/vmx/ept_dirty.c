// SPDX-License-Identifier: MIT
// Dirty logging in the extended page tables: write permission is taken at the top and pushed down
// by the faults, large pages are split at their first write and merged when logging ends.
#include "arch/x86/vmx/ept.h"
#include "arch/x86/vmx/vmx.h"
#include "kernel/lib.h"

#define MERGE_BATCH 64 // tables that wait for one shoot-down

bool vmx_has_pml(void)
{
    return vmx_caps.pml;
}

static void pml_sync_all(struct guest *g)
{
    for (u32 i = 0; i < g->vcpu_count; i++)
        if (g->vcpu[i] && g->vcpu[i]->backend)
            vmx_request(vmx_of(g->vcpu[i]), VMX_REQ_PML);
}

static void clear_w_in(struct ept_table *t)
{
    for (unsigned i = 0; i < EPT_ENTRIES; i++)
        if (ept_get(&t->entry[i]) & EPT_W)
            ept_clear(&t->entry[i], EPT_W);
}

int vmx_dirty_start(struct guest *g, bool pml)
{
    struct vmx_guest *vg = g->backend;
    if (pml && !vmx_caps.pml)
        return E_NOSUP;
    spin_lock(&vg->lock);
    vg->logging = pml ? EPT_LOG_PML : EPT_LOG_WP;
    clear_w_in(phys_ptr(vg->root)); // the cost does not depend on the guest's size
    spin_unlock(&vg->lock);
    pml_sync_all(g);
    vmx_flush_guest(g);
    return 0;
}

// Replaces a 2 MiB leaf by a table of 4 KiB leaves. Nothing has to be flushed: what a TLB still
// holds is the same memory with less permission (SDM 3C 28.3.3.1: a violation drops it).
static bool split(struct vmx_guest *vg, u64 *e)
{
    u64 pa = page_alloc(0);
    if (!pa)
        return false;
    u64 leaf = ept_get(e);
    u64 base = leaf & EPT_ADDR & ~(LARGE_PAGE_SIZE - 1);
    u64 bits = EPT_R | EPT_X | EPT_WB;
    if (vg->logging == EPT_LOG_PML)
        bits |= EPT_W; // dirty flags tell, by way of PML
    struct ept_table *t = phys_ptr(pa);
    for (unsigned i = 0; i < EPT_ENTRIES; i++)
        t->entry[i] = (base + i * PAGE_SIZE) | bits;
    ept_put(e, pa | EPT_RWX);
    return true;
}

// Gives one page back its write permission. W comes before the log's bit: a collector that takes
// the bit then clears W after this, and not before.
static void allow_write(struct vmx_guest *vg, u64 *e, u64 gpa)
{
    ept_set(e, EPT_W);
    if (vg->logging != EPT_LOG_OFF)
        dirty_log_hit(vg->guest, gpa);
}

static void allow_large_write(struct vmx_guest *vg, u64 *e)
{
    if (vg->logging == EPT_LOG_OFF) {
        ept_set(e, EPT_W);
        return;
    }
    if (split(vg, e))
        return;
    // The log can't be kept any more: the job that reads it is told and gives up, the guest goes
    // on.
    ept_set(e, EPT_W);
    dirty_log_fail(vg->guest);
}

// One step of the way down to gpa: whatever forbids writing at this entry is undone here, and put
// on the entries below it. Returns false at a leaf.
static bool write_step(struct vmx_guest *vg, u64 *e, int level, u64 gpa)
{
    u64 entry = ept_get(e);
    bool writable = entry & EPT_W;
    if (level == 1) {
        if (!writable)
            allow_write(vg, e, gpa);
        return false;
    }
    if (ept_is_leaf(entry, level)) {
        if (!writable)
            allow_large_write(vg, e);
        return !ept_is_leaf(ept_get(e), level);
    }
    if (!writable) {
        if (vg->logging != EPT_LOG_OFF)
            clear_w_in(ept_table_at(entry));
        ept_set(e, EPT_W);
    }
    return true;
}

enum ept_fault vmx_ept_fault(struct vmx_guest *vg, u64 gpa, bool write)
{
    enum ept_fault result = EPT_FAULT_RETRY;
    if (gpa >= EPT_GPA_END)
        return EPT_FAULT_NOT_RAM;
    spin_lock(&vg->lock);
    struct ept_table *t = phys_ptr(vg->root);
    for (int level = EPT_LEVELS; level >= 1; level--) {
        u64 *e = &t->entry[ept_index(gpa, level)];
        u64 entry = ept_get(e);
        if (!(entry & EPT_R)) {
            result = EPT_FAULT_NOT_RAM;
            break;
        }
        // Present and readable: a read or a fetch faulted on what a TLB held before; enter again.
        if (write && !write_step(vg, e, level, gpa))
            break;
        entry = ept_get(e);
        if (ept_is_leaf(entry, level))
            break;
        t = ept_table_at(entry);
    }
    spin_unlock(&vg->lock);
    return result;
}

// The 4 KiB leaf of gpa, NULL where there is none. Tables are only freed by vmx_dirty_stop, which
// the caller of vmx_dirty_rearm is not concurrent with, so no lock is needed.
static u64 *small_leaf(struct vmx_guest *vg, u64 gpa)
{
    struct ept_table *t = phys_ptr(vg->root);
    for (int level = EPT_LEVELS; level > 1; level--) {
        u64 entry = ept_get(&t->entry[ept_index(gpa, level)]);
        if (!(entry & EPT_R) || ept_is_leaf(entry, level))
            return NULL;
        t = ept_table_at(entry);
    }
    return &t->entry[ept_index(gpa, 1)];
}

void vmx_dirty_rearm(struct guest *g, u64 gpa)
{
    struct vmx_guest *vg = g->backend;
    u64 *e =
        small_leaf(vg, gpa); // a page that is still part of a large one can't be written anyway
    if (e)
        ept_clear(e, vg->logging == EPT_LOG_PML ? EPT_D : EPT_W);
}

static void free_batch(struct guest *g, u64 *batch, unsigned *count)
{
    if (*count)
        vmx_flush_guest(g); // a CPU may still walk these tables
    for (unsigned i = 0; i < *count; i++)
        page_free(batch[i], 0);
    *count = 0;
}

// Makes every entry of a page directory a writable 2 MiB page or nothing.
static void merge_directory(struct guest *g, struct ept_table *pd, u64 *batch, unsigned *count)
{
    struct vmx_guest *vg = g->backend;
    for (unsigned i = 0; i < EPT_ENTRIES; i++) {
        spin_lock(&vg->lock);
        u64 entry = ept_get(&pd->entry[i]);
        if (entry && !(entry & EPT_LARGE)) {
            u64 base = ept_table_at(entry)->entry[0] & EPT_ADDR;
            ept_put(&pd->entry[i], base | EPT_RWX | EPT_WB | EPT_LARGE);
            batch[(*count)++] = entry & EPT_ADDR;
        } else if (entry) {
            ept_set(&pd->entry[i], EPT_W);
        }
        spin_unlock(&vg->lock);
        if (*count == MERGE_BATCH)
            free_batch(g, batch, count);
    }
}

void vmx_dirty_stop(struct guest *g)
{
    struct vmx_guest *vg = g->backend;
    u64 batch[MERGE_BATCH];
    unsigned count = 0;
    spin_lock(&vg->lock);
    vg->logging = EPT_LOG_OFF; // from here on faults only give permission
    spin_unlock(&vg->lock);
    pml_sync_all(g);
    struct ept_table *pml4 = phys_ptr(vg->root);
    for (unsigned i = 0; i < EPT_ENTRIES; i++) {
        if (!pml4->entry[i])
            continue;
        struct ept_table *pdpt = ept_table_at(pml4->entry[i]);
        for (unsigned j = 0; j < EPT_ENTRIES; j++) {
            if (!pdpt->entry[j])
                continue;
            merge_directory(g, ept_table_at(pdpt->entry[j]), batch, &count);
            ept_set(&pdpt->entry[j], EPT_W);
            thread_yield_if_needed();
        }
        ept_set(&pml4->entry[i], EPT_W);
    }
    free_batch(g, batch, &count);
    vmx_flush_guest(g);
}
