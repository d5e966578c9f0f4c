// SPDX-License-Identifier: MIT
// Page-modification logging: the buffer the CPU writes guest-physical addresses to (SDM 3C 28.2.6).
#include "arch/x86/vmx/vmx.h"

#define PML_ENTRIES 512

// Called after every exit while PML is on, so a vCPU that is not in its guest has an empty buffer.
void vmx_pml_drain(struct vmx_vcpu *vx)
{
    u32 index = (u16)vmread(VMCS_PML_INDEX); // next slot, counts down from 511; 0xffff when full
    if (index == PML_ENTRIES - 1)
        return;
    u32 first = index >= PML_ENTRIES ? 0 : index + 1;
    // Once logging is off the last entries are of no use: dirty_stop has given permission back.
    if (vx->vg->np.logging != NP_LOG_OFF)
        for (u32 i = first; i < PML_ENTRIES; i++)
            dirty_log_hit(vx->vg->guest, vx->pml[i] & ~(PAGE_SIZE - 1));
    vmwrite(VMCS_PML_INDEX, PML_ENTRIES - 1);
}

void vmx_pml_sync(struct vmx_vcpu *vx)
{
    bool on = vx->pml && vx->vg->np.logging == NP_LOG_DIRTY_FLAGS;
    if (on == vx->pml_on)
        return;
    vx->proc2 = on ? vx->proc2 | PROC2_PML : vx->proc2 & ~PROC2_PML;
    vmwrite(VMCS_PROC2_CONTROLS, vx->proc2);
    vmwrite(VMCS_PML_INDEX, PML_ENTRIES - 1);
    vx->pml_on = on;
}

void vmx_dirty_drain(struct guest *g)
{
    for (u32 i = 0; i < g->vcpu_count; i++)
        if (g->vcpu[i] && g->vcpu[i]->backend)
            vmx_wait_exit(g->vcpu[i]);
}
