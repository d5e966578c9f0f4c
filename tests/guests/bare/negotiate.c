// SPDX-License-Identifier: MIT
// A driver of the guest's source of entropy (virtio 1.2, over PCI) that stops in the middle of what
// it does, for as long as it takes to be moved, and then looks whether all is as it was:
// half-written features, a queue half made, vectors masked and pending, the level of the pin. As in
// hold.c each line typed at the serial port ends a state.
#include "bare.h"

#define SLOT       14u
#define VENDOR_RNG 0x10441af4u
#define BAR        0xe0008000u
#define VECTOR     0x72u // of the queue's messages
#define PIN_VECTOR 0x82u
#define PIN        (16u + SLOT % 8) // as the DSDT routes INTA

#define PCI_COMMAND        0x04u
#define PCI_STATUS         0x06u
#define PCI_BAR0           0x10u
#define PCI_CAPABILITIES   0x34u
#define COMMAND_MEM_MASTER 6u
#define STATUS_INTX        8u
#define MSIX               0x11u
#define MSIX_ENABLE        0x8000u
#define MSIX_MASK_ALL      0x4000u
#define VIRTIO_CAP         0x09u
#define VIRTIO_COMMON      1u
#define VIRTIO_NOTIFY      2u
#define VIRTIO_ISR         3u
#define VERSION_1_HIGH     1u
#define INDIRECT_LOW       (1u << 28)
#define ACKNOWLEDGE_DRIVER 3u
#define FEATURES_OK        11u
#define DRIVER_OK          15u
#define QUEUE_SIZE         8u
#define BUFFER_BYTES       64u
#define DEVICE_WRITES      2u
#define ANSWER_WAIT        PM_TIMER_HZ
#define INTERRUPT_WAIT     (PM_TIMER_HZ / 50)
#define IOAPIC_SELECT      (*(volatile uint32_t *)0xfec00000u)
#define IOAPIC_WINDOW      (*(volatile uint32_t *)0xfec00010u)
#define IOAPIC_MASKED      0x10000u
#define IOAPIC_LEVEL_LOW   0xa000u

// virtio 1.2, 4.1.4.3 and 2.7
struct common {
    uint32_t device_select, device_feature, driver_select, driver_feature;
    uint16_t config_vector, queues;
    uint8_t status, generation;
    uint16_t queue_select, queue_size, queue_vector, queue_enable, queue_notify_off;
    uint32_t desc[2], driver[2], device[2];
};
static struct {
    uint64_t address;
    uint32_t bytes;
    uint16_t flags, next;
} desc[QUEUE_SIZE] __attribute__((aligned(16)));
static struct {
    uint16_t flags, index, ring[QUEUE_SIZE];
} available __attribute__((aligned(2)));
static volatile struct {
    uint16_t flags, index;
    struct {
        uint32_t id, bytes;
    } ring[QUEUE_SIZE];
} used __attribute__((aligned(4)));
static uint8_t buffer[BUFFER_BYTES];

static volatile struct common *common;
static volatile uint8_t *isr;
static volatile uint16_t *notify;
static volatile uint32_t *table, *pending; // of MSI-X
static uint32_t msix;                      // its capability
static uint32_t failures;
static volatile uint32_t messages, pins, pin_isr;

static void check(const char *what, uint32_t found, uint32_t wanted)
{
    if (found != wanted && failures++ < 20)
        print("HOLD %s is 0x%x, not 0x%x: FAILED\n", what, found, wanted);
}

// ---- PCI configuration space
// ---------------------------------------------------------------------

static void select(uint32_t reg)
{
    outl(0xcf8, 0x80000000u | SLOT << 11 | (reg & ~3u));
}

static uint32_t pci_read(uint32_t reg)
{
    select(reg);
    return inl(0xcfc);
}

static uint16_t pci_read16(uint32_t reg)
{
    return (uint16_t)(pci_read(reg) >> (reg & 2) * 8);
}

static void pci_write16(uint32_t reg, uint16_t value)
{
    select(reg);
    outw((uint16_t)(0xcfc + (reg & 2)), value);
}

