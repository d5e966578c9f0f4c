// SPDX-License-Identifier: MIT
// The IDT, the two PICs, and exceptions that tests provoke.
#include "bare.h"

#define EXCEPTIONS     32u
#define ENTRY_BYTES    16u
#define CODE_SELECTOR  0x08u
#define INTERRUPT_GATE 0x8e00u
#define PIC1           0x20
#define PIC2           0xa0
#define PIC_END        0x20
#define PIC_CASCADE    2u
#define ICR_SELF       0x40000u
#define ICR_NMI        0x400u
#define ICR_PENDING    0x1000u

extern const uint8_t interrupt_entries[];

static struct {
    uint16_t offset_low, selector, type, offset_high;
} idt[256];

static void (*handlers[256])(struct frame *frame);
static void *fault_recovery[5]; // __builtin_setjmp's buffer
static bool fault_expected;
static uint32_t fault_vector;

static void handle_exception(struct frame *frame)
{
    if (fault_expected) {
        fault_expected = false;
        fault_vector = frame->vector;
        __builtin_longjmp(fault_recovery, 1);
    }
    print("SKIFF-BARE exception vector=%u error=0x%x eip=0x%x cs=0x%x eflags=0x%x\n", frame->vector,
          frame->error, frame->eip, frame->cs, frame->eflags);
    power_off();
}

void interrupt_handle(struct frame *frame)
{
    if (handlers[frame->vector])
        handlers[frame->vector](frame);
    else if (frame->vector < EXCEPTIONS)
        handle_exception(frame);
    else
        print("SKIFF-BARE stray interrupt vector=%u\n", frame->vector);
}

uint32_t fault_of(void (*function)(void))
{
    fault_vector = NO_FAULT;
    fault_expected = true;
    if (!__builtin_setjmp(fault_recovery))
        function();
    fault_expected = false;
    return fault_vector;
}

void interrupt_set(unsigned vector, void (*handler)(struct frame *frame))
{
    handlers[vector] = handler;
}

static void pic_init(void)
{
    static const uint8_t words[][2] = {
        {0x11, 0x11}, {IRQ_VECTOR, IRQ_VECTOR + 8}, {1 << PIC_CASCADE, PIC_CASCADE}, {1, 1}};

    outb(PIC1, words[0][0]);
    outb(PIC2, words[0][1]);
    for (unsigned i = 1; i < sizeof words / sizeof *words; i++) {
        outb(PIC1 + 1, words[i][0]);
        outb(PIC2 + 1, words[i][1]);
    }
    outb(PIC1 + 1, 0xff & ~(1 << PIC_CASCADE));
    outb(PIC2 + 1, 0xff);
}

void pic_unmask(unsigned line)
{
    uint16_t port = line < 8 ? PIC1 + 1 : PIC2 + 1;
    outb(port, inb(port) & (uint8_t) ~(1u << (line & 7)));
}

void pic_mask(unsigned line)
{
    uint16_t port = line < 8 ? PIC1 + 1 : PIC2 + 1;
    outb(port, inb(port) | (uint8_t)(1u << (line & 7)));
}

void pic_end(unsigned line)
{
    if (line >= 8)
        outb(PIC2, PIC_END);
    outb(PIC1, PIC_END);
}

void apic_send_self(uint32_t vector)
{
    apic_write(APIC_ICR_LOW, ICR_SELF | vector);
    while (apic_read(APIC_ICR_LOW) & ICR_PENDING)
        ;
}

// An APIC that can't send an NMI to its own CPU by shorthand is addressed by its ID.
void apic_send_nmi_self(void)
{
    apic_write(APIC_ICR_HIGH, apic_read(APIC_ID));
    apic_write(APIC_ICR_LOW, ICR_NMI);
    while (apic_read(APIC_ICR_LOW) & ICR_PENDING)
        ;
}

void interrupts_init(void)
{
    struct __attribute__((packed)) {
        uint16_t limit;
        uint32_t base;
    } pointer = {sizeof idt - 1, (uint32_t)idt};

    for (unsigned i = 0; i < 256; i++) {
        uint32_t entry = (uint32_t)interrupt_entries + i * ENTRY_BYTES;
        idt[i].offset_low = (uint16_t)entry;
        idt[i].offset_high = (uint16_t)(entry >> 16);
        idt[i].selector = CODE_SELECTOR;
        idt[i].type = INTERRUPT_GATE;
    }
    pic_init();
    __asm__ volatile("lidt %0" ::"m"(pointer));
}
