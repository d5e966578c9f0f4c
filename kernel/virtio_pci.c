// SPDX-License-Identifier: MIT
// virtio devices of the host over PCI (virtio 1.2, 4.1).
#include "kernel/virtio_pci.h"

#include "kernel/lib.h"
#include "kernel/log.h"
#include "kernel/mem.h"
#include "kernel/time.h"

// 4.1.4: vendor-specific capabilities say where the parts of the device are.
#define CAP_VENDOR 0x09
enum cap_type { CAP_COMMON = 1, CAP_NOTIFY = 2, CAP_ISR = 3, CAP_DEVICE = 4 };

// 4.1.4.3
#define DEVICE_FEATURE_SELECT 0x00
#define DEVICE_FEATURE        0x04
#define DRIVER_FEATURE_SELECT 0x08
#define DRIVER_FEATURE        0x0c
#define CONFIG_MSIX_VECTOR    0x10
#define DEVICE_STATUS         0x14
#define QUEUE_SELECT          0x16
#define QUEUE_SIZE            0x18
#define QUEUE_MSIX_VECTOR     0x1a
#define QUEUE_ENABLE          0x1c
#define QUEUE_NOTIFY_OFF      0x1e
#define QUEUE_DESC            0x20
#define QUEUE_DRIVER          0x28
#define QUEUE_DEVICE          0x30
#define COMMON_BYTES          0x38
#define NO_VECTOR             0xffff

// 2.1
#define STATUS_ACKNOWLEDGE BIT(0)
#define STATUS_DRIVER      BIT(1)
#define STATUS_DRIVER_OK   BIT(2)
#define STATUS_FEATURES_OK BIT(3)
#define STATUS_FAILED      BIT(7)

