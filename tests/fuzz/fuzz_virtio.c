// SPDX-License-Identifier: MIT
// Fuzzes the guest's virtio devices: any registers and configuration space written, any rings and
// descriptors in memory, a disk that ends requests in any order, pauses, and loaded states. Whatever
// comes, the host goes on, and a state that a device has got into is one that a destination takes.
// sources: arch/x86/platform/*.c kernel/guest/bus.c kernel/guest/device.c
// sources: kernel/guest/state.c kernel/guest/gtimer.c kernel/guest/virtio.c
// sources: kernel/guest/virtio_pci.c kernel/guest/virtio_ring.c kernel/guest/virtio_rng.c
// sources: kernel/guest/virtio_balloon.c kernel/guest/dirty_bitmap.c kernel/random.c
// sources: storage/virtio_blk.c storage/block.c
// cflags: -I$(ROOT)/tests/unit
// libs: -lcmocka
#define RAM_BYTES (128 * KIB)
#define DRV_RINGS 0u
#define DRV_STEP 0x1000u
#define SECTORS 512u
#include "tests/unit/fake_virtio.h"

#include "boot/boot_info.h"
#include "kernel/guest/virtio_balloon.h"
#include "kernel/host.h"
#include "tests/unit/fake_disk_thread.h"

#define QUEUE_SIZE 8u

static struct boot_info boot;
const struct boot_info *host_boot = &boot;
static const struct device_ops *const kinds[] = {&vblk_device, &vrng_device, &vballoon_device};
static const u32 slots[] = {VIRTIO_SLOT_BLOCK, VIRTIO_SLOT_RNG, VIRTIO_SLOT_BALLOON};
static const u32 queues[] = {1, 1, 4};

void *kmalloc(size_t size)
{
    return malloc(size);
}

void *guest_page(struct guest *g, u64 gpa)
{
    return guest_is_ram(g, gpa, 1) ? ram + ALIGN_DOWN(gpa, PAGE_SIZE) : NULL;
}

u64 guest_page_index(const struct guest *g, u64 gpa)
{
    return guest_is_ram(g, gpa, 1) ? gpa / PAGE_SIZE : ~0ull;
}

enum op_kind { RAM, REGISTER, READ, KICK, CONFIG, DESCRIPTOR, AVAILABLE, DISK, WORKER, PAUSE, HINTS, MUTE, OPS };
struct op {
    u8 kind, a;
    u16 at;
    u32 value;
};

static const struct op *next_op;
static u32 ops_left;
static struct dirty_bitmap todo;

static void describe(u32 index, const struct op *op)
{
    struct drv_desc *d = drv_desc(op->a >> 6 & 1, index);
    *d = (struct drv_desc){op->value & 0x3ffff, op->at, op->a & 7, op->value >> 18 & 15};
}

static void pause_and_resume(void)
{
    devices_pause(&guest);
    assert(!pending_count);
    devices_resume(&guest);
}

static void mute(struct virtio *v, u32 q, bool on)
{
    virtio_lock(v);
    if (on)
        virtio_mute(v, q);
    else if (virtio_unmute(v, q))
        v->ops->kicked(v, q);
    virtio_unlock(v);
}

static void do_op(const struct op *op)
{
    u32 size = 1u << (op->a & 3);
    switch (op->kind % OPS) {
    case RAM:
        memcpy(ram + op->at % (RAM_BYTES - 4), &op->value, 4);
        break;
    case REGISTER:
        reg_out(op->at % 0x4000, size, op->value);
        break;
    case READ:
        reg_in(op->at % 0x4000, size);
        break;
    case KICK:
        drv_kick(op->a & 7);
        break;
    case CONFIG:
        size = MIN(size, 4u);
        pci_out((op->at & 0xff) & ~(size - 1), size, op->value);
        pci_in(op->at & 0xfc, 4);
        break;
    case DESCRIPTOR:
        describe(op->value >> 22 & 15, op);
        break;
    case AVAILABLE:
        drv_make_available(op->a & 3, op->at);
        drv_kick(op->a & 3);
        break;
    case DISK:
        fail_next = op->a & 1 ? E_IO : 0;
        if (pending_count)
            disk_complete(op->at % pending_count);
        break;
    case WORKER:
        run_worker();
        break;
    case PAUSE:
        pause_and_resume();
        break;
    case HINTS:
        dirty_bitmap_fill(&todo);
        balloon_leave_out_free(&guest, &todo, 10 * NS_PER_SEC);
        break;
    case MUTE:
        mute(virtio_of(dev(kinds[op->a % ARRAY_SIZE(kinds)]->name)), op->a >> 2 & 3, op->a & 0x80);
        break;
    }
}

