// SPDX-License-Identifier: MIT
// The machine as the kernel sees it: per-CPU data, interrupts, context switch, timer, serial,
// power.
#ifndef SKIFF_ARCH_CPU_H
#define SKIFF_ARCH_CPU_H

#include "kernel/types.h"

struct boot_info;
struct thread;

#define MAX_CPUS 64

// Per-CPU block, that CPU's own; GS base points at it. Others read index, apic_id and current.
struct cpu {
    struct cpu *self;
    u32 index; // 0 is the boot CPU
    u32 apic_id;
    u32 irq_depth;  // > 0 in an interrupt handler
    u32 spin_depth; // spinlocks held; blocking with one held is asserted
    struct thread *current;
    void *sched;   // kernel/thread.c
    void *backend; // vmx/ or svm/ per-CPU state
};
static inline struct cpu *this_cpu(void)
{
    struct cpu *c;
    __asm__ volatile("mov %%gs:0, %0" : "=r"(c));
    return c;
}
extern u32 cpu_count; // started CPUs
struct cpu *cpu_get(u32 index);

// Instructions.
static inline u64 rdtsc(void)
{
    u32 lo, hi;
    __asm__ volatile("rdtsc" : "=a"(lo), "=d"(hi));
    return (u64)hi << 32 | lo;
}
static inline u64 rdmsr(u32 msr)
{
    u32 lo, hi;
    __asm__ volatile("rdmsr" : "=a"(lo), "=d"(hi) : "c"(msr));
    return (u64)hi << 32 | lo;
}
static inline void wrmsr(u32 msr, u64 v)
{
    __asm__ volatile("wrmsr" : : "c"(msr), "a"((u32)v), "d"((u32)(v >> 32)) : "memory");
}
static inline void cpuid(u32 leaf, u32 sub, u32 r[4]) // eax, ebx, ecx, edx
{
    __asm__ volatile("cpuid"
                     : "=a"(r[0]), "=b"(r[1]), "=c"(r[2]), "=d"(r[3])
                     : "a"(leaf), "c"(sub));
}
#define DEFINE_PORT(width, suffix, type)                                                           \
    static inline type in##width(u16 port)                                                         \
    {                                                                                              \
        type v;                                                                                    \
        __asm__ volatile("in" suffix " %1, %0" : "=a"(v) : "Nd"(port));                            \
        return v;                                                                                  \
    }                                                                                              \
    static inline void out##width(u16 port, type v)                                                \
    {                                                                                              \
        __asm__ volatile("out" suffix " %0, %1" : : "a"(v), "Nd"(port));                           \
    }
DEFINE_PORT(8, "b", u8)
DEFINE_PORT(16, "w", u16)
DEFINE_PORT(32, "l", u32)
#undef DEFINE_PORT
static inline void cpu_relax(void)
{
    __asm__ volatile("pause" : : : "memory");
}
static inline u64 irq_save(void)
{
    u64 f;
    __asm__ volatile("pushfq; pop %0; cli" : "=r"(f) : : "memory");
    return f;
}
static inline void irq_restore(u64 f)
{
    if (f & 0x200)
        __asm__ volatile("sti" : : : "memory");
}
static inline void irq_enable(void)
{
    __asm__ volatile("sti" : : : "memory");
}
static inline void irq_disable(void)
{
    __asm__ volatile("cli" : : : "memory");
}
// Enables interrupts and halts in one step (STI shadow), so a wake between is not lost.
static inline void cpu_idle(void)
{
    __asm__ volatile("sti; hlt" : : : "memory");
}

// CPU features the host found and uses.
struct host_features {
    char vendor[13], brand[49];
    u32 family, model, stepping;
    u8 phys_bits;
    bool vmx, svm, nx, smep, smap, pge, x2apic, xsave, xsaves, avx, avx512, rdtscp, invpcid,
        tsc_deadline, page1g, fsgsbase, rdrand;
    u64 xcr0_supported; // XCR0 bits the CPU allows (SDM 1 13.3)
    u64 xss_supported;
    u32 xsave_size; // standard format, all of xcr0_supported
};
extern struct host_features host_features;

// arch bring-up, in this order, on the boot CPU. early: serial port, GDT, IDT, exceptions, GS.
void arch_early_init(const struct boot_info *bi);
void arch_paging_init(
    const struct boot_info *bi); // own page tables, W^X, guard ranges; after mem_init
