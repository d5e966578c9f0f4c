// SPDX-License-Identifier: MIT
// GDT, TSS and IDT. Long mode needs them only to name a code segment and the emergency stacks.
#include "arch/x86/cpu.h"
#include "arch/x86/descriptors.h"
#include "arch/x86/msr.h"
#include "kernel/lib.h"
#include "kernel/mem.h"

struct tss64 { // SDM 3A figure 7-11
    u32 reserved0;
    u64 rsp[3];
    u64 reserved1;
    u64 ist[7];
    u64 reserved2;
    u16 reserved3;
    u16 io_map_base;
} __attribute__((packed));
static_assert(sizeof(struct tss64) == 104, "64-bit TSS");
static_assert(offsetof(struct tss64, ist) == 36, "64-bit TSS, IST1");

struct gate64 { // SDM 3A figure 6-8
    u16 offset_low;
    u16 selector;
    u8 ist;
    u8 type;
    u16 offset_middle;
    u32 offset_high;
    u32 reserved;
};
static_assert(sizeof(struct gate64) == 16, "64-bit interrupt gate");

struct table_pointer {
    u16 limit;
    u64 base;
} __attribute__((packed));

#define GDT_CODE64     0x00af9b000000ffffull // present, ring 0, executable, long mode, accessed
#define GDT_DATA       0x00cf93000000ffffull // present, ring 0, writable, accessed
#define GDT_TSS        0x0000890000000000ull // present, available 64-bit TSS
#define GATE_INTERRUPT 0x8e

#define EMERGENCY_PAGES  2
#define EMERGENCY_STACKS 3

struct cpu_tables {
    u64 gdt[5];
    struct tss64 tss;
};
static struct cpu_tables tables[MAX_CPUS];
static struct gate64 idt[256];
// The boot CPU's emergency stacks must exist before there is an allocator.
static u8 boot_emergency[EMERGENCY_STACKS][EMERGENCY_PAGES * PAGE_SIZE]
    __attribute__((aligned(PAGE_SIZE)));

extern const u8 vector_stubs[256][16];

static u64 emergency_stack(const struct cpu *c, u32 which)
{
    if (c->index == 0)
        return (u64)(boot_emergency[which] + sizeof(boot_emergency[which]));
    void *top = stack_alloc(EMERGENCY_PAGES);
    if (top == NULL)
        panic("no memory for the emergency stacks of CPU %u", c->index);
    return (u64)top;
}

static void load_gdt(const struct table_pointer *p)
{
    __asm__ volatile("lgdt %0\n\t"
                     "push %1\n\t"
                     "lea 1f(%%rip), %%rax\n\t"
                     "push %%rax\n\t"
                     "lretq\n"
                     "1:\n\t"
                     "mov %2, %%ds\n\t"
                     "mov %2, %%es\n\t"
                     "mov %2, %%ss\n\t"
                     "xor %%eax, %%eax\n\t"
                     "mov %%eax, %%fs\n\t"
                     "mov %%eax, %%gs\n\t"
                     "ltr %w3"
                     :
                     : "m"(*p), "i"(SELECTOR_CODE), "r"(SELECTOR_DATA), "r"(SELECTOR_TSS)
                     : "rax", "memory");
}

void gdt_prepare(struct cpu *c)
{
    struct cpu_tables *t = &tables[c->index];
    u64 tss = (u64)&t->tss;
    for (u32 i = 0; i < EMERGENCY_STACKS; i++)
        t->tss.ist[i] = emergency_stack(c, i);
    t->tss.io_map_base = sizeof(t->tss);
    t->gdt[SELECTOR_CODE / 8] = GDT_CODE64;
    t->gdt[SELECTOR_DATA / 8] = GDT_DATA;
    t->gdt[SELECTOR_TSS / 8] =
        GDT_TSS | (sizeof(t->tss) - 1) | (tss & 0xffffff) << 16 | (tss >> 24 & 0xff) << 56;
    t->gdt[SELECTOR_TSS / 8 + 1] = tss >> 32;
    c->self = c;
}

void gdt_load(struct cpu *c)
{
    struct cpu_tables *t = &tables[c->index];
    const struct table_pointer p = {sizeof(t->gdt) - 1, (u64)t->gdt};
    load_gdt(&p);
    wrmsr(MSR_GS_BASE, (u64)c);
}

static u8 ist_of(u32 vector)
{
    switch (vector) {
    case 2:
        return IST_NMI;
    case 8:
        return IST_DOUBLE_FAULT;
    case 18:
        return IST_MACHINE_CHECK;
    default:
        return 0;
    }
}

void idt_prepare(void)
{
    for (u32 i = 0; i < ARRAY_SIZE(idt); i++) {
        u64 entry = (u64)vector_stubs[i];
        idt[i] = (struct gate64){.offset_low = (u16)entry,
                                 .selector = SELECTOR_CODE,
                                 .ist = ist_of(i),
                                 .type = GATE_INTERRUPT,
                                 .offset_middle = (u16)(entry >> 16),
                                 .offset_high = (u32)(entry >> 32)};
    }
}

void idt_load(void)
{
    const struct table_pointer p = {sizeof(idt) - 1, (u64)idt};
    __asm__ volatile("lidt %0" : : "m"(p));
}
