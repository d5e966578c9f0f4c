// SPDX-License-Identifier: MIT
// The single instructions that compilers and kernels use on device memory, one memory operand each.
#include "kernel/guest/emu.h"

static unsigned width(const struct emu *e)
{
    return e->insn.operand_width;
}

// rm = op(rm, value); CMP stores nothing.
static enum emu_result alu_to_memory(struct emu *e, enum alu_op op, u64 linear, u64 value)
{
    u64 old, flags = e->rflags;
    enum emu_result r = emu_load(e, linear, width(e), &old);
    if (r != EMU_DONE)
        return r;
    u64 new = emu_alu(op, old, value, width(e), &flags);
    if (op != ALU_CMP)
        r = emu_store(e, linear, width(e), new);
    if (r == EMU_DONE)
        e->rflags = flags;
    return r;
}

static enum emu_result alu_to_register(struct emu *e, enum alu_op op, u64 linear)
{
    u64 value;
    unsigned n = emu_reg_field(e);
    enum emu_result r = emu_load(e, linear, width(e), &value);
    if (r != EMU_DONE)
        return r;
    u64 new = emu_alu(op, emu_reg(e, n, width(e)), value, width(e), &e->rflags);
    if (op != ALU_CMP)
        emu_set_reg(e, n, width(e), new);
    return EMU_DONE;
}

// TEST: the flags of AND.
static enum emu_result test(struct emu *e, u64 linear, u64 value)
{
    u64 old;
    enum emu_result r = emu_load(e, linear, width(e), &old);
    if (r == EMU_DONE)
        emu_alu(ALU_AND, old, value, width(e), &e->rflags);
    return r;
}

static enum emu_result load_extended(struct emu *e, u64 linear, unsigned from, bool sign)
{
    u64 value;
    enum emu_result r = emu_load(e, linear, from, &value);
    if (r != EMU_DONE)
        return r;
    if (sign)
        value = (u64)((s64)(value << (64 - from)) >> (64 - from));
    emu_set_reg(e, emu_reg_field(e), width(e), value);
    return EMU_DONE;
}

static enum emu_result exchange(struct emu *e, u64 linear)
{
    u64 old;
    unsigned n = emu_reg_field(e);
    enum emu_result r = emu_load(e, linear, width(e), &old);
    if (r == EMU_DONE)
        r = emu_store(e, linear, width(e), emu_reg(e, n, width(e)));
    if (r == EMU_DONE)
        emu_set_reg(e, n, width(e), old);
    return r;
}

static enum emu_result exchange_add(struct emu *e, u64 linear)
{
    u64 old, flags = e->rflags;
    unsigned n = emu_reg_field(e);
    enum emu_result r = emu_load(e, linear, width(e), &old);
    if (r != EMU_DONE)
        return r;
    u64 sum = emu_alu(ALU_ADD, old, emu_reg(e, n, width(e)), width(e), &flags);
    r = emu_store(e, linear, width(e), sum);
    if (r != EMU_DONE)
        return r;
    e->rflags = flags;
    emu_set_reg(e, n, width(e), old);
    return EMU_DONE;
}

static enum emu_result compare_exchange(struct emu *e, u64 linear)
{
    u64 old, flags = e->rflags;
    enum emu_result r = emu_load(e, linear, width(e), &old);
    if (r != EMU_DONE)
        return r;
    emu_alu(ALU_CMP, emu_reg(e, GPR_RAX, width(e)), old, width(e), &flags);
    bool equal = flags & FLAG_ZF;
    // It writes in either case (SDM 2A CMPXCHG).
    r = emu_store(e, linear, width(e), equal ? emu_reg(e, emu_reg_field(e), width(e)) : old);
    if (r != EMU_DONE)
        return r;
    e->rflags = flags;
    if (!equal)
        emu_set_reg(e, GPR_RAX, width(e), old);
    return EMU_DONE;
}

