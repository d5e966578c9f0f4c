// SPDX-License-Identifier: MIT
// The life of a virtio device: negotiation (virtio 1.2, 3.1), reset, breaking, pause and moves.
#include "kernel/guest/virtio.h"

#include "kernel/guest/vcpu.h"
#include "kernel/guest/virtio_internal.h"
#include "kernel/lib.h"

#define LOGGED_BREAKS 8 // a guest may break and reset its device as often as it likes

void virtio_lock(struct virtio *v)
{
    mutex_lock(&v->pci.device->lock);
}

void virtio_unlock(struct virtio *v)
{
    mutex_unlock(&v->pci.device->lock);
}

// A device that is no bus master must not touch memory (PCI 3.0, 6.2.2).
bool virtio_running(const struct virtio *v)
{
    return v->status & VIRTIO_STATUS_DRIVER_OK && !v->broken && !v->paused &&
           pci_get(&v->pci, PCI_COMMAND, 2) & PCI_COMMAND_MASTER;
}

// ---- What the driver asks for ------------------------------------------------------------------

// 2.4: what a driver finds after a reset.
static void forget(struct virtio *v)
{
    v->features = 0;
    v->device_select = v->driver_select = 0;
    v->status = v->isr = v->generation = 0;
    v->broken = false;
    memset(v->why, 0, sizeof(v->why));
    v->config_vector = VIRTIO_NO_VECTOR;
    v->queue_select = 0;
    for (u32 q = 0; q < VIRTIO_QUEUES; q++) {
        v->size[q] = q < v->ops->queues ? v->ops->queue_size : 0;
        v->vector[q] = VIRTIO_NO_VECTOR;
        v->avail_index[q] = v->used_index[q] = v->told_index[q] = v->pushed[q] = 0;
        v->enabled[q] = v->muted[q] = v->quiet[q] = false;
        v->desc[q] = v->driver[q] = v->device[q] = 0;
    }
    pci_set_intx(&v->pci, false);
}

// 2.2 and 6.1
static bool acceptable(const struct virtio *v)
{
    return v->features & VIRTIO_F_VERSION_1 && !(v->features & ~v->offered) &&
           (!v->ops->accept || v->ops->accept(v, v->features));
}

// 2.1 and 3.1.1: a driver only ever adds bits, in their order, or writes 0 for a reset.
void virtio_set_status(struct virtio *v, u8 status)
{
    if (!status) {
        v->ops->reset(v);
        forget(v);
        return;
    }
    u8 added = status & (u8)~v->status;
    if (added & VIRTIO_STATUS_FEATURES_OK && !acceptable(v))
        added &= (u8) ~(VIRTIO_STATUS_FEATURES_OK | VIRTIO_STATUS_DRIVER_OK);
    if (!((v->status | added) & VIRTIO_STATUS_FEATURES_OK))
        added &= (u8)~VIRTIO_STATUS_DRIVER_OK;
    v->status |= added & (u8)~VIRTIO_STATUS_NEEDS_RESET;
    if (v->broken && added & VIRTIO_STATUS_DRIVER_OK)
        v->status |= VIRTIO_STATUS_NEEDS_RESET;
}

bool virtio_size_possible(const struct virtio *v, u32 q, u32 size)
{
    u32 most = q < v->ops->queues ? v->ops->queue_size : 0;
    return size && size <= most && !(size & (size - 1));
}

static bool aligned(const struct virtio *v, u32 q) // 2.7
{
    return !(v->desc[q] % 16 || v->driver[q] % 2 || v->device[q] % 4);
}

void virtio_enable_queue(struct virtio *v, u32 q)
{
    if (aligned(v, q))
        v->enabled[q] = true;
    else
        virtio_break(v, "queue %u: its rings are not aligned", q);
}

void virtio_kick_all(struct virtio *v)
{
    for (u32 q = 0; q < v->ops->queues; q++)
        if (v->enabled[q] && virtio_running(v))
            v->ops->kicked(v, q);
}

// ---- What the device tells ---------------------------------------------------------------------

void virtio_config_changed(struct virtio *v)
{
    v->generation++;
    if (v->status & VIRTIO_STATUS_DRIVER_OK)
        virtio_interrupt(v, v->config_vector, VIRTIO_ISR_CONFIG);
}