#define REGISTER(width)                                                                            \
    u##width virtio_get##width(volatile u8 *base, u32 at)                                          \
    {                                                                                              \
        return *(volatile u##width *)(base + at);                                                  \
    }                                                                                              \
    static void put##width(volatile u8 *base, u32 at, u64 value)                                   \
    {                                                                                              \
        *(volatile u##width *)(base + at) = (u##width)value;                                       \
    }
REGISTER(8)
REGISTER(16)
REGISTER(32)
#undef REGISTER

u64 virtio_get64(volatile u8 *base, u32 at)
{
    return virtio_get32(base, at) | (u64)virtio_get32(base, at + 4) << 32;
}

// 4.1.4.3.1: two halves, the low one first.
static void put64(volatile u8 *base, u32 at, u64 value)
{
    put32(base, at, value);
    put32(base, at + 4, value >> 32);
}

static u16 find_cap(u16 bdf, u8 type)
{
    u16 at = 0;
    while ((at = pci_capability(bdf, CAP_VENDOR, at)))
        if (pci_read(bdf, at + 3, 1) == type)
            return at;
    return 0;
}

// Maps a part of the device that has at least that many bytes.
static volatile u8 *map_part(struct virtio_pci *v, u8 type, u32 bytes)
{
    u16 bdf = v->bdf;
    u16 cap = find_cap(bdf, type);
    u32 length = cap ? pci_read(bdf, cap + 12, 4) : 0;
    if (length < bytes) {
        log_error("pci",
                  "%s has no part of type %u with %u bytes: a legacy device? give it "
                  "disable-legacy=on",
                  v->name, type, bytes);
        return NULL;
    }
    return pci_map_bar(bdf, pci_read(bdf, cap + 4, 1), pci_read(bdf, cap + 8, 4), length);
}

bool virtio_map(struct virtio_pci *v, u16 bdf, u32 config_bytes)
{
    v->bdf = bdf;
    pci_enable(bdf);
    v->common = map_part(v, CAP_COMMON, COMMON_BYTES);
    v->device = v->common ? map_part(v, CAP_DEVICE, config_bytes) : NULL;
    v->isr = v->device ? map_part(v, CAP_ISR, 1) : NULL;
    v->notify = v->isr ? map_part(v, CAP_NOTIFY, 2) : NULL;
    if (v->notify)
        v->notify_step = pci_read(bdf, find_cap(bdf, CAP_NOTIFY) + 16, 4);
    return v->notify;
}

static void set_status(struct virtio_pci *v, u64 bits)
{
    put8(v->common, DEVICE_STATUS, virtio_get8(v->common, DEVICE_STATUS) | bits);
}

// 3.1.1 and 4.1.4.3.1: the reset is done when the status reads 0.
bool virtio_pci_reset(struct virtio_pci *v)
{
    put8(v->common, DEVICE_STATUS, 0);
    for (int tries = 0; tries < 1000; tries++) {
        if (virtio_get8(v->common, DEVICE_STATUS) == 0)
            return true;
        time_delay_us(1000);
    }
    log_error("pci", "%s does not come out of its reset", v->name);
    return false;
}

bool virtio_negotiate(struct virtio_pci *v, u64 (*choose)(u64 offered))
{
    set_status(v, STATUS_ACKNOWLEDGE | STATUS_DRIVER);
    put32(v->common, DEVICE_FEATURE_SELECT, 0);
    u64 offered = virtio_get32(v->common, DEVICE_FEATURE);
    put32(v->common, DEVICE_FEATURE_SELECT, 1);
    offered |= (u64)virtio_get32(v->common, DEVICE_FEATURE) << 32;
    v->features = choose(offered);
    for (u32 half = 0; half < 2; half++) {
        put32(v->common, DRIVER_FEATURE_SELECT, half);
        put32(v->common, DRIVER_FEATURE, v->features >> (32 * half));
    }
    set_status(v, STATUS_FEATURES_OK);
    if ((v->features & VIRTIO_VERSION_1) &&
        virtio_get8(v->common, DEVICE_STATUS) & STATUS_FEATURES_OK)
        return true;
    log_error("pci", "%s does not take features 0x%llx (it offers 0x%llx)", v->name,
              (unsigned long long)v->features, (unsigned long long)offered);
    return false;
}

// 4.1.5.1.3
int virtio_queue(struct virtio_pci *v, struct virtq *q, u16 number, u32 least)
{
    put16(v->common, CONFIG_MSIX_VECTOR, NO_VECTOR); // its changes raise no interrupt
    put16(v->common, QUEUE_SELECT, number);
    u32 most = virtio_get16(v->common, QUEUE_SIZE), size = VIRTQ_MAX;
    while (size > most)
        size /= 2;
    if (size < least || virtq_init(q, size)) {
        log_error("pci", "%s's queue %u has %u entries, or no memory for it", v->name, number,
                  most);
        return E_NOMEM;
    }
    put16(v->common, QUEUE_SIZE, size);
    put64(v->common, QUEUE_DESC, ptr_phys(q->desc));
    put64(v->common, QUEUE_DRIVER, ptr_phys((void *)q->avail));
    put64(v->common, QUEUE_DEVICE, ptr_phys((void *)q->used));
    q->number = number;
    q->doorbell = (volatile u16 *)(v->notify + // 4.1.4.4
                                   virtio_get16(v->common, QUEUE_NOTIFY_OFF) * v->notify_step);
    if (v->interrupt == PCI_MSIX) {
        put16(v->common, QUEUE_MSIX_VECTOR, 0);
        if (virtio_get16(v->common, QUEUE_MSIX_VECTOR) == NO_VECTOR)
            return E_IO;
    }
    put16(v->common, QUEUE_ENABLE, 1);
    return 0;
}

void virtio_ready(struct virtio_pci *v)
{
    set_status(v, STATUS_DRIVER_OK);
}

void virtio_failed(struct virtio_pci *v)
{
    set_status(v, STATUS_FAILED);
}

// A pin may be another device's; reading acknowledges (4.1.4.5).
bool virtio_interrupted(struct virtio_pci *v)
{
    return v->interrupt != PCI_INTX || virtio_get8(v->isr, 0);
}
