// SPDX-License-Identifier: MIT
// A guest's extended page tables (SDM 3C 28.2) and its dirty log, by PML or by write-protection.
#include "arch/x86/vmx/vmx.h"
#include "kernel/lib.h"
#include "kernel/mem.h"

#define EPT_R     BIT(0)
#define EPT_W     BIT(1)
#define EPT_X     BIT(2)
#define EPT_WB    (6ull << 3)
#define EPT_LARGE BIT(7)
#define EPT_D     BIT(9)

// Bits of EPTP (SDM 3C 24.6.11).
#define EPTP_WB    6ull
#define EPTP_WALK4 (3ull << 3)
#define EPTP_AD    BIT(6)

// The dirty flag is clear from the start: PML tells when the CPU sets it (SDM 3C 28.2.6).
static const struct np_format ept = {
    .present = EPT_R,
    .write = EPT_W,
    .dirty = EPT_D,
    .table = EPT_R | EPT_W | EPT_X,
    .leaf = EPT_R | EPT_W | EPT_X | EPT_WB,
    .large = EPT_LARGE,
};

int vmx_guest_create(struct guest *g)
{
    struct vmx_guest *vg = kzalloc(sizeof *vg);
    if (!vg)
        return E_NOMEM;
    if (np_init(&vg->np, &ept, g, vmx_flush_guest) < 0) {
        kfree(vg);
        return E_NOMEM;
    }
    vg->guest = g;
    vg->eptp = vg->np.root | EPTP_WB | EPTP_WALK4 | EPTP_AD;
    // No CPU has flushed generation 1 yet, so each does before it first uses this root: the page
    // may have been another guest's root before.
    vg->flush_gen = 1;
    g->backend = vg;
    return 0;
}

void vmx_guest_destroy(struct guest *g)
{
    struct vmx_guest *vg = g->backend;
    if (!vg)
        return;
    assert(vg->vcpus == 0);
    np_fini(&vg->np);
    kfree(vg);
    g->backend = NULL;
}

int vmx_map_large(struct guest *g, u64 gpa, u64 hpa)
{
    struct vmx_guest *vg = g->backend;
    return np_map_large(&vg->np, gpa, hpa);
}

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

int vmx_dirty_start(struct guest *g, bool pml)
{
    struct vmx_guest *vg = g->backend;
    if (pml && !vmx_caps.pml)
        return E_NOSUP;
    np_log_start(&vg->np, pml ? NP_LOG_DIRTY_FLAGS : NP_LOG_WRITES);
    pml_sync_all(g);
    vmx_flush_guest(g);
    return 0;
}

void vmx_dirty_rearm(struct guest *g, u64 gpa)
{
    struct vmx_guest *vg = g->backend;
    np_log_rearm(&vg->np, gpa);
}

// What PML still tells meanwhile is dropped (vmx_pml_drain).
void vmx_dirty_stop(struct guest *g)
{
    struct vmx_guest *vg = g->backend;
    np_log_stop(&vg->np);
    pml_sync_all(g);
}
