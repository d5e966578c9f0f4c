// SPDX-License-Identifier: MIT
// A disk in memory under the guest's disk device, and the device's thread as a coroutine, so that a
// test decides which of them goes on, and when. Included once by a test, after fake_virtio.h.
#ifndef SKIFF_TESTS_FAKE_DISK_THREAD_H
#define SKIFF_TESTS_FAKE_DISK_THREAD_H

#include <ucontext.h>

#include "storage/guest_disk.h"

// ---- The device's thread, as a coroutine -------------------------------------------------------

static ucontext_t main_context, worker_context;
static bool in_worker, worker_ended;
static void (*worker_body)(void *arg);
static void *worker_arg;
static u8 worker_stack[256 * KIB];

static void worker_entry(void)
{
    worker_body(worker_arg);
    worker_ended = true;
    in_worker = false;
}

struct thread *thread_create(const char *name, void (*fn)(void *arg), void *arg, unsigned flags)
{
    (void)name, (void)flags;
    worker_body = fn;
    worker_arg = arg;
    worker_ended = false;
    getcontext(&worker_context);
    worker_context.uc_stack.ss_sp = worker_stack;
    worker_context.uc_stack.ss_size = sizeof(worker_stack);
    worker_context.uc_link = &main_context;
    makecontext(&worker_context, worker_entry, 0);
    return (struct thread *)&worker_context;
}

static inline void run_worker(void)
{
    assert_false(worker_ended);
    in_worker = true;
    swapcontext(&main_context, &worker_context);
}

static bool disk_complete(u32 i);

static void (*driver)(void); // of the guest, while somebody waits for it until a deadline

// Whoever waits lets the disk or the device's thread go on.
bool waitq_commit(struct waitq *q, u64 deadline_ns)
{
    (void)q;
    if (deadline_ns) {
        if (driver)
            driver();
        return false;
    }
    if (in_worker) {
        in_worker = false;
        swapcontext(&worker_context, &main_context);
        in_worker = true;
    } else if (!disk_complete(0)) {
        run_worker();
    }
    return true;
}

void waitq_wake_all(struct waitq *q)
{
    (void)q;
}

void waitq_set_and_wake(struct waitq *q, volatile bool *flag)
{
    (void)q;
    *flag = true;
}

u64 time_ns(void)
{
    static u64 now;
    return now += NS_PER_SEC;
}

u64 page_alloc(unsigned order)
{
    return ptr_phys(aligned_alloc(PAGE_SIZE, PAGE_SIZE << order));
}

void page_free(u64 pa, unsigned order)
{
    (void)order;
    free(phys_ptr(pa));
}

// ---- The disk: what is written is durable after a flush ----------------------------------------

#ifndef SECTORS
#define SECTORS 4096u
#endif
static u8 disk[SECTORS * 512], durable[SECTORS * 512];
static struct block_request *pending[64];
static u32 pending_count, most_pending, submitted;
static bool at_once; // done before submit returns
static int fail_next;

static void carry_out(struct block_request *r)
{
    u8 *at = disk + r->sector * 512;
    if (r->op == BLOCK_READ)
        memcpy(r->segment->data, at, r->sectors * 512);
    else if (r->op == BLOCK_WRITE)
        memcpy(at, r->segment->data, r->sectors * 512);
    else if (r->op == BLOCK_FLUSH)
        memcpy(durable, disk, sizeof(disk));
    else
        memset(at, r->op == BLOCK_DISCARD ? 0xdd : 0, r->sectors * 512);
}

static void finish(struct block_request *r)
{
    r->status = fail_next;
    fail_next = 0;
    if (!r->status)
        carry_out(r);
    r->done(r);
}

static bool disk_complete(u32 i)
{
    if (i >= pending_count)
        return false;
    struct block_request *r = pending[i];
    memmove(&pending[i], &pending[i + 1], (--pending_count - i) * sizeof(pending[0]));
    finish(r);
    return true;
}

static void disk_submit(struct block_device *b, struct block_request *r)
{
    (void)b;
    submitted++;
    if (at_once) {
        finish(r);
        return;
    }
    pending[pending_count++] = r;
    most_pending = MAX(most_pending, pending_count);
}

static const struct block_ops disk_ops = {"fake", disk_submit};
static struct guest_disk guest_disk;

// Everything that is under way and what follows from it.
static inline void settle(void)
{
    do
        run_worker();
    while (disk_complete(0));
}

// As it is before each test.
static inline void disk_new(void)
{
    memset(disk, 0, sizeof(disk));
    memset(durable, 0, sizeof(durable));
    pending_count = most_pending = submitted = 0;
    at_once = false;
    fail_next = 0;
    guest_disk.block = (struct block_device){
        .ops = &disk_ops,
        .name = "fake0",
        .sectors = SECTORS,
        .physical_bytes = 4096,
        .max_sectors = 200,
        .max_segments = 1,
        .can_discard = true,
        .can_write_zeroes = true,
        .max_clear_sectors = 1000,
    };
    guest.disk[0] = &guest_disk;
}

#endif
