// SPDX-License-Identifier: MIT
// What all disk drivers share: slots, what waits, errors, and devices that do not answer.
// sources: storage/disk.c storage/block.c storage/ata_command.c
#include "tests/unit/unit.h"

#include "kernel/lib.h"
#include "kernel/log.h"
#include "kernel/time.h"
#include "storage/ata_command.h"
#include "storage/disk.h"

#define DEPTH 4u
#define MANY  10u

static struct disk_queue queue;
static struct disk disk;
static struct block_request request[MANY];
static u32 done[MANY], dones, kicks, resets, lines;
static u64 now;
static u32 finished, failing; // slots: what reap will find
static bool comes_back;
static void (*watcher)(void *arg);
static u32 sleeps;
static char last_line[200];

static void fake_issue(struct disk_queue *q, u32 slot, struct block_request *r)
{
    assert_true(slot < DEPTH && q->slot[slot].request == r);
    assert_false(finished & 1u << slot);
}

static void fake_kick(struct disk_queue *q)
{
    (void)q;
    kicks++;
}

static void fake_ack(struct disk_queue *q)
{
    (void)q;
}

static void fake_reap(struct disk_queue *q)
{
    for (u32 i = 0; i < DEPTH; i++) {
        if (finished & 1u << i && !(failing & 1u << i))
            disk_done(q, i);
        else if (finished & 1u << i)
            disk_failed(q, i, "status %u", 7);
    }
    finished = failing = 0;
}

static bool fake_reset(struct disk_queue *q)
{
    assert_true(q->halted);
    resets++;
    return comes_back;
}

static const struct disk_queue_ops ops = {fake_issue, fake_kick,  fake_ack,
                                          fake_reap,  fake_reset, fake_ack};
static const struct block_ops block_ops = {"fake", disk_submit};

static bool matches(u16 vendor, u16 device, u32 class)
{
    return vendor == 1 && device == 2 && class == 3;
}

static void start(u16 bdf)
{
    assert_int_equal(bdf, 8);
    disk_queue_init(&queue, &ops, NULL);
    queue.interrupt = PCI_MSIX;
    disk.queue = &queue;
    disk.block = (struct block_device){.ops = &block_ops, .sectors = 1000, .max_sectors = 8};
    disk.block.max_segments = 1;
    disk_queue_start(&queue, DEPTH);
    disk_add(&disk);
}

static bool never(u16 vendor, u16 device, u32 class)
{
    (void)vendor, (void)device, (void)class;
    return false;
}

const struct disk_driver virtio_disks = {"fake", matches, start};
const struct disk_driver nvme_disks = {"other", never, NULL}, ahci_disks = {"other", never, NULL},
                         ata_disks = {"other", never, NULL};

int pci_find(bool (*fn)(u16 bdf, u16 vendor, u16 device, void *arg), void *arg)
{
    assert_false(fn(8, 1, 2, arg));
    assert_false(fn(16, 5, 6, arg));
    return -1;
}

u32 pci_read(u16 bdf, u16 reg, u32 size)
{
    (void)size;
    assert_int_equal(reg, 8);
    return bdf == 8 ? 3 << 8 : 4 << 8;
}

u64 time_ns(void)
{
    return now;
}

void time_delay_us(u64 us)
{
    now += us * 1000;
}

struct thread *thread_create(const char *name, void (*fn)(void *arg), void *arg, unsigned flags)
{
    (void)name, (void)arg, (void)flags;
    watcher = fn;
    return (struct thread *)&queue;
}

// Two rounds of the thread that watches, which never ends by itself.
static jmp_buf end_of_watch;

void thread_sleep_ns(u64 ns)
{
    now += ns;
    if (++sleeps == 2)
        longjmp(end_of_watch, 1);
}

static void watch_disks(void)
{
    sleeps = 0;
    if (!setjmp(end_of_watch))
        watcher(NULL);
}

void log_write(enum log_level level, const char *area, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(last_line, sizeof(last_line), fmt, ap);
    va_end(ap);
    if (level == LOG_ERROR) {
        assert_string_equal(area, "fake0");
        lines++;
    }
}