void arch_timer_init(void);      // TSC calibration, local APIC timer
void arch_irq_init(const struct boot_info *bi); // local APIC, IOAPIC, PIC masked

// Page tables of the host (SDM 3A 4.5). MMIO is mapped uncached; returns the pointer to use.
void *map_mmio(u64 pa, u64 bytes);
// A stack of `pages` pages with an unmapped guard page under it; returns its top, NULL without
// memory.
void *stack_alloc(u32 pages);
void stack_free(void *top, u32 pages);

// Interrupts. The handler runs with interrupts off, must quiet its device and may only wake.
typedef void (*irq_handler_t)(void *arg);
// Allocates a vector for it. Returns the vector or a negative error.
int irq_alloc_vector(irq_handler_t fn, void *arg);
// Routes an ISA/PCI interrupt pin through the IOAPIC (level, active low for PCI). 0 or error.
int irq_route_pin(u32 gsi, int vector, bool level, bool active_low);
u64 irq_msi_address(u32 cpu_index); // for MSI/MSI-X: address, data is the vector
// Called by the common interrupt entry (also by a backend that acknowledged the interrupt at exit).
void irq_dispatch(u32 vector);
void cpu_kick(u32 cpu_index); // makes another CPU leave its guest and look for work

// Next timer interrupt on this CPU at host TSC value `deadline` (~0: none). Handler calls
// ktimer_interrupt() of kernel/time.c.
void arch_timer_arm(u64 deadline_tsc);

// Context switch (arch/x86/switch.S): saves callee-saved registers on the old stack, *old_sp gets
// it.
void arch_switch(void **old_sp, void *new_sp);
// Prepares a new stack so that the first arch_switch to it calls fn(arg). Returns its sp.
void *arch_stack_prepare(void *stack_top, void (*fn)(void *), void *arg);

// XSAVE areas (64-byte aligned, host_features.xsave_size bytes, standard format).
void *xsave_area_alloc(void); // holds the initial state
void xsave_area_free(void *area);
void xsave_save(void *area); // with XCR0 = all supported
void xsave_restore(const void *area);

// COM1 (16550). Output is polled so a crash can print; input raises an interrupt.
void serial_write(const char *s, size_t n);   // \n becomes \r\n
int serial_read(void);                        // next received byte, -1 when none
void serial_set_rx_handler(void (*fn)(void)); // called in interrupt context when bytes arrived
                                              // (already in serial_read's ring)

// Power (design rule 21): UEFI runtime services in their own page table, then ACPI, then fallbacks.
void arch_reboot(void) __attribute__((noreturn));
void arch_poweroff(void) __attribute__((noreturn));
void arch_read_wallclock(u64 *unix_seconds); // host RTC

// Symbol for a code address of the image: name and offset; "?" when unknown.
const char *symbol_lookup(u64 addr, u64 *offset);
void backtrace_print(u64 rbp, u64 rip);

// PCI configuration space of the host, mechanism 1 (0xCF8/0xCFC). bdf = bus<<8 | dev<<3 | fn.
u32 pci_read(u16 bdf, u16 reg, u32 size);
void pci_write(u16 bdf, u16 reg, u32 size, u32 value);
// Calls fn for each function present; stops when fn returns true and returns its bdf, else -1.
int pci_find(bool (*fn)(u16 bdf, u16 vendor, u16 device, void *arg), void *arg);
// Offset of the function's next capability with that id after offset `after` (0: the first); 0 when
// there is none.
u16 pci_capability(u16 bdf, u8 id, u16 after);
// Base address of memory BAR `index`; 0 when it is an I/O BAR or has no address.
u64 pci_bar(u16 bdf, u32 index);
// Lets the device answer accesses and write to memory.
void pci_enable(u16 bdf);
// Maps part of a memory BAR; NULL, logged, when that is no memory BAR or has no address.
void *pci_map_bar(u16 bdf, u32 index, u64 offset, u64 bytes);
enum pci_interrupt { PCI_POLLED, PCI_INTX, PCI_MSI, PCI_MSIX };
// Makes the function raise `vector` on the boot CPU in the best way it has: one MSI-X message, one
// MSI message, or its pin.
enum pci_interrupt pci_connect(u16 bdf, int vector);

#endif
