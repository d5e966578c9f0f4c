// SPDX-License-Identifier: MIT
// COM1, a 16550A whose line has no speed: what is sent is gone at once, and what comes in waits in
// a queue behind the receive FIFO. (National Semiconductor PC16550D data sheet.)
#include "arch/x86/platform/console_ring.h"
#include "arch/x86/platform/platform.h"

#include "kernel/lib.h"
#include "kernel/mem.h"

enum { UART_DATA, UART_IER, UART_IIR, UART_LCR, UART_MCR, UART_LSR, UART_MSR, UART_SCRATCH };
#define IER_RX        0x01
#define IER_TX        0x02
#define IER_LINE      0x04
#define IER_MODEM     0x08
#define IIR_NONE      0x01
#define IIR_TX        0x02
#define IIR_RX        0x04
#define IIR_TIMEOUT   0x0c
#define IIR_LINE      0x06
#define IIR_MODEM     0x00
#define IIR_FIFO      0xc0
#define FCR_ENABLE    0x01
#define FCR_CLEAR_RX  0x02
#define LCR_DLAB      0x80
#define MCR_OUT2      0x08
#define MCR_LOOP      0x10
#define LSR_READY     0x01
#define LSR_OVERRUN   0x02
#define LSR_TX_EMPTY  0x60
#define MSR_CONNECTED 0xb0 // carrier, data set ready, clear to send
#define FIFO_DEPTH    16
#define RX_QUEUE      1024
#define LINE_BYTES    200 // of the line under way that moves with the guest

struct vuart {
    struct device *device;
    struct console_ring ring;
    u8 ier, lcr, mcr, scratch, fcr;
    u8 line_errors;   // overrun, cleared by reading the line status
    u8 modem_changes; // the low half of the modem status, cleared by reading it
    u8 tx_pending;    // a transmitter interrupt that has not been seen yet
    u16 divisor;
    u16 rx_count;
    u8 rx[RX_QUEUE]; // the oldest byte first
    // Written since the last line feed, as it was at the pause: a line that is under way when the
    // guest changes hosts comes out whole at the new one.
    u16 line_count;
    u8 line[LINE_BYTES];
};

static u32 fifo_depth(const struct vuart *u)
{
    return u->fcr & FCR_ENABLE ? FIFO_DEPTH : 1;
}

static u32 trigger_level(const struct vuart *u)
{
    static const u8 level[] = {1, 4, 8, 14};
    return u->fcr & FCR_ENABLE ? level[u->fcr >> 6] : 1;
}

// Data sheet, table II and section 8.5. There is no waiting for the timeout of a part-filled FIFO.
static u8 interrupt_id(const struct vuart *u)
{
    if ((u->ier & IER_LINE) && u->line_errors)
        return IIR_LINE;
    if ((u->ier & IER_RX) && u->rx_count)
        return u->rx_count >= trigger_level(u) ? IIR_RX : IIR_TIMEOUT;
    if ((u->ier & IER_TX) && u->tx_pending)
        return IIR_TX;
    if ((u->ier & IER_MODEM) && u->modem_changes)
        return IIR_MODEM;
    return IIR_NONE;
}

// On a PC, OUT2 connects the chip to the interrupt line; in loopback it is disconnected.
static void update_irq(struct vuart *u)
{
    bool connected = (u->mcr & (MCR_OUT2 | MCR_LOOP)) == MCR_OUT2;
    if (connected && interrupt_id(u) != IIR_NONE)
        irq_raise(u->device->guest, IRQ_COM1);
    else
        irq_lower(u->device->guest, IRQ_COM1);
}

static void receive(struct vuart *u, u8 byte)
{
    u32 room = u->mcr & MCR_LOOP ? fifo_depth(u) : RX_QUEUE;
    if (u->rx_count < room)
        u->rx[u->rx_count++] = byte;
    else if (u->mcr & MCR_LOOP)
        u->line_errors |= LSR_OVERRUN;
}

static void put_out(struct vuart *u, char c)
{
    struct guest *g = u->device->guest;
    console_ring_put(&u->ring, c);
    if (g->console_sink)
        g->console_sink(g, &c, 1);
}

static void transmit(struct vuart *u, u8 byte)
{
    u->tx_pending = 0;
    update_irq(u); // an edge-triggered line must fall before it can rise again
    u->tx_pending = 1;
    if (u->mcr & MCR_LOOP)
        receive(u, byte);
    else
        put_out(u, (char)byte);
}

static u8 take_received(struct vuart *u)
{
    if (!u->rx_count)
        return 0;
    u8 byte = u->rx[0];
    memmove(u->rx, u->rx + 1, --u->rx_count);
    return byte;
}

