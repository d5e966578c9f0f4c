// SPDX-License-Identifier: MIT
// The PCI bus of the guest: configuration mechanism 1, the i440FX host bridge and the PIIX ISA
// bridge and power management functions that firmware looks for (82441FX, 82371SB, 82371AB data
// sheets), and the reset register at 0xCF9.
#include "arch/x86/platform/pci.h"

#include "kernel/lib.h"
#include "kernel/log.h"

#define OFFSET_ADDRESS 0
#define OFFSET_RESET   1
#define OFFSET_DATA    4
#define ADDRESS_ENABLE BIT(31)
#define PIRQ_BASE      0x60 // PIIX3: four bytes, bit 7 off
#define PIRQ_OFF       0x80
#define PIRQ_LINES     0xdef8 // ISA interrupts a PIRQ may be routed to
#define PMBASE         0x40
#define PMREGMISC      0x80

struct vpci {
    struct device *device;
    struct spinlock lock; // the function list, the functions' intx, lines
    struct pci_function *functions;
    u32 lines;   // interrupt lines held up for INTx
    u32 address; // 0xCF8
    u8 reset_control;
    struct pci_function host, isa, pm;
};

static struct vpci *bus_of(const struct pci_function *f)
{
    return platform_of(f->device->guest)->pci->priv;
}

static u32 line_bit(const struct vpci *p, const struct pci_function *f)
{
    u32 pin = (f->config[PCI_INTERRUPT_PIN] - 1u) & 3;
    u32 bits = 1u << pci_intx_gsi(f->slot, pin);
    u8 route = p->isa.config[PIRQ_BASE + ((f->slot + pin) & 3)];
    if (!(route & PIRQ_OFF) && (PIRQ_LINES >> (route & 15) & 1))
        bits |= 1u << (route & 15); // for systems that use the PICs
    return bits;
}

// The lines that INTx pins hold up; functions share them.
static void update_intx(struct vpci *p)
{
    u32 lines = 0;
    for (struct pci_function *f = p->functions; f; f = f->next)
        if (f->intx && f->config[PCI_INTERRUPT_PIN] &&
            !(pci_get(f, PCI_COMMAND, 2) & PCI_COMMAND_NO_INTX))
            lines |= line_bit(p, f);
    for (u32 changed = lines ^ p->lines; changed; changed &= changed - 1) {
        u32 line = (u32)__builtin_ctz(changed);
        irq_line_set(p->device->guest, line, IRQ_SOURCE_PCI, lines >> line & 1);
    }
    p->lines = lines;
}

void pci_set_intx(struct pci_function *f, bool level)
{
    struct vpci *p = bus_of(f);
    spin_lock(&p->lock);
    if (f->intx != level) {
        f->intx = level;
        f->config[PCI_STATUS] ^= PCI_STATUS_INTX;
        update_intx(p);
    }
    spin_unlock(&p->lock);
}

static struct pci_function *find(struct vpci *p, u32 slot, u32 fn)
{
    struct pci_function *f = p->functions;
    while (f && (f->slot != slot || f->fn != fn))
        f = f->next;
    return f;
}

int pci_add_function(struct guest *g, struct pci_function *f)
{
    struct vpci *p = platform_of(g)->pci->priv;
    memcpy(f->initial, f->config, sizeof(f->initial));
    spin_lock(&p->lock);
    bool taken = find(p, f->slot, f->fn);
    if (!taken) {
        f->next = p->functions;
        p->functions = f;
    }
    spin_unlock(&p->lock);
    return taken ? E_EXIST : 0;
}

static u64 bar_address(const struct pci_function *f, u32 n)
{
    u64 address = pci_get(f, PCI_BAR0 + n * 4, 4) & ~15u;
    if (f->bar[n].wide)
        address |= (u64)pci_get(f, PCI_BAR0 + n * 4 + 4, 4) << 32;
    return address;
}

// Claims the BARs where they are now. One being sized reads all ones and is nowhere for that time.
static void map_bars(struct pci_function *f, bool on)
{
    bool memory = on && (pci_get(f, PCI_COMMAND, 2) & PCI_COMMAND_MEMORY);
    for (u32 n = 0; n < PCI_BARS; n++) {
        struct pci_bar *b = &f->bar[n];
        u64 at = memory && b->bytes ? bar_address(f, n) : 0;
        if (at == (b->wide ? ~(b->bytes - 1) : (u32) ~(b->bytes - 1)))
            at = 0;
        if (at == b->mapped)
            continue;
        if (b->mapped)
            device_release_mmio(f->device, b->region);
        b->mapped = 0;
        if (at && !device_claim_mmio(f->device, at, b->bytes, b->region))
            b->mapped = at;
        else if (at)
            log_warn("platform", "guest %s: BAR %u of %02x.%x overlaps a device at 0x%llx",
                     f->device->guest->name, n, f->slot, f->fn, (unsigned long long)at);
    }
}