static void run(const struct op *ops, u32 count)
{
    next_op = ops;
    ops_left = count;
    while (ops_left) {
        ops_left--;
        do_op(next_op++);
    }
}

// What the guest does while a move waits for its hints.
static void hint(void)
{
    while (ops_left && next_op->kind % OPS != HINTS) {
        ops_left--;
        do_op(next_op++);
    }
}

static void load(struct device *d, const u8 *saved, s64 bytes)
{
    char err[200] = "";
    void *scratch = calloc(1, d->ops->state->struct_size);
    if (!state_check(d->ops->state, d->priv, saved, (u64)bytes, scratch, err, sizeof(err))) {
        virtio_lock(virtio_of(d));
        state_apply(d->ops->state, d->priv, scratch);
        virtio_unlock(virtio_of(d));
    } else {
        assert(err[0]);
    }
    free(scratch);
}

// A state that was reached is accepted; with a few bytes changed it may be.
static void save_and_load(const struct op *changes, u32 count)
{
    static u8 saved[16384];
    devices_pause(&guest);
    for (u32 i = 0; i < ARRAY_SIZE(kinds); i++) {
        char err[200] = "";
        struct device *d = dev(kinds[i]->name);
        const struct state_table *t = kinds[i]->state;
        s64 bytes = state_save(t, d->priv, saved, sizeof(saved));
        void *scratch = calloc(1, t->struct_size);
        if (state_check(t, d->priv, saved, (u64)bytes, scratch, err, sizeof(err)))
            panic("a state that was reached is refused: %s", err);
        free(scratch);
        for (u32 c = 0; c < count; c++)
            saved[changes[c].at % bytes] ^= (u8)changes[c].value;
        load(d, saved, bytes);
    }
    devices_resume(&guest);
}

static void begin(void)
{
    static bool built;
    if (built) {
        devices_reset(&guest);
        return;
    }
    built = true;
    pc_create(1);
    disk_new();
    for (u32 i = 0; i < ARRAY_SIZE(kinds); i++)
        if (!device_add(&guest, kinds[i], 0))
            abort();
    if (dirty_bitmap_init(&todo, RAM_BYTES / PAGE_SIZE))
        abort();
}

struct input {
    u8 kind, changes, type, sector;
    u32 unused;
    u64 features;
};

// The disk's queue begins with a request: a header, data, a status.
static void add_request(const struct input *in)
{
    u32 header[4] = {in->type & 15, 0, in->sector, 0};
    struct drv_desc d[] = {{0x8000, 16, 0, 0}, {0x9000, 4096, in->type >> 4 & 2, 0}, {0x8010, 1, 2, 0}};
    memcpy(ram + 0x8000, header, sizeof(header));
    drv_add(0, d, 3);
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t size);
int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
    struct input in;
    static struct op ops[256];
    if (size < sizeof(in))
        return 0;
    memcpy(&in, data, sizeof(in));
    u32 count = (u32)MIN((size - sizeof(in)) / sizeof(ops[0]), ARRAY_SIZE(ops));
    memcpy(ops, data + sizeof(in), count * sizeof(ops[0]));
    begin();
    memset(ram, 0, sizeof(ram));
    u32 kind = in.kind % ARRAY_SIZE(kinds);
    struct virtio *v = dev(kinds[kind]->name)->priv;
    v->offered = v->can; // a state that was loaded may have had less
    drv_start(slots[kind], queues[kind], QUEUE_SIZE, in.features & v->can);
    add_request(&in);
    driver = hint;
    run(ops, count);
    save_and_load(ops, MIN(in.changes % 8u, count));
    run(ops, count);
    settle();
    return 0;
}