bool waitq_commit(struct waitq *q, u64 deadline_ns)
{
    (void)q, (void)deadline_ns;
    return false;
}

void waitq_set_and_wake(struct waitq *q, volatile bool *flag)
{
    (void)q, (void)flag;
}

static void note_done(struct block_request *r)
{
    done[r - request]++;
    dones++;
    assert_int_equal(queue.lock.locked, 0); // done may submit again
}

static void submit(u32 i)
{
    static u8 data[BLOCK_SECTOR];
    static const struct block_segment segment = {data, BLOCK_SECTOR};
    request[i] = (struct block_request){.op = BLOCK_READ, .sector = i, .sectors = 1};
    request[i].segment = &segment;
    request[i].segments = 1;
    request[i].done = note_done;
    block_submit(&disk.block, &request[i]);
}

static int setup(void **state)
{
    (void)state;
    if (!watcher)
        disks_start();
    queue.dead = false;
    now += 100 * NS_PER_SEC;
    memset(done, 0, sizeof(done));
    dones = kicks = resets = lines = finished = failing = 0;
    comes_back = true;
    return 0;
}

static void end_all(u32 slots)
{
    finished = slots;
    disk_interrupt(&queue);
}

static void test_more_than_it_takes_waits(void **state)
{
    (void)state;
    for (u32 i = 0; i < MANY; i++)
        submit(i);
    assert_int_equal(queue.busy, DEPTH);
    assert_int_equal(kicks, DEPTH);
    end_all(0x5); // the slots of requests 0 and 2
    assert_int_equal(done[0] + done[2], 2);
    assert_int_equal(dones, 2);
    assert_int_equal(queue.busy, DEPTH);
    assert_ptr_equal(queue.slot[0].request, &request[4]); // in their order
    assert_ptr_equal(queue.slot[2].request, &request[5]);
    end_all(0xf);
    end_all(0xf);
    assert_int_equal(dones, MANY);
    assert_int_equal(queue.busy, 0);
    for (u32 i = 0; i < MANY; i++)
        assert_int_equal(request[i].status, 0);
}

static void test_an_error_is_told_and_logged(void **state)
{
    (void)state;
    submit(3);
    failing = 1;
    end_all(1);
    assert_int_equal(request[3].status, E_IO);
    assert_string_equal(last_line, "read of 1 sectors at 3 failed: status 7");
}

static void test_errors_do_not_fill_the_log(void **state)
{
    (void)state;
    for (u32 i = 0; i < 50; i++) {
        submit(0);
        failing = 1;
        end_all(1);
    }
    assert_int_equal(lines, 10);
    now += NS_PER_SEC;
    submit(0);
    failing = 1;
    end_all(1);
    assert_string_equal(last_line, "read of 1 sectors at 0 failed: status 7 (and 40 others)");
}

static void test_no_answer_means_a_reset_and_one_more_try(void **state)
{
    (void)state;
    for (u32 i = 0; i < 6; i++)
        submit(i);
    watch_disks();
    assert_int_equal(resets, 0);
    now += 31 * NS_PER_SEC;
    watch_disks();
    assert_int_equal(resets, 1);
    assert_int_equal(dones, 0);
    assert_int_equal(queue.busy, DEPTH); // what waited goes first, what was under way again
    end_all(0xf);
    end_all(0x3);
    assert_int_equal(dones, 6);
    assert_int_equal(request[0].status, 0);
    submit(0);
    for (u32 i = 0; i < 2; i++) {
        now += 31 * NS_PER_SEC;
        watch_disks();
    }
    assert_int_equal(resets, 3);
    assert_int_equal(request[0].status, E_IO); // not for ever
}

static void test_a_disk_that_is_gone_fails_everything(void **state)
{
    (void)state;
    comes_back = false;
    for (u32 i = 0; i < 6; i++)
        submit(i);
    now += 31 * NS_PER_SEC;
    watch_disks();
    assert_int_equal(dones, 6);
    for (u32 i = 0; i < 6; i++)
        assert_int_equal(request[i].status, E_IO);
    submit(7);
    assert_int_equal(request[7].status, E_IO);
    assert_int_equal(queue.busy, 0);
}

