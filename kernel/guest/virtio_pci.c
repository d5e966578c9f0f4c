// SPDX-License-Identifier: MIT
// virtio over PCI (virtio 1.2, 4.1): the registers a driver sees, and how it is interrupted.
#include "kernel/guest/virtio.h"

#include "kernel/guest/virtio_internal.h"
#include "kernel/lib.h"

// One BAR holds everything; notifications and the MSI-X table have pages of their own.
#define BAR          0
#define BAR_BYTES    0x4000u
#define COMMON       0x0000u
#define COMMON_BYTES 0x38u
#define ISR          0x0400u
#define CONFIG       0x0800u
#define MSIX_TABLE   0x1000u
#define MSIX_PBA     0x1800u
#define NOTIFY       0x2000u
#define NOTIFY_STEP  4u

// 4.1.4
enum cap_type {
    CAP_COMMON = 1,
    CAP_NOTIFY = 2,
    CAP_ISR = 3,
    CAP_DEVICE = 4,
    CAP_WINDOW = 5, // VIRTIO_PCI_CAP_PCI_CFG
};
#define CAP_VENDOR     0x09
#define CAP_BYTES      16
#define CAP_TYPE       3
#define CAP_BAR        4
#define CAP_OFFSET     8
#define CAP_LENGTH     12
#define CAP_EXTRA      16 // of CAP_NOTIFY: NOTIFY_STEP, of CAP_WINDOW: the data
#define CAP_LONG_BYTES 20

// ---- Interrupts --------------------------------------------------------------------------------

// 4.1.4.5: the pin follows the ISR status where there are no messages.
static void update_pin(struct virtio *v)
{
    pci_set_intx(&v->pci, v->isr && !pci_msix_enabled(&v->pci));
}

void virtio_interrupt(struct virtio *v, u16 vector, u8 isr)
{
    bool messages = pci_msix_enabled(&v->pci);
    if (!messages || isr == VIRTIO_ISR_CONFIG)
        v->isr |= isr;
    if (!messages)
        update_pin(v);
    else if (vector != VIRTIO_NO_VECTOR)
        pci_msix_send(&v->pci, vector);
}

static u8 read_isr(struct virtio *v)
{
    u8 isr = v->isr;
    v->isr = 0;
    update_pin(v);
    return isr;
}

// ---- Common configuration (4.1.4.3) ------------------------------------------------------------

enum common {
    DEVICE_FEATURE_SELECT = 0x00,
    DEVICE_FEATURE = 0x04,
    DRIVER_FEATURE_SELECT = 0x08,
    DRIVER_FEATURE = 0x0c,
    CONFIG_VECTOR = 0x10,
    NUM_QUEUES = 0x12,
    DEVICE_STATUS = 0x14,
    CONFIG_GENERATION = 0x15,
    QUEUE_SELECT = 0x16,
    QUEUE_SIZE = 0x18,
    QUEUE_VECTOR = 0x1a,
    QUEUE_ENABLE = 0x1c,
    QUEUE_NOTIFY_OFF = 0x1e,
    QUEUE_DESC = 0x20,
    QUEUE_DRIVER = 0x28,
    QUEUE_DEVICE = 0x30,
};

static u32 half(u64 value, u32 which)
{
    return which > 1 ? 0 : (u32)(value >> 32 * which);
}

static void put_half(u64 *at, u32 which, u32 value)
{
    *at = which ? (u32)*at | (u64)value << 32 : (*at & ~0xffffffffull) | value;
}

static u64 *queue_address(struct virtio *v, u32 q, u32 field)
{
    switch (field & ~4u) {
    case QUEUE_DESC:
        return &v->desc[q];
    case QUEUE_DRIVER:
        return &v->driver[q];
    case QUEUE_DEVICE:
        return &v->device[q];
    }
    return NULL;
}

// All zero for a queue that does not exist (4.1.4.3.1).
static u32 read_queue(struct virtio *v, u32 field)
{
    u32 q = v->queue_select;
    if (q >= v->ops->queues)
        return 0;
    switch (field) {
    case QUEUE_SIZE:
        return v->size[q];
    case QUEUE_VECTOR:
        return v->vector[q];
    case QUEUE_ENABLE:
        return v->enabled[q];
    case QUEUE_NOTIFY_OFF:
        return q;
    }
    const u64 *address = queue_address(v, q, field);
    return address ? half(*address, field / 4 & 1) : 0;
}

