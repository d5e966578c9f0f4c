// SPDX-License-Identifier: MIT
// The layout that registers.c and registers_x86.S share.
#ifndef REGISTERS_H
#define REGISTERS_H

#define REGISTERS_AVX       1
#define REGISTERS_AVX512    2
#define REGISTERS_PKRU      4
#define REGISTERS_ZMM_COUNT 32

#define REGISTERS_AT_MASK    2048
#define REGISTERS_AT_X87     2112
#define REGISTERS_AT_MXCSR   2176
#define REGISTERS_AT_PKRU    2180
#define REGISTERS_AT_CONTROL 2184

#ifndef __ASSEMBLER__
#include <assert.h>
#include <stddef.h>
#include <stdint.h>

struct registers {
    uint64_t zmm[REGISTERS_ZMM_COUNT]
                [8]; // without AVX-512 the first 16, and of those what the CPU has
    uint64_t mask[8];
    int64_t x87[8];
    uint32_t mxcsr, pkru;
    uint16_t x87_control;
};
static_assert(offsetof(struct registers, mask) == REGISTERS_AT_MASK,
              "registers_x86.S relies on it");
static_assert(offsetof(struct registers, x87) == REGISTERS_AT_X87, "registers_x86.S relies on it");
static_assert(offsetof(struct registers, mxcsr) == REGISTERS_AT_MXCSR,
              "registers_x86.S relies on it");
static_assert(offsetof(struct registers, pkru) == REGISTERS_AT_PKRU,
              "registers_x86.S relies on it");
static_assert(offsetof(struct registers, x87_control) == REGISTERS_AT_CONTROL,
              "registers_x86.S relies on it");

// Loads all of it, and stores all of it; `features` is a set of REGISTERS_ bits. Storing empties
// the x87 stack, and puts MXCSR and the x87 control word back to what C expects.
void registers_put(const struct registers *from, unsigned features);
void registers_get(struct registers *to, unsigned features);
#endif

#endif
