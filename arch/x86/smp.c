// SPDX-License-Identifier: MIT
// Starts the other CPUs (SDM 3A 8.4.4.1, APM 2 14.3), one after the other, and stops them.
#include "arch/x86/smp.h"

#include "arch/x86/apic.h"
#include "arch/x86/cpu.h"
#include "arch/x86/descriptors.h"
#include "arch/x86/early.h"
#include "arch/x86/features.h"
#include "arch/x86/irq.h"
#include "arch/x86/msr.h"
#include "boot/boot_info.h"
#include "kernel/guest/backend.h"
#include "kernel/lib.h"
#include "kernel/log.h"
#include "kernel/mem.h"
#include "kernel/sched.h"
#include "kernel/time.h"

struct ap_params {
    u16 gdt_limit;
    u32 gdt_base;
    u32 far32_offset;
    u16 far32_selector;
    u32 far64_offset;
    u16 far64_selector;
    u16 pad;
    u32 cr4, cr3, efer;
    u64 gdt[4];
    u64 host_cr3, stack, cpu, entry;
} __attribute__((packed));
static_assert(offsetof(struct ap_params, far32_offset) == AP_FAR32, "ap_start.S");
static_assert(offsetof(struct ap_params, far64_offset) == AP_FAR64, "ap_start.S");
static_assert(offsetof(struct ap_params, cr4) == AP_CR4, "ap_start.S");
static_assert(offsetof(struct ap_params, cr3) == AP_CR3, "ap_start.S");
static_assert(offsetof(struct ap_params, efer) == AP_EFER, "ap_start.S");
static_assert(offsetof(struct ap_params, gdt) == AP_GDT, "ap_start.S");
static_assert(offsetof(struct ap_params, host_cr3) == AP_HOST_CR3, "ap_start.S");
static_assert(offsetof(struct ap_params, entry) == AP_ENTRY, "ap_start.S");
static_assert(sizeof(struct ap_params) == 96, "ap_start.S");

extern const u8 ap_start_code[], ap_start_params[], ap_start_end[], ap_start_32[], ap_start_64[];
void ap_enter(void);
void ap_main(struct cpu *c) __attribute__((noreturn));

#define SELECTOR_CODE32       0x18
#define GDT_CODE64            0x00af9b000000ffffull
#define GDT_DATA              0x00cf93000000ffffull
#define GDT_CODE32            0x00cf9b000000ffffull
#define INIT_WAIT_NS          (10 * NS_PER_MS)  // SDM 3A 8.4.4.1
#define SIPI_WAIT_NS          (200 * NS_PER_US) // the same
#define ANSWER_NS             NS_PER_SEC        // an emulated CPU may be far from running
#define SYNC_ROUNDS           16
#define SYNC_FIXES            3
#define CPUID7_EBX_TSC_ADJUST BIT(1)

// What the starting CPU and the one that starts it tell one another. One CPU starts at a time.
enum ap_step { AP_SILENT, AP_ARRIVED, AP_SYNC, AP_GO, AP_READY, AP_USELESS };
static volatile u32 step;         // both, each in its turn
static volatile u64 sync_ask;     // round, written by the boot CPU
static volatile u64 sync_answer;  // round, written by the starting CPU after sync_tsc
static volatile u64 sync_tsc;     // its TSC in that round
static volatile s64 sync_fix;     // what it is to add to its TSC first
static volatile u32 stopped_cpus; // atomic
static struct thread *next_idle;  // of the CPU that starts

static void set_step(enum ap_step s)
{
    __atomic_store_n(&step, s, __ATOMIC_RELEASE);
}

static u32 get_step(void)
{
    return __atomic_load_n(&step, __ATOMIC_ACQUIRE);
}

static void halt_for_good(void) __attribute__((noreturn));
static void halt_for_good(void)
{
    for (;;)
        __asm__ volatile("cli; hlt" : : : "memory");
}

// ---- On the starting CPU ------------------------------------------------------------------------

