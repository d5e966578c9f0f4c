// SPDX-License-Identifier: MIT
// String instructions on device memory and ports, in bounded pieces.
#include "kernel/guest/emu.h"

// Repetitions before the vCPU looks for interrupts and other work again, as real CPUs do too.
#define MAX_REPEAT 256

typedef enum emu_result (*string_step)(struct emu *e, bool *stop);

static unsigned width(const struct emu *e)
{
    return e->insn.operand_width;
}

// Moves RSI or RDI by one element in the direction of DF.
static void step(struct emu *e, unsigned n, unsigned bits)
{
    u64 at = emu_reg(e, n, e->insn.address_width);
    at += e->rflags & FLAG_DF ? -(u64)(bits / 8) : bits / 8;
    emu_set_reg(e, n, e->insn.address_width, at & emu_mask(e->insn.address_width));
}

static u64 source(struct emu *e)
{
    return emu_linear(e, SEG_DS, emu_reg(e, GPR_RSI, e->insn.address_width));
}

// The destination's segment is ES whatever the prefixes say (SDM 2B MOVS).
static u64 destination(struct emu *e)
{
    u8 given = e->segment;
    e->segment = SEG_ES;
    u64 linear = emu_linear(e, SEG_ES, emu_reg(e, GPR_RDI, e->insn.address_width));
    e->segment = given;
    return linear;
}

static enum emu_result movs(struct emu *e, bool *stop)
{
    u64 value;
    (void)stop;
    enum emu_result r = emu_load(e, source(e), width(e), &value);
    if (r == EMU_DONE)
        r = emu_store(e, destination(e), width(e), value);
    if (r != EMU_DONE)
        return r;
    step(e, GPR_RSI, width(e));
    step(e, GPR_RDI, width(e));
    return EMU_DONE;
}

static enum emu_result stos(struct emu *e, bool *stop)
{
    (void)stop;
    enum emu_result r = emu_store(e, destination(e), width(e), emu_reg(e, GPR_RAX, width(e)));
    if (r == EMU_DONE)
        step(e, GPR_RDI, width(e));
    return r;
}

static enum emu_result lods(struct emu *e, bool *stop)
{
    u64 value;
    (void)stop;
    enum emu_result r = emu_load(e, source(e), width(e), &value);
    if (r != EMU_DONE)
        return r;
    emu_set_reg(e, GPR_RAX, width(e), value);
    step(e, GPR_RSI, width(e));
    return EMU_DONE;
}

// REPE goes on while equal, REPNE while not.
static void compare(struct emu *e, u64 a, u64 b, bool *stop)
{
    emu_alu(ALU_CMP, a, b, width(e), &e->rflags);
    bool equal = e->rflags & FLAG_ZF;
    *stop = e->rep == 0xf3 ? !equal : equal;
}

static enum emu_result cmps(struct emu *e, bool *stop)
{
    u64 a, b;
    enum emu_result r = emu_load(e, source(e), width(e), &a);
    if (r == EMU_DONE)
        r = emu_load(e, destination(e), width(e), &b);
    if (r != EMU_DONE)
        return r;
    compare(e, a, b, stop);
    step(e, GPR_RSI, width(e));
    step(e, GPR_RDI, width(e));
    return EMU_DONE;
}

static enum emu_result scas(struct emu *e, bool *stop)
{
    u64 b;
    enum emu_result r = emu_load(e, destination(e), width(e), &b);
    if (r != EMU_DONE)
        return r;
    compare(e, emu_reg(e, GPR_RAX, width(e)), b, stop);
    step(e, GPR_RDI, width(e));
    return EMU_DONE;
}

static unsigned port_width(const struct emu *e)
{
    return width(e) > 32 ? 32 : width(e);
}

// The destination is checked first: what a port gives must not be lost to a page fault.
static enum emu_result ins(struct emu *e, bool *stop)
{
    (void)stop;
    u64 to = destination(e);
    enum emu_result r = emu_probe_store(e, to, port_width(e));
    if (r != EMU_DONE)
        return r;
    u64 value = bus_io_read(e->v->guest, (u16)emu_reg(e, GPR_RDX, 16), port_width(e) / 8);
    r = emu_store(e, to, port_width(e), value);
    if (r == EMU_DONE)
        step(e, GPR_RDI, port_width(e));
    return r;
}

static enum emu_result outs(struct emu *e, bool *stop)
{
    u64 value;
    (void)stop;
    enum emu_result r = emu_load(e, source(e), port_width(e), &value);
    if (r != EMU_DONE)
        return r;
    bus_io_write(e->v->guest, (u16)emu_reg(e, GPR_RDX, 16), port_width(e) / 8, value);
    step(e, GPR_RSI, port_width(e));
    return EMU_DONE;
}

static enum emu_result repeat(struct emu *e, string_step one)
{
    unsigned bits = e->insn.address_width;
    bool stop = false;
    if (!e->rep)
        return one(e, &stop);
    u64 left = emu_reg(e, GPR_RCX, bits);
    for (unsigned i = 0; left && i < MAX_REPEAT; i++) {
        enum emu_result r = one(e, &stop);
        if (r != EMU_DONE)
            return r;
        emu_set_reg(e, GPR_RCX, bits, --left);
        if (stop)
            return EMU_DONE;
    }
    return left ? EMU_REPEAT : EMU_DONE;
}

enum emu_result emu_string(struct emu *e)
{
    if (e->insn.opcode_map != ZYDIS_OPCODE_MAP_DEFAULT)
        return EMU_UNKNOWN;
    switch (e->insn.opcode) {
    case 0xa4:
    case 0xa5:
        return repeat(e, movs);
    case 0xa6:
    case 0xa7:
        return repeat(e, cmps);
    case 0xaa:
    case 0xab:
        return repeat(e, stos);
    case 0xac:
    case 0xad:
        return repeat(e, lods);
    case 0xae:
    case 0xaf:
        return repeat(e, scas);
    }
    return EMU_UNKNOWN;
}

enum emu_result emu_string_io(struct emu *e)
{
    if (e->insn.opcode_map != ZYDIS_OPCODE_MAP_DEFAULT)
        return EMU_UNKNOWN;
    switch (e->insn.opcode) {
    case 0x6c:
    case 0x6d:
        return repeat(e, ins);
    case 0x6e:
    case 0x6f:
        return repeat(e, outs);
    }
    return EMU_UNKNOWN;
}