static void found_virtio(uint32_t cap)
{
    uint32_t type = pci_read(cap) >> 24, at = BAR + pci_read(cap + 8);

    if (type == VIRTIO_COMMON)
        common = (volatile struct common *)at;
    else if (type == VIRTIO_NOTIFY)
        notify = (volatile uint16_t *)at;
    else if (type == VIRTIO_ISR)
        isr = (volatile uint8_t *)at;
}

static void find_device(void)
{
    check("the device in slot 14", pci_read(0), VENDOR_RNG);
    select(PCI_BAR0);
    outl(0xcfc, BAR);
    pci_write16(PCI_COMMAND, COMMAND_MEM_MASTER);
    for (uint32_t cap = pci_read(PCI_CAPABILITIES) & 0xff; cap; cap = pci_read(cap) >> 8 & 0xff) {
        uint32_t id = pci_read(cap) & 0xff;
        if (id == VIRTIO_CAP)
            found_virtio(cap);
        if (id != MSIX)
            continue;
        msix = cap;
        table = (volatile uint32_t *)(BAR + (pci_read(cap + 4) & ~7u));
        pending = (volatile uint32_t *)(BAR + (pci_read(cap + 8) & ~7u));
    }
}

// ---- Holding
// -------------------------------------------------------------------------------------

#define SHORTS_FROM 0x10u // of the common registers, up to SHORTS_END
#define SHORTS_END  0x20u
#define TABLE_WORDS 8u // of two vectors

static struct picture {
    uint32_t common[sizeof(struct common) / 2], table[TABLE_WORDS], pending, bar, command, control;
} before, after;

// All that can be read without a side effect.
static void take_picture(struct picture *p)
{
    for (uint32_t at = 0; at < sizeof(struct common);
         at += at >= SHORTS_FROM && at < SHORTS_END ? 2 : 4)
        p->common[at / 2] = at >= SHORTS_FROM && at < SHORTS_END
                                ? *(volatile uint16_t *)((uint32_t)common + at)
                                : *(volatile uint32_t *)((uint32_t)common + at);
    for (uint32_t i = 0; i < TABLE_WORDS; i++)
        p->table[i] = table[i];
    p->pending = *pending;
    p->bar = pci_read(PCI_BAR0);
    p->command = pci_read(PCI_COMMAND); // with the status, in which the pin's level is
    p->control = pci_read16(msix + 2);
}

// Interrupts are on all the while, and none may come.
static void hold(const char *state)
{
    uint32_t came = messages + pins;

    take_picture(&before);
    print("HOLD %s\n", state);
    while (!line_typed())
        __asm__ volatile("sti; nop; nop; cli" ::: "memory");
    take_picture(&after);
    for (uint32_t i = 0; i < sizeof before / 4; i++)
        check("a register", ((uint32_t *)&after)[i], ((uint32_t *)&before)[i]);
    check("interrupts that came", messages + pins, came);
}

static void end(const char *state)
{
    print("HELD %s failures=%u\n", state, failures);
}

// ---- Requests and their interrupts
// ---------------------------------------------------------------

static void on_message(struct frame *frame)
{
    (void)frame;
    messages++;
    apic_write(APIC_EOI, 0);
}

static void on_pin(struct frame *frame)
{
    (void)frame;
    pins++;
    pin_isr = *isr; // which lets go of the pin
    apic_write(APIC_EOI, 0);
}

static void wait(uint32_t ticks)
{
    for (uint32_t start = pm_timer(); ((pm_timer() - start) & PM_TIMER_MASK) < ticks;)
        __asm__ volatile("sti; nop; nop; cli" ::: "memory");
}

// Asks for entropy and waits until it is there; the interrupt may come or be held back.
static void request(void)
{
    uint16_t answered = used.index;
    uint32_t zeros = 0;

    for (uint32_t i = 0; i < BUFFER_BYTES; i++)
        buffer[i] = 0;
    available.ring[available.index % QUEUE_SIZE] = 0;
    __asm__ volatile("" ::: "memory");
    available.index++;
    __asm__ volatile("" ::: "memory");
    *notify = 0;
    for (uint32_t start = pm_timer();
         used.index == answered && ((pm_timer() - start) & PM_TIMER_MASK) < ANSWER_WAIT;)
        ;
    check("answers", used.index, (uint16_t)(answered + 1));
    check("bytes of the answer", used.ring[answered % QUEUE_SIZE].bytes, BUFFER_BYTES);
    for (uint32_t i = 0; i < BUFFER_BYTES; i++)
        zeros += !((volatile uint8_t *)buffer)[i];
    check("an answer of entropy", zeros < BUFFER_BYTES / 4, true);
}