static void answer_sync(void)
{
    u64 done = 0;
    while (get_step() == AP_SYNC) {
        u64 ask = __atomic_load_n(&sync_ask, __ATOMIC_ACQUIRE);
        if (ask == done) {
            cpu_relax();
            continue;
        }
        if (sync_fix != 0) { // SDM 3B 17.17.3
            wrmsr(MSR_TSC_ADJUST, rdmsr(MSR_TSC_ADJUST) + (u64)sync_fix);
            sync_fix = 0;
        }
        sync_tsc = rdtsc();
        done = ask;
        __atomic_store_n(&sync_answer, done, __ATOMIC_RELEASE);
    }
}

void ap_main(struct cpu *c)
{
    gdt_load(c);
    idt_load();
    features_enable();
    lapic_init();
    set_step(AP_ARRIVED);
    while (get_step() == AP_ARRIVED)
        cpu_relax();
    answer_sync();
    arch_timer_init_cpu();
    if (backend != NULL && backend->cpu_enable() < 0) {
        set_step(AP_USELESS);
        halt_for_good();
    }
    sched_init_cpu(next_idle, next_idle);
    set_step(AP_READY);
    irq_enable();
    idle_loop(NULL);
}

// ---- On the boot CPU ----------------------------------------------------------------------------

// Offset of the other CPU's TSC against ours, in ticks: the answer that came back fastest bounds it
// best. 0 when the bounds allow 0.
static s64 measure_tsc(void)
{
    u64 best = ~0ull, first = sync_ask + 1;
    s64 offset = 0;
    for (u64 round = first; round < first + SYNC_ROUNDS; round++) {
        u64 before = rdtsc();
        __atomic_store_n(&sync_ask, round, __ATOMIC_RELEASE);
        while (__atomic_load_n(&sync_answer, __ATOMIC_ACQUIRE) != round)
            cpu_relax();
        u64 there = sync_tsc, after = rdtsc();
        if (after - before >= best)
            continue;
        best = after - before;
        offset = (s64)(there - before) < 0  ? (s64)(there - before)
                 : (s64)(there - after) > 0 ? (s64)(there - after)
                                            : 0;
    }
    return offset;
}

static bool wait_step(enum ap_step from, u64 ns)
{
    u64 end = time_ns() + ns;
    while (get_step() == from && time_ns() < end)
        cpu_relax();
    return get_step() != from;
}

static void fill_params(u64 page, u64 cr3, struct cpu *c, void *stack_top)
{
    u8 *code = phys_ptr(page);
    memcpy(code, ap_start_code, (u64)(ap_start_end - ap_start_code));
    struct ap_params *p = (struct ap_params *)(code + (ap_start_params - ap_start_code));
    u32 base = (u32)page;
    *p = (struct ap_params){
        .gdt_limit = sizeof(p->gdt) - 1,
        .gdt_base = base + (u32)(ap_start_params - ap_start_code) + AP_GDT,
        .far32_offset = base + (u32)(ap_start_32 - ap_start_code),
        .far32_selector = SELECTOR_CODE32,
        .far64_offset = base + (u32)(ap_start_64 - ap_start_code),
        .far64_selector = SELECTOR_CODE,
        .cr4 = (u32)(CR4_PAE | (read_cr4() & CR4_LA57)),
        .cr3 = (u32)cr3,
        .efer = (u32)(EFER_LME | (host_features.nx ? EFER_NXE : 0)),
        .gdt = {0, GDT_CODE64, GDT_DATA, GDT_CODE32},
        .host_cr3 = read_cr3(),
        .stack = (u64)stack_top,
        .cpu = (u64)c,
        .entry = (u64)ap_enter,
    };
}

// INIT, then up to two start-up IPIs: a CPU that came with the first ignores the second.
static bool wake(u32 apic_id, u64 page)
{
    lapic_send_init(apic_id);
    thread_sleep_ns(INIT_WAIT_NS);
    lapic_send_startup(apic_id, (u8)(page >> PAGE_SHIFT));
    if (wait_step(AP_SILENT, SIPI_WAIT_NS))
        return true;
    lapic_send_startup(apic_id, (u8)(page >> PAGE_SHIFT));
    return wait_step(AP_SILENT, ANSWER_NS);
}

