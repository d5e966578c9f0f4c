// SPDX-License-Identifier: MIT
// Goes round through the delicate interrupt states for rounds=N (default 1000): shadows of STI and
// MOV SS, a halted CPU, an interrupt that waits while they are off, and an NMI that waits behind
// another; each state is checked.
#include "bare.h"

#define NMI_VECTOR      2u
#define TEST_VECTOR     0x60u
#define SPURIOUS_VECTOR 0xffu
#define APIC_ENABLE     0x100u
#define SHORT_WAIT      2000u
#define MANY_TURNS      50000000u

static volatile uint32_t interrupts, nmis, nmi_depth, nmi_deepest, failures;
static volatile uint32_t interrupted_at;

static void on_test(struct frame *frame)
{
    interrupts++;
    interrupted_at = frame->eip;
    apic_write(APIC_EOI, 0);
}

static void wait_short(void)
{
    for (volatile uint32_t i = 0; i < SHORT_WAIT; i++)
        ;
}

// The first NMI of a pair sends the second, which must wait until this handler has returned.
static void on_nmi(struct frame *frame)
{
    (void)frame;
    if (++nmi_depth > nmi_deepest)
        nmi_deepest = nmi_depth;
    if (++nmis % 2 == 1) {
        apic_send_nmi_self();
        wait_short();
    }
    nmi_depth--;
}

static void on_spurious(struct frame *frame)
{
    (void)frame;
}

static void check(const char *state, uint32_t round, bool good)
{
    if (!good && failures++ < 10)
        print("IRQSTATE %s FAILED in round %u\n", state, round);
}

// Interrupts are off and one is pending: after STI exactly one more instruction runs before it
// comes.
static void sti_shadow(uint32_t round)
{
    uint32_t before = interrupts, expected;

    apic_send_self(TEST_VECTOR);
    wait_short();
    check("held-back", round, interrupts == before);
    __asm__ volatile("movl $1f, %0; sti; nop; 1: nop; cli" : "=&r"(expected)::"memory");
    check("sti-shadow", round, interrupts == before + 1 && interrupted_at == expected);
}

// The same with a MOV SS behind STI. It may or may not block one more instruction (SDM 3A 6.8.3),
// but STI's own shadow must cover it.
static void mov_ss_shadow(uint32_t round)
{
    uint32_t before = interrupts, expected, ss;

    apic_send_self(TEST_VECTOR);
    __asm__ volatile("mov %%ss, %0; movl $1f, %1; sti; mov %0, %%ss; nop; 1: nop; nop; cli"
                     : "=&r"(ss), "=&r"(expected)::"memory");
    check("mov-ss-shadow", round,
          interrupts == before + 1 &&
              (interrupted_at == expected || interrupted_at == expected - 1));
}

// STI and HLT with an interrupt already pending: the CPU must wake at once.
static void halted(uint32_t round)
{
    uint32_t before = interrupts;

    apic_send_self(TEST_VECTOR);
    __asm__ volatile("sti; hlt; cli" ::: "memory");
    check("halted", round, interrupts == before + 1);
}

static void nmi_pair(uint32_t round)
{
    uint32_t before = nmis;

    apic_send_nmi_self();
    for (uint32_t i = 0; i < MANY_TURNS && nmis < before + 2; i++)
        __asm__ volatile("pause");
    check("nmi-pair", round, nmis == before + 2 && nmi_deepest == 1);
}

void bare_main(const char *command_line)
{
    uint32_t rounds = 1000;

    option(command_line, "rounds", &rounds);
    interrupt_set(TEST_VECTOR, on_test);
    interrupt_set(NMI_VECTOR, on_nmi);
    interrupt_set(SPURIOUS_VECTOR, on_spurious);
    apic_write(APIC_SPURIOUS, APIC_ENABLE | SPURIOUS_VECTOR);
    for (uint32_t round = 1; round <= rounds; round++) {
        sti_shadow(round);
        mov_ss_shadow(round);
        halted(round);
        nmi_pair(round);
        if (round % 100 == 0)
            print("IRQSTATE round=%u failures=%u\n", round, failures);
    }
    print("IRQSTATE-END rounds=%u interrupts=%u nmis=%u failures=%u\n", rounds, interrupts, nmis,
          failures);
}
