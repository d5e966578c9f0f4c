// SPDX-License-Identifier: MIT
// Commands on the host's disks.
#include "kernel/console/command.h"
#include "kernel/console/find.h"
#include "kernel/lib.h"
#include "storage/block.h"
#include "storage/disk_test.h"

static void disk_row(struct out *o, const struct block_device *b)
{
    char size[24];
    out_printf(o, "%-10s %10s  %-24s %-20s %s%s\n", b->name,
               format_bytes(size, b->sectors * BLOCK_SECTOR), b->model, b->serial,
               b->read_only ? "read-only " : "", b->used_by[0] ? b->used_by : "unused");
    if (!o->json)
        return;
    out_begin(o);
    out_str(o, "name", b->name);
    out_str(o, "driver", b->ops->kind);
    out_str(o, "model", b->model);
    out_str(o, "serial", b->serial);
    out_u64(o, "size_bytes", b->sectors * BLOCK_SECTOR);
    out_u64(o, "physical_bytes", b->physical_bytes);
    out_bool(o, "read_only", b->read_only);
    out_bool(o, "discard", b->can_discard);
    out_bool(o, "write_zeroes", b->can_write_zeroes);
    out_str(o, "used_by", b->used_by);
    out_end(o);
}

static void run_disks(struct call *c)
{
    for (const struct block_device *b = block_next(NULL); b; b = block_next(b))
        disk_row(c->out, b);
}

static void test_result(struct out *o, const struct disk_test *t)
{
    char bytes[24], time[24];
    out_printf(o, "%s: %s in %s\n", t->write ? "written, flushed, read back" : "read",
               format_bytes(bytes, t->bytes), format_ns(time, t->ns));
    if (!o->json)
        return;
    out_begin(o);
    out_u64(o, "size_bytes", t->bytes);
    out_u64(o, "took_ns", t->ns);
    out_bool(o, "written", t->write);
    if (t->write)
        out_u64(o, "seed", t->seed);
    out_end(o);
}

static void run_disk_test(struct call *c)
{
    struct disk_test t = {
        .write = option_given(c, "--write"), .force = option_given(c, "--force"), .mib = 16};
    struct block_device *b = find_disk(c, c->arg[0]);
    if (!b || (c->arg[1] && !find_number(c, "MIB", c->arg[1], &t.mib)))
        return;
    if (disk_test_run(b, &t) == 0)
        test_result(c->out, &t);
    else
        out_error(c->out, "%s: %s", b->name, t.error);
}

const struct command disk_commands[] = {
    {"disks", "", "", "the host's disks", NULL, run_disks},
    {"disk-test", "DISK [MIB]", "--write --force", "reads the first 16 MiB of a disk, or MIB",
     "  With --write it writes a pattern, flushes and reads it back: what was there is lost.\n"
     "  That is refused while the disk is used, and where a partition table, a file system's\n"
     "  boot sector or a datastore begins, unless --force is given.",
     run_disk_test},
    {NULL, NULL, NULL, NULL, NULL, NULL},
};
