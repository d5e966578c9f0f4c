// SPDX-License-Identifier: MIT
// Memory, strings, formatted printing and assertions for the freestanding image.
#ifndef SKIFF_KERNEL_LIB_H
#define SKIFF_KERNEL_LIB_H

#include <stdarg.h>

#include "kernel/types.h"

#ifndef SKIFF_DEBUG
#define SKIFF_DEBUG 0 // the Makefile says 1 for debug builds
#endif

void *memcpy(void *dst, const void *src, size_t n);
void *memmove(void *dst, const void *src, size_t n);
void *memset(void *dst, int c, size_t n);
int memcmp(const void *a, const void *b, size_t n);
// The image is built without the compiler's builtins; small fixed sizes must still become plain
// loads and stores on the paths that count instructions.
#if !__STDC_HOSTED__
#define memcpy(d, s, n)  __builtin_memcpy(d, s, n)
#define memmove(d, s, n) __builtin_memmove(d, s, n)
#define memset(d, c, n)  __builtin_memset(d, c, n)
#define memcmp(a, b, n)  __builtin_memcmp(a, b, n)
#endif

size_t strlen(const char *s);
size_t strnlen(const char *s, size_t max);
int strcmp(const char *a, const char *b);
int strncmp(const char *a, const char *b, size_t n);
int strcasecmp(const char *a, const char *b);
char *strchr(const char *s, int c);
char *strrchr(const char *s, int c);
char *strstr(const char *hay, const char *needle);
// Copies at most size-1 bytes and always terminates; returns strlen(src).
size_t strlcpy(char *dst, const char *src, size_t size);

// printf family: %d %i %u %x %X %p %s %c %% with flags 0 - + and width, precision, h hh l ll z.
// Return the length the whole text would have had, as the C standard does.
int vsnprintf(char *buf, size_t size, const char *fmt, va_list ap);
int snprintf(char *buf, size_t size, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

// Bits set in v; the compiler's own builtin would call a runtime library that is not there.
static inline u32 count_bits(u64 v)
{
    u32 n = 0;
    for (; v; v &= v - 1)
        n++;
    return n;
}

// Parses the whole string as an unsigned number (decimal, or hex with 0x). Returns 0 or E_INVAL.
int parse_u64(const char *s, u64 *out);
// Bytes, with an optional K, M, G or T (of 1024). Returns 0 or E_INVAL.
int parse_bytes(const char *s, u64 *out);

// CRC-32C (Castagnoli) over len bytes, continuing from crc (start with 0).
u32 crc32c(u32 crc, const void *data, size_t len);

// Ends the host: prints the message, registers' backtrace and halts or reboots (see
// arch/x86/panic).
void panic(const char *fmt, ...) __attribute__((noreturn, format(printf, 1, 2)));

// For our own invariants only, never for what a guest, a peer or an operator sent.
#define assert(cond)                                                                               \
    do {                                                                                           \
        if (__builtin_expect(!(cond), 0))                                                          \
            panic("assertion failed: %s (%s:%d)", #cond, __FILE__, __LINE__);                      \
    } while (0)

#endif
