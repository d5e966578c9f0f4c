// SPDX-License-Identifier: MIT
// Emulation: fetches and decodes the instruction at RIP, gives its parts to those who carry it out,
// and reaches registers, memory and devices for them.
#include "kernel/guest/emulate.h"

#include "kernel/guest/emu.h"
#include "kernel/lib.h"
#include "kernel/mem.h"

#define CR0_PE         BIT(0)
#define EFER_LMA       BIT(10)
#define RFLAGS_VM      BIT(17)
#define ATTR_L         BIT(9)
#define ATTR_DB        BIT(10)
#define ATTR_DPL(attr) ((attr) >> 5 & 3)
#define MAX_INSN       15
#define VECTOR_GP      13
#define VECTOR_PF      14

static enum emu_result general_protection(struct emu *e)
{
    e->fault = (struct emu_fault){.vector = VECTOR_GP, .has_error = true};
    return EMU_FAULT;
}

static enum emu_result translate(struct emu *e, u64 linear, enum access a, u64 *gpa)
{
    u32 error;
    if (e->known && a != ACCESS_FETCH && linear >> PAGE_SHIFT == e->known_gva >> PAGE_SHIFT) {
        *gpa = ALIGN_DOWN(e->known_gpa, PAGE_SIZE) | (linear & (PAGE_SIZE - 1));
        return EMU_DONE;
    }
    if (e->long64 && (u64)((s64)(linear << 16) >> 16) != linear)
        return general_protection(e); // not canonical
    if (!guest_walk(e->v->guest, &e->paging, linear, a, gpa, &error))
        return EMU_DONE;
    e->fault =
        (struct emu_fault){.vector = VECTOR_PF, .has_error = true, .error = error, .cr2 = linear};
    return EMU_FAULT;
}

static u64 wrap(const struct emu *e, u64 linear)
{
    return e->long64 ? linear : (u32)linear;
}

static enum emu_result access_page(struct emu *e, u64 linear, unsigned bytes, bool write,
                                   u64 *value)
{
    u64 gpa;
    struct guest *g = e->v->guest;
    enum emu_result r = translate(e, linear, write ? ACCESS_WRITE : ACCESS_READ, &gpa);
    if (r != EMU_DONE)
        return r;
    if (write) {
        if (guest_write(g, gpa, value, bytes))
            bus_mmio_write(g, gpa, bytes, *value);
        return EMU_DONE;
    }
    *value = 0;
    if (guest_read(g, gpa, value, bytes))
        *value = bus_mmio_read(g, gpa, bytes);
    return EMU_DONE;
}

// Over a page boundary: byte by byte, after both pages were found accessible.
static enum emu_result access_split(struct emu *e, u64 linear, unsigned bytes, bool write,
                                    u64 *value)
{
    u64 gpa, byte, sum = 0;
    enum access a = write ? ACCESS_WRITE : ACCESS_READ;
    enum emu_result r = translate(e, linear, a, &gpa);
    if (r == EMU_DONE)
        r = translate(e, wrap(e, linear + bytes - 1), a, &gpa);
    for (unsigned i = 0; i < bytes && r == EMU_DONE; i++) {
        byte = *value >> (i * 8) & 0xff;
        r = access_page(e, wrap(e, linear + i), 1, write, &byte);
        sum |= byte << (i * 8);
    }
    if (!write)
        *value = sum;
    return r;
}

static enum emu_result access_memory(struct emu *e, u64 linear, unsigned bits, bool write,
                                     u64 *value)
{
    unsigned bytes = bits / 8;
    linear = wrap(e, linear);
    if (linear % PAGE_SIZE + bytes > PAGE_SIZE)
        return access_split(e, linear, bytes, write, value);
    return access_page(e, linear, bytes, write, value);
}

enum emu_result emu_load(struct emu *e, u64 linear, unsigned bits, u64 *value)
{
    *value = 0;
    return access_memory(e, linear, bits, false, value);
}

enum emu_result emu_store(struct emu *e, u64 linear, unsigned bits, u64 value)
{
    value &= emu_mask(bits);
    return access_memory(e, linear, bits, true, &value);
}