static u8 modem_status(const struct vuart *u)
{
    if (!(u->mcr & MCR_LOOP))
        return MSR_CONNECTED | u->modem_changes;
    // Loopback: RTS to CTS, DTR to DSR, OUT1 to RI, OUT2 to DCD.
    u8 m = u->mcr;
    return (u8)((m & 2) << 3 | (m & 1) << 5 | (m & 4) << 4 | (m & 8) << 4) | u->modem_changes;
}

static u8 line_status(const struct vuart *u)
{
    return LSR_TX_EMPTY | (u->rx_count ? LSR_READY : 0) | u->line_errors;
}

static u8 read_id(struct vuart *u)
{
    u8 id = interrupt_id(u);
    if (id == IIR_TX)
        u->tx_pending = 0;
    return id | (u->fcr & FCR_ENABLE ? IIR_FIFO : 0);
}

static u8 read_register(struct vuart *u, u64 offset)
{
    u8 value;
    switch (offset) {
    case UART_DATA:
        return u->lcr & LCR_DLAB ? (u8)u->divisor : take_received(u);
    case UART_IER:
        return u->lcr & LCR_DLAB ? (u8)(u->divisor >> 8) : u->ier;
    case UART_IIR:
        return read_id(u);
    case UART_LCR:
        return u->lcr;
    case UART_MCR:
        return u->mcr;
    case UART_LSR:
        value = line_status(u);
        u->line_errors = 0;
        return value;
    case UART_MSR:
        value = modem_status(u);
        u->modem_changes = 0;
        return value;
    default:
        return u->scratch;
    }
}

static void write_ier(struct vuart *u, u8 value)
{
    if ((value & ~u->ier) & IER_TX)
        u->tx_pending = 1; // the transmitter is always empty
    u->ier = value & 0x0f;
}

static void write_fcr(struct vuart *u, u8 value)
{
    bool toggled = (value ^ u->fcr) & FCR_ENABLE;
    // The bytes that wait outside the FIFO have not arrived yet; those in it are dropped.
    if (toggled || (value & FCR_CLEAR_RX)) {
        u32 dropped = MIN(u->rx_count, fifo_depth(u));
        u->rx_count -= (u16)dropped;
        memmove(u->rx, u->rx + dropped, u->rx_count);
    }
    u->fcr = value & FCR_ENABLE ? value & 0xc9 : 0;
}

// The modem's inputs change with loopback on and off; bits 3:0 tell (RI only when it falls).
static void write_mcr(struct vuart *u, u8 value)
{
    u8 before = modem_status(u);
    u->mcr = value & 0x1f;
    u8 changed = (before ^ modem_status(u)) >> 4;
    if ((changed & 4) && !(before & 0x40))
        changed &= (u8)~4;
    u->modem_changes |= changed;
}

static void write_register(struct vuart *u, u64 offset, u8 value)
{
    switch (offset) {
    case UART_DATA:
        if (u->lcr & LCR_DLAB)
            u->divisor = (u->divisor & 0xff00) | value;
        else
            transmit(u, value);
        break;
    case UART_IER:
        if (u->lcr & LCR_DLAB)
            u->divisor = (u16)((u->divisor & 0x00ff) | value << 8);
        else
            write_ier(u, value);
        break;
    case UART_IIR:
        write_fcr(u, value);
        break;
    case UART_LCR:
        u->lcr = value;
        break;
    case UART_MCR:
        write_mcr(u, value);
        break;
    case UART_SCRATCH:
        u->scratch = value;
        break;
    }
}

static u64 uart_read(struct device *d, u32 region, u64 offset, u32 size)
{
    (void)region;
    struct vuart *u = d->priv;
    // Polling the line status changes nothing: the way of every character a guest prints.
    if (offset == UART_LSR && !u->line_errors)
        return line_status(u);
    if (size != 1)
        return ~0ull;
    u8 value = read_register(u, offset);
    update_irq(u);
    return value;
}

static void uart_write(struct device *d, u32 region, u64 offset, u32 size, u64 value)
{
    (void)region;
    struct vuart *u = d->priv;
    if (size != 1)
        return;
    write_register(u, offset, (u8)value);
    update_irq(u);
}

void guest_console_attach(struct guest *g, void (*sink)(struct guest *g, const char *s, size_t n))
{
    struct platform *p = platform_of(g);
    if (p)
        mutex_lock(&p->uart->lock);
    g->console_sink = sink;
    if (p)
        mutex_unlock(&p->uart->lock);
}

