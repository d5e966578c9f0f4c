// SPDX-License-Identifier: MIT
// MSI-X of a guest's PCI function: table, masks and pending bits (PCI 3.0, 6.8.2).
#include "arch/x86/platform/pci.h"

#include "kernel/lib.h"

#define ENTRY_BYTES     16
#define CONTROL         2 // offset in the capability
#define CONTROL_ENABLE  BIT(15)
#define CONTROL_MASKALL BIT(14)
#define ENTRY_MASKED    1u

void pci_add_msix(struct pci_function *f, u32 count, u32 n, u32 table_offset, u32 pba_offset)
{
    assert(count && count <= PCI_MSIX_MAX);
    u32 cap = pci_add_capability(f, PCI_CAP_MSIX, 12);
    pci_put(f, cap + CONTROL, 2, count - 1);
    pci_put(f, cap + 4, 4, table_offset | n);
    pci_put(f, cap + 8, 4, pba_offset | n);
    f->writable[cap + CONTROL + 1] = (CONTROL_ENABLE | CONTROL_MASKALL) >> 8;
    f->msix.count = count;
    f->msix.cap = (u8)cap;
    for (u32 i = 0; i < count; i++)
        f->msix.entry[i].control = ENTRY_MASKED;
}

static u32 control(const struct pci_function *f)
{
    return f->msix.count ? pci_get(f, f->msix.cap + CONTROL, 2) : 0;
}

bool pci_msix_possible(const struct pci_function *f)
{
    const struct pci_msix *m = &f->msix;
    for (u32 i = 0; i < m->count; i++)
        if (m->entry[i].control & ~ENTRY_MASKED || m->entry[i].address & 3)
            return false;
    return m->count == PCI_MSIX_MAX || !(m->pending >> m->count);
}

bool pci_msix_enabled(const struct pci_function *f)
{
    return control(f) & CONTROL_ENABLE;
}

// Lock held.
static void flush(struct pci_function *f)
{
    assert_held(&f->msix.lock);
    struct pci_msix *m = &f->msix;
    if ((control(f) & (CONTROL_ENABLE | CONTROL_MASKALL)) != CONTROL_ENABLE)
        return;
    for (u32 i = 0; i < m->count && m->pending; i++) {
        struct pci_msix_entry *e = &m->entry[i];
        if ((m->pending >> i & 1) && !(e->control & ENTRY_MASKED)) {
            m->pending &= ~BIT(i);
            msi_send(f->device->guest, e->address, e->data);
        }
    }
}

void pci_msix_flush(struct pci_function *f)
{
    spin_lock(&f->msix.lock);
    flush(f);
    spin_unlock(&f->msix.lock);
}

void pci_msix_send(struct pci_function *f, u32 vector)
{
    if (vector >= f->msix.count || !pci_msix_enabled(f))
        return;
    spin_lock(&f->msix.lock);
    f->msix.pending |= BIT(vector);
    flush(f);
    spin_unlock(&f->msix.lock);
}

// A dword of the table; accesses are of 4 or 8 bytes, aligned (PCI 3.0, 6.8.2).
static u32 get_dword(const struct pci_msix *m, u64 offset)
{
    if (offset / ENTRY_BYTES >= m->count)
        return 0;
    const struct pci_msix_entry *e = &m->entry[offset / ENTRY_BYTES];
    switch (offset % ENTRY_BYTES / 4) {
    case 0:
        return (u32)e->address;
    case 1:
        return (u32)(e->address >> 32);
    case 2:
        return e->data;
    default:
        return e->control;
    }
}

static void put_dword(struct pci_msix *m, u64 offset, u32 value)
{
    if (offset / ENTRY_BYTES >= m->count)
        return;
    struct pci_msix_entry *e = &m->entry[offset / ENTRY_BYTES];
    switch (offset % ENTRY_BYTES / 4) {
    case 0:
        e->address = (e->address & ~0xffffffffull) | (value & ~3u);
        break;
    case 1:
        e->address = (e->address & 0xffffffff) | (u64)value << 32;
        break;
    case 2:
        e->data = value;
        break;
    default:
        e->control = value & ENTRY_MASKED;
    }
}

u64 pci_msix_table_read(struct pci_function *f, u64 offset, u32 size)
{
    if (offset & (size - 1) || size < 4)
        return ~0ull;
    u64 value = get_dword(&f->msix, offset);
    return size == 8 ? value | (u64)get_dword(&f->msix, offset + 4) << 32 : value;
}

void pci_msix_table_write(struct pci_function *f, u64 offset, u32 size, u64 value)
{
    if (offset & (size - 1) || size < 4)
        return;
    spin_lock(&f->msix.lock);
    put_dword(&f->msix, offset, (u32)value);
    if (size == 8)
        put_dword(&f->msix, offset + 4, (u32)(value >> 32));
    flush(f);
    spin_unlock(&f->msix.lock);
}

u64 pci_msix_pba_read(const struct pci_function *f, u64 offset, u32 size)
{
    if (offset & (size - 1) || offset >= 8)
        return 0;
    return f->msix.pending >> offset * 8;
}
