// SPDX-License-Identifier: MIT
// Fault points for tests of moves.
#include "kernel/migrate/fault.h"

#include "kernel/lib.h"
#include "kernel/log.h"
#include "kernel/migrate/stream.h"
#include "kernel/thread.h"
#include "kernel/time.h"

#define STALL_MAX_NS  (120 * NS_PER_SEC)
#define STALL_STEP_NS (20 * NS_PER_MS)

enum {
    FLIP_PAGE = 1 << 0,
    CHANGE_REGISTER = 1 << 1,
    LOSE_PAGE = 1 << 2,
    NO_SHOOTDOWN = 1 << 3,
    DROP_SHIFT = 4,
    STALL_SHIFT = DROP_SHIFT + FAULT_LINK_POINTS,
};

static const struct choice {
    const char *name;
    u32 bit;
} choices[] = {
    {"none", 0},
    {"flip-page", FLIP_PAGE},
    {"change-register", CHANGE_REGISTER},
    {"lose-page", LOSE_PAGE},
    {"no-shootdown", NO_SHOOTDOWN},
    {"drop-link-at-disk", 1 << (DROP_SHIFT + FAULT_DISK)},
    {"drop-link-at-precopy", 1 << (DROP_SHIFT + FAULT_PRECOPY)},
    {"drop-link-at-offer", 1 << (DROP_SHIFT + FAULT_OFFER)},
    {"drop-link-at-ready", 1 << (DROP_SHIFT + FAULT_READY)},
    {"drop-link-at-commit", 1 << (DROP_SHIFT + FAULT_COMMIT)},
    {"drop-link-at-running", 1 << (DROP_SHIFT + FAULT_RUNNING)},
    {"stall-at-disk", 1 << (STALL_SHIFT + FAULT_DISK)},
    {"stall-at-precopy", 1 << (STALL_SHIFT + FAULT_PRECOPY)},
    {"stall-at-offer", 1 << (STALL_SHIFT + FAULT_OFFER)},
    {"stall-at-ready", 1 << (STALL_SHIFT + FAULT_READY)},
    {"stall-at-commit", 1 << (STALL_SHIFT + FAULT_COMMIT)},
    {"stall-at-running", 1 << (STALL_SHIFT + FAULT_RUNNING)},
    {"stall-at-accept", 1 << (STALL_SHIFT + FAULT_ACCEPT)},
    {"stall-at-volumes", 1 << (STALL_SHIFT + FAULT_VOLUMES)},
    {"stall-at-stop", 1 << (STALL_SHIFT + FAULT_STOP)},
    {"stall-at-record", 1 << (STALL_SHIFT + FAULT_RECORD)},
    {"stall-at-release", 1 << (STALL_SHIFT + FAULT_RELEASE)},
};

static volatile u32 armed; // changed with atomics; any thread

const char *fault_name(unsigned i)
{
    return i < ARRAY_SIZE(choices) ? choices[i].name : NULL;
}

int fault_set(const char *name, char *err, size_t size)
{
    for (size_t i = 0; i < ARRAY_SIZE(choices); i++) {
        if (strcmp(name, choices[i].name) != 0)
            continue;
        if (choices[i].bit)
            __atomic_or_fetch(&armed, choices[i].bit, __ATOMIC_SEQ_CST);
        else
            __atomic_store_n(&armed, 0, __ATOMIC_SEQ_CST);
        return 0;
    }
    snprintf(err, size,
             "no fault \"%s\": none, flip-page, change-register, lose-page, no-shootdown, "
             "drop-link-at-X with X one of disk, precopy, offer, ready, commit, running, or "
             "stall-at-X with one of these or accept, volumes, stop, record, release",
             name);
    return E_INVAL;
}

static const char *point_name(enum fault_point p)
{
    static const char *const names[] = {"disk",   "precopy", "offer", "ready",  "commit", "running",
                                        "accept", "volumes", "stop",  "record", "release"};
    return names[p];
}

static bool take(u32 bit)
{
    return __atomic_fetch_and(&armed, ~bit, __ATOMIC_SEQ_CST) & bit;
}

bool fault_take_flip_page(void)
{
    return take(FLIP_PAGE);
}

bool fault_flip_page_armed(void)
{
    return armed & FLIP_PAGE;
}

bool fault_take_change_register(void)
{
    return take(CHANGE_REGISTER);
}

bool fault_take_lose_page(void)
{
    return take(LOSE_PAGE);
}

bool fault_take_no_shootdown(void)
{
    return take(NO_SHOOTDOWN);
}

bool fault_drop_link(struct stream *s, enum fault_point p)
{
    if (!take(1u << (DROP_SHIFT + p)))
        return false;
    log_warn("fault", "link cut at %s", point_name(p));
    conn_abort(s->conn);
    return true;
}

void fault_stall(enum fault_point p)
{
    u32 bit = 1u << (STALL_SHIFT + p);
    if (!(armed & bit))
        return;
    u64 end = time_ns() + STALL_MAX_NS;
    log_warn("fault", "stalled at %s", point_name(p));
    while ((armed & bit) && time_ns() < end)
        thread_sleep_ns(STALL_STEP_NS);
    log_warn("fault", "no longer stalled at %s", point_name(p));
}
