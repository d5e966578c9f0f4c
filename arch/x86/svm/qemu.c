// SPDX-License-Identifier: MIT
// What QEMU's own emulation of AMD-V (TCG, 7.2 to 10.0 were looked at) does otherwise than the
// manual says, and how guests run on it all the same. On a CPU, or under another hypervisor,
// nothing of this is done.
#include "arch/x86/features.h"
#include "arch/x86/svm/svm.h"
#include "kernel/lib.h"
#include "kernel/log.h"
#include "kernel/thread.h"

// It says so where hypervisors do.
static bool emulated_by_qemu(void)
{
    u32 r[4];
    cpuid(1, 0, r);
    if (!(r[2] & BIT(31)))
        return false;
    cpuid(0x40000000, 0, r);
    return memcmp(&r[1], "TCGTCGTCGTCG", 12) == 0;
}

// Whichever CPU loads x87 state, by FXRSTOR or XRSTOR and in a guest as well, rewrites a word of
// the first CPU's state without a lock, to clear an IGNNE# flag there. That word also says whether
// nested paging is on, GIF, and whether interrupts end the guest's turn. What the first CPU's
// VMRUN, #VMEXIT, CLGI or STGI change in it at that moment is lost: then its guest runs on the
// host's memory, the host below the guest's tables, or no interrupt comes any more. A CPU that
// never uses them has nothing to lose.
static void keep_guests_off_first_cpu(void)
{
    log_info("svm", "QEMU emulates this CPU: guests keep off CPU 0 where there are others");
    thread_keep_off(BIT(0));
}

bool svm_qemu_probe(void)
{
    if (!emulated_by_qemu())
        return false;
    keep_guests_off_first_cpu();
    return true;
}

// VMRUN delivers an interrupt and leaves it behind as an exception that is still to come: if
// another of QEMU's threads asks this one to stop before the next exit or exception, it is
// delivered again, be interrupts off or the guest's kernel on its first instruction. An interrupt
// of the host's that is pending already ends the guest's turn first, right behind the delivery.
void svm_qemu_deliver_once(const struct pending_event *e)
{
    if (e->type == EVENT_INTR)
        cpu_kick(this_cpu()->index);
}

// VMRUN ignores the interrupt shadow before 8: an interrupt would come between STI and HLT, and the
// CPU sleep in spite of it. The instruction that the shadow is for is stepped over instead.
bool svm_qemu_shadow_enter(struct svm_vcpu *sv)
{
    if (!svm_in_shadow(sv) || (sv->vmcb->event_inj & EVENT_VALID))
        return false;
    if (!sv->step)
        svm_step_start(sv, STEP_SHADOW);
    return true;
}

// VMRUN and #VMEXIT change a word of pending interrupts without the lock that others hold: an
// interrupt of the host that arrives at that moment is not delivered until another one comes. Any
// write to CR8 makes the local APIC look again.
static void look_for_interrupts(void)
{
    __asm__ volatile("mov %0, %%cr8" : : "r"(0ull) : "memory");
}

// XSETBV does not exit before 8.1: what the guest has put into XCR0 would be lost at the next
// thread switch.
static void xcr0_store(struct vcpu *v)
{
    if (!host_features.xsave)
        return;
    u64 xcr0 = xgetbv(0);
    if (unlikely(xcr0 != v->xcr0))
        v->xcr0 = xcr0;
}

// 7.2 lets 32-bit code use SYSENTER in long mode and leaves CS both 64-bit and 32-bit, which its
// own VMRUN then refuses (APM 2 15.5.1).
static void code_segment_store(struct vmcb *b)
{
    if (unlikely((b->cs.attr & (CS_LONG | CS_DEFAULT32)) == (CS_LONG | CS_DEFAULT32)))
        b->cs.attr &= ~CS_DEFAULT32;
}

void svm_qemu_exit(struct svm_vcpu *sv)
{
    look_for_interrupts();
    xcr0_store(sv->v);
    code_segment_store(sv->vmcb);
}