static void test_text_of_a_disk(void **state)
{
    (void)state;
    char text[8];
    disk_text(text, sizeof(text), "  ab\1c   ", 9);
    assert_string_equal(text, "ab c");
    disk_text(text, sizeof(text), "0123456789", 10);
    assert_string_equal(text, "0123456");
    disk_text(text, sizeof(text), "    ", 4);
    assert_string_equal(text, "");
}

// ---- ATA's commands ----------------------------------------------------------------------------

static u16 word[ATA_WORDS];

static bool understand(struct ata_disk *a, struct block_device *b)
{
    const char *why = NULL;
    bool good = ata_understand(word, a, b, &why);
    assert_int_equal(good, why == NULL);
    return good;
}

static void test_what_an_ata_disk_says(void **state)
{
    struct ata_disk a;
    struct block_device b = {.name = ""};
    (void)state;
    memset(word, 0, sizeof(word));
    assert_false(understand(&a, &b)); // no DMA
    word[49] = 1 << 8 | 1 << 9;
    word[60] = 0x1234, word[61] = 0x5;
    word[27] = 'M' << 8 | 'o', word[28] = 'd' << 8 | ' ';
    assert_true(understand(&a, &b));
    assert_string_equal(b.model, "Mod");
    assert_int_equal(b.sectors, 0x51234);
    assert_false(a.lba48 || a.flush || a.flush_ext || b.can_discard);
    word[83] = 1 << 10 | 1 << 13; // without bit 14 the word says nothing
    assert_true(understand(&a, &b) && !a.lba48);
    word[83] |= 1 << 14;
    word[102] = 1, word[106] = 1 << 14 | 1 << 13 | 3, word[169] = 1;
    assert_true(understand(&a, &b) && a.lba48 && a.flush_ext && b.can_discard);
    assert_int_equal(b.sectors, 1ull << 32);
    assert_int_equal(b.physical_bytes, 4096);
    word[106] |= 1 << 12;
    assert_false(understand(&a, &b)); // sectors longer than 512 bytes
}

static void test_ata_commands(void **state)
{
    u64 trim[64];
    struct ata_disk old = {.flush = true}, big = {.lba48 = true, .flush = true, .flush_ext = true};
    struct block_request r = {.op = BLOCK_READ, .sector = 0x8765432, .sectors = 256};
    (void)state;
    struct ata_command c = ata_command(&old, &r, trim);
    assert_int_equal(c.opcode, 0xc8);
    assert_int_equal(c.count, 0); // which is 256
    assert_int_equal(c.device, 0x48);
    assert_false(c.ext || c.write);
    r.op = BLOCK_WRITE;
    c = ata_command(&big, &r, trim);
    assert_int_equal(c.opcode, 0x35);
    assert_int_equal(c.count, 256);
    assert_int_equal(c.device, 0x40);
    assert_true(c.ext && c.write && c.data);
    r.op = BLOCK_FLUSH;
    assert_int_equal(ata_command(&old, &r, trim).opcode, 0xe7);
    assert_int_equal(ata_command(&big, &r, trim).opcode, 0xea);
    r = (struct block_request){.op = BLOCK_DISCARD, .sector = 7, .sectors = 0x10001};
    c = ata_command(&big, &r, trim);
    assert_int_equal(c.opcode, 0x06);
    assert_int_equal(c.features, 1);
    assert_int_equal(c.count, 1);
    assert_int_equal(trim[0], 0xffffull << 48 | 7);
    assert_int_equal(trim[1], 2ull << 48 | (7 + 0xffff));
    assert_int_equal(trim[2], 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_more_than_it_takes_waits, setup),
        cmocka_unit_test_setup(test_an_error_is_told_and_logged, setup),
        cmocka_unit_test_setup(test_errors_do_not_fill_the_log, setup),
        cmocka_unit_test_setup(test_no_answer_means_a_reset_and_one_more_try, setup),
        cmocka_unit_test_setup(test_a_disk_that_is_gone_fails_everything, setup),
        cmocka_unit_test(test_text_of_a_disk),
        cmocka_unit_test(test_what_an_ata_disk_says),
        cmocka_unit_test(test_ata_commands),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
