// SPDX-License-Identifier: MIT
// Arithmetic of emulated instructions, with the flags it leaves (SDM 1 3.4.3.1).
#include "kernel/guest/emu.h"

static u64 result_flags(u64 value, unsigned bits)
{
    u64 f = 0;
    if (!(value & emu_mask(bits)))
        f |= FLAG_ZF;
    if (value >> (bits - 1) & 1)
        f |= FLAG_SF;
    if (!(__builtin_parity((u8)value)))
        f |= FLAG_PF;
    return f;
}

static u64 logic(enum alu_op op, u64 a, u64 b)
{
    return op == ALU_OR ? a | b : op == ALU_AND ? a & b : a ^ b;
}

static u64 add(u64 a, u64 b, u64 carry, unsigned bits, u64 *flags)
{
    u64 mask = emu_mask(bits);
    u64 r = (a + b + carry) & mask;
    u64 carries = (a & b) | ((a | b) & ~r); // out of each bit
    *flags = result_flags(r, bits);
    if (carries >> (bits - 1) & 1)
        *flags |= FLAG_CF;
    if (carries >> 3 & 1)
        *flags |= FLAG_AF;
    if (((a ^ r) & (b ^ r)) >> (bits - 1) & 1)
        *flags |= FLAG_OF;
    return r;
}

static u64 subtract(u64 a, u64 b, u64 borrow, unsigned bits, u64 *flags)
{
    u64 mask = emu_mask(bits);
    u64 r = (a - b - borrow) & mask;
    u64 borrows = (~a & b) | ((~a | b) & r);
    *flags = result_flags(r, bits);
    if (borrows >> (bits - 1) & 1)
        *flags |= FLAG_CF;
    if (borrows >> 3 & 1)
        *flags |= FLAG_AF;
    if (((a ^ b) & (a ^ r)) >> (bits - 1) & 1)
        *flags |= FLAG_OF;
    return r;
}

u64 emu_alu(enum alu_op op, u64 a, u64 b, unsigned bits, u64 *rflags)
{
    u64 flags, r, carry = *rflags & FLAG_CF;
    a &= emu_mask(bits);
    b &= emu_mask(bits);
    switch (op) {
    case ALU_ADD:
    case ALU_ADC:
        r = add(a, b, op == ALU_ADC ? carry : 0, bits, &flags);
        break;
    case ALU_SUB:
    case ALU_SBB:
    case ALU_CMP:
        r = subtract(a, b, op == ALU_SBB ? carry : 0, bits, &flags);
        break;
    default:
        r = logic(op, a, b);
        flags = result_flags(r, bits);
    }
    *rflags = (*rflags & ~FLAGS_ARITHMETIC) | flags;
    return r;
}

bool emu_condition(unsigned cc, u64 f)
{
    bool less = !!(f & FLAG_SF) != !!(f & FLAG_OF);
    bool yes = false;
    switch (cc >> 1 & 7) {
    case 0:
        yes = f & FLAG_OF;
        break;
    case 1:
        yes = f & FLAG_CF;
        break;
    case 2:
        yes = f & FLAG_ZF;
        break;
    case 3:
        yes = f & (FLAG_CF | FLAG_ZF);
        break;
    case 4:
        yes = f & FLAG_SF;
        break;
    case 5:
        yes = f & FLAG_PF;
        break;
    case 6:
        yes = less;
        break;
    case 7:
        yes = less || (f & FLAG_ZF);
        break;
    }
    return yes != (cc & 1);
}