void virtio_break(struct virtio *v, const char *fmt, ...)
{
    if (v->broken)
        return;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(v->why, sizeof(v->why), fmt, ap);
    va_end(ap);
    v->broken = true;
    if (v->breaks++ < LOGGED_BREAKS)
        guest_log(LOG_WARN, v->pci.device->guest, "%s is broken: %s%s", v->pci.device->ops->name,
                  v->why, v->breaks == LOGGED_BREAKS ? "; this is logged no more" : "");
    if (v->status & VIRTIO_STATUS_DRIVER_OK) { // 2.1.2
        v->status |= VIRTIO_STATUS_NEEDS_RESET;
        virtio_config_changed(v);
    }
}

void virtio_describe(const struct virtio *v, char *buf, size_t size)
{
    const char *state = v->broken                             ? "broken: "
                        : v->status & VIRTIO_STATUS_FAILED    ? "given up by its driver"
                        : v->status & VIRTIO_STATUS_DRIVER_OK ? "running"
                        : v->status                           ? "being set up"
                                                              : "without a driver";
    snprintf(buf, size, "%s%s%s%s", state, v->broken ? v->why : "", v->trouble[0] ? "; " : "",
             v->trouble);
}

struct virtio *virtio_of(const struct device *d)
{
    return d->ops->write == virtio_write ? d->priv : NULL;
}

// ---- For device_ops ----------------------------------------------------------------------------

int virtio_init(struct device *d, const struct virtio_ops *ops, u32 slot, u64 features)
{
    struct virtio *v = d->priv;
    assert(ops->queues <= VIRTIO_QUEUES && ops->queue_size <= VIRTIO_QUEUE_MAX &&
           ops->config_bytes <= VIRTIO_CONFIG_MAX);
    v->ops = ops;
    v->can = v->offered =
        features | VIRTIO_F_INDIRECT_DESC | VIRTIO_F_EVENT_IDX | VIRTIO_F_VERSION_1;
    v->pci.device = d;
    v->pci.slot = (u8)slot;
    virtio_pci_describe(v);
    int error = pci_add_function(d->guest, &v->pci);
    if (!error)
        forget(v);
    return error;
}

void virtio_fini(struct device *d)
{
    struct virtio *v = d->priv;
    pci_remove_function(d->guest, &v->pci);
}

void virtio_reset(struct device *d)
{
    struct virtio *v = d->priv;
    v->ops->reset(v);
    forget(v);
    pci_reset_function(&v->pci);
}

void virtio_pause(struct device *d)
{
    struct virtio *v = d->priv;
    v->paused = true;
}

void virtio_resume(struct device *d)
{
    struct virtio *v = d->priv;
    v->paused = false;
    pci_resume_function(&v->pci);
    // Whether the driver kicks is in its memory, as it was; here nobody looks at a queue yet, but
    // for once now.
    for (u32 q = 0; q < VIRTIO_QUEUES; q++) {
        v->told_index[q] = v->used_index[q];
        v->muted[q] = v->quiet[q] = false;
    }
    virtio_kick_all(v);
}

static bool queue_possible(const struct virtio *v, u32 q)
{
    if (v->enabled[q] > 1 || v->muted[q] > 1)
        return false;
    if (q >= v->ops->queues)
        return !v->size[q] && !v->enabled[q];
    return virtio_size_possible(v, q, v->size[q]) && (!v->enabled[q] || aligned(v, q));
}

static bool why_possible(const struct virtio *v)
{
    size_t n = strnlen(v->why, sizeof(v->why));
    for (size_t i = 0; i < n; i++)
        if (v->why[i] < ' ' || v->why[i] > '~')
            return false;
    return n < sizeof(v->why);
}

bool virtio_check(const struct virtio *v, char *err, size_t size)
{
    const char *wrong = NULL;
    bool chosen = v->status & VIRTIO_STATUS_FEATURES_OK;
    if (!pci_function_possible(&v->pci))
        wrong = "its PCI function is not the one here";
    else if (v->offered & ~v->can || !(v->offered & VIRTIO_F_VERSION_1))
        wrong = "it offers other features than a device here can";
    else if ((chosen && !acceptable(v)) || (!chosen && v->status & VIRTIO_STATUS_DRIVER_OK))
        wrong = "its status does not go with its features";
    else if (!why_possible(v))
        wrong = "why it is broken is not a text";
    for (u32 q = 0; q < VIRTIO_QUEUES && !wrong; q++)
        if (!queue_possible(v, q))
            wrong = "a queue has an impossible size or address";
    if (wrong)
        snprintf(err, size, "%s (offered 0x%llx, chosen 0x%llx, status 0x%x)", wrong,
                 (unsigned long long)v->offered, (unsigned long long)v->features, v->status);
    return !wrong;
}
