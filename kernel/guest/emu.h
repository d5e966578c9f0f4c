// SPDX-License-Identifier: MIT
// One instruction being emulated, between the files that do it: decoding and operands (emulate.c),
// arithmetic (emu_alu.c), single instructions (emu_insn.c), string instructions (emu_string.c).
#ifndef SKIFF_GUEST_EMU_H
#define SKIFF_GUEST_EMU_H

#include <Zydis/Decoder.h>

#include "kernel/guest/walk.h"

enum emu_result {
    EMU_DONE,
    EMU_REPEAT,  // a piece of a string instruction; RIP stays
    EMU_FAULT,   // emu.fault is to be raised
    EMU_UNKNOWN, // not an instruction that is emulated here
};

struct emu_fault {
    u8 vector;
    bool has_error;
    u32 error;
    u64 cr2; // #PF only
};

struct emu {
    struct vcpu *v;
    struct paging paging;
    u64 rip, rflags;
    struct segment cs;
    bool long64;
    ZydisDecodedInstruction insn;
    u8 bytes[16];
    u8 segment; // enum seg of the memory operand without its default, SEG_COUNT: none given
    u8 rep;     // 0, 0xf3 or 0xf2
    bool known; // the exit told where known_gva leads
    u64 known_gva, known_gpa;
    struct emu_fault fault;
};

#define FLAG_CF          BIT(0)
#define FLAG_PF          BIT(2)
#define FLAG_AF          BIT(4)
#define FLAG_ZF          BIT(6)
#define FLAG_SF          BIT(7)
#define FLAG_DF          BIT(10)
#define FLAG_OF          BIT(11)
#define FLAGS_ARITHMETIC (FLAG_CF | FLAG_PF | FLAG_AF | FLAG_ZF | FLAG_SF | FLAG_OF)

// emulate.c. bits: 8, 16, 32, 64.
u64 emu_reg(struct emu *e, unsigned n, unsigned bits);
void emu_set_reg(struct emu *e, unsigned n, unsigned bits, u64 value);
u64 emu_effective_address(struct emu *e); // of the ModRM operand, without its segment
u64 emu_linear(struct emu *e, enum seg fallback, u64 offset);
enum emu_result emu_load(struct emu *e, u64 linear, unsigned bits, u64 *value);
enum emu_result emu_store(struct emu *e, u64 linear, unsigned bits, u64 value);
enum emu_result emu_probe_store(struct emu *e, u64 linear, unsigned bits); // would it fault?
bool emu_rm_linear(struct emu *e, u64 *linear);        // false: the operand is a register
u64 emu_immediate(const struct emu *e, unsigned bits); // sign-extended
static inline u64 emu_mask(unsigned bits)
{
    return bits < 64 ? BIT(bits) - 1 : ~0ull;
}
static inline unsigned emu_reg_field(const struct emu *e)
{
    return e->insn.raw.modrm.reg |
           (e->insn.attributes & ZYDIS_ATTRIB_HAS_REX ? (unsigned)e->insn.raw.rex.R << 3 : 0);
}

// emu_alu.c. The order is that of the opcodes (bits 5:3) and of ModRM.reg in group 1.
enum alu_op { ALU_ADD, ALU_OR, ALU_ADC, ALU_SBB, ALU_AND, ALU_SUB, ALU_XOR, ALU_CMP };
u64 emu_alu(enum alu_op op, u64 a, u64 b, unsigned bits, u64 *rflags);
bool emu_condition(unsigned cc, u64 rflags); // the low 4 bits of Jcc, SETcc, CMOVcc

// emu_insn.c, emu_string.c
enum emu_result emu_single(struct emu *e);
enum emu_result emu_string(struct emu *e);    // EMU_UNKNOWN: not a memory string instruction
enum emu_result emu_string_io(struct emu *e); // INS, OUTS

#endif