void pci_remove_function(struct guest *g, struct pci_function *f)
{
    struct vpci *p = platform_of(g)->pci->priv;
    map_bars(f, false);
    spin_lock(&p->lock);
    for (struct pci_function **at = &p->functions; *at; at = &(*at)->next) {
        if (*at == f) {
            *at = f->next;
            break;
        }
    }
    update_intx(p);
    spin_unlock(&p->lock);
}

void pci_reset_function(struct pci_function *f)
{
    pci_set_intx(f, false);
    memcpy(f->config, f->initial, sizeof(f->config));
    for (u32 i = 0; i < f->msix.count; i++)
        f->msix.entry[i] = (struct pci_msix_entry){.control = 1};
    f->msix.pending = 0;
    map_bars(f, true);
}

void pci_resume_function(struct pci_function *f)
{
    struct vpci *p = bus_of(f);
    map_bars(f, true);
    spin_lock(&p->lock);
    update_intx(p);
    spin_unlock(&p->lock);
    pci_msix_flush(f);
}

bool pci_function_possible(const struct pci_function *f)
{
    for (u32 i = 0; i < PCI_CONFIG_BYTES; i++) {
        u8 fixed = (u8)~f->writable[i];
        if (i == PCI_STATUS)
            fixed &= (u8)~PCI_STATUS_INTX;
        if ((f->config[i] ^ f->initial[i]) & fixed)
            return false;
    }
    return pci_msix_possible(f) && f->intx == !!(f->config[PCI_STATUS] & PCI_STATUS_INTX);
}

void pci_describe(struct pci_function *f, u16 vendor, u16 device, u32 class_code, u8 revision)
{
    pci_put(f, PCI_VENDOR, 2, vendor);
    pci_put(f, PCI_DEVICE, 2, device);
    pci_put(f, PCI_REVISION, 1, revision);
    pci_put(f, PCI_CLASS, 3, class_code);
    f->writable[PCI_COMMAND] = PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER;
    f->writable[PCI_COMMAND + 1] = PCI_COMMAND_NO_INTX >> 8;
    f->writable[PCI_INTERRUPT_LINE] = 0xff;
}

void pci_add_bar(struct pci_function *f, u32 n, u64 bytes, bool wide, u32 region)
{
    u32 reg = PCI_BAR0 + n * 4;
    u64 mask = ~(bytes - 1);
    assert(n + wide < PCI_BARS && bytes >= 16 && !(bytes & (bytes - 1)));
    f->bar[n] = (struct pci_bar){.bytes = bytes, .wide = wide, .region = region};
    f->config[reg] = wide ? 4 : 0;
    for (u32 i = 0; i < (wide ? 8u : 4u); i++)
        f->writable[reg + i] = (u8)(mask >> i * 8);
}

u32 pci_add_capability(struct pci_function *f, u8 id, u32 bytes)
{
    u32 at = f->cap_end ? f->cap_end : 0x40;
    assert(at + bytes <= PCI_CONFIG_BYTES);
    f->config[f->cap_last ? f->cap_last + 1 : PCI_CAPABILITIES] = (u8)at;
    f->config[at] = id;
    f->config[PCI_STATUS] |= PCI_STATUS_CAPS;
    f->cap_last = (u8)at;
    f->cap_end = ALIGN_UP(at + bytes, 4);
    return at;
}

static u32 config_read(struct vpci *p, u32 port, u32 size)
{
    u32 a = p->address;
    struct pci_function *f = find(p, a >> 11 & 31, a >> 8 & 7);
    if (!(a & ADDRESS_ENABLE) || a >> 16 & 0xff || !f || port + size > 4)
        return ~0u;
    if (f->config_read)
        f->config_read(f, (a & 0xfc) + port, size);
    return pci_get(f, (a & 0xfc) + port, size);
}

static void config_write(struct vpci *p, u32 port, u32 size, u32 value)
{
    u32 a = p->address, reg = (a & 0xfc) + port;
    struct pci_function *f = find(p, a >> 11 & 31, a >> 8 & 7);
    if (!(a & ADDRESS_ENABLE) || a >> 16 & 0xff || !f || port + size > 4)
        return;
    for (u32 i = 0; i < size; i++) {
        u8 w = f->writable[reg + i];
        if (w) // the status, with the pin's level, is pci_set_intx's alone
            f->config[reg + i] = (f->config[reg + i] & (u8)~w) | ((u8)(value >> i * 8) & w);
    }
    map_bars(f, true);
    spin_lock(&p->lock);
    update_intx(p);
    spin_unlock(&p->lock);
    if (f->msix.count)
        pci_msix_flush(f);
    if (f->config_written)
        f->config_written(f, reg, size);
}

static u64 pci_device_read(struct device *d, u32 region, u64 offset, u32 size)
{
    (void)region;
    struct vpci *p = d->priv;
    if (offset >= OFFSET_DATA)
        return config_read(p, (u32)offset - OFFSET_DATA, size);
    if (offset == OFFSET_ADDRESS && size == 4)
        return p->address;
    return offset == OFFSET_RESET && size == 1 ? p->reset_control : ~0ull;
}