// op: 0 BT, 1 BTS, 2 BTR, 3 BTC.
static enum emu_result bit_test(struct emu *e, unsigned op, u64 linear, unsigned bit)
{
    u64 value;
    enum emu_result r = emu_load(e, linear, width(e), &value);
    if (r != EMU_DONE)
        return r;
    u64 mask = BIT(bit);
    u64 new = op == 1 ? value | mask : op == 2 ? value & ~mask : value ^ mask;
    if (op)
        r = emu_store(e, linear, width(e), new);
    if (r == EMU_DONE)
        e->rflags = (e->rflags & ~FLAG_CF) | (value & mask ? FLAG_CF : 0);
    return r;
}

// A bit number in a register reaches beyond the operand, either way (SDM 1 3.1.1.9 in 2A).
static enum emu_result bit_test_register(struct emu *e, unsigned op, u64 linear)
{
    unsigned bits = width(e);
    u64 raw = emu_reg(e, emu_reg_field(e), bits);
    s64 n = (s64)(raw << (64 - bits)) >> (64 - bits);
    s64 words = n >> (bits == 64 ? 6 : bits == 32 ? 5 : 4);
    return bit_test(e, op, linear + (u64)(words * (s64)(bits / 8)), (unsigned)((u64)n % bits));
}

static enum emu_result group_3(struct emu *e, u64 linear)
{
    u64 old, flags = e->rflags;
    unsigned op = e->insn.raw.modrm.reg & 7;
    if (op < 2)
        return test(e, linear, emu_immediate(e, width(e)));
    if (op > 3)
        return EMU_UNKNOWN; // multiplications and divisions
    enum emu_result r = emu_load(e, linear, width(e), &old);
    if (r != EMU_DONE)
        return r;
    u64 new = op == 2 ? ~old : emu_alu(ALU_SUB, 0, old, width(e), &flags);
    r = emu_store(e, linear, width(e), new);
    if (r == EMU_DONE)
        e->rflags = flags;
    return r;
}

// INC and DEC leave CF alone.
static enum emu_result increment(struct emu *e, u64 linear)
{
    unsigned op = e->insn.raw.modrm.reg & 7;
    u64 carry = e->rflags & FLAG_CF;
    if (op > 1)
        return EMU_UNKNOWN; // calls, jumps, PUSH
    enum emu_result r = alu_to_memory(e, op ? ALU_SUB : ALU_ADD, linear, 1);
    e->rflags = (e->rflags & ~FLAG_CF) | carry;
    return r;
}

static enum emu_result mov_offset(struct emu *e)
{
    u64 value, linear = emu_linear(e, SEG_DS,
                                   (u64)e->insn.raw.disp.value & emu_mask(e->insn.address_width));
    if (e->insn.opcode >= 0xa2)
        return emu_store(e, linear, width(e), emu_reg(e, GPR_RAX, width(e)));
    enum emu_result r = emu_load(e, linear, width(e), &value);
    if (r == EMU_DONE)
        emu_set_reg(e, GPR_RAX, width(e), value);
    return r;
}

static enum emu_result one_byte(struct emu *e, u64 linear)
{
    u8 op = e->insn.opcode;
    u64 reg = emu_reg(e, emu_reg_field(e), width(e));
    if (op < 0x40 && (op & 7) < 2)
        return alu_to_memory(e, op >> 3, linear, reg);
    if (op < 0x40 && (op & 7) < 4)
        return alu_to_register(e, op >> 3, linear);
    switch (op) {
    case 0x63:
        return e->long64 ? load_extended(e, linear, 32, true) : EMU_UNKNOWN;
    case 0x80 ... 0x83:
        return alu_to_memory(e, e->insn.raw.modrm.reg & 7, linear, emu_immediate(e, width(e)));
    case 0x84:
    case 0x85:
        return test(e, linear, reg);
    case 0x86:
    case 0x87:
        return exchange(e, linear);
    case 0x88:
    case 0x89:
        return emu_store(e, linear, width(e), reg);
    case 0x8a:
    case 0x8b:
        return load_extended(e, linear, width(e), false);
    case 0xc6:
    case 0xc7:
        return emu_store(e, linear, width(e), emu_immediate(e, width(e)));
    case 0xf6:
    case 0xf7:
        return group_3(e, linear);
    case 0xfe:
    case 0xff:
        return increment(e, linear);
    }
    return EMU_UNKNOWN;
}

