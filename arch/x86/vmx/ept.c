// SPDX-License-Identifier: MIT
// A guest's extended page tables: created, filled with 2 MiB pages, freed (SDM 3C 28.2).
#include "arch/x86/vmx/ept.h"
#include "arch/x86/vmx/vmx.h"
#include "kernel/lib.h"

int vmx_guest_create(struct guest *g)
{
    struct vmx_guest *vg = kzalloc(sizeof *vg);
    if (!vg)
        return E_NOMEM;
    vg->root = page_alloc_zero(0);
    if (!vg->root) {
        kfree(vg);
        return E_NOMEM;
    }
    vg->guest = g;
    vg->eptp = vg->root | EPTP_WB | EPTP_WALK4 | EPTP_AD;
    // No CPU has flushed generation 1 yet, so each does before it first uses this root: the page
    // may have been another guest's root before.
    vg->flush_gen = 1;
    g->backend = vg;
    return 0;
}

static void free_tables(u64 table_pa, int level)
{
    const struct ept_table *t = phys_ptr(table_pa);
    for (unsigned i = 0; level > 1 && i < EPT_ENTRIES; i++)
        if (t->entry[i] && !ept_is_leaf(t->entry[i], level))
            free_tables(t->entry[i] & EPT_ADDR, level - 1);
    page_free(table_pa, 0);
}

void vmx_guest_destroy(struct guest *g)
{
    struct vmx_guest *vg = g->backend;
    if (!vg)
        return;
    assert(vg->vcpus == 0);
    free_tables(vg->root, EPT_LEVELS);
    kfree(vg);
    g->backend = NULL;
}

// The entry for gpa in the table of `level`, making the tables above it. NULL without memory.
static u64 *entry_make(struct vmx_guest *vg, u64 gpa, int level)
{
    struct ept_table *t = phys_ptr(vg->root);
    for (int l = EPT_LEVELS; l > level; l--) {
        u64 *e = &t->entry[ept_index(gpa, l)];
        if (!*e) {
            u64 pa = page_alloc_zero(0);
            if (!pa)
                return NULL;
            ept_put(e, pa | EPT_RWX);
        }
        t = ept_table_at(*e);
    }
    return &t->entry[ept_index(gpa, level)];
}

int vmx_map_large(struct guest *g, u64 gpa, u64 hpa)
{
    struct vmx_guest *vg = g->backend;
    assert(gpa % LARGE_PAGE_SIZE == 0 && hpa % LARGE_PAGE_SIZE == 0 && gpa < EPT_GPA_END);
    u64 *e = entry_make(vg, gpa, 2);
    if (!e)
        return E_NOMEM;
    assert(*e == 0);
    ept_put(e, hpa | EPT_RWX | EPT_WB | EPT_LARGE);
    return 0;
}
