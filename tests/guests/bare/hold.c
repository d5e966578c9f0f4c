// SPDX-License-Identifier: MIT
// Holds delicate states for as long as it takes to be moved with them, one after another: each line
// typed at the serial port ends a state, which is then checked, and begins the next.
#include "hold.h"

#define NMI_VECTOR     2u
#define SERVED         0x61u // in service while the state is held
#define BLOCKED        0x71u // waits below the task priority
#define READY          0x91u // waits for IF alone
#define TPR            0x80u
#define RTC_VECTOR     0xa1u
#define RTC_PIN        8u
#define APIC_MASKED    0x10000u
#define DIVISOR_16     3u
#define TOP            0xffffffffu
#define WINDOW         (PM_TIMER_HZ / 10)
#define GAP_MS         25u // longer than any of the clocks' periods
#define SHOTS_A_SECOND 300u
#define STACK_PAGES    0x1000000u // a page each for events, in turn
#define PAGES          2048u
#define BAD_SELECTOR   0x7ff8u
#define EVENTS_A_LOOK  16u

static uint32_t failures;
static uint32_t apic_hz, tsc_ms; // ticks a second; ticks a millisecond

void hold_check(const char *what, bool good)
{
    if (!good && failures++ < 20)
        print("HOLD %s FAILED\n", what);
}

static void begin(const char *state)
{
    print("HOLD %s\n", state);
}

static void end(const char *state)
{
    registers_check();
    print("HELD %s failures=%u\n", state, failures);
}

// ---- Interrupts that wait, in service, blocked; a blocked NMI; a timer that runs down -----------

static const uint16_t kept[] = {
    0x020, 0x080, 0x0a0, 0x0d0, 0x0e0, 0x0f0, // ID, priorities, destinations, spurious
    0x100, 0x110, 0x120, 0x130, 0x140, 0x150, 0x160, 0x170, // in service
    0x180, 0x190, 0x1a0, 0x1b0, 0x1c0, 0x1d0, 0x1e0, 0x1f0, // level-triggered
    0x200, 0x210, 0x220, 0x230, 0x240, 0x250, 0x260, 0x270, // requested
    0x300, 0x310, 0x320, 0x350, 0x360, 0x370, 0x380, 0x3e0, // command, LVT, timer
};
#define KEPT (sizeof kept / sizeof *kept)

static volatile uint32_t nmis, nmi_depth, nmi_deepest;
static volatile uint32_t order[4], served;

struct moment {
    uint64_t tsc;
    uint32_t count;
};

// The local APIC's count and the TSC of one moment: the pair of 16 that was read fastest.
static struct moment timer_moment(void)
{
    struct moment best = {0, 0};
    uint64_t fastest = ~0ull;

    for (int i = 0; i < 16; i++) {
        uint64_t before = rdtsc();
        uint32_t count = apic_read(APIC_TIMER_CURRENT);
        uint64_t took = rdtsc() - before;
        if (took < fastest) {
            fastest = took;
            best = (struct moment){before + took / 2, count};
        }
    }
    return best;
}

// The timer counts down as the TSC goes up, at the rate it had before: its remaining count was
// moved, not its initial one, and the time of the move has passed for both.
static void check_remaining(struct moment a, struct moment b, struct moment c)
{
    uint64_t wanted = (uint64_t)(a.count - b.count) * (c.tsc - b.tsc);
    uint64_t found = (uint64_t)(b.count - c.count) * (b.tsc - a.tsc);
    uint64_t off = wanted > found ? wanted - found : found - wanted;

    hold_check("the timer's remaining count", off <= wanted >> 7);
}

static void hold_interrupts(void)
{
    uint32_t before[KEPT];

    apic_write(APIC_TIMER_DIVIDE, DIVISOR_16);
    apic_write(APIC_LVT_TIMER, APIC_MASKED | APIC_TIMER_VECTOR);
    apic_write(APIC_TIMER_INITIAL, TOP);
    struct moment a = timer_moment();
    wait_pm(WINDOW);
    struct moment b = timer_moment();
    for (unsigned i = 0; i < KEPT; i++)
        before[i] = apic_read(kept[i]);
    begin("interrupts");
    while (!line_typed())
        hold_check("a blocked NMI or interrupt came", nmis == 1 && served == 0);
    for (unsigned i = 0; i < KEPT; i++) {
        uint32_t now = apic_read(kept[i]);
        if (now != before[i])
            print("HOLD local APIC register 0x%x is 0x%x, was 0x%x\n", kept[i], now, before[i]);
        hold_check("a local APIC register", now == before[i]);
    }
    check_remaining(a, b, timer_moment());
    apic_write(APIC_TIMER_INITIAL, 0);
}

