// SPDX-License-Identifier: MIT
// First things on the boot CPU: per-CPU data, descriptor tables, exceptions, features.
#include "arch/x86/cpu.h"
#include "arch/x86/descriptors.h"
#include "arch/x86/early.h"
#include "arch/x86/features.h"
#include "arch/x86/power.h"
#include "arch/x86/serial.h"
#include "boot/boot_info.h"
#include "kernel/lib.h"

u32 cpu_count = 1;
u64 arch_tsc_at_boot;
static struct cpu cpus[MAX_CPUS];

struct cpu *cpu_get(u32 index)
{
    assert(index < MAX_CPUS);
    return &cpus[index];
}

void arch_early_init(const struct boot_info *bi)
{
    struct cpu *c = &cpus[0];
    c->apic_id = bi->cpu_apic_id[0];
    gdt_prepare(c);
    gdt_load(c);
    idt_prepare();
    idt_load();
    serial_early_init();
    features_detect();
    features_enable();
    arch_tsc_at_boot = bi->tsc_at_entry;
    power_init(bi);
}