static void pci_device_write(struct device *d, u32 region, u64 offset, u32 size, u64 value)
{
    (void)region;
    struct vpci *p = d->priv;
    if (offset >= OFFSET_DATA) {
        config_write(p, (u32)offset - OFFSET_DATA, size, (u32)value);
    } else if (offset == OFFSET_ADDRESS && size == 4) {
        p->address = (u32)value & 0x80fffffc;
    } else if (offset == OFFSET_RESET && size == 1) {
        p->reset_control = value & 2; // bit 1 chooses a hard reset, bit 2 asks for it
        if (value & 4)
            platform_reset_request(d->guest, "reset register");
    }
}

static void writable_bytes(struct pci_function *f, u32 first, u32 last)
{
    for (u32 i = first; i <= last; i++)
        f->writable[i] = 0xff;
}

static void describe_bridges(struct vpci *p, struct device *d)
{
    p->host.device = p->isa.device = p->pm.device = d;
    p->isa.slot = p->pm.slot = 1;
    p->pm.fn = 3;
    pci_describe(&p->host, 0x8086, 0x1237, 0x060000, 2);
    // Memory attributes, DRAM boundaries, SMRAM: firmware programs them; RAM is RAM here anyway.
    writable_bytes(&p->host, 0x50, 0x93);
    pci_describe(&p->isa, 0x8086, 0x7000, 0x060100, 0);
    p->isa.config[PCI_HEADER_TYPE] = 0x80;
    p->isa.config[PCI_COMMAND] = 7;
    writable_bytes(&p->isa, 0x4c, 0x4f);
    writable_bytes(&p->isa, 0x80, 0x82);
    for (u32 i = 0; i < 4; i++) {
        p->isa.config[PIRQ_BASE + i] = PIRQ_OFF;
        p->isa.writable[PIRQ_BASE + i] = 0x8f;
    }
    // Revision 3 has none of the PM timer's early errors. Its ports are on, and fixed.
    pci_describe(&p->pm, 0x8086, 0x7113, 0x068000, 3);
    p->pm.config[PCI_COMMAND] = PCI_COMMAND_IO;
    pci_put(&p->pm, PMBASE, 4, PM_BASE | 1);
    p->pm.config[PMREGMISC] = 1;
    p->pm.config[PCI_INTERRUPT_PIN] = 1;
    p->pm.config[PCI_INTERRUPT_LINE] = IRQ_SCI;
}

static void pci_device_reset(struct device *d)
{
    struct vpci *p = d->priv;
    p->address = 0;
    p->reset_control = 0;
    pci_reset_function(&p->host);
    pci_reset_function(&p->isa);
    pci_reset_function(&p->pm);
}

static int pci_device_init(struct device *d)
{
    struct vpci *p = d->priv;
    p->device = d;
    platform_of(d->guest)->pci = d;
    describe_bridges(p, d);
    pci_add_function(d->guest, &p->host);
    pci_add_function(d->guest, &p->isa);
    pci_add_function(d->guest, &p->pm);
    pci_device_reset(d);
    return device_claim_ports(d, 0xcf8, 8, 0);
}

static void pci_device_fini(struct device *d)
{
    platform_of(d->guest)->pci = NULL;
}

static void pci_device_pause(struct device *d)
{
    (void)d; // no timers
}

static void pci_device_resume(struct device *d)
{
    struct vpci *p = d->priv;
    pci_resume_function(&p->host);
    pci_resume_function(&p->isa);
    pci_resume_function(&p->pm);
}

static bool check(const void *copy, char *err, size_t size)
{
    const struct vpci *p = copy;
    bool same = pci_get(&p->host, PCI_VENDOR, 4) == 0x12378086 &&
                pci_get(&p->isa, PCI_VENDOR, 4) == 0x70008086 &&
                pci_get(&p->pm, PCI_VENDOR, 4) == 0x71138086;
    if (same && !(p->address & ~0x80fffffcu) && !(p->reset_control & ~2u))
        return true;
    snprintf(err, size,
             "PCI: the bridges are not this machine's, or the address register 0x%x is "
             "impossible",
             p->address);
    return false;
}

static const struct state_field fields[] = {
    FIELD(1, FIELD_COPY, struct vpci, address, 1, 0, 0),
    FIELD(2, FIELD_COPY, struct vpci, reset_control, 1, 0, 0),
    FIELD_ARRAY(3, FIELD_BYTES, struct vpci, host.config, 1),
    FIELD_ARRAY(4, FIELD_BYTES, struct vpci, isa.config, 1),
    FIELD_ARRAY(5, FIELD_BYTES, struct vpci, pm.config, 1),
    FIELD_LAST,
};
static const struct state_table state = {
    .name = "pci",
    .version = 1,
    .fields = fields,
    .check = check,
    .struct_size = sizeof(struct vpci),
};

const struct device_ops vpci_device = {
    .name = "pci",
    .state = &state,
    .priv_size = sizeof(struct vpci),
    .init = pci_device_init,
    .fini = pci_device_fini,
    .reset = pci_device_reset,
    .read = pci_device_read,
    .write = pci_device_write,
    .pause = pci_device_pause,
    .resume = pci_device_resume,
};
