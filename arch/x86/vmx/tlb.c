// SPDX-License-Identifier: MIT
// Invalidation of what CPUs cached of guests' translations: INVEPT, INVVPID, shoot-downs and VPIDs
// (SDM 3C 28.3).
#include "arch/x86/vmx/vmx.h"
#include "kernel/lib.h"

#define VPID_COUNT 1024

struct inv_descriptor {
    u64 first, second;
};
static_assert(sizeof(struct inv_descriptor) == 16, "SDM 3C 30.3 INVEPT, INVVPID");

static struct spinlock vpid_lock;
static u64 vpid_used[VPID_COUNT / 64] = {1}; // VPID 0 is the host's

static void invept_single(u64 eptp)
{
    struct inv_descriptor d = {eptp, 0};
    bool failed;
    __asm__ volatile("invept %1, %2" : "=@ccbe"(failed) : "m"(d), "r"(1ull) : "memory");
    assert(!failed);
}

void vmx_flush_vpid(u16 vpid)
{
    struct inv_descriptor d = {vpid, 0};
    bool failed;
    __asm__ volatile("invvpid %1, %2" : "=@ccbe"(failed) : "m"(d), "r"(1ull) : "memory");
    assert(!failed);
}

// The generation is read first: a shoot-down that starts meanwhile is not taken for done.
void vmx_flush_ept_here(struct vmx_guest *vg)
{
    u64 gen = vg->flush_gen;
    invept_single(vg->eptp);
    vg->cpu_gen[this_cpu()->index] = gen;
}

void vmx_wait_exit(struct vcpu *v)
{
    struct vmx_vcpu *vx = vmx_of(v);
    u64 seq = vx->exit_seq;
    if (!v->in_guest || v->cpu == this_cpu()->index)
        return;
    cpu_kick(v->cpu);
    while (v->in_guest && vx->exit_seq == seq)
        cpu_relax();
}

// A CPU that is not in this guest flushes before it enters again (vmx_vcpu_run compares the
// generations after it has said in_guest); one that is gets thrown out.
void vmx_flush_guest(struct guest *g)
{
    struct vmx_guest *vg = g->backend;
    __atomic_add_fetch(&vg->flush_gen, 1, __ATOMIC_SEQ_CST);
    vmx_flush_ept_here(vg);
    for (u32 i = 0; i < g->vcpu_count; i++)
        if (g->vcpu[i] && g->vcpu[i]->backend)
            vmx_wait_exit(g->vcpu[i]);
}

void vmx_request(struct vmx_vcpu *vx, u32 bits)
{
    __atomic_fetch_or(&vx->requests, bits, __ATOMIC_SEQ_CST);
}

void vmx_invalidate_guest_tlb(struct vcpu *v)
{
    vmx_request(vmx_of(v), VMX_REQ_TLB);
}

u16 vmx_vpid_alloc(void)
{
    u16 vpid = 0;
    u64 flags = spin_lock_irqsave(&vpid_lock);
    for (u32 i = 0; i < ARRAY_SIZE(vpid_used) && !vpid; i++) {
        if (vpid_used[i] == ~0ull)
            continue;
        u32 bit = __builtin_ctzll(~vpid_used[i]);
        vpid_used[i] |= BIT(bit);
        vpid = i * 64 + bit;
    }
    spin_unlock_irqrestore(&vpid_lock, flags);
    return vpid;
}

void vmx_vpid_free(u16 vpid)
{
    u64 flags = spin_lock_irqsave(&vpid_lock);
    vpid_used[vpid / 64] &= ~BIT(vpid % 64);
    spin_unlock_irqrestore(&vpid_lock, flags);
}
