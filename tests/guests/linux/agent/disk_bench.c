// SPDX-License-Identifier: MIT
// How many reads of 4 KiB at random places the guest's disk does in a second, one at a time and many
// at once.
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/aio_abi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "agent.h"

#define DISK        "/dev/vda"
#define READ_BYTES  4096u
#define FILL_BYTES  (1u << 20)
#define PLACES      (64u << 20) / READ_BYTES // all written first: what never was may be read without the disk
#define DEPTH_MOST  32u
#define NS_PER_S    1000000000u

static int fd;
static aio_context_t queue;
static struct iocb request[DEPTH_MOST];
static uint64_t turn;

static int failed(const char *doing)
{
    agent_error("%s: %s", doing, strerror(errno));
    return 1;
}

static int fill(void)
{
    char *data = aligned_alloc(READ_BYTES, FILL_BYTES);
    memset(data, 0x5a, FILL_BYTES);
    for (off_t at = 0; at < (off_t)PLACES * READ_BYTES; at += FILL_BYTES)
        if (pwrite(fd, data, FILL_BYTES, at) != FILL_BYTES)
            return failed("writing");
    free(data);
    return fdatasync(fd) ? failed("flushing") : 0;
}

static int submit(struct iocb *r)
{
    r->aio_offset = (int64_t)(splitmix64(turn++) % (PLACES)) * READ_BYTES;
    return syscall(SYS_io_submit, queue, 1, &r) == 1 ? 0 : failed("reading");
}

// Takes what is done and asks for as much again, until the time is over.
static int measure(unsigned depth, uint64_t seconds)
{
    struct io_event done[DEPTH_MOST];
    uint64_t start = clock_check().monotonic_ns, now = start, reads = 0;
    for (unsigned i = 0; i < depth; i++)
        if (submit(&request[i]))
            return 1;
    unsigned under_way = depth;
    while (under_way) {
        long n = syscall(SYS_io_getevents, queue, 1, depth, done, NULL);
        now = clock_check().monotonic_ns;
        for (long i = 0; i < n; i++) {
            under_way--;
            reads++;
            if (done[i].res != READ_BYTES) {
                agent_error("a read ended with %lld", (long long)done[i].res);
                return 1;
            }
            if (now >= start + seconds * NS_PER_S)
                continue;
            if (submit((struct iocb *)(uintptr_t)done[i].obj))
                return 1;
            under_way++;
        }
    }
    printf("DISK-BENCH depth %u reads %" PRIu64 " ns %" PRIu64 "\n", depth, reads, now - start);
    return 0;
}

int disk_bench(uint64_t seconds)
{
    fd = open(DISK, O_RDWR | O_DIRECT);
    if (fd < 0 || syscall(SYS_io_setup, DEPTH_MOST, &queue))
        return failed(DISK);
    for (unsigned i = 0; i < DEPTH_MOST; i++)
        request[i] = (struct iocb){.aio_fildes = (uint32_t)fd,
                                   .aio_lio_opcode = IOCB_CMD_PREAD,
                                   .aio_buf = (uintptr_t)aligned_alloc(READ_BYTES, READ_BYTES),
                                   .aio_nbytes = READ_BYTES};
    return fill() || measure(1, seconds) || measure(DEPTH_MOST, seconds);
}