enum emu_result emu_probe_store(struct emu *e, u64 linear, unsigned bits)
{
    u64 gpa;
    linear = wrap(e, linear);
    enum emu_result r = translate(e, linear, ACCESS_WRITE, &gpa);
    if (r == EMU_DONE)
        r = translate(e, wrap(e, linear + bits / 8 - 1), ACCESS_WRITE, &gpa);
    return r;
}

// Without REX, byte registers 4 to 7 are AH, CH, DH, BH.
static bool high_byte(const struct emu *e, unsigned n, unsigned bits)
{
    return bits == 8 && n >= 4 && n < 8 && !(e->insn.attributes & ZYDIS_ATTRIB_HAS_REX);
}

u64 emu_reg(struct emu *e, unsigned n, unsigned bits)
{
    if (high_byte(e, n, bits))
        return e->v->gpr[n - 4] >> 8 & 0xff;
    u64 value = n == GPR_RSP ? backend->get_rsp(e->v) : e->v->gpr[n];
    return value & emu_mask(bits);
}

void emu_set_reg(struct emu *e, unsigned n, unsigned bits, u64 value)
{
    unsigned shift = 0;
    if (high_byte(e, n, bits)) {
        n -= 4;
        shift = 8;
    }
    u64 mask = emu_mask(bits) << shift;
    u64 old = n == GPR_RSP ? backend->get_rsp(e->v) : e->v->gpr[n];
    u64 new = bits == 32 ? (u32)value : (old & ~mask) | (value << shift & mask);
    if (n == GPR_RSP)
        backend->set_rsp(e->v, new);
    else
        e->v->gpr[n] = new;
}

u64 emu_immediate(const struct emu *e, unsigned bits)
{
    unsigned have = e->insn.raw.imm[0].size;
    u64 value = e->insn.raw.imm[0].value.u;
    if (have && have < 64)
        value = (u64)((s64)(value << (64 - have)) >> (64 - have));
    return value & emu_mask(bits);
}

static u64 address_16(struct emu *e)
{
    static const u8 base[8] = {GPR_RBX, GPR_RBX, GPR_RBP, GPR_RBP,
                               GPR_RSI, GPR_RDI, GPR_RBP, GPR_RBX};
    static const u8 index[4] = {GPR_RSI, GPR_RDI, GPR_RSI, GPR_RDI};
    u8 rm = e->insn.raw.modrm.rm & 7;
    u64 sum = (u64)e->insn.raw.disp.value;
    if (rm == 6 && e->insn.raw.modrm.mod == 0)
        return sum & 0xffff;
    sum += emu_reg(e, base[rm], 64);
    if (rm < 4)
        sum += emu_reg(e, index[rm], 64);
    return sum & 0xffff;
}

static u64 rex_bit(const struct emu *e, u8 bit)
{
    return e->insn.attributes & ZYDIS_ATTRIB_HAS_REX ? (u64)bit << 3 : 0;
}

static u64 address_sib(struct emu *e)
{
    const ZydisDecodedInstruction *in = &e->insn;
    unsigned index = in->raw.sib.index | rex_bit(e, in->raw.rex.X);
    u64 sum = 0;
    if (in->raw.sib.base != 5 || in->raw.modrm.mod != 0)
        sum = emu_reg(e, in->raw.sib.base | rex_bit(e, in->raw.rex.B), 64);
    if (index != 4)
        sum += emu_reg(e, index, 64) << in->raw.sib.scale;
    return sum;
}

u64 emu_effective_address(struct emu *e)
{
    const ZydisDecodedInstruction *in = &e->insn;
    u8 rm = in->raw.modrm.rm & 7;
    u64 sum = (u64)in->raw.disp.value;
    if (in->address_width == 16)
        return address_16(e);
    if (rm == 4)
        sum += address_sib(e);
    else if (rm == 5 && in->raw.modrm.mod == 0)
        sum += e->long64 ? e->rip + in->length : 0;
    else
        sum += emu_reg(e, rm | rex_bit(e, in->raw.rex.B), 64);
    return sum & emu_mask(in->address_width);
}

u64 emu_linear(struct emu *e, enum seg fallback, u64 offset)
{
    struct segment s;
    enum seg seg = e->segment != SEG_COUNT ? e->segment : fallback;
    if (e->long64 && seg != SEG_FS && seg != SEG_GS)
        return offset;
    backend->get_seg(e->v, seg, &s);
    return wrap(e, s.base + offset);
}