// The first NMI sends the second, which waits behind it while the state is held.
static void on_nmi(struct frame *frame)
{
    (void)frame;
    if (++nmi_depth > nmi_deepest)
        nmi_deepest = nmi_depth;
    if (++nmis == 1) {
        apic_send_nmi_self();
        hold_interrupts();
    }
    nmi_depth--;
}

static void on_served(struct frame *frame)
{
    (void)frame;
    apic_write(APIC_TPR, TPR);
    apic_send_self(BLOCKED);
    apic_send_self(READY);
    apic_send_nmi_self();
    for (uint32_t start = pm_timer(); ((pm_timer() - start) & PM_TIMER_MASK) < WINDOW && nmis < 2;)
        ;
    hold_check("the second NMI, once", nmis == 2 && nmi_deepest == 1);
    apic_write(APIC_EOI, 0);
    apic_write(APIC_TPR, 0);
}

static void on_waiting(struct frame *frame)
{
    if (served < 4)
        order[served++] = frame->vector;
    apic_write(APIC_EOI, 0);
}

static void state_interrupts(void)
{
    interrupt_set(NMI_VECTOR, on_nmi);
    interrupt_set(SERVED, on_served);
    interrupt_set(BLOCKED, on_waiting);
    interrupt_set(READY, on_waiting);
    apic_send_self(SERVED);
    __asm__ volatile("sti; nop; nop; cli" ::: "memory");
    for (uint32_t i = 0; i < 100 && served < 2; i++)
        __asm__ volatile("sti; nop; nop; cli" ::: "memory");
    hold_check("what waited, by priority and once",
               served == 2 && order[0] == READY && order[1] == BLOCKED);
    end("interrupts");
}

// ---- Halted, with a timer that expires in the blackout ------------------------------------------

static volatile uint32_t shots;

static void on_shot(struct frame *frame)
{
    (void)frame;
    shots++;
    apic_write(APIC_EOI, 0);
}

static void state_halted(void)
{
    uint64_t longest = 0, least = (uint64_t)tsc_ms * 1000;
    uint32_t armed = 0;

    divide(&least, SHOTS_A_SECOND);
    least -= least >> 5;
    interrupt_set(APIC_TIMER_VECTOR, on_shot);
    apic_write(APIC_LVT_TIMER, APIC_TIMER_VECTOR);
    begin("halted");
    while (!line_typed()) {
        uint64_t from = rdtsc();
        apic_write(APIC_TIMER_INITIAL, apic_hz / SHOTS_A_SECOND);
        __asm__ volatile("sti; hlt; cli" ::: "memory");
        uint64_t slept = rdtsc() - from;
        hold_check("one wake for each shot", shots == ++armed);
        hold_check("no wake before its time", slept >= least);
        if (slept > longest)
            longest = slept;
    }
    longest *= 1000;
    divide(&longest, tsc_ms);
    print("HOLD longest_us=%u shots=%u\n", (uint32_t)longest, shots);
    end("halted");
}

// ---- PIT, RTC and local APIC timer, periodic ----------------------------------------------------

#define IOAPIC_SELECT (*(volatile uint32_t *)0xfec00000u)
#define IOAPIC_WINDOW (*(volatile uint32_t *)0xfec00010u)

static void on_rtc(struct frame *frame)
{
    (void)frame;
    clock_count[CLOCK_RTC]++;
    rtc_end();
    apic_write(APIC_EOI, 0);
}

static void ioapic_route(uint32_t pin, uint32_t low)
{
    IOAPIC_SELECT = 0x10 + 2 * pin + 1;
    IOAPIC_WINDOW = apic_read(APIC_ID);
    IOAPIC_SELECT = 0x10 + 2 * pin;
    IOAPIC_WINDOW = low;
}

// Halts until `ms` have passed (0: until a line is typed), and returns the milliseconds of the TSC,
// with those that were gaps in *gaps.
static uint32_t run_clocks(uint32_t ms, uint32_t *gaps)
{
    uint64_t from = rdtsc(), last = from;

    *gaps = 0;
    while (ms ? last - from < (uint64_t)ms * tsc_ms : !line_typed()) {
        __asm__ volatile("sti; hlt; cli" ::: "memory");
        uint64_t gap = rdtsc() - last;
        last += gap;
        divide(&gap, tsc_ms);
        if (gap > GAP_MS)
            *gaps += (uint32_t)gap;
    }
    uint64_t passed = last - from;
    divide(&passed, tsc_ms);
    return (uint32_t)passed;
}

// Never more ticks than time has passed, and none missing but those of the gaps.
static void check_clocks(const char *when, const uint32_t from[CLOCKS], uint32_t ms, uint32_t gaps)
{
    for (unsigned i = 0; i < CLOCKS; i++) {
        uint32_t ticks = clock_count[i] - from[i];
        uint32_t most = ms * clock_rate[i] / 1000 + 3, lost = gaps * clock_rate[i] / 1000 + 6;
        bool good = ticks <= most && ticks + lost >= most;
        if (!good)
            print("HOLD clock %u %s: %u ticks in %u ms with %u ms of gaps\n", i, when, ticks, ms,
                  gaps);
        hold_check("a clock's rate", good);
    }
}

