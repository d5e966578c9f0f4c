// SPDX-License-Identifier: MIT
// skiff-store: datastores in image files and on block devices, from a workstation. It is made of
// the hypervisor's own sources.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kernel/lib.h"
#include "kernel/mem.h"
#include "storage/datastore.h"
#include "storage/store.h"

#define BUFFER MIB

static const char usage[] =
    "usage: skiff-store create DISK NAME [SIZE]     a datastore that takes the disk whole\n"
    "       skiff-store list DISK                   its volumes\n"
    "       skiff-store check DISK                  reads all its metadata and checks it\n"
    "       skiff-store volume DISK create|delete|resize VOLUME [SIZE]\n"
    "       skiff-store import DISK VOLUME FILE     makes a volume of a raw image\n"
    "       skiff-store export DISK VOLUME FILE     makes a raw image of a volume\n"
    "DISK is an image file or a block device; create makes the file, with SIZE. SIZE is like 20G.\n"
    "Holes and zeros take no room, in volumes or in files.\n";

__attribute__((noreturn, format(printf, 1, 2))) static void die(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    fputs("skiff-store: ", stderr);
    vfprintf(stderr, fmt, ap);
    fputc('\n', stderr);
    va_end(ap);
    exit(1);
}

// ---- The disk -----------------------------------------------------------------------------------

static int disk_fd = -1;

static int transfer(const struct block_request *r)
{
    off_t at = (off_t)(r->sector * BLOCK_SECTOR);
    for (u32 i = 0; i < r->segments; i++) {
        const struct block_segment *s = &r->segment[i];
        for (u32 done = 0; done < s->bytes;) {
            ssize_t n = r->op == BLOCK_READ
                            ? pread(disk_fd, (u8 *)s->data + done, s->bytes - done, at)
                            : pwrite(disk_fd, (u8 *)s->data + done, s->bytes - done, at);
            if (n <= 0)
                return E_IO;
            done += (u32)n;
            at += n;
        }
    }
    return 0;
}

static void submit(struct block_device *b, struct block_request *r)
{
    (void)b;
    if (r->op == BLOCK_FLUSH)
        r->status = fdatasync(disk_fd) ? E_IO : 0;
    else
        r->status = transfer(r);
    r->done(r);
}

static const struct block_ops ops = {.kind = "disk", .submit = submit};
static struct block_device disk = {
    .ops = &ops, .physical_bytes = 4096, .max_sectors = 2048, .max_segments = 64};

static void open_disk(const char *path, bool writes)
{
    disk_fd = open(path, writes ? O_RDWR : O_RDONLY);
    if (disk_fd < 0)
        die("%s: %s", path, strerror(errno));
    if (flock(disk_fd, (writes ? LOCK_EX : LOCK_SH) | LOCK_NB))
        die("%s is in use by another program", path);
    off_t end = lseek(disk_fd, 0, SEEK_END);
    disk.sectors = end > 0 ? (u64)end / BLOCK_SECTOR : 0;
    disk.read_only = !writes;
    block_register(&disk);
    strlcpy(disk.name, path, sizeof(disk.name));
}

static u32 logical_block(void)
{
    int bytes;
    return ioctl(disk_fd, BLKSSZGET, &bytes) == 0 && bytes == 4096 ? 4096 : BLOCK_SECTOR;
}

static struct datastore_info info;

static void mount(const char *path, bool writes)
{
    open_disk(path, writes);
    datastores_start();
    if (!datastore_get_info(0, &info))
        die("there is no datastore on %s", path);
    if (info.error[0])
        die("datastore on %s: %s", path, info.error);
}

static u64 size_of(const char *text)
{
    u64 bytes;
    if (!text || parse_bytes(text, &bytes))
        die("a size like 20G or 512M is wanted, found \"%s\"", text ? text : "");
    return bytes;
}

static const char *path_of(const char *volume)
{
    static char path[256];
    snprintf(path, sizeof(path), "%s/%s", info.name, volume);
    return path;
}

// ---- Commands -----------------------------------------------------------------------------------

static char err[256];

static void make_file(const char *path, u64 bytes)
{
    int fd = open(path, O_RDWR | O_CREAT | O_EXCL, 0644);
    if (fd < 0)
        die("%s: %s", path, strerror(errno));
    if (ftruncate(fd, (off_t)bytes))
        die("%s: %s", path, strerror(errno));
    close(fd);
}

static void create(char **arg)
{
    if (arg[2])
        make_file(arg[0], size_of(arg[2]));
    open_disk(arg[0], true);
    if (datastore_create(&disk, logical_block(), arg[1], err, sizeof(err)))
        die("%s", err);
}

static void list(char **arg)
{
    struct volume_info v;
    mount(arg[0], false);
    printf("%s: %llu MiB, %llu free\n", info.name, (unsigned long long)(info.bytes / MIB),
           (unsigned long long)(info.free_bytes / MIB));
    for (u32 i = 0; volume_get_info(i, &v); i++)
        printf("%-48s %14llu %14llu\n", v.path, (unsigned long long)v.bytes,
               (unsigned long long)v.allocated_bytes);
}

// Mounting is the check: it reads all the metadata there is.
static void check(char **arg)
{
    mount(arg[0], false);
    printf("%s is as it should be\n", info.name);
}