// SS is the default where the base is RBP or RSP (SDM 2A table 2-1 and on).
static enum seg default_segment(const struct emu *e)
{
    const ZydisDecodedInstruction *in = &e->insn;
    u8 rm = in->raw.modrm.rm & 7, mod = in->raw.modrm.mod;
    if (in->address_width == 16)
        return rm == 2 || rm == 3 || (rm == 6 && mod) ? SEG_SS : SEG_DS;
    if (rm == 4)
        return in->raw.sib.base == 4 || (in->raw.sib.base == 5 && mod) ? SEG_SS : SEG_DS;
    return rm == 5 && mod ? SEG_SS : SEG_DS;
}

bool emu_rm_linear(struct emu *e, u64 *linear)
{
    if (e->insn.raw.modrm.mod == 3)
        return false;
    *linear = emu_linear(e, default_segment(e), emu_effective_address(e));
    return true;
}

static void find_prefixes(struct emu *e)
{
    e->segment = SEG_COUNT;
    e->rep = 0;
    for (u8 i = 0; i < e->insn.raw.prefix_count; i++) {
        switch (e->insn.raw.prefixes[i].value) {
        case 0x26:
            e->segment = SEG_ES;
            break;
        case 0x2e:
            e->segment = SEG_CS;
            break;
        case 0x36:
            e->segment = SEG_SS;
            break;
        case 0x3e:
            e->segment = SEG_DS;
            break;
        case 0x64:
            e->segment = SEG_FS;
            break;
        case 0x65:
            e->segment = SEG_GS;
            break;
        case 0xf2:
        case 0xf3:
            e->rep = e->insn.raw.prefixes[i].value;
            break;
        }
    }
    // In 64-bit mode the first four are ignored (SDM 1 3.3.7.1).
    if (e->long64 && e->segment < SEG_FS)
        e->segment = SEG_COUNT;
}

static ZydisMachineMode machine_mode(const struct emu *e, ZydisStackWidth *stack)
{
    bool wide = e->cs.attr & ATTR_DB;
    *stack = ZYDIS_STACK_WIDTH_32;
    if (!(e->paging.cr0 & CR0_PE) || (e->rflags & RFLAGS_VM)) {
        *stack = ZYDIS_STACK_WIDTH_16;
        return ZYDIS_MACHINE_MODE_REAL_16;
    }
    if (e->long64) {
        *stack = ZYDIS_STACK_WIDTH_64;
        return ZYDIS_MACHINE_MODE_LONG_64;
    }
    if (e->paging.efer & EFER_LMA)
        return wide ? ZYDIS_MACHINE_MODE_LONG_COMPAT_32 : ZYDIS_MACHINE_MODE_LONG_COMPAT_16;
    return wide ? ZYDIS_MACHINE_MODE_LEGACY_32 : ZYDIS_MACHINE_MODE_LEGACY_16;
}

static void begin(struct emu *e, struct vcpu *v)
{
    struct segment ss;
    struct paging *p = &e->paging;
    memset(e, 0, sizeof(*e));
    e->v = v;
    backend->get_paging(v, &p->cr0, &p->cr3, &p->cr4, &p->efer, &p->rflags);
    backend->get_seg(v, SEG_CS, &e->cs);
    backend->get_seg(v, SEG_SS, &ss);
    e->rip = backend->get_rip(v);
    e->rflags = p->rflags;
    e->long64 = (p->efer & EFER_LMA) && (e->cs.attr & ATTR_L);
    bool protected = (p->cr0 & CR0_PE) && !(e->rflags & RFLAGS_VM);
    p->user = protected ? ATTR_DPL(ss.attr) == 3 : !!(e->rflags & RFLAGS_VM);
}

// Bytes at `at`, up to the end of its page.
static enum emu_result fetch(struct emu *e, u64 at, u8 *to, unsigned want, unsigned *got)
{
    u64 gpa;
    u64 left = PAGE_SIZE - at % PAGE_SIZE;
    enum emu_result r = translate(e, at, ACCESS_FETCH, &gpa);
    if (r != EMU_DONE)
        return r;
    *got = (unsigned)MIN((u64)want, left);
    return guest_read(e->v->guest, gpa, to, *got) ? EMU_UNKNOWN : EMU_DONE;
}

