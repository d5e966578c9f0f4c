// SPDX-License-Identifier: MIT
// Commands on datastores and their volumes.
#include "kernel/console/command.h"
#include "kernel/console/find.h"
#include "kernel/lib.h"
#include "storage/datastore.h"

#define ERROR 256

static void store_row(struct out *o, const struct datastore_info *d)
{
    char size[24], left[24];
    if (d->error[0])
        out_printf(o, "%-20s %-10s not usable: %s\n", d->name, d->disk, d->error);
    else
        out_printf(o, "%-20s %-10s %10s, %s free, %u volumes%s\n", d->name, d->disk,
                   format_bytes(size, d->bytes), format_bytes(left, d->free_bytes), d->volumes,
                   d->failed ? "; its disk failed, and nothing is written any more" : "");
    if (!o->json)
        return;
    out_begin(o);
    out_str(o, "name", d->name);
    out_str(o, "disk", d->disk);
    out_bool(o, "usable", !d->error[0] && !d->failed);
    if (d->error[0]) {
        out_str(o, "why", d->error);
        out_end(o);
        return;
    }
    out_uuid(o, "uuid", d->uuid);
    out_u64(o, "size_bytes", d->bytes);
    out_u64(o, "free_bytes", d->free_bytes);
    out_u64(o, "chunk_bytes", d->chunk_bytes);
    out_u64(o, "volumes", d->volumes);
    out_u64(o, "memory_bytes", d->memory_bytes);
    out_u64(o, "commits", d->commits);
    out_u64(o, "checkpoints", d->checkpoints);
    out_end(o);
}

static void run_datastores(struct call *c)
{
    struct datastore_info d;
    u32 i = 0;
    for (; datastore_get_info(i, &d); i++)
        store_row(c->out, &d);
    if (!i)
        out_printf(c->out, "no datastores; \"datastore format DISK NAME\" makes one\n");
}

static void volume_row(struct out *o, const struct volume_info *v)
{
    char size[24], used[24];
    out_printf(o, "%-32s %10s, %s allocated, %s\n", v->path, format_bytes(size, v->bytes),
               format_bytes(used, v->allocated_bytes), v->used_by[0] ? v->used_by : "unused");
    if (!o->json)
        return;
    out_begin(o);
    out_str(o, "name", v->path);
    out_u64(o, "size_bytes", v->bytes);
    out_u64(o, "allocated_bytes", v->allocated_bytes);
    out_str(o, "used_by", v->used_by);
    out_end(o);
}

static bool in_store(const struct volume_info *v, const char *store)
{
    size_t n = store ? strlen(store) : 0;
    return !store || (!strncmp(v->path, store, n) && v->path[n] == '/');
}

static void run_volumes(struct call *c)
{
    struct volume_info v;
    u32 shown = 0;
    if (c->arg[0] && !find_store(c, c->arg[0]))
        return;
    for (u32 i = 0; volume_get_info(i, &v); i++) {
        if (!in_store(&v, c->arg[0]))
            continue;
        volume_row(c->out, &v);
        shown++;
        thread_yield_if_needed();
    }
    if (!shown)
        out_printf(c->out, "no volumes; \"volume create STORE/NAME SIZE\" makes one\n");
}

// One shape for all of them: what was done, or why not.
static void tell(struct call *c, int error, const char *err, const char *what, const char *done)
{
    if (error) {
        out_error(c->out, "%s", err);
        return;
    }
    out_printf(c->out, "%s %s\n", what, done);
    if (!c->out->json)
        return;
    out_begin(c->out);
    out_str(c->out, "name", what);
    out_str(c->out, "result", done);
    out_end(c->out);
}

static void run_volume(struct call *c)
{
    const char *verb = c->arg[0], *path = c->arg[1];
    char err[ERROR] = "";
    u64 bytes = 0;
    bool delete = !strcmp(verb, "delete");
    if (!delete &&(!c->arg[2] || parse_bytes(c->arg[2], &bytes)))
        out_error(c->out, "volume %s wants a size like 20G or 512M, found \"%s\"", verb,
                  c->arg[2] ? c->arg[2] : "");
    else if (delete &&c->arg[2])
        out_error(c->out, "volume delete takes no size, found \"%s\"", c->arg[2]);
    else if (delete)
        tell(c, volume_delete(path, err, sizeof(err)), err, path, "is deleted");
    else if (!strcmp(verb, "create"))
        tell(c, volume_create(path, bytes, err, sizeof(err)), err, path, "is created");
    else
        tell(c, volume_resize(path, bytes, err, sizeof(err)), err, path, "is resized");
}

static void format_disk(struct call *c)
{
    char err[ERROR] = "";
    struct block_device *disk = find_disk(c, c->arg[1]);
    if (disk && !c->arg[2])
        out_error(c->out,
                  "datastore format wants a name for it, as in \"datastore format %s main\"",
                  disk->name);
    else if (disk)
        tell(c, datastore_create(disk, BLOCK_SECTOR, c->arg[2], err, sizeof(err)), err, c->arg[2],
             "is ready");
}

static void run_datastore(struct call *c)
{
    char err[ERROR] = "";
    if (!strcmp(c->arg[0], "format"))
        format_disk(c);
    else if (c->arg[2])
        out_error(c->out, "datastore check does not take \"%s\"", c->arg[2]);
    else if (find_store(c, c->arg[1]))
        tell(c, datastore_check(c->arg[1], err, sizeof(err)), err, c->arg[1], "is as it should be");
}

const struct command store_commands[] = {
    {"datastores", "", "", "the datastores on this host's disks", NULL, run_datastores},
    {"datastore", "check|format WHAT [NAME]", "", "checks a datastore, or makes one on a disk",
     "  datastore check STORE        reads all its metadata again and compares\n"
     "  datastore format DISK NAME   refused where something is on the disk",
     run_datastore},
    {"volumes", "[STORE]", "", "the volumes, which are guests' disks", NULL, run_volumes},
    {"volume", "create|delete|resize VOLUME [SIZE]", "", "makes or changes a volume",
     "  VOLUME is STORE/NAME, SIZE is like 20G. A volume takes room on the disk as it is written.\n"
     "  Refused while a guest uses the volume.",
     run_volume},
    {NULL, NULL, NULL, NULL, NULL, NULL},
};
