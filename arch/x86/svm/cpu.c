// SPDX-License-Identifier: MIT
// SVM on one CPU: found, unlocked, switched on and off (APM 2 15.4).
#include "arch/x86/svm/svm.h"
#include "kernel/lib.h"
#include "kernel/log.h"
#include "kernel/mem.h"

struct svm_caps svm_caps;

#define CPUID_SVM                0x8000000a // APM 3 E.4.9
#define MSR_DE_CFG               0xc0011029
#define DE_CFG_LFENCE_SERIALIZES BIT(1)

// IBRS, STIBP and SSBD, as Intel's leaf or as AMD's own announces them (APM 3 E.3.6, E.4.8).
static u64 spec_ctrl_bits(void)
{
    u32 top[4], intel[4] = {0}, amd[4];
    cpuid(0, 0, top);
    if (top[0] >= 7)
        cpuid(7, 0, intel);
    cpuid(0x80000008, 0, amd);
    return (intel[3] & BIT(26) || amd[1] & BIT(14) ? BIT(0) : 0) |
           (intel[3] & BIT(27) || amd[1] & BIT(15) ? BIT(1) : 0) |
           (intel[3] & BIT(31) || amd[1] & BIT(24) ? BIT(2) : 0);
}

static bool has_svm(char *why, size_t size)
{
    u32 r[4];
    if (!host_features.svm) {
        snprintf(why, size, "this CPU has no AMD-V (CPUID.80000001:ECX.SVM is 0)");
        return false;
    }
    cpuid(CPUID_SVM, 0, r);
    u64 vm_cr = rdmsr(MSR_VM_CR);
    if ((vm_cr & VM_CR_SVMDIS) && (vm_cr & VM_CR_LOCK)) {
        snprintf(why, size, "AMD-V is locked off by firmware: switch \"SVM Mode\" on in its setup");
        return false;
    }
    if (!(r[3] & BIT(0))) {
        snprintf(why, size,
                 "AMD-V of this CPU lacks nested paging, which Skiff needs to run guests");
        return false;
    }
    return true;
}

bool svm_probe(char *why, size_t size)
{
    u32 r[4];
    if (!has_svm(why, size))
        return false;
    cpuid(CPUID_SVM, 0, r);
    svm_caps = (struct svm_caps){
        .asids = r[1],
        .next_rip = r[3] & BIT(3),
        .tsc_scaling = r[3] & BIT(4),
        .flush_by_asid = r[3] & BIT(6),
        .decode_assists = r[3] & BIT(7),
        .pause_filter = r[3] & BIT(10),
        .pause_threshold = r[3] & BIT(12),
        .rdtscp = host_features.rdtscp,
        .spec_ctrl_bits = spec_ctrl_bits(),
    };
    if (svm_caps.asids < 2) {
        snprintf(why, size, "AMD-V of this CPU has no address space identifier for a guest");
        return false;
    }
    svm_caps.qemu = svm_qemu_probe();
    return true;
}

// Kernels on Intel CPUs count on LFENCE to hold back what follows it. AMD's does so where this bit
// is set (AMD, "Software techniques for managing speculation", mitigation G-2); families 0Fh and
// 11h have no such register and need none. Under another hypervisor it is that one's to set.
static void make_lfence_serialize(void)
{
    u32 r[4];
    cpuid(1, 0, r);
    bool hypervisor = r[2] & BIT(31);
    if (!hypervisor && host_features.family >= 0x10 && host_features.family != 0x11)
        wrmsr(MSR_DE_CFG, rdmsr(MSR_DE_CFG) | DE_CFG_LFENCE_SERIALIZES);
}

static void vmsave(u64 pa)
{
    __asm__ volatile("vmsave %%rax" : : "a"(pa) : "memory");
}

int svm_cpu_enable(void)
{
    struct svm_cpu *c = kzalloc(sizeof *c);
    u64 hsave = page_alloc_zero(0), host = page_alloc_zero(0);
    if (!c || !hsave || !host || svm_maps_init() < 0) {
        kfree(c);
        if (hsave)
            page_free(hsave, 0);
        if (host)
            page_free(host, 0);
        log_error("svm", "no memory to switch AMD-V on");
        return E_NOMEM;
    }
    u64 vm_cr = rdmsr(MSR_VM_CR);
    if (vm_cr & VM_CR_SVMDIS)
        wrmsr(MSR_VM_CR, vm_cr & ~VM_CR_SVMDIS);
    wrmsr(MSR_EFER, rdmsr(MSR_EFER) | EFER_SVME);
    wrmsr(MSR_VM_HSAVE_PA, hsave);
    make_lfence_serialize();
    // Means nothing in long mode. Guests set it, and a CR4 that differs in how pages are read makes
    // an emulated CPU flush once more at each entry and each exit.
    write_cr4(read_cr4() | CR4_PSE);
    c->hsave_pa = hsave;
    c->host_pa = host;
    c->next_asid = svm_caps.asids; // the first one to be given out flushes all
    vmsave(host);                  // what it holds never changes on this CPU
    this_cpu()->backend = c;
    return 0;
}

// Called on the way to a reset: nothing is freed.
void svm_cpu_disable(void)
{
    struct svm_cpu *c = svm_this_cpu();
    if (!c)
        return;
    c->current = NULL;
    wrmsr(MSR_VM_HSAVE_PA, 0);
    wrmsr(MSR_EFER, rdmsr(MSR_EFER) & ~EFER_SVME);
    this_cpu()->backend = NULL;
}