// A fault on the second page counts only when the instruction reaches it.
static enum emu_result decode(struct emu *e)
{
    ZydisDecoder decoder;
    ZydisStackWidth stack;
    ZydisMachineMode mode = machine_mode(e, &stack);
    u64 at = e->long64 ? e->rip : (u32)(e->cs.base + e->rip);
    unsigned have, more;
    enum emu_result r = fetch(e, at, e->bytes, MAX_INSN, &have);
    if (r != EMU_DONE)
        return r;
    ZydisDecoderInit(&decoder, mode, stack);
    ZyanStatus s = ZydisDecoderDecodeInstruction(&decoder, NULL, e->bytes, have, &e->insn);
    if (s == ZYDIS_STATUS_NO_MORE_DATA && have < MAX_INSN) {
        r = fetch(e, wrap(e, at + have), e->bytes + have, MAX_INSN - have, &more);
        if (r != EMU_DONE)
            return r;
        s = ZydisDecoderDecodeInstruction(&decoder, NULL, e->bytes, have + more, &e->insn);
    }
    if (!ZYAN_SUCCESS(s) || e->insn.encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY)
        return EMU_UNKNOWN;
    find_prefixes(e);
    return EMU_DONE;
}

// CR2 and RFLAGS have no call of their own: both are rare here, so they go through the full state.
static int change_state(struct vcpu *v, const u64 *cr2, const u64 *rflags)
{
    struct vcpu_state *s = kzalloc(sizeof(*s));
    if (!s)
        return E_NOMEM;
    backend->get_state(v, s);
    if (cr2)
        s->cr2 = *cr2;
    if (rflags)
        s->rflags = *rflags;
    int error = backend->set_state(v, s);
    kfree(s);
    return error;
}

static int raise(struct emu *e)
{
    const struct emu_fault *f = &e->fault;
    if (f->vector == VECTOR_PF && change_state(e->v, &f->cr2, NULL))
        return E_NOMEM;
    backend->inject_exception(e->v, f->vector, f->has_error, f->error);
    e->v->kick = true;
    return 0;
}

static int give_up(const struct emu *e, char *why, size_t size)
{
    char hex[3 * MAX_INSN + 1] = "";
    unsigned n = e->insn.length ? e->insn.length : MAX_INSN;
    for (unsigned i = 0; i < n; i++)
        snprintf(hex + 3 * i, sizeof(hex) - 3 * i, "%02x ", e->bytes[i]);
    snprintf(why, size, "the instruction %s is not emulated (it touched device memory or ports)",
             hex);
    return E_NOSUP;
}

static int finish(struct emu *e, enum emu_result r, char *why, size_t size)
{
    if (r == EMU_UNKNOWN)
        return give_up(e, why, size);
    int error = 0;
    if (e->rflags != e->paging.rflags)
        error = change_state(e->v, NULL, &e->rflags);
    if (!error && r == EMU_FAULT)
        error = raise(e);
    if (error) {
        snprintf(why, size, "no host memory to emulate an instruction");
        return error;
    }
    if (r == EMU_DONE)
        backend->skip_insn(e->v, e->insn.length);
    return 0;
}

int emulate_mmio(struct vcpu *v, const struct vm_exit *x, char *why, size_t size)
{
    struct emu e;
    begin(&e, v);
    e.known = x->mmio.gva_valid;
    e.known_gva = x->mmio.gva;
    e.known_gpa = x->mmio.gpa;
    enum emu_result r = decode(&e);
    if (r == EMU_DONE) {
        r = emu_string(&e);
        if (r == EMU_UNKNOWN)
            r = emu_single(&e);
    }
    return finish(&e, r, why, size);
}

int emulate_string_io(struct vcpu *v, const struct vm_exit *x, char *why, size_t size)
{
    struct emu e;
    (void)x;
    begin(&e, v);
    enum emu_result r = decode(&e);
    if (r == EMU_DONE)
        r = emu_string_io(&e);
    return finish(&e, r, why, size);
}

u32 emulate_insn_length(struct vcpu *v)
{
    struct emu e;
    begin(&e, v);
    return decode(&e) == EMU_DONE ? e.insn.length : 0;
}