static void volume(char **arg)
{
    const char *verb = arg[1];
    int e;
    mount(arg[0], true);
    if (!strcmp(verb, "delete"))
        e = volume_delete(path_of(arg[2]), err, sizeof(err));
    else if (!strcmp(verb, "create"))
        e = volume_create(path_of(arg[2]), size_of(arg[3]), err, sizeof(err));
    else if (!strcmp(verb, "resize"))
        e = volume_resize(path_of(arg[2]), size_of(arg[3]), err, sizeof(err));
    else
        die("volume wants create, delete or resize, found \"%s\"", verb);
    if (e)
        die("%s", err);
}

static struct block_device *open_volume(const char *name)
{
    struct block_device *b = volume_open(path_of(name), "skiff-store", err, sizeof(err));
    if (!b)
        die("%s", err);
    return b;
}

static bool all_zero(const u8 *data, u64 bytes)
{
    return data[0] == 0 && memcmp(data, data + 1, bytes - 1) == 0;
}

// What there is of the volume is of no use to anybody.
__attribute__((noreturn)) static void import_failed(struct block_device *b, const char *why)
{
    char path[VOLUME_PATH], ignored[256];
    strlcpy(path, b->name, sizeof(path));
    volume_close(b);
    volume_delete(path, ignored, sizeof(ignored));
    die("%s", why);
}

// The data between two holes of the file, in pieces; what of them is zeros becomes a hole.
static void import_run(int file, struct block_device *b, u8 *buffer, off_t from, off_t to)
{
    for (off_t at = from; at < to;) {
        u64 n = MIN((u64)(to - at), 64 * KIB - (u64)at % (64 * KIB));
        u64 bytes = ALIGN_UP(n, BLOCK_SECTOR);
        memset(buffer, 0, bytes);
        if (pread(file, buffer, n, at) != (ssize_t)n)
            import_failed(b, "the image cannot be read");
        int e = all_zero(buffer, bytes)
                    ? 0
                    : block_write(b, (u64)at / BLOCK_SECTOR, bytes / BLOCK_SECTOR, buffer);
        if (e)
            import_failed(b, e == E_NOMEM ? "the datastore has no room for it" : "the disk fails");
        at += (off_t)n;
    }
}

static void import(char **arg)
{
    u8 *buffer = kmalloc(BUFFER);
    int file = open(arg[2], O_RDONLY);
    off_t size = file < 0 ? -1 : lseek(file, 0, SEEK_END);
    if (size <= 0)
        die("%s: %s", arg[2], file < 0 ? strerror(errno) : "it is empty");
    mount(arg[0], true);
    if (volume_create(path_of(arg[1]), ALIGN_UP((u64)size, BLOCK_SECTOR), err, sizeof(err)))
        die("%s", err);
    struct block_device *b = open_volume(arg[1]);
    for (off_t data = 0, hole; (data = lseek(file, data, SEEK_DATA)) >= 0; data = hole) {
        hole = lseek(file, data, SEEK_HOLE);
        import_run(file, b, buffer, ALIGN_DOWN(data, BLOCK_SECTOR), hole);
    }
    if (block_flush(b))
        import_failed(b, "the disk does not flush");
}

static void export_run(int file, struct block_device *b, u8 *buffer, u64 sector, u64 sectors)
{
    for (u64 n; sectors; sectors -= n, sector += n) {
        n = MIN(sectors, BUFFER / BLOCK_SECTOR);
        u64 bytes = n * BLOCK_SECTOR;
        if (block_read(b, sector, n, buffer))
            die("the volume cannot be read at sector %llu", (unsigned long long)sector);
        if (!all_zero(buffer, bytes) &&
            pwrite(file, buffer, bytes, (off_t)(sector * BLOCK_SECTOR)) != (ssize_t)bytes)
            die("the image cannot be written: %s", strerror(errno));
    }
}

static void export(char **arg)
{
    u8 *buffer = kmalloc(BUFFER);
    mount(arg[0], false);
    struct block_device *b = open_volume(arg[1]);
    make_file(arg[2], b->sectors * BLOCK_SECTOR);
    int file = open(arg[2], O_RDWR);
    if (file < 0)
        die("%s: %s", arg[2], strerror(errno));
    for (u64 sector = 0, run; sector < b->sectors; sector += run)
        if (volume_allocated(b, sector, &run))
            export_run(file, b, buffer, sector, run);
    if (fsync(file))
        die("%s: %s", arg[2], strerror(errno));
}

static const struct {
    const char *name;
    int least, most; // arguments
    void (*run)(char **arg);
} commands[] = {{"create", 2, 3, create}, {"list", 1, 1, list},     {"check", 1, 1, check},
                {"volume", 3, 4, volume}, {"import", 3, 3, import}, {"export", 3, 3, export}};

int main(int count, char **arg)
{
    for (u32 i = 0; count > 1 && i < ARRAY_SIZE(commands); i++) {
        int given = count - 2;
        if (strcmp(arg[1], commands[i].name) || given < commands[i].least ||
            given > commands[i].most)
            continue;
        commands[i].run(arg + 2);
        return 0;
    }
    fputs(usage, stderr);
    return 2;
}
