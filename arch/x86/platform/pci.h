// SPDX-License-Identifier: MIT
// PCI functions of a guest: what a device model hands to the PCI bus (PCI 3.0; mechanism 1).
#ifndef SKIFF_PLATFORM_PCI_H
#define SKIFF_PLATFORM_PCI_H

#include "arch/x86/platform/platform.h"

#define PCI_CONFIG_BYTES 256
#define PCI_BARS         6
#define PCI_MSIX_MAX     64

enum pci_config {
    PCI_VENDOR = 0x00,
    PCI_DEVICE = 0x02,
    PCI_COMMAND = 0x04,
    PCI_STATUS = 0x06,
    PCI_REVISION = 0x08,
    PCI_CLASS = 0x09,
    PCI_HEADER_TYPE = 0x0e,
    PCI_BAR0 = 0x10,
    PCI_SUBSYSTEM_VENDOR = 0x2c,
    PCI_SUBSYSTEM = 0x2e,
    PCI_CAPABILITIES = 0x34,
    PCI_INTERRUPT_LINE = 0x3c,
    PCI_INTERRUPT_PIN = 0x3d,
};
#define PCI_COMMAND_IO      BIT(0)
#define PCI_COMMAND_MEMORY  BIT(1)
#define PCI_COMMAND_MASTER  BIT(2)
#define PCI_COMMAND_NO_INTX BIT(10)
#define PCI_STATUS_INTX     BIT(3)
#define PCI_STATUS_CAPS     BIT(4)
#define PCI_CAP_MSIX        0x11

struct pci_bar {
    u64 bytes;  // a power of two of at least 16; 0: no such BAR
    bool wide;  // 64 bits, takes the next BAR as its upper half
    u32 region; // of the device, for device_claim_mmio
    u64 mapped; // where it is claimed now; 0: nowhere
};

struct pci_msix_entry { // PCI 3.0, 6.8.2.6 to 6.8.2.9
    u64 address;
    u32 data;
    u32 control; // bit 0: masked
};

struct pci_msix {
    struct spinlock lock; // entry, pending: the bus and the device both send
    u32 count;            // 0: the function has none
    u8 cap;               // offset of the capability
    struct pci_msix_entry entry[PCI_MSIX_MAX];
    u64 pending;
};

// Embedded in the private structure of the device that has it.
struct pci_function {
    struct device *device;
    u8 slot, fn;
    u8 config[PCI_CONFIG_BYTES];
    u8 writable[PCI_CONFIG_BYTES]; // bits that software may write
    u8 initial[PCI_CONFIG_BYTES];  // config at reset, taken by pci_add_function
    u32 cap_end;                   // first byte after the capabilities; 0: none yet
    u8 cap_last;
    struct pci_bar bar[PCI_BARS];
    struct pci_msix msix;
    bool intx; // what the device wants of its interrupt pin
    // Told before a read and after a write of [reg, reg+size), with the PCI device's mutex held,
    // which comes before the function's device's; may be NULL.
    void (*config_read)(struct pci_function *f, u32 reg, u32 size);
    void (*config_written)(struct pci_function *f, u32 reg, u32 size);
    struct pci_function *next;
};

// Building one, before it is added. class_code: class << 16 | subclass << 8 | interface.
void pci_describe(struct pci_function *f, u16 vendor, u16 device, u32 class_code, u8 revision);
void pci_add_bar(struct pci_function *f, u32 n, u64 bytes, bool wide, u32 region);
// Adds `bytes` of capability at the end of the list; returns its offset. Its ID and link are set.
u32 pci_add_capability(struct pci_function *f, u8 id, u32 bytes);
// Vectors with the table at table_offset and the pending bits at pba_offset of BAR n.
void pci_add_msix(struct pci_function *f, u32 count, u32 n, u32 table_offset, u32 pba_offset);

static inline u32 pci_get(const struct pci_function *f, u32 reg, u32 size)
{
    u32 value = 0;
    for (u32 i = 0; i < size; i++)
        value |= (u32)f->config[reg + i] << i * 8;
    return value;
}
static inline void pci_put(struct pci_function *f, u32 reg, u32 size, u32 value)
{
    for (u32 i = 0; i < size; i++)
        f->config[reg + i] = (u8)(value >> i * 8);
}

// Puts a function on the bus; E_EXIST when its place is taken. remove: unmaps its BARs.
int pci_add_function(struct guest *g, struct pci_function *f);
void pci_remove_function(struct guest *g, struct pci_function *f);
// For the device's reset and resume: power-on configuration; BARs and interrupt as configured.
void pci_reset_function(struct pci_function *f);
void pci_resume_function(struct pci_function *f);

// For the check of a loaded state: can this function be in it?
bool pci_function_possible(const struct pci_function *f);

// The level of the function's INTx pin. Callable with the device's lock held.
void pci_set_intx(struct pci_function *f, bool level);
static inline u32 pci_intx_gsi(u32 slot, u32 pin) // pin 0 is INTA; as the DSDT's _PRT says
{
    return IRQ_PCI_FIRST + (slot + pin) % IRQ_PCI_COUNT;
}

// MSI-X (pci_msix.c). Accesses to the table and the pending bits, by their offset in it.
u64 pci_msix_table_read(struct pci_function *f, u64 offset, u32 size);
void pci_msix_table_write(struct pci_function *f, u64 offset, u32 size, u64 value);
u64 pci_msix_pba_read(const struct pci_function *f, u64 offset, u32 size);
bool pci_msix_enabled(const struct pci_function *f);
void pci_msix_send(struct pci_function *f, u32 vector);
bool pci_msix_possible(const struct pci_function *f); // as pci_function_possible
void pci_msix_flush(struct pci_function *f);          // sends what masks no longer hold back

// BAR sizes, masks and capabilities come from the device model on both hosts; a move carries these.
#define PCI_FUNCTION_FIELDS(id, type, member)                                                      \
    FIELD_ARRAY(id, FIELD_BYTES, type, member.config, 1),                                          \
        FIELD(id + 1, FIELD_COPY, type, member.intx, 1, 0, 1)
#define PCI_MSIX_FIELDS(id, type, member)                                                          \
    {#member ".msix.entry",                                                                        \
     id,                                                                                           \
     FIELD_BYTES,                                                                                  \
     1,                                                                                            \
     sizeof(((type *)0)->member.msix.entry),                                                       \
     offsetof(type, member.msix.entry),                                                            \
     1,                                                                                            \
     0,                                                                                            \
     0},                                                                                           \
        FIELD(id + 1, FIELD_COPY, type, member.msix.pending, 1, 0, 0)

#endif
