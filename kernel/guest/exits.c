// SPDX-License-Identifier: MIT
// What each exit asks for: one handler a kind, found through a table.
#include "kernel/guest/cpuid.h"
#include "kernel/guest/emulate.h"
#include "kernel/guest/msr.h"
#include "kernel/guest/vcpu.h"
#include "kernel/lib.h"

#define unlikely(x) __builtin_expect(!!(x), 0)
#define MSR_TSC_AUX 0xc0000103
#define VECTOR_UD   6
#define VECTOR_GP   13

// Returns false when the guest cannot go on; it has been ended with a reason then.
typedef bool (*exit_handler)(struct vcpu *v, const struct vm_exit *x);

static void write_xcr0(u64 value)
{
    __asm__ volatile("xsetbv" : : "c"(0), "a"((u32)value), "d"((u32)(value >> 32)));
}

static bool raise_gp(struct vcpu *v)
{
    backend->inject_exception(v, VECTOR_GP, true, 0);
    v->kick = true;
    return true;
}

static bool raise_ud(struct vcpu *v)
{
    backend->inject_exception(v, VECTOR_UD, false, 0);
    v->kick = true;
    return true;
}

// Behind the instruction; where the hardware does not tell its length it is decoded.
static bool advance(struct vcpu *v, const struct vm_exit *x)
{
    u32 len = x->insn_len;
    if (unlikely(!len)) {
        len = emulate_insn_length(v);
        if (!len) {
            guest_crash(v->guest, "vCPU %u: the instruction at RIP 0x%llx cannot be read", v->index,
                        (unsigned long long)backend->get_rip(v));
            return false;
        }
    }
    backend->skip_insn(v, len);
    return true;
}

// A device or the local APIC may have raised an interrupt for this vCPU without a kick.
static void look_for_irq(struct vcpu *v)
{
    if (platform_irq_peek(v) >= 0)
        v->kick = true;
}

static bool nothing(struct vcpu *v, const struct vm_exit *x)
{
    (void)v, (void)x;
    return true;
}

static bool look_again(struct vcpu *v, const struct vm_exit *x)
{
    (void)x;
    v->kick = true;
    return true;
}

static bool fail_emulation(struct vcpu *v, const char *why)
{
    guest_crash(v->guest, "vCPU %u at RIP 0x%llx: %s", v->index,
                (unsigned long long)backend->get_rip(v), why);
    return false;
}

static bool on_string_io(struct vcpu *v, const struct vm_exit *x)
{
    char why[128];
    if (emulate_string_io(v, x, why, sizeof(why)))
        return fail_emulation(v, why);
    look_for_irq(v);
    return true;
}

static void io_in(struct vcpu *v, const struct vm_exit *x)
{
    u64 value = bus_io_read(v->guest, x->io.port, x->io.size);
    u64 *rax = &v->gpr[GPR_RAX];
    if (x->io.size == 1)
        *rax = (*rax & ~0xffull) | (value & 0xff);
    else if (x->io.size == 2)
        *rax = (*rax & ~0xffffull) | (value & 0xffff);
    else
        *rax = (u32)value;
}

static bool on_io(struct vcpu *v, const struct vm_exit *x)
{
    struct guest *g = v->guest;
    if (unlikely(x->io.string))
        return on_string_io(v, x);
    if (x->io.in)
        io_in(v, x);
    else
        bus_io_write(g, x->io.port, x->io.size, v->gpr[GPR_RAX]);
    // A write that resets the machine or switches it off never completes. If the guest is on its
    // way to another host just now, it is that host where it happens again.
    if (unlikely(g->reset_wanted || g->poweroff_wanted))
        return true;
    look_for_irq(v);
    return advance(v, x);
}

static bool on_mmio(struct vcpu *v, const struct vm_exit *x)
{
    char why[128];
    if (x->mmio.fetch) {
        snprintf(why, sizeof(why), "it runs code at 0x%llx, where there is no memory",
                 (unsigned long long)x->mmio.gpa);
        return fail_emulation(v, why);
    }
    if (emulate_mmio(v, x, why, sizeof(why)))
        return fail_emulation(v, why);
    look_for_irq(v);
    return true;
}

static bool on_cpuid(struct vcpu *v, const struct vm_exit *x)
{
    u32 r[4] = {(u32)v->gpr[GPR_RAX], 0, (u32)v->gpr[GPR_RCX], 0};
    cpuid_query(v, r);
    v->gpr[GPR_RAX] = r[0];
    v->gpr[GPR_RBX] = r[1];
    v->gpr[GPR_RCX] = r[2];
    v->gpr[GPR_RDX] = r[3];
    return advance(v, x);
}

static bool on_rdmsr(struct vcpu *v, const struct vm_exit *x)
{
    u64 value = 0;
    if (msr_read(v, x->msr.index, &value))
        return raise_gp(v);
    v->gpr[GPR_RAX] = (u32)value;
    v->gpr[GPR_RDX] = value >> 32;
    return advance(v, x);
}

