// SPDX-License-Identifier: MIT
// Included before Zydis' own sources: its library-free memset writes byte by byte, which is most of
// the time it takes to decode an instruction.
#ifndef SKIFF_GUEST_ZYDIS_LIBC_H
#define SKIFF_GUEST_ZYDIS_LIBC_H

#include <Zycore/LibC.h>

#define ZYAN_MEMSET(dst, value, size) __builtin_memset(dst, value, size)

#endif
