// SPDX-License-Identifier: MIT
// Writes to the guest's disk without a stop, and checks that everything it was told is written is
// there, place by place: alone, with heartbeats as in work.c, whose "written" counts what was
// flushed; or beside the work on memory.
//
// Up to DEPTH writes are under way at the same time. Write number n, from 1 on, goes to a place
// that n alone decides, and the place then tells n. So a guest that starts on a used disk can say
// how far what is on it goes, and goes on behind that.
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

#define DISK         "/dev/vda"
#define PLACE_BYTES  4096u
#define PLACE_WORDS  (PLACE_BYTES / 8)
#define PLACES_MAX   32768u
#define READ_PLACES  64u
#define DEPTH        8u
#define FLUSH_EVERY  32u
#define HEARTBEAT_NS 100000000u

static int fd;
static aio_context_t aio;
static uint64_t places, writes, flushed, checks, steps;
static uint64_t *number; // of the last write to each place; 0: never written, so zeros
static uint64_t block[READ_PLACES][PLACE_WORDS] __attribute__((aligned(PLACE_BYTES)));

static uint64_t place_of(uint64_t n)
{
    return splitmix64(n) % places;
}

static uint64_t word(uint64_t n, unsigned i)
{
    return !n ? 0 : i ? splitmix64(n << 9 ^ i) : n;
}

static bool holds(const uint64_t *place, uint64_t n)
{
    for (unsigned i = 0; i < PLACE_WORDS; i++)
        if (place[i] != word(n, i))
            return false;
    return true;
}

static void flush(void)
{
    if (fdatasync(fd))
        agent_error("flushing: %s", strerror(errno));
    else
        flushed = writes;
}

// Hands one write to the kernel's asynchronous I/O.
static void prepare(struct iocb *cb, uint64_t *from, uint64_t n)
{
    for (unsigned i = 0; i < PLACE_WORDS; i++)
        from[i] = word(n, i);
    *cb = (struct iocb){.aio_lio_opcode = IOCB_CMD_PWRITE,
                        .aio_fildes = (uint32_t)fd,
                        .aio_buf = (uintptr_t)from,
                        .aio_nbytes = PLACE_BYTES,
                        .aio_offset = (int64_t)(place_of(n) * PLACE_BYTES)};
}

// Whether write n would go where one of those under way goes.
static bool collides(uint64_t n)
{
    for (uint64_t other = writes + 1; other < n; other++)
        if (place_of(other) == place_of(n))
            return true;
    return false;
}

// The next writes, up to `most` of them, together; the last of FLUSH_EVERY is flushed with all
// before it.
static unsigned write_some(unsigned most)
{
    struct iocb cb[DEPTH], *list[DEPTH];
    struct io_event done[DEPTH] = {{0}};
    unsigned count = 0;
    while (count < most && !collides(writes + 1 + count)) {
        prepare(&cb[count], block[count], writes + 1 + count);
        list[count] = &cb[count];
        if ((writes + ++count) % FLUSH_EVERY == 0)
            break;
    }
    if (syscall(SYS_io_submit, aio, (long)count, list) != count ||
        syscall(SYS_io_getevents, aio, (long)count, (long)count, done, NULL) != count)
        agent_error("writing from %" PRIu64 " on: %s", writes + 1, strerror(errno));
    for (unsigned i = 0; i < count; i++)
        if (done[i].res != PLACE_BYTES)
            agent_error("a write behind %" PRIu64 ": %s", writes, strerror((int)-done[i].res));
    for (unsigned i = 0; i < count; i++, writes++)
        number[place_of(writes + 1)] = writes + 1;
    if (writes % FLUSH_EVERY == 0)
        flush();
    return count;
}

// Up to READ_PLACES places from `first` on; returns how many.
static uint64_t read_places(uint64_t first, uint64_t count)
{
    if (count > READ_PLACES)
        count = READ_PLACES;
    if (count > places - first)
        count = places - first;
    ssize_t bytes = (ssize_t)(count * PLACE_BYTES);
    if (pread(fd, block, (size_t)bytes, (off_t)(first * PLACE_BYTES)) != bytes)
        agent_error("reading place %" PRIu64 ": %s", first, strerror(errno));
    return count;
}

static void check_places(uint64_t first, uint64_t count)
{
    count = read_places(first, count);
    for (uint64_t i = 0; i < count; i++, checks++)
        if (!holds(block[i], number[first + i]))
            agent_error("place %" PRIu64 " holds %016" PRIx64 " %016" PRIx64
                        ", wanted write %" PRIu64,
                        first + i, block[i][0], block[i][1], number[first + i]);
}

static void tell(const char *what)
{
    printf("DISK-%s {\"places\": %" PRIu64 ", \"writes\": %" PRIu64 ", \"errors\": %" PRIu64 "}\n",
           what, places, writes, agent_errors());
}

void disk_verify(void)
{
    for (uint64_t i = 0; i < places; i += READ_PLACES)
        check_places(i, READ_PLACES);
    tell("VERIFIED");
}

static bool obey(const char *line)
{
    if (!strcmp(line, "dmesg"))
        control_print_kernel_warnings();
    else if (!strcmp(line, "verify"))
        disk_verify();
    return strcmp(line, "quit") != 0;
}

unsigned disk_step(unsigned most)
{
    unsigned count = write_some(most);
    for (unsigned i = 0; i < count; i++)
        check_places(splitmix64(~steps++) % places, 1);
    return count;
}

// What an earlier life left: each place has to hold what some write put there.
static void find_writes(void)
{
    for (uint64_t first = 0, count; first < places; first += count) {
        count = read_places(first, READ_PLACES);
        for (uint64_t i = 0; i < count; i++) {
            uint64_t n = block[i][0];
            number[first + i] = n;
            if (!holds(block[i], n) || (n && place_of(n) != first + i))
                agent_error("place %" PRIu64 " holds %016" PRIx64 " %016" PRIx64
                            ", which no write put there",
                            first + i, n, block[i][1]);
        }
    }
    // Complete up to the first write that neither is there nor was written over.
    while (number[place_of(writes + 1)] > writes)
        writes++;
    flushed = writes;
}

bool disk_open(void)
{
    fd = open(DISK, O_RDWR | O_DIRECT);
    off_t bytes = fd < 0 ? -1 : lseek(fd, 0, SEEK_END);
    places = bytes > 0 ? (uint64_t)bytes / PLACE_BYTES : 0;
    if (places > PLACES_MAX)
        places = PLACES_MAX;
    number = calloc(places ? places : 1, sizeof *number);
    bool good = places && number && syscall(SYS_io_setup, DEPTH, &aio) == 0;
    if (good)
        find_writes();
    else
        agent_error("%s: %s", DISK, strerror(errno));
    return good;
}

int disk_run(uint64_t rate)
{
    char line[64];
    uint64_t sequence = 0, start = clock_check().monotonic_ns, beat = start;
    control_open();
    if (!disk_open())
        return 1;
    tell("READY");
    for (bool go = true; go;) {
        struct clock_sample now = clock_check();
        disk_step(DEPTH);
        if (now.monotonic_ns >= beat) {
            printf("HB %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 "\n",
                   sequence++, now.monotonic_ns, now.tsc, flushed, checks, agent_errors());
            beat += HEARTBEAT_NS;
        }
        uint64_t due = start + steps * 1000000000u / rate;
        if (control_wait(due > now.monotonic_ns ? due - now.monotonic_ns : 0, line, sizeof line))
            go = obey(line);
    }
    return agent_errors() != 0;
}
