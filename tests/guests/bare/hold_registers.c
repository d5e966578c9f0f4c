// SPDX-License-Identifier: MIT
// Registers with values of their own, which a move must bring along: MSRs, selectors and what the
// CPU hides behind them, table registers, debug registers.
#include "hold.h"

// This kernel's own GDT: the loader's three segments, and what is held.
enum { CODE = 0x08, DATA = 0x10, FS = 0x18, GS = 0x20, TSS = 0x28, LDT = 0x30, USER_CODE = 0x38 };
enum { USER_DATA = 0x40, GDT_ENTRIES = 9, ES_IN_LDT = 0x0c, USER = 3, INVALID_OPCODE = 6 };

#define FLAT_CODE      0x00cf9b000000ffffull
#define FLAT_DATA      0x00cf93000000ffffull
#define FLAT_USER_CODE 0x00cffb000000ffffull
#define FLAT_USER_DATA 0x00cff3000000ffffull
#define TYPE_DATA      0xf3u // so that it stays loaded in ring 3
#define TYPE_TSS       0x89u
#define TYPE_LDT       0x82u
#define PART_BYTES     64u
#define GP_VECTOR      13u

static uint64_t gdt[GDT_ENTRIES], ldt[2];
static uint32_t fs_part[PART_BYTES / 4 + 1], gs_part[PART_BYTES / 4 + 1], es_part[PART_BYTES / 4];
static uint32_t tss[26]; // SDM 3A 7.2.1; only ESP0 and SS0 are used here
static uint8_t tss_stack[1024] __attribute__((aligned(16)));
static uint8_t sysenter_stack[256] __attribute__((aligned(16)));

static const struct {
    uint32_t index;
    uint64_t value;
} msrs[] = {
    {0x174, CODE},                    // SYSENTER_CS
    {0x277, 0x0007040600070401},      // PAT, with its first two types other than at reset
    {0xc0000081, 0x001b000812345678}, // STAR
    {0xc0000082, 0xffffffff81234560}, // LSTAR
    {0xc0000083, 0xffffffff89abcde0}, // CSTAR
    {0xc0000084, 0x47700},            // SFMASK
    {0xc0000102, 0xffff888012345000}, // KERNEL_GS_BASE
};
#define MSRS (sizeof msrs / sizeof *msrs)

static bool use_task;
static uint32_t limit_fault; // an emulated CPU may not look at segments' limits

static void check_equal(const char *what, uint64_t found, uint64_t wanted)
{
    if (found != wanted)
        print("HOLD %s is 0x%x%x, not 0x%x%x\n", what, (uint32_t)(found >> 32), (uint32_t)found,
              (uint32_t)(wanted >> 32), (uint32_t)wanted);
    hold_check(what, found == wanted);
}

static uint64_t descriptor(const void *base, uint32_t bytes, uint32_t type)
{
    uint64_t at = (uint32_t)base, limit = bytes - 1;
    return (limit & 0xffff) | (at & 0xffffff) << 16 | (uint64_t)type << 40 | 0x40ull << 48 |
           (at >> 24) << 56;
}

static void load_gdt(void)
{
    struct __attribute__((packed)) {
        uint16_t limit;
        uint32_t base;
    } pointer = {sizeof gdt - 1, (uint32_t)gdt};

    __asm__ volatile("lgdt %0" ::"m"(pointer) : "memory");
}

static void load_segments(void)
{
    gdt[CODE / 8] = FLAT_CODE;
    gdt[DATA / 8] = FLAT_DATA;
    gdt[USER_CODE / 8] = FLAT_USER_CODE;
    gdt[USER_DATA / 8] = FLAT_USER_DATA;
    gdt[FS / 8] = descriptor(fs_part, PART_BYTES, TYPE_DATA);
    gdt[GS / 8] = descriptor(gs_part, PART_BYTES, TYPE_DATA);
    gdt[TSS / 8] = descriptor(tss, sizeof tss, TYPE_TSS);
    gdt[LDT / 8] = descriptor(ldt, sizeof ldt, TYPE_LDT);
    ldt[ES_IN_LDT / 8] = descriptor(es_part, PART_BYTES, TYPE_DATA);
    fs_part[0] = es_part[0] = 0x0f5;
    gs_part[0] = 0x065;
    tss[1] = (uint32_t)tss_stack + sizeof tss_stack;
    tss[2] = DATA;
    load_gdt();
    __asm__ volatile("mov %0, %%fs; mov %1, %%gs; lldt %w2; ltr %w3" ::"r"(FS), "r"(GS), "r"(LDT),
                     "r"(TSS)
                     : "memory");
    // What the CPU read stays in its hidden parts; memory has it no more.
    gdt[FS / 8] = gdt[GS / 8] = gdt[TSS / 8] = gdt[LDT / 8] = 0;
}

static void set_debug_registers(void)
{
    __asm__ volatile("mov %0, %%dr0; mov %1, %%dr1; mov %2, %%dr2; mov %3, %%dr3" ::"r"(0x1110u),
                     "r"(0x2220u), "r"(0x3330u), "r"(0x4440u));
}

static void beyond_fs(void)
{
    __asm__ volatile("movl %%fs:%c0, %%eax" ::"i"(PART_BYTES) : "eax");
}

static void beyond_gs(void)
{
    __asm__ volatile("movl %%gs:%c0, %%eax" ::"i"(PART_BYTES) : "eax");
}