// The driver reads and writes each field whole (4.1.3.1), those of 64 bits by halves.
static u32 read_common(struct virtio *v, u32 field)
{
    switch (field) {
    case DEVICE_FEATURE_SELECT:
        return v->device_select;
    case DEVICE_FEATURE:
        return half(v->offered, v->device_select);
    case DRIVER_FEATURE_SELECT:
        return v->driver_select;
    case DRIVER_FEATURE:
        return half(v->features, v->driver_select);
    case CONFIG_VECTOR:
        return v->config_vector;
    case NUM_QUEUES:
        return v->ops->queues;
    case DEVICE_STATUS:
        return v->status;
    case CONFIG_GENERATION:
        return v->generation;
    case QUEUE_SELECT:
        return v->queue_select;
    default:
        return read_queue(v, field);
    }
}

// 4.1.5.1.2: one that does not exist reads back as none.
static u16 vector_of(const struct virtio *v, u32 value)
{
    return value < v->pci.msix.count ? (u16)value : VIRTIO_NO_VECTOR;
}

static void write_queue(struct virtio *v, u32 field, u32 value)
{
    u32 q = v->queue_select;
    if (q >= v->ops->queues)
        return;
    if (field == QUEUE_VECTOR)
        v->vector[q] = vector_of(v, value);
    if (v->enabled[q]) // 4.1.4.3.2: the rest is fixed now
        return;
    u64 *address = queue_address(v, q, field);
    if (address)
        put_half(address, field / 4 & 1, value);
    else if (field == QUEUE_SIZE && virtio_size_possible(v, q, value))
        v->size[q] = (u16)value;
    else if (field == QUEUE_ENABLE && value == 1)
        virtio_enable_queue(v, q);
}

static void write_common(struct virtio *v, u32 field, u32 value)
{
    switch (field) {
    case DEVICE_FEATURE_SELECT:
        v->device_select = value;
        break;
    case DRIVER_FEATURE_SELECT:
        v->driver_select = value;
        break;
    case DRIVER_FEATURE: // 3.1.1: fixed once they are accepted
        if (v->driver_select < 2 && !(v->status & VIRTIO_STATUS_FEATURES_OK))
            put_half(&v->features, v->driver_select, value);
        break;
    case CONFIG_VECTOR:
        v->config_vector = vector_of(v, value);
        break;
    case DEVICE_STATUS:
        virtio_set_status(v, (u8)value);
        break;
    case QUEUE_SELECT:
        v->queue_select = (u16)value;
        break;
    default:
        write_queue(v, field, value);
    }
}

// ---- The BAR -----------------------------------------------------------------------------------

static u64 read_config(struct virtio *v, u32 offset, u32 size)
{
    u8 config[VIRTIO_CONFIG_MAX + 8] = {0};
    u64 value = 0;
    if (offset >= v->ops->config_bytes)
        return 0;
    v->ops->get_config(v, config);
    memcpy(&value, config + offset, size);
    return value;
}

u64 virtio_read(struct device *d, u32 region, u64 offset, u32 size)
{
    (void)region;
    struct virtio *v = d->priv;
    u32 at = (u32)offset;
    if (at < COMMON + COMMON_BYTES)
        return read_common(v, at);
    if (at == ISR)
        return read_isr(v);
    if (at >= CONFIG && at < CONFIG + VIRTIO_CONFIG_MAX)
        return read_config(v, at - CONFIG, size);
    if (at >= MSIX_TABLE && at < MSIX_PBA)
        return pci_msix_table_read(&v->pci, at - MSIX_TABLE, size);
    return at >= MSIX_PBA && at < NOTIFY ? pci_msix_pba_read(&v->pci, at - MSIX_PBA, size) : 0;
}

// 4.1.4.4: the place says which queue, as the value does.
static void notify(struct virtio *v, u32 queue)
{
    if (queue < v->ops->queues && v->enabled[queue] && virtio_running(v))
        v->ops->kicked(v, queue);
}

void virtio_write(struct device *d, u32 region, u64 offset, u32 size, u64 value)
{
    (void)region;
    struct virtio *v = d->priv;
    u32 at = (u32)offset;
    if (at < COMMON + COMMON_BYTES)
        write_common(v, at, (u32)value);
    else if (at >= CONFIG && at < CONFIG + v->ops->config_bytes && v->ops->set_config)
        v->ops->set_config(v, at - CONFIG, size, (u32)value);
    else if (at >= MSIX_TABLE && at < MSIX_PBA)
        pci_msix_table_write(&v->pci, at - MSIX_TABLE, size, value);
    else if (at >= NOTIFY && at % NOTIFY_STEP == 0)
        notify(v, (at - NOTIFY) / NOTIFY_STEP);
}

