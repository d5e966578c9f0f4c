// SPDX-License-Identifier: MIT
// Walks through the CPU's modes: real mode and back, PAE paging, long mode; each step proves that
// it was there.
#include "bare.h"

#define PAGE_PRESENT_WRITE 3u
#define PAGE_LARGE         0x80u
#define LARGE_BYTES        0x200000u
#define ALIAS              0x40000000u // 1 GiB, mapped in PAE and long mode to 4 MiB
#define TARGET             0x400000u
#define UNMAPPED           0x80000000u
#define TRAMPOLINE         0x8000u
#define CR0_PG             0x80000000u
#define CR4_PAE            0x20u
#define LONG_ANSWER        0x5afe5afeu
#define PAGE_FAULT         14u

// modes_x86.S
extern const uint8_t real_start[], real_end[];
uint32_t modes_long(uint32_t pml4, uint32_t alias, uint32_t value);

static uint64_t pml4[512] __attribute__((aligned(4096)));
static uint64_t pdpt[512] __attribute__((aligned(4096)));
static uint64_t directories[2][512] __attribute__((aligned(4096)));

static void check(const char *step, bool good)
{
    print("MODES %s %s\n", step, good ? "ok" : "FAILED");
}

// The trampoline, at a fixed place below 64 KiB, goes to real mode, runs INT 60h twice there and
// comes back.
static void real_mode(void)
{
    volatile uint16_t *vector_60 = (volatile uint16_t *)(0x60 * 4);
    uint8_t *copy = (uint8_t *)TRAMPOLINE;

    for (size_t i = 0; i < (size_t)(real_end - real_start); i++)
        copy[i] = real_start[i];
    uint16_t old[2] = {vector_60[0], vector_60[1]};
    uint32_t answer = ((uint32_t(*)(void))TRAMPOLINE)();
    vector_60[0] = old[0];
    vector_60[1] = old[1];
    interrupts_init();
    check("real", answer == 0x1002);
}

// Identity for the first GiB, and one large page elsewhere that aliases TARGET.
static void make_tables(uint32_t flags)
{
    for (unsigned i = 0; i < 512; i++)
        directories[0][i] = (uint64_t)i * LARGE_BYTES | PAGE_LARGE | PAGE_PRESENT_WRITE;
    directories[1][0] = TARGET | PAGE_LARGE | PAGE_PRESENT_WRITE;
    pdpt[0] = (uint32_t)directories[0] | flags;
    pdpt[1] = (uint32_t)directories[1] | flags;
    pml4[0] = (uint32_t)pdpt | PAGE_PRESENT_WRITE;
}

static void touch_unmapped(void)
{
    *(volatile uint32_t *)UNMAPPED = 1;
}

static void pae(void)
{
    uint32_t cr0, cr4;

    make_tables(1);
    __asm__ volatile("mov %%cr4, %0" : "=r"(cr4));
    __asm__ volatile("mov %0, %%cr4" ::"r"(cr4 | CR4_PAE));
    __asm__ volatile("mov %0, %%cr3" ::"r"(pdpt) : "memory");
    __asm__ volatile("mov %%cr0, %0" : "=r"(cr0));
    __asm__ volatile("mov %0, %%cr0" ::"r"(cr0 | CR0_PG) : "memory");
    *(volatile uint32_t *)TARGET = 0;
    *(volatile uint32_t *)ALIAS = 0xfeedu;
    bool aliased = *(volatile uint32_t *)TARGET == 0xfeedu;
    uint32_t fault = fault_of(touch_unmapped);
    __asm__ volatile("mov %0, %%cr0" ::"r"(cr0) : "memory");
    __asm__ volatile("mov %0, %%cr4" ::"r"(cr4));
    check("pae", aliased && fault == PAGE_FAULT);
}

static void long_mode(void)
{
    make_tables(PAGE_PRESENT_WRITE);
    *(volatile uint32_t *)TARGET = 0;
    uint32_t answer = modes_long((uint32_t)pml4, ALIAS, 0xbeefu);
    check("long", answer == LONG_ANSWER && *(volatile uint32_t *)TARGET == 0xbeefu);
}

void bare_main(const char *command_line)
{
    (void)command_line;
    check("protected", true);
    real_mode();
    pae();
    long_mode();
    real_mode();
    print("MODES-END\n");
}
