// SPDX-License-Identifier: MIT
// COM1, a 16550. Output is polled until interrupts are up and after a crash; in between it goes
// through a ring, because polling a line of text at 115200 baud would hold the CPU for 7 ms.
#include "arch/x86/cpu.h"
#include "arch/x86/serial.h"
#include "kernel/lib.h"
#include "kernel/log.h"

// Registers of a PC16550D at the standard address of COM1.
#define COM1           0x3f8
#define REG_DATA       (COM1 + 0) // divisor low with DLAB
#define REG_IER        (COM1 + 1) // divisor high with DLAB
#define REG_IIR        (COM1 + 2) // read
#define REG_FCR        (COM1 + 2)
#define REG_LCR        (COM1 + 3)
#define REG_MCR        (COM1 + 4)
#define REG_LSR        (COM1 + 5)
#define REG_MSR        (COM1 + 6)
#define IIR_NONE       0x01 // no interrupt pending
#define IIR_CAUSE      0x0e
#define IIR_MODEM      0x00
#define IIR_RX         0x04
#define IIR_RX_TIMEOUT 0x0c
#define IER_RX         0x01
#define IER_TX         0x02
#define FCR_ENABLE     0x07 // FIFOs on and emptied, interrupt at the first byte
#define LCR_8N1        0x03
#define LCR_DLAB       0x80
#define MCR_ON         0x0b // DTR, RTS, OUT2 (the interrupt gate)
#define LSR_RX_READY   0x01
#define LSR_TX_EMPTY   0x20
#define FIFO_BYTES     16
#define COM1_IRQ       4

#define RX_RING 4096
#define TX_RING 16384
// One byte takes 87 us; a UART that is this late is not there or broken.
#define POLL_LIMIT 1000000

static bool present;
static bool buffered; // interrupts empty the TX ring; false: polled
static volatile u32 locked;

static char tx_ring[TX_RING]; // locked
static u32 tx_head, tx_tail;  // next to send, next free; locked
static u8 rx_ring[RX_RING];
static volatile u32 rx_head, rx_tail; // written by serial_read, by the interrupt
static void (*rx_handler)(void);

// Reading the status registers and the (empty) receiver takes their interrupts back.
static void clear_pending(void)
{
    in8(REG_LSR);
    in8(REG_MSR);
    if (!(in8(REG_LSR) & LSR_RX_READY))
        in8(REG_DATA);
}

void serial_early_init(void)
{
    out8(REG_IER, 0);
    out8(REG_LCR, LCR_DLAB);
    out8(REG_DATA, 1);
    out8(REG_IER, 0);
    out8(REG_LCR, LCR_8N1);
    out8(REG_FCR, FCR_ENABLE);
    out8(REG_MCR, MCR_ON);
    clear_pending();
    present = in8(REG_LSR) != 0xff; // an empty bus reads as ones
}

static void wait_tx_empty(void)
{
    for (u32 i = 0; i < POLL_LIMIT; i++) {
        if (in8(REG_LSR) & LSR_TX_EMPTY)
            return;
        cpu_relax();
    }
    present = false;
}

static bool tx_empty(void)
{
    return tx_head == tx_tail;
}

// Fills the transmitter's FIFO from the ring; it is empty when this is called.
static void tx_pump(void)
{
    for (u32 i = 0; i < FIFO_BYTES && !tx_empty(); i++)
        out8(REG_DATA, tx_ring[tx_head++ % TX_RING]);
}

static void put(char c)
{
    if (!buffered) {
        wait_tx_empty();
        out8(REG_DATA, c);
        return;
    }
    if (tx_tail - tx_head == TX_RING) {
        wait_tx_empty();
        tx_pump();
    }
    tx_ring[tx_tail++ % TX_RING] = c;
}

// The lock is not a struct spinlock: output must work before there is per-CPU data.
static u64 lock(void)
{
    u64 flags = irq_save();
    while (__atomic_exchange_n(&locked, 1, __ATOMIC_ACQUIRE))
        cpu_relax();
    return flags;
}

static void unlock(u64 flags)
{
    __atomic_store_n(&locked, 0, __ATOMIC_RELEASE);
    irq_restore(flags);
}

void serial_write(const char *s, size_t n)
{
    if (!present)
        return;
    u64 flags = lock();
    for (size_t i = 0; i < n && present; i++) {
        if (s[i] == '\n')
            put('\r');
        put(s[i]);
    }
    if (buffered && !tx_empty())
        out8(REG_IER, IER_RX | IER_TX);
    unlock(flags);
}

int serial_read(void)
{
    u32 head = rx_head;
    if (head == rx_tail)
        return -1;
    int c = rx_ring[head % RX_RING];
    rx_head = head + 1;
    return c;
}

void serial_set_rx_handler(void (*fn)(void))
{
    rx_handler = fn;
}

static void receive(void)
{
    u8 c = in8(REG_DATA);
    if (rx_tail - rx_head < RX_RING) {
        rx_ring[rx_tail % RX_RING] = c;
        rx_tail = rx_tail + 1;
    }
}

static void transmit(void)
{
    u64 flags = lock();
    if (buffered && (in8(REG_LSR) & LSR_TX_EMPTY)) {
        tx_pump();
        if (tx_empty())
            out8(REG_IER, IER_RX);
    }
    unlock(flags);
}

// One pending interrupt. Some UARTs report data that is not there: only a read takes that back.
static bool serve(u8 cause)
{
    bool ready = in8(REG_LSR) & LSR_RX_READY;
    if (ready)
        receive();
    else if (cause == IIR_RX || cause == IIR_RX_TIMEOUT)
        in8(REG_DATA);
    else if (cause == IIR_MODEM)
        in8(REG_MSR);
    else
        transmit();
    return ready;
}

// The line is edge-triggered: nothing may be left pending when the handler returns, or the UART
// never raises it again.
static void interrupt(void *arg)
{
    (void)arg;
    bool received = false;
    u8 cause = in8(REG_IIR);
    for (u32 i = 0; i < RX_RING && !(cause & IIR_NONE); i++) {
        received |= serve(cause & IIR_CAUSE);
        cause = in8(REG_IIR);
    }
    transmit(); // reading IIR above may have taken this cause back
    if (received && rx_handler != NULL)
        rx_handler();
}

void serial_irq_init(void)
{
    if (!present)
        return;
    int vector = irq_alloc_vector(interrupt, NULL);
    if (vector < 0 || irq_route_pin(COM1_IRQ, vector, false, false) != 0) {
        log_error("serial", "no interrupt for COM1: the console takes no input");
        return;
    }
    buffered = true;
    out8(REG_IER, IER_RX);
    interrupt(NULL);
}

void serial_crash_mode(void)
{
    // Whoever holds the lock never comes back; its half-written line is printed as it is.
    locked = 0;
    buffered = false;
    out8(REG_IER, 0);
    while (present && !tx_empty()) {
        wait_tx_empty();
        tx_pump();
    }
    wait_tx_empty();
}