static void state_periodic(void)
{
    uint32_t gaps, from[CLOCKS] = {0, 0, 0};

    clocks_start(apic_hz);
    pic_mask(RTC_PIN); // the RTC by the IOAPIC, the PIT by the PIC
    interrupt_set(RTC_VECTOR, on_rtc);
    ioapic_route(RTC_PIN, RTC_VECTOR);
    rtc_end(); // a tick before the route was set would keep the line up, and there would be no edge
    begin("periodic");
    uint32_t ms = run_clocks(0, &gaps);
    check_clocks("held", from, ms, gaps);
    for (unsigned i = 0; i < CLOCKS; i++)
        from[i] = clock_count[i];
    ms = run_clocks(1000, &gaps);
    check_clocks("after", from, ms, gaps);
    clocks_stop();
    ioapic_route(RTC_PIN, APIC_MASKED);
    end("periodic");
}

// ---- Events whose delivery meets a page that was not written since the last round ---------------

static struct {
    uint32_t vector, error, eip, count;
} event;

static void on_event(struct frame *frame)
{
    event.vector = frame->vector;
    event.error = frame->error;
    event.eip = frame->eip;
    event.count++;
    frame->eip += frame->vector == 6 ? 2 : frame->vector == 13 ? 2 : 0;
}

static void on_interrupt(struct frame *frame)
{
    event.eip = frame->eip;
    event.count++;
    apic_write(APIC_EOI, 0);
}

#define ON_STACK(page, instruction, at)                                                            \
    __asm__ volatile("mov %%esp, %%esi; mov %1, %%esp; movl $1f, %0\n1: " instruction              \
                     "\n mov %%esi, %%esp"                                                         \
                     : "=&r"(at)                                                                   \
                     : "r"((page) + 4096), "c"(BAD_SELECTOR)                                       \
                     : "esi", "memory")

// Fault, trap, interrupt by software, and a fault with an error code: each comes once, complete.
static void exceptions(uint32_t page)
{
    uint32_t at, before = event.count;

    ON_STACK(page, "ud2", at);
    hold_check("#UD", event.count == ++before && event.vector == 6 && event.eip == at);
    ON_STACK(page + 4096, "int3", at);
    hold_check("#BP", event.count == ++before && event.vector == 3 && event.eip == at + 1);
    ON_STACK(page + 2 * 4096, "int $0x63", at);
    hold_check("INT n", event.count == ++before && event.vector == 0x63 && event.eip == at + 2);
    ON_STACK(page + 3 * 4096, "mov %%cx, %%es", at);
    hold_check("#GP", event.count == ++before && event.vector == 13 && event.eip == at &&
                          event.error == BAD_SELECTOR);
}

// The store behind STI meets its page in the shadow; the interrupt comes after it.
static uint32_t shadow_early;
static void shadow(uint32_t page)
{
    uint32_t before = event.count, expected;

    apic_send_self(BLOCKED);
    __asm__ volatile("movl $1f, %0; sti; incl (%1); 1: nop; nop; cli"
                     : "=&r"(expected)
                     : "r"(page)
                     : "memory");
    hold_check("the interrupt behind STI", event.count == before + 1);
    shadow_early += event.eip != expected;
}

static void state_events(void)
{
    static const uint8_t vectors[] = {3, 6, 13, 0x63};

    for (unsigned i = 0; i < sizeof vectors; i++)
        interrupt_set(vectors[i], on_event);
    interrupt_set(BLOCKED, on_interrupt);
    begin("events");
    for (uint32_t page = 0; !line_typed();)
        for (uint32_t i = 0; i < EVENTS_A_LOOK; i++, page = (page + 5) % (PAGES - 5)) {
            exceptions(STACK_PAGES + page * 4096);
            shadow(STACK_PAGES + (page + 4) * 4096);
        }
    print("HOLD events=%u shadow_early=%u\n", event.count, shadow_early);
    for (unsigned i = 0; i < sizeof vectors; i++)
        interrupt_set(vectors[i], 0);
    end("events");
}

static uint32_t calibrate_tsc(void)
{
    uint64_t from = rdtsc();

    wait_pm(WINDOW);
    from = rdtsc() - from;
    divide(&from, 100);
    return (uint32_t)from;
}

void bare_main(const char *command_line)
{
    uint32_t task = 1; // task=0: without exceptions in ring 3

    option(command_line, "task", &task);
    apic_hz = apic_calibrate();
    tsc_ms = calibrate_tsc();
    registers_hold(task);
    state_interrupts();
    state_halted();
    state_periodic();
    state_events();
    print("HOLD-END failures=%u\n", failures);
}
