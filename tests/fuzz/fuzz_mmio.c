// SPDX-License-Identifier: MIT
// Fuzzes emulation: any bytes as code, any registers, any mode, any page tables within RAM. Whatever
// comes, the emulator returns, stays inside guest RAM, and makes only accesses a bus can take.
// sources: kernel/guest/emulate.c kernel/guest/emu_alu.c kernel/guest/emu_insn.c
// sources: kernel/guest/emu_string.c kernel/guest/walk.c
// sources: $(ZYDIS_SRC)/src/Decoder.c $(ZYDIS_SRC)/src/DecoderData.c $(ZYDIS_SRC)/src/SharedData.c
// cflags: $(LIB_INCLUDES) $(LIB_CFLAGS) -isystem $(ZYDIS_SRC)/src -I$(ROOT)/tests/unit
// libs: -lcmocka
#include "fake_guest.h"
#include "fake_mmio.h"

struct input {
    u8 mode, flags;
    u8 code[15];
    u8 rip_low;
    u32 control; // odd choices of CR0, CR4, EFER bits
    u64 gpr[GPR_COUNT];
    struct {
        u16 entry;
        u64 value;
    } tables[8];
} __attribute__((packed));

static void set_mode(const struct input *in)
{
    if (in->mode % 4 == 1)
        mode_32();
    else if (in->mode % 4 == 2)
        mode_16();
    else if (in->mode % 4 == 3) { // 32-bit paging over the same tables
        mode_32();
        fake_regs.cr0 |= BIT(31) | BIT(16);
        fake_regs.cr3 = PAGE_TABLES;
        fake_regs.cr4 = in->flags & 1 ? BIT(5) : BIT(4);
    }
    if (in->flags & 2)
        fake_regs.seg[SEG_SS].attr |= 0x60; // CPL 3
    fake_regs.cr4 |= in->control & (BIT(20) | BIT(21));
    fake_regs.rflags = 2 | (in->control & 0x40cd5);
    for (unsigned i = 0; i < ARRAY_SIZE(in->tables) && (in->flags & 4); i++)
        put64(PAGE_TABLES + in->tables[i].entry % 0x6000, in->tables[i].value);
}

static void check_result(int result, u64 rip)
{
    u64 moved = fake_regs.rip - rip;
    assert(result == 0 || result == E_NOSUP);
    assert(moved <= 15);
    if (fake_exception.raised)
        assert(moved == 0 && (fake_exception.vector == 13 || fake_exception.vector == 14));
    assert(device_reads + device_writes <= 8 * 512);
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t size);
int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
    struct input in = {0};
    struct vm_exit x = {.kind = EXIT_MMIO};
    char why[128];
    memcpy(&in, data, MIN(size, sizeof(in)));
    fake_mmio_reset();
    set_mode(&in);
    memcpy(fake_vcpu.gpr, in.gpr, sizeof(in.gpr));
    fake_regs.gpr[GPR_RSP] = in.gpr[GPR_RSP];
    fake_regs.rip = CODE + (in.flags & 8 ? 0xf00 + in.rip_low : 0); // near a page's end too
    memcpy(ram + fake_regs.rip, in.code, sizeof(in.code));
    device_value = in.gpr[0] ^ in.gpr[5];
    u64 rip = fake_regs.rip;
    if (in.flags & 16) {
        check_result(emulate_string_io(&fake_vcpu, &x, why, sizeof(why)), rip);
    } else {
        x.mmio.gva_valid = in.flags & 32;
        x.mmio.gva = in.gpr[3];
        x.mmio.gpa = DEVICE_GPA;
        check_result(emulate_mmio(&fake_vcpu, &x, why, sizeof(why)), rip);
    }
    emulate_insn_length(&fake_vcpu);
    return 0;
}