// ---- Configuration space -----------------------------------------------------------------------

// 4.1.4.9: a window through which a driver without the BAR reaches what is in it. Where it looks,
// how many bytes are there; 0 when that is nowhere.
static u32 window(const struct virtio *v, u32 *offset)
{
    u32 at = v->window, bytes = pci_get(&v->pci, at + CAP_LENGTH, 4);
    *offset = pci_get(&v->pci, at + CAP_OFFSET, 4);
    bool there = pci_get(&v->pci, at + CAP_BAR, 1) == BAR && *offset < BAR_BYTES;
    return there && (bytes == 1 || bytes == 2 || bytes == 4) && *offset % bytes == 0 ? bytes : 0;
}

static bool touches_window(const struct virtio *v, u32 reg, u32 size)
{
    u32 data = v->window + CAP_EXTRA;
    return reg + size > data && reg < data + 4;
}

static void config_read(struct pci_function *f, u32 reg, u32 size)
{
    struct virtio *v = f->device->priv;
    u32 offset, bytes = touches_window(v, reg, size) ? window(v, &offset) : 0;
    if (!bytes)
        return;
    virtio_lock(v);
    pci_put(f, v->window + CAP_EXTRA, bytes, (u32)virtio_read(f->device, BAR, offset, bytes));
    virtio_unlock(v);
}

static void config_written(struct pci_function *f, u32 reg, u32 size)
{
    struct virtio *v = f->device->priv;
    u32 offset, bytes = touches_window(v, reg, size) ? window(v, &offset) : 0;
    virtio_lock(v);
    if (bytes)
        virtio_write(f->device, BAR, offset, bytes, pci_get(f, v->window + CAP_EXTRA, bytes));
    update_pin(v); // messages may have been switched on or off
    // While it was no bus master it could not ask for kicks.
    if (reg <= PCI_COMMAND && reg + size > PCI_COMMAND)
        virtio_kick_all(v);
    virtio_unlock(v);
}

static u32 add_capability(struct virtio *v, u8 type, u32 offset, u32 length)
{
    u32 bytes = type == CAP_NOTIFY || type == CAP_WINDOW ? CAP_LONG_BYTES : CAP_BYTES;
    u32 at = pci_add_capability(&v->pci, CAP_VENDOR, bytes);
    pci_put(&v->pci, at + 2, 1, bytes);
    pci_put(&v->pci, at + CAP_TYPE, 1, type);
    pci_put(&v->pci, at + CAP_BAR, 1, BAR);
    pci_put(&v->pci, at + CAP_OFFSET, 4, offset);
    pci_put(&v->pci, at + CAP_LENGTH, 4, length);
    return at;
}

void virtio_pci_describe(struct virtio *v)
{
    struct pci_function *f = &v->pci;
    pci_describe(f, 0x1af4, 0x1040 + v->ops->id, v->ops->class_code, 1); // 4.1.2.1
    pci_put(f, PCI_SUBSYSTEM_VENDOR, 2, 0x1af4);
    pci_put(f, PCI_SUBSYSTEM, 2, 0x1100);
    pci_put(f, PCI_INTERRUPT_PIN, 1, 1);
    pci_add_bar(f, BAR, BAR_BYTES, false, 0);
    add_capability(v, CAP_COMMON, COMMON, COMMON_BYTES);
    add_capability(v, CAP_ISR, ISR, 1);
    u32 at = add_capability(v, CAP_NOTIFY, NOTIFY, v->ops->queues * NOTIFY_STEP);
    pci_put(f, at + CAP_EXTRA, 4, NOTIFY_STEP);
    if (v->ops->config_bytes)
        add_capability(v, CAP_DEVICE, CONFIG, v->ops->config_bytes);
    v->window = (u8)add_capability(v, CAP_WINDOW, 0, 0);
    f->writable[v->window + CAP_BAR] = 0xff;
    memset(f->writable + v->window + CAP_OFFSET, 0xff, CAP_LONG_BYTES - CAP_OFFSET);
    pci_add_msix(f, v->ops->queues + 1, BAR, MSIX_TABLE, MSIX_PBA);
    f->config_read = config_read;
    f->config_written = config_written;
}
