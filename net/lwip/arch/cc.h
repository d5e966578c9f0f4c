// SPDX-License-Identifier: MIT
// lwIP's view of the compiler and of the services it needs from the kernel.
#ifndef SKIFF_LWIP_ARCH_CC_H
#define SKIFF_LWIP_ARCH_CC_H

#include "kernel/lib.h"
#include "kernel/types.h"

#define BYTE_ORDER LITTLE_ENDIAN
#ifndef LITTLE_ENDIAN
#define LITTLE_ENDIAN 1234
#define BIG_ENDIAN    4321
#endif

// The image has no C library; what lwIP prints, it prints with these formats.
#define LWIP_NO_INTTYPES_H 1
#define LWIP_NO_LIMITS_H   1
#define LWIP_NO_UNISTD_H   1
#define LWIP_NO_CTYPE_H    1
#ifndef INT_MAX
#define INT_MAX 0x7fffffff
#endif
#ifndef SSIZE_MAX // lwIP's own ssize_t would be an int
#define SSIZE_MAX 0x7fffffffffffffffl
typedef long ssize_t;
#endif
#define X8_F  "02x"
#define U16_F "u"
#define S16_F "d"
#define X16_F "x"
#define U32_F "u"
#define S32_F "d"
#define X32_F "x"
#define SZT_F "zu"

// A broken invariant inside lwIP. Packets reach it, so it must not stop the host: see port.c.
void lwip_port_assert(const char *message, const char *file, int line);
void lwip_port_print(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
#define LWIP_PLATFORM_ASSERT(message) lwip_port_assert(message, __FILE__, __LINE__)
#define LWIP_PLATFORM_DIAG(args)      lwip_port_print args

void *lwip_port_malloc(size_t bytes);
void *lwip_port_calloc(size_t count, size_t bytes);
void lwip_port_free(void *p);

u32 lwip_port_random(void);
#define LWIP_RAND() lwip_port_random()

u16 lwip_port_checksum(const void *data, int bytes);
#define LWIP_CHKSUM lwip_port_checksum

#endif