static bool on_rdtsc(struct vcpu *v, const struct vm_exit *x)
{
    u64 tsc = guest_clock_sample(v->guest).tsc + v->tsc_adjust;
    v->gpr[GPR_RAX] = (u32)tsc;
    v->gpr[GPR_RDX] = tsc >> 32;
    if (x->rdtsc.aux) {
        u64 aux = 0;
        backend->get_msr(v, MSR_TSC_AUX, &aux);
        v->gpr[GPR_RCX] = (u32)aux;
    }
    return advance(v, x);
}

static u64 edx_eax(const struct vcpu *v)
{
    return v->gpr[GPR_RDX] << 32 | (u32)v->gpr[GPR_RAX];
}

static bool on_wrmsr(struct vcpu *v, const struct vm_exit *x)
{
    if (msr_write(v, x->msr.index, edx_eax(v)))
        return raise_gp(v);
    look_for_irq(v);
    return advance(v, x);
}

static bool on_cr8(struct vcpu *v, const struct vm_exit *x)
{
    bool rsp = x->cr8.gpr == GPR_RSP;
    if (x->cr8.write) {
        u64 value = rsp ? backend->get_rsp(v) : v->gpr[x->cr8.gpr];
        if (value > 15)
            return raise_gp(v);
        platform_set_cr8(v, value);
        v->kick = true; // a lower TPR may let an interrupt in
    } else if (rsp) {
        backend->set_rsp(v, platform_get_cr8(v));
    } else {
        v->gpr[x->cr8.gpr] = platform_get_cr8(v);
    }
    return advance(v, x);
}

static bool on_xsetbv(struct vcpu *v, const struct vm_exit *x)
{
    u64 value = edx_eax(v);
    if ((u32)v->gpr[GPR_RCX] || !cpuid_xcr0_valid(v->guest, value))
        return raise_gp(v);
    v->xcr0 = value;
    write_xcr0(value); // the guest's is in the CPU while its vCPU is loaded
    return advance(v, x);
}

static bool on_hlt(struct vcpu *v, const struct vm_exit *x)
{
    if (!advance(v, x))
        return false;
    v->activity = VCPU_HALTED;
    v->kick = true;
    return true;
}

static bool on_invd(struct vcpu *v, const struct vm_exit *x)
{
    return advance(v, x); // memory is coherent and stays as it is
}

// It spins until another vCPU has got on, which may be ready and have no CPU: it holds the lock, or
// is to answer an interrupt.
static bool on_pause(struct vcpu *v, const struct vm_exit *x)
{
    thread_yield_to_all();
    return advance(v, x);
}

static bool on_undefined(struct vcpu *v, const struct vm_exit *x)
{
    (void)x;
    return raise_ud(v);
}

static bool on_gp(struct vcpu *v, const struct vm_exit *x)
{
    (void)x;
    return raise_gp(v);
}

static bool on_triple_fault(struct vcpu *v, const struct vm_exit *x)
{
    (void)x;
    guest_crash(v->guest, "triple fault on vCPU %u at RIP 0x%llx", v->index,
                (unsigned long long)backend->get_rip(v));
    return false;
}

static bool on_nomem(struct vcpu *v, const struct vm_exit *x)
{
    (void)x;
    guest_crash(v->guest, "no host memory for the page tables of vCPU %u", v->index);
    return false;
}

static bool on_fatal(struct vcpu *v, const struct vm_exit *x)
{
    guest_crash(v->guest, "%s (code 0x%llx, information 0x%llx 0x%llx) on vCPU %u at RIP 0x%llx",
                x->fatal.text, (unsigned long long)x->fatal.code, (unsigned long long)x->fatal.info,
                (unsigned long long)x->fatal.info2, v->index,
                (unsigned long long)backend->get_rip(v));
    return false;
}

static const exit_handler handlers[EXIT_KINDS] = {
    [EXIT_INTERRUPT] = nothing,
    [EXIT_TIMER] = look_again,
    [EXIT_IRQ_WINDOW] = look_again,
    [EXIT_NMI_WINDOW] = look_again,
    [EXIT_IO] = on_io,
    [EXIT_MMIO] = on_mmio,
    [EXIT_CPUID] = on_cpuid,
    [EXIT_RDMSR] = on_rdmsr,
    [EXIT_WRMSR] = on_wrmsr,
    [EXIT_RDTSC] = on_rdtsc,
    [EXIT_CR8] = on_cr8,
    [EXIT_XSETBV] = on_xsetbv,
    [EXIT_HLT] = on_hlt,
    [EXIT_PAUSE] = on_pause,
    [EXIT_INVD] = on_invd,
    [EXIT_HYPERCALL] = on_undefined, // none are offered
    [EXIT_UNDEFINED] = on_undefined,
    [EXIT_GP] = on_gp,
    [EXIT_TRIPLE_FAULT] = on_triple_fault,
    [EXIT_RETRY] = look_again,
    [EXIT_NOMEM] = on_nomem,
    [EXIT_FATAL] = on_fatal,
};

bool vcpu_handle_exit(struct vcpu *v, const struct vm_exit *x)
{
    assert(x->kind < EXIT_KINDS);
    return handlers[x->kind](v, x);
}