static void one_interrupt(const char *what, volatile uint32_t *count, uint32_t had)
{
    wait(INTERRUPT_WAIT);
    check(what, *count, had + 1);
}

// ---- The states
// ----------------------------------------------------------------------------------

static void state_features(void)
{
    common->status = 0;
    common->status = ACKNOWLEDGE_DRIVER;
    common->driver_select = 0;
    common->driver_feature = INDIRECT_LOW;
    common->device_select = 1;
    common->driver_select = 1;
    hold("features");
    common->driver_feature = VERSION_1_HIGH;
    common->status = FEATURES_OK;
    check("the status", common->status, FEATURES_OK);
    common->driver_select = 0;
    check("the lower features", common->driver_feature, INDIRECT_LOW);
    end("features");
}

static void state_queue(void)
{
    table[4] = 0xfee00000u | apic_read(APIC_ID) >> 24 << 12; // vector 1: address, data, mask
    table[5] = 0;
    table[6] = VECTOR;
    table[7] = 0;
    pci_write16(msix + 2, MSIX_ENABLE);
    common->queue_select = 0;
    common->queue_size = QUEUE_SIZE;
    common->queue_vector = 1;
    common->desc[0] = (uint32_t)desc;
    common->driver[0] = (uint32_t)&available;
    hold("queue");
    common->device[0] = (uint32_t)&used;
    common->queue_enable = 1;
    common->status = DRIVER_OK;
    desc[0].address = (uint32_t)buffer;
    desc[0].bytes = BUFFER_BYTES;
    desc[0].flags = DEVICE_WRITES;
    request();
    one_interrupt("the first interrupt", &messages, 0);
    end("queue");
}

static void state_masked(void)
{
    uint32_t had = messages;

    table[7] = 1;
    request();
    check("pending vectors", *pending, 2);
    hold("masked");
    table[7] = 0;
    one_interrupt("the interrupt that was masked", &messages, had);
    check("pending vectors", *pending, 0);
    request();
    one_interrupt("the next interrupt", &messages, had + 1);
    end("masked");
}

static void state_function(void)
{
    uint32_t had = messages;

    pci_write16(msix + 2, MSIX_ENABLE | MSIX_MASK_ALL);
    request();
    check("pending vectors", *pending, 2);
    hold("function");
    pci_write16(msix + 2, MSIX_ENABLE);
    one_interrupt("the interrupt that was masked with all", &messages, had);
    end("function");
}

static void route_pin(uint32_t low)
{
    IOAPIC_SELECT = 0x10 + 2 * PIN + 1;
    IOAPIC_WINDOW = apic_read(APIC_ID);
    IOAPIC_SELECT = 0x10 + 2 * PIN;
    IOAPIC_WINDOW = low;
}

static void state_level(void)
{
    uint32_t had = messages;

    pci_write16(msix + 2, 0);
    route_pin(IOAPIC_MASKED | IOAPIC_LEVEL_LOW | PIN_VECTOR);
    request();
    check("the pin's level", pci_read16(PCI_STATUS) & STATUS_INTX, STATUS_INTX);
    hold("level");
    route_pin(IOAPIC_LEVEL_LOW | PIN_VECTOR);
    one_interrupt("the pin's interrupt", &pins, 0);
    check("the ISR status", pin_isr, 1);
    check("the pin's level", pci_read16(PCI_STATUS) & STATUS_INTX, 0);
    request();
    one_interrupt("the pin's next interrupt", &pins, 1);
    check("messages", messages, had);
    end("level");
}

void bare_main(const char *command_line)
{
    (void)command_line;
    interrupt_set(VECTOR, on_message);
    interrupt_set(PIN_VECTOR, on_pin);
    apic_write(APIC_SPURIOUS, 0x1ff);
    find_device();
    state_features();
    state_queue();
    state_masked();
    state_function();
    state_level();
    print("HOLD-END failures=%u\n", failures);
}
