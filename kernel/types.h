// SPDX-License-Identifier: MIT
// Fixed-width types and the few macros every room uses.
#ifndef SKIFF_KERNEL_TYPES_H
#define SKIFF_KERNEL_TYPES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifndef static_assert
#define static_assert _Static_assert
#endif

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;
typedef int8_t s8;
typedef int32_t s32;
typedef int64_t s64;

#define ARRAY_SIZE(a)                   (sizeof(a) / sizeof((a)[0]))
#define container_of(ptr, type, member) ((type *)((char *)(ptr)-offsetof(type, member)))
#define MIN(a, b)                       ((a) < (b) ? (a) : (b))
#define MAX(a, b)                       ((a) > (b) ? (a) : (b))
#define ALIGN_UP(x, a)                  (((x) + ((a)-1)) & ~((__typeof__(x))(a)-1))
#define ALIGN_DOWN(x, a)                ((x) & ~((__typeof__(x))(a)-1))
#define BIT(n)                          (1ull << (n))

#define KIB             (1024ull)
#define MIB             (1024ull * KIB)
#define GIB             (1024ull * MIB)
#define PAGE_SIZE       4096ull
#define PAGE_SHIFT      12
#define LARGE_PAGE_SIZE (2ull * MIB)
#define NS_PER_SEC      1000000000ull
#define NS_PER_MS       1000000ull
#define NS_PER_US       1000ull

// Errors are small negative ints; functions that can fail return 0 or one of these.
enum {
    E_INVAL = -1,   // an argument or input is malformed
    E_NOMEM = -2,   // no memory
    E_NOENT = -3,   // no such thing
    E_EXIST = -4,   // already there
    E_BUSY = -5,    // in a state that does not allow it
    E_IO = -6,      // a device or a connection failed
    E_TIMEOUT = -7, // waited long enough
    E_NOSUP = -8,   // not supported here
    E_ABORT = -9,   // cancelled by request
    E_PROTO = -10,  // a peer broke the protocol
};

#endif