// Firmware may have left the counters apart; where that can be cured, it is.
static bool tsc_agrees(void)
{
    u32 top[4], r[4] = {0};
    cpuid(0, 0, top);
    if (top[0] >= 7)
        cpuid(7, 0, r);
    s64 offset = measure_tsc();
    for (u32 i = 0; offset != 0 && (r[1] & CPUID7_EBX_TSC_ADJUST) && i < SYNC_FIXES; i++) {
        sync_fix = -offset;
        measure_tsc(); // the first answer applies it
        offset = measure_tsc();
    }
    return offset == 0;
}

// Why it cannot be used, NULL when it runs.
static const char *start_cpu(struct cpu *c, const struct boot_info *bi, void *stack_top)
{
    gdt_prepare(c);
    fill_params(bi->ap_start_page, bi->firmware_cr3, c, stack_top);
    set_step(AP_SILENT);
    sync_ask = sync_answer = 0;
    sync_fix = 0;
    if (!wake(c->apic_id, bi->ap_start_page))
        return "it does not answer the start-up IPI";
    set_step(AP_SYNC);
    if (!tsc_agrees())
        return "its TSC differs from the boot CPU's, and guests' clocks would jump";
    set_step(AP_GO);
    wait_step(AP_GO, ANSWER_NS);
    return get_step() == AP_READY ? NULL : "virtualization cannot be switched on there";
}

static void add_cpu(u32 apic_id, const struct boot_info *bi)
{
    struct cpu *c = cpu_get(cpu_count);
    void *stack_top;
    c->index = cpu_count;
    c->apic_id = apic_id;
    next_idle = thread_create_idle(c->index, &stack_top);
    const char *why = "no memory for its idle thread";
    if (next_idle != NULL)
        why = start_cpu(c, bi, stack_top);
    if (why == NULL) {
        // Release: whoever sees the CPU sees its run queue.
        __atomic_store_n(&cpu_count, cpu_count + 1, __ATOMIC_RELEASE);
        return;
    }
    lapic_send_init(apic_id); // back to waiting, should it come after all
    thread_sleep_ns(INIT_WAIT_NS);
    if (next_idle != NULL)
        thread_free_idle(next_idle);
    log_warn("smp", "the CPU with APIC id %u is not used: %s", apic_id, why);
}

static void stop_here(void *arg)
{
    (void)arg;
    if (backend != NULL)
        backend->cpu_disable();
    __atomic_add_fetch(&stopped_cpus, 1, __ATOMIC_SEQ_CST);
    halt_for_good();
}

void smp_start(const struct boot_info *bi)
{
    u32 wanted = MIN(bi->cpu_count, (u32)MAX_CPUS);
    irq_set_fixed(VECTOR_STOP, stop_here);
    if (wanted < bi->cpu_count)
        log_warn("smp", "this machine has %u CPUs; Skiff uses %u", bi->cpu_count, MAX_CPUS);
    if (wanted > 1 && (bi->ap_start_page == 0 || bi->firmware_cr3 >= 4 * GIB)) {
        log_warn("smp", "no memory the other CPUs can start in; one CPU is used");
        return;
    }
    for (u32 i = 1; i < wanted; i++)
        add_cpu(bi->cpu_apic_id[i], bi);
    if (cpu_count > 1)
        log_info("smp", "%u CPUs run", cpu_count);
}

void smp_stop_others(void)
{
    u32 others = cpu_count - 1;
    if (others == 0)
        return;
    for (u32 i = 0; i < cpu_count; i++)
        if (i != this_cpu()->index)
            lapic_send(cpu_get(i)->apic_id, VECTOR_STOP);
    u64 end = time_ns() + NS_PER_SEC;
    while (stopped_cpus < others && time_ns() < end)
        cpu_relax();
    if (stopped_cpus < others)
        log_warn("smp", "%u CPUs do not stop; going on without them", others - stopped_cpus);
}