static enum emu_result conditional_move(struct emu *e, u64 linear)
{
    u64 value;
    unsigned n = emu_reg_field(e);
    enum emu_result r = emu_load(e, linear, width(e), &value); // also when not moved
    if (r != EMU_DONE)
        return r;
    bool move = emu_condition(e->insn.opcode, e->rflags);
    // A 32-bit one clears the upper half either way.
    emu_set_reg(e, n, width(e), move ? value : emu_reg(e, n, width(e)));
    return EMU_DONE;
}

static enum emu_result two_byte(struct emu *e, u64 linear)
{
    u8 op = e->insn.opcode;
    switch (op) {
    case 0x40 ... 0x4f:
        return conditional_move(e, linear);
    case 0x90 ... 0x9f:
        return emu_store(e, linear, 8, emu_condition(op, e->rflags));
    case 0xa3:
    case 0xab:
    case 0xb3:
    case 0xbb:
        return bit_test_register(e, op >> 3 & 3, linear);
    case 0xb0:
    case 0xb1:
        return compare_exchange(e, linear);
    case 0xb6:
    case 0xb7:
        return load_extended(e, linear, op & 1 ? 16 : 8, false);
    case 0xba:
        if ((e->insn.raw.modrm.reg & 7) < 4)
            return EMU_UNKNOWN;
        return bit_test(e, e->insn.raw.modrm.reg & 3, linear,
                        (unsigned)(emu_immediate(e, 8) % width(e)));
    case 0xbe:
    case 0xbf:
        return load_extended(e, linear, op & 1 ? 16 : 8, true);
    case 0xc0:
    case 0xc1:
        return exchange_add(e, linear);
    case 0xc3: // MOVNTI
        return emu_store(e, linear, width(e), emu_reg(e, emu_reg_field(e), width(e)));
    }
    return EMU_UNKNOWN;
}

static u64 swap_bytes(u64 value, unsigned bits)
{
    return __builtin_bswap64(value) >> (64 - bits);
}

// MOVBE only.
static enum emu_result three_byte(struct emu *e, u64 linear)
{
    u64 value;
    if (e->rep == 0xf2 || (e->insn.opcode != 0xf0 && e->insn.opcode != 0xf1))
        return EMU_UNKNOWN;
    unsigned n = emu_reg_field(e);
    if (e->insn.opcode == 0xf1)
        return emu_store(e, linear, width(e), swap_bytes(emu_reg(e, n, width(e)), width(e)));
    enum emu_result r = emu_load(e, linear, width(e), &value);
    if (r == EMU_DONE)
        emu_set_reg(e, n, width(e), swap_bytes(value, width(e)));
    return r;
}

enum emu_result emu_single(struct emu *e)
{
    u64 linear;
    bool plain = e->insn.opcode_map == ZYDIS_OPCODE_MAP_DEFAULT;
    if (plain && e->insn.opcode >= 0xa0 && e->insn.opcode <= 0xa3)
        return mov_offset(e);
    if (!(e->insn.attributes & ZYDIS_ATTRIB_HAS_MODRM) || !emu_rm_linear(e, &linear))
        return EMU_UNKNOWN;
    if (plain)
        return one_byte(e, linear);
    if (e->insn.opcode_map == ZYDIS_OPCODE_MAP_0F)
        return two_byte(e, linear);
    if (e->insn.opcode_map == ZYDIS_OPCODE_MAP_0F38)
        return three_byte(e, linear);
    return EMU_UNKNOWN;
}