void registers_hold(bool task_switch)
{
    use_task = task_switch;
    load_segments();
    set_debug_registers();
    for (unsigned i = 0; i < MSRS; i++)
        wrmsr(msrs[i].index, msrs[i].value);
    extern const uint8_t sysenter_arrived[];
    wrmsr(0x175, (uint32_t)sysenter_stack + sizeof sysenter_stack);
    wrmsr(0x176, (uint32_t)sysenter_arrived);
    limit_fault = fault_of(beyond_fs);
    print("HOLD limits are %s\n", limit_fault == GP_VECTOR ? "enforced" : "not enforced");
    registers_check();
}

// ---- Checks -------------------------------------------------------------------------------------

static void check_msrs(void)
{
    for (unsigned i = 0; i < MSRS; i++) {
        uint64_t found = rdmsr(msrs[i].index);
        if (found != msrs[i].value)
            print("HOLD MSR 0x%x\n", msrs[i].index);
        check_equal("MSR", found, msrs[i].value);
    }
    check_equal("FS_BASE", rdmsr(0xc0000100), (uint32_t)fs_part);
    check_equal("GS_BASE", rdmsr(0xc0000101), (uint32_t)gs_part);
}

static void beyond_ldt(void)
{
    __asm__ volatile("mov %0, %%es" ::"r"(ES_IN_LDT + 8));
}

static void check_segments(void)
{
    uint32_t fs, gs, es, selectors[4] = {0, 0, 0, 0};

    __asm__ volatile("mov %%fs, %0; mov %%gs, %1; str %2; sldt %3"
                     : "=r"(selectors[0]), "=r"(selectors[1]), "=r"(selectors[2]),
                       "=r"(selectors[3]));
    check_equal("FS", selectors[0] & 0xffff, FS);
    check_equal("GS", selectors[1] & 0xffff, GS);
    check_equal("TR", selectors[2] & 0xffff, TSS);
    check_equal("LDTR", selectors[3] & 0xffff, LDT);
    __asm__ volatile("movl %%fs:0, %0; movl %%gs:0, %1" : "=r"(fs), "=r"(gs));
    check_equal("what FS leads to", fs, fs_part[0]);
    check_equal("what GS leads to", gs, gs_part[0]);
    check_equal("the limit of FS", fault_of(beyond_fs), limit_fault);
    check_equal("the limit of GS", fault_of(beyond_gs), limit_fault);
    __asm__ volatile("mov %1, %%es; movl %%es:0, %0; mov %2, %%es"
                     : "=&r"(es)
                     : "r"(ES_IN_LDT), "r"(DATA));
    check_equal("what LDTR leads to", es, es_part[0]);
    check_equal("the limit of LDTR", fault_of(beyond_ldt), GP_VECTOR);
}

static void check_debug_registers(void)
{
    uint32_t dr[4];

    __asm__ volatile("mov %%dr0, %0; mov %%dr1, %1; mov %%dr2, %2; mov %%dr3, %3"
                     : "=r"(dr[0]), "=r"(dr[1]), "=r"(dr[2]), "=r"(dr[3]));
    for (uint32_t i = 0; i < 4; i++)
        check_equal("a debug register", dr[i], 0x1110u * (i + 1));
}

// SYSENTER takes CS, EIP and ESP from its MSRs (SDM 2B, "SYSENTER").
static void check_sysenter(void)
{
    uint32_t stack, cs;

    __asm__ volatile("mov %%esp, %%ebx; sysenter\n"
                     ".globl sysenter_arrived\n"
                     "sysenter_arrived: mov %%esp, %0; mov %%cs, %1; mov %%ebx, %%esp"
                     : "=&r"(stack), "=&r"(cs)
                     :
                     : "ebx", "memory", "cc");
    check_equal("SYSENTER's stack", stack, (uint32_t)sysenter_stack + sizeof sysenter_stack);
    check_equal("SYSENTER's CS", cs & 0xffff, CODE);
}

static uint32_t from_ring, frame_end;
extern const uint8_t ring0_again[];

static void on_user(struct frame *frame)
{
    from_ring = frame->cs & USER;
    frame_end = (uint32_t)(frame + 1) + 8; // ESP and SS of ring 3 lie above
    frame->cs = CODE;
    frame->eip = (uint32_t)ring0_again;
}

// An exception in ring 3 takes its stack from the TSS, to whose base only TR's hidden part leads.
static void check_task(void)
{
    interrupt_set(INVALID_OPCODE, on_user);
    __asm__ volatile("mov %%esp, %%ebx\n"
                     "mov %0, %%ds; mov %0, %%es\n"
                     "push %0; push %%ebx; pushf; push %1; push $1f; iret\n"
                     "1: ud2\n"
                     ".globl ring0_again\n"
                     "ring0_again: mov %%ebx, %%esp\n"
                     "mov %2, %%ss; mov %2, %%ds; mov %2, %%es"
                     :
                     : "r"(USER_DATA | USER), "r"(USER_CODE | USER), "r"(DATA)
                     : "ebx", "memory", "cc");
    interrupt_set(INVALID_OPCODE, 0);
    check_equal("the ring it came from", from_ring, USER);
    check_equal("the stack TR leads to", frame_end, (uint32_t)tss_stack + sizeof tss_stack);
}

void registers_check(void)
{
    check_msrs();
    check_segments();
    check_debug_registers();
    check_sysenter();
    if (use_task)
        check_task();
}