// What does not fit into the queue is lost, as on a line without flow control.
void guest_console_input(struct guest *g, const char *s, size_t n)
{
    struct platform *p = platform_of(g);
    if (!p)
        return;
    struct vuart *u = p->uart->priv;
    mutex_lock(&p->uart->lock);
    for (size_t i = 0; i < n && !(u->mcr & MCR_LOOP); i++)
        receive(u, (u8)s[i]);
    update_irq(u);
    mutex_unlock(&p->uart->lock);
}

size_t guest_console_tail(struct guest *g, char *buf, size_t size)
{
    struct platform *p = platform_of(g);
    if (!p)
        return 0;
    const struct vuart *u = p->uart->priv;
    mutex_lock(&p->uart->lock);
    size_t n = console_ring_tail(&u->ring, buf, size);
    mutex_unlock(&p->uart->lock);
    return n;
}

static void uart_reset(struct device *d)
{
    struct vuart *u = d->priv;
    u->ier = u->lcr = u->mcr = u->scratch = u->fcr = 0;
    u->line_errors = u->modem_changes = 0;
    u->tx_pending = 0;
    u->divisor = 12; // 9600 baud
    u->rx_count = 0;
    update_irq(u);
}

static int uart_init(struct device *d)
{
    struct vuart *u = d->priv;
    u->device = d;
    platform_of(d->guest)->uart = d;
    uart_reset(d);
    return device_claim_ports(d, 0x3f8, 8, 0);
}

// Whoever shows this console is not left with half a line.
static void uart_fini(struct device *d)
{
    char last = '\n';
    struct vuart *u = d->priv;
    console_ring_tail(&u->ring, &last, 1);
    if (last != '\n')
        put_out(u, '\n');
    platform_of(d->guest)->uart = NULL;
}

static void uart_pause(struct device *d)
{
    struct vuart *u = d->priv;
    char tail[LINE_BYTES];
    size_t n = console_ring_tail(&u->ring, tail, sizeof(tail)), start = n;
    while (start && tail[start - 1] != '\n')
        start--;
    u->line_count = (u16)(n - start);
    memset(u->line, 0, sizeof(u->line));
    memcpy(u->line, tail + start, n - start);
}

static void uart_resume(struct device *d)
{
    struct vuart *u = d->priv;
    bool arrived = !u->ring.written;
    for (u32 i = 0; arrived && i < u->line_count; i++)
        put_out(u, (char)u->line[i]);
    update_irq(u);
}

static bool check(const void *copy, char *err, size_t size)
{
    const struct vuart *u = copy;
    bool fcr_valid = u->fcr & FCR_ENABLE ? !(u->fcr & 0x36) : u->fcr == 0;
    if (fcr_valid && !(u->line_errors & ~LSR_OVERRUN))
        return true;
    snprintf(err, size, "UART: impossible FIFO control 0x%x or line errors 0x%x", u->fcr,
             u->line_errors);
    return false;
}

static const struct state_field fields[] = {
    FIELD(1, FIELD_COPY, struct vuart, ier, 1, 0, 0x0f),
    FIELD(2, FIELD_COPY, struct vuart, lcr, 1, 0, 0),
    FIELD(3, FIELD_COPY, struct vuart, mcr, 1, 0, 0x1f),
    FIELD(4, FIELD_COPY, struct vuart, scratch, 1, 0, 0),
    FIELD(5, FIELD_COPY, struct vuart, fcr, 1, 0, 0xff),
    FIELD(6, FIELD_COPY, struct vuart, line_errors, 1, 0, 0),
    FIELD(7, FIELD_COPY, struct vuart, modem_changes, 1, 0, 0x0f),
    FIELD(8, FIELD_COPY, struct vuart, tx_pending, 1, 0, 1),
    FIELD(9, FIELD_COPY, struct vuart, divisor, 1, 0, 0),
    FIELD(10, FIELD_COPY, struct vuart, rx_count, 1, 0, RX_QUEUE),
    FIELD_ARRAY(11, FIELD_BYTES, struct vuart, rx, 1),
    FIELD(12, FIELD_COPY, struct vuart, line_count, 2, 0, LINE_BYTES),
    FIELD_ARRAY(13, FIELD_BYTES, struct vuart, line, 2),
    FIELD_LAST,
};
static const struct state_table state = {
    .name = "uart",
    .version = 2,
    .fields = fields,
    .check = check,
    .struct_size = sizeof(struct vuart),
};

const struct device_ops vuart_device = {
    .name = "uart",
    .state = &state,
    .priv_size = sizeof(struct vuart),
    .init = uart_init,
    .fini = uart_fini,
    .reset = uart_reset,
    .read = uart_read,
    .write = uart_write,
    .pause = uart_pause,
    .resume = uart_resume,
};
