// SPDX-License-Identifier: MIT
// Emulation of device accesses: real instruction bytes, in every mode, with their effects.
// sources: kernel/guest/emulate.c kernel/guest/emu_alu.c kernel/guest/emu_insn.c
// sources: kernel/guest/emu_string.c kernel/guest/walk.c
// sources: $(ZYDIS_SRC)/src/Decoder.c $(ZYDIS_SRC)/src/DecoderData.c $(ZYDIS_SRC)/src/SharedData.c
// cflags: $(LIB_INCLUDES) $(LIB_CFLAGS) -isystem $(ZYDIS_SRC)/src
#include "fake_emulate.h"

#define CF 1
#define ZF 0x40
#define SF 0x80
#define OF 0x800

static void test_moves(void **state)
{
    (void)state;
    v->gpr[GPR_RBX] = DEVICE + 0x300;
    v->gpr[GPR_RAX] = 0x1122334455667788ull;
    RUN("\x89\x03"); // mov %eax, (%rbx)
    done(2);
    assert_int_equal(device_written, 0x55667788);
    assert_int_equal(device_gpa, DEVICE_GPA + 0x300);
    assert_int_equal(device_size, 4);
    fake_regs.rip = CODE;
    RUN("\x48\x89\x43\x08"); // mov %rax, 8(%rbx)
    done(4);
    assert_int_equal(device_written, 0x1122334455667788ull);
    assert_int_equal(device_gpa, DEVICE_GPA + 0x308);
    fake_regs.rip = CODE;
    RUN("\x66\x89\x03");
    assert_int_equal(device_size, 2);
    fake_regs.rip = CODE;
    RUN("\x88\x23"); // mov %ah, (%rbx)
    done(2);
    assert_int_equal(device_written, 0x77);
    fake_regs.rip = CODE;
    RUN("\xc7\x83\xb0\x00\x00\x00\x00\x00\x00\x80"); // movl $0x80000000, 0xb0(%rbx)
    done(10);
    assert_int_equal(device_written, 0x80000000);
    fake_regs.rip = CODE;
    RUN("\x48\xc7\x03\xff\xff\xff\xff"); // movq $-1, (%rbx)
    assert_int_equal(device_written, ~0ull);
}

static void test_loads_into_registers(void **state)
{
    (void)state;
    v->gpr[GPR_RBX] = DEVICE;
    v->gpr[GPR_R9] = ~0ull;
    device_value = 0xf1f2f3f4f5f6f7f8ull;
    RUN("\x44\x8b\x0b"); // mov (%rbx), %r9d
    done(3);
    assert_int_equal(v->gpr[GPR_R9], 0xf5f6f7f8); // the upper half is cleared
    fake_regs.rip = CODE;
    v->gpr[GPR_RDX] = 0x1111111111111111ull;
    RUN("\x8a\x33"); // mov (%rbx), %dh
    assert_int_equal(v->gpr[GPR_RDX], 0x111111111111f811ull);
    fake_regs.rip = CODE;
    RUN("\x40\x8a\x33"); // with REX it is %sil
    assert_int_equal(v->gpr[GPR_RSI], 0xf8);
    fake_regs.rip = CODE;
    RUN("\x66\x8b\x13"); // mov (%rbx), %dx
    assert_int_equal(v->gpr[GPR_RDX], 0x111111111111f7f8ull);
    fake_regs.rip = CODE;
    RUN("\x0f\xb6\x03"); // movzbl
    assert_int_equal(v->gpr[GPR_RAX], 0xf8);
    fake_regs.rip = CODE;
    RUN("\x48\x0f\xbe\x03"); // movsbq
    assert_int_equal(v->gpr[GPR_RAX], (u64)(s64)(int8_t)0xf8);
    fake_regs.rip = CODE;
    RUN("\x0f\xbf\x03"); // movswl
    assert_int_equal(v->gpr[GPR_RAX], 0xfffff7f8);
    fake_regs.rip = CODE;
    RUN("\x48\x63\x03"); // movslq
    assert_int_equal(v->gpr[GPR_RAX], 0xfffffffff5f6f7f8ull);
    fake_regs.rip = CODE;
    RUN("\x8b\x23"); // mov (%rbx), %esp
    assert_int_equal(fake_regs.gpr[GPR_RSP], 0xf5f6f7f8);
    fake_regs.rip = CODE;
    RUN("\x0f\x38\xf0\x03"); // movbe
    assert_int_equal(v->gpr[GPR_RAX], 0xf8f7f6f5);
}

static void test_addressing(void **state)
{
    (void)state;
    v->gpr[GPR_RBP] = DEVICE;
    v->gpr[GPR_R12] = 3;
    v->gpr[GPR_RAX] = 7;
    RUN("\x42\x89\x44\xa5\x10"); // mov %eax, 0x10(%rbp,%r12,4)
    done(5);
    assert_int_equal(device_gpa, DEVICE_GPA + 0x1c);
    fake_regs.rip = CODE;
    // mov %eax, disp(%rip): from the end of the instruction
    char rel[6] = {(char)0x89, 0x05};
    u32 disp = (u32)(DEVICE + 0x80 - (CODE + 6));
    memcpy(rel + 2, &disp, 4);
    run_at(rel, 6, false, 0);
    done(6);
    assert_int_equal(device_gpa, DEVICE_GPA + 0x80);
    fake_regs.rip = CODE;
    RUN("\x89\x04\x25\x20\x00\x00\x40"); // mov %eax, 0x40000020
    assert_int_equal(device_gpa, DEVICE_GPA + 0x20);
    fake_regs.rip = CODE;
    RUN("\xa3\x30\x00\x00\x40\x00\x00\x00\x00"); // movabs %eax, 0x40000030
    done(9);
    assert_int_equal(device_gpa, DEVICE_GPA + 0x30);
    assert_int_equal(device_written, 7);
    fake_regs.rip = CODE;
    v->gpr[GPR_RBX] = DEVICE - 0x2000;
    RUN("\x64\x89\x03"); // mov %eax, %fs:(%rbx)
    assert_int_equal(device_gpa, DEVICE_GPA);
    fake_regs.rip = CODE;
    v->gpr[GPR_RBX] = 0xffffffff00000000ull | DEVICE;
    RUN("\x67\x89\x03"); // mov %eax, (%ebx)
    assert_int_equal(device_gpa, DEVICE_GPA);
}

static void test_16_bit_addressing(void **state)
{
    (void)state;
    mode_16();
    fake_regs.seg[SEG_DS].base = 0xfee00000;
    fake_regs.seg[SEG_SS].base = 0xfed00000;
    v->gpr[GPR_RBX] = 0x10100;
    v->gpr[GPR_RSI] = 0x20;
    v->gpr[GPR_RAX] = 0x1234;
    RUN("\x89\x40\x04"); // mov %ax, 4(%bx,%si)
    done(3);
    assert_int_equal(device_gpa, 0xfee00124);
    assert_int_equal(device_size, 2);
    fake_regs.rip = CODE;
    v->gpr[GPR_RBP] = 0xfff0;
    RUN("\x89\x46\x20"); // mov %ax, 0x20(%bp): wraps, and through SS
    assert_int_equal(device_gpa, 0xfed00010);
    fake_regs.rip = CODE;
    RUN("\x89\x06\x34\x12"); // mov %ax, 0x1234
    done(4);
    assert_int_equal(device_gpa, 0xfee01234);
    fake_regs.rip = CODE;
    RUN("\x66\x67\x89\x03"); // 32-bit operand and address
    assert_int_equal(device_gpa, 0xfee00000 + 0x10100);
    assert_int_equal(device_size, 4);
}

static void test_arithmetic_on_a_register(void **state)
{
    (void)state;
    v->gpr[GPR_RBX] = DEVICE;
    v->gpr[GPR_RCX] = 1;
    device_value = 0xffffffff;
    RUN("\x01\x0b"); // add %ecx, (%rbx)
    done(2);
    assert_int_equal(device_written, 0);
    assert_int_equal(fake_regs.rflags & (CF | ZF | SF | OF), CF | ZF);
    fake_regs.rip = CODE;
    RUN("\x13\x0b"); // adc (%rbx), %ecx: 1 + 0xffffffff + CF
    assert_int_equal(v->gpr[GPR_RCX], 1);
    assert_true(fake_regs.rflags & CF);
    fake_regs.rip = CODE;
    device_value = 0x0f;
    RUN("\x83\x0b\x70"); // orl $0x70, (%rbx)
    assert_int_equal(device_written, 0x7f);
    assert_false(fake_regs.rflags & (CF | OF));
    fake_regs.rip = CODE;
    RUN("\x83\x23\xfe"); // andl $~1, (%rbx)
    assert_int_equal(device_written, 0x0e);
    device_writes = 0;
    fake_regs.rip = CODE;
    RUN("\xf7\x03\x10\x00\x00\x00"); // testl $0x10, (%rbx)
    done(6);
    assert_true(fake_regs.rflags & ZF);
    fake_regs.rip = CODE;
    RUN("\x83\x3b\x10"); // cmpl $0x10, (%rbx)
    assert_true((fake_regs.rflags & CF) && (fake_regs.rflags & SF));
    assert_int_equal(device_writes, 0);
    fake_regs.rip = CODE;
    RUN("\xff\x0b"); // decl: CF stays
    assert_int_equal(device_written, 0x0e);
    assert_true(fake_regs.rflags & CF);
    fake_regs.rip = CODE;
    RUN("\xf7\x13"); // notl
    assert_int_equal(device_written, 0xfffffff0);
    fake_regs.rip = CODE;
    RUN("\xf7\x1b"); // negl
    assert_int_equal(device_written, 0xfffffff1);
}

static void test_exchanges(void **state)
{
    (void)state;
    v->gpr[GPR_RBX] = DEVICE;
    v->gpr[GPR_RCX] = 5;
    device_value = 9;
    RUN("\x87\x0b"); // xchg %ecx, (%rbx)
    assert_int_equal(device_written, 5);
    assert_int_equal(v->gpr[GPR_RCX], 9);
    fake_regs.rip = CODE;
    RUN("\xf0\x0f\xc1\x0b"); // lock xadd
    done(4);
    assert_int_equal(device_written, 18);
    assert_int_equal(v->gpr[GPR_RCX], 9);
    fake_regs.rip = CODE;
    v->gpr[GPR_RAX] = 9;
    v->gpr[GPR_RCX] = 77;
    RUN("\xf0\x0f\xb1\x0b"); // lock cmpxchg
    assert_int_equal(device_written, 77);
    assert_true(fake_regs.rflags & ZF);
    fake_regs.rip = CODE;
    v->gpr[GPR_RAX] = 8;
    RUN("\xf0\x0f\xb1\x0b");
    assert_int_equal(device_written, 9);
    assert_int_equal(v->gpr[GPR_RAX], 9);
    assert_false(fake_regs.rflags & ZF);
}

static void test_bits(void **state)
{
    (void)state;
    v->gpr[GPR_RBX] = DEVICE + 0x100;
    device_value = 0x80;
    RUN("\x0f\xba\x23\x07"); // btl $7, (%rbx)
    done(4);
    assert_true(fake_regs.rflags & CF);
    assert_int_equal(device_writes, 0);
    fake_regs.rip = CODE;
    v->gpr[GPR_RCX] = 0x64; // bit 4 of the fourth word on
    RUN("\x0f\xab\x0b"); // bts %ecx, (%rbx)
    assert_int_equal(device_gpa, DEVICE_GPA + 0x10c);
    assert_int_equal(device_written, 0x90);
    assert_false(fake_regs.rflags & CF);
    fake_regs.rip = CODE;
    v->gpr[GPR_RCX] = 0xffffffe7; // -25: bit 7 of the word before
    RUN("\x0f\xb3\x0b"); // btr
    assert_int_equal(device_gpa, DEVICE_GPA + 0xfc);
    assert_int_equal(device_written, 0);
    fake_regs.rip = CODE;
    RUN("\x0f\xba\x3b\x00"); // btc $0
    assert_int_equal(device_written, 0x81);
    fake_regs.rip = CODE;
    fake_regs.rflags |= ZF;
    RUN("\x0f\x94\x03"); // sete
    assert_int_equal(device_written, 1);
    assert_int_equal(device_size, 1);
    fake_regs.rip = CODE;
    device_value = 0x123456789;
    v->gpr[GPR_RAX] = ~0ull;
    RUN("\x0f\x45\x03"); // cmovne: not taken, upper half cleared all the same
    assert_int_equal(v->gpr[GPR_RAX], 0xffffffff);
}

static void test_alu_against_the_cpu(void **state)
{
    (void)state;
    static const u64 values[] = {0, 1, 0x7f, 0x80, 0xff, 0x7fffffff, 0x80000000, 0xffffffff,
                                 0x8000000000000000ull, ~0ull, 0x123456789abcdef0ull};
    v->gpr[GPR_RBX] = DEVICE;
    for (size_t i = 0; i < ARRAY_SIZE(values); i++) {
        for (size_t j = 0; j < ARRAY_SIZE(values); j++) {
            u64 sum, flags, a = values[i], b = values[j];
            __asm__("mov %2, %0; sub %3, %0; pushf; pop %1"
                    : "=&r"(sum), "=r"(flags)
                    : "r"(a), "r"(b)
                    : "cc");
            device_value = a;
            v->gpr[GPR_RCX] = b;
            fake_regs.rip = CODE;
            RUN("\x48\x29\x0b"); // sub %rcx, (%rbx)
            assert_int_equal(device_written, sum);
            assert_int_equal(fake_regs.rflags & 0x8d5, flags & 0x8d5);
            __asm__("movl %k2, %k0; addl %k3, %k0; pushf; pop %1"
                    : "=&r"(sum), "=r"(flags)
                    : "r"(a), "r"(b)
                    : "cc");
            fake_regs.rip = CODE;
            RUN("\x01\x0b"); // add %ecx, (%rbx)
            assert_int_equal(device_written, (u32)sum);
            assert_int_equal(fake_regs.rflags & 0x8d5, flags & 0x8d5);
        }
    }
}

static void test_strings(void **state)
{
    (void)state;
    v->gpr[GPR_RDI] = DEVICE;
    v->gpr[GPR_RSI] = 0x8000;
    v->gpr[GPR_RCX] = 3;
    put32(0x8008, 0xabcd);
    RUN("\xf3\xa5"); // rep movsl
    done(2);
    assert_int_equal(device_writes, 3);
    assert_int_equal(device_written, 0xabcd);
    assert_int_equal(device_gpa, DEVICE_GPA + 8);
    assert_int_equal(v->gpr[GPR_RCX], 0);
    assert_int_equal(v->gpr[GPR_RSI], 0x800c);
    assert_int_equal(v->gpr[GPR_RDI], DEVICE + 12);
    fake_regs.rip = CODE;
    fake_regs.rflags |= BIT(10); // downwards
    v->gpr[GPR_RAX] = 0x55;
    RUN("\xaa"); // stosb
    assert_int_equal(v->gpr[GPR_RDI], DEVICE + 11);
    fake_regs.rflags &= ~BIT(10);
    fake_regs.rip = CODE;
    v->gpr[GPR_RSI] = DEVICE;
    device_value = 0x99;
    RUN("\xad"); // lodsl
    assert_int_equal(v->gpr[GPR_RAX], 0x99);
    fake_regs.rip = CODE;
    v->gpr[GPR_RCX] = 0;
    device_writes = 0;
    RUN("\xf3\xab"); // nothing to do
    done(2);
    assert_int_equal(device_writes, 0);
    fake_regs.rip = CODE;
    v->gpr[GPR_RDI] = DEVICE;
    v->gpr[GPR_RCX] = 10;
    v->gpr[GPR_RAX] = 0x99;
    RUN("\xf2\xae"); // repne scasb finds it at once
    done(2);
    assert_int_equal(v->gpr[GPR_RCX], 9);
    assert_true(fake_regs.rflags & ZF);
}

static void test_long_repetitions_come_in_pieces(void **state)
{
    (void)state;
    v->gpr[GPR_RDI] = DEVICE;
    v->gpr[GPR_RCX] = 600;
    unsigned exits = 0;
    do {
        RUN("\xf3\xaa");
        assert_int_equal(result, 0);
        exits++;
        assert_true(exits < 10);
    } while (fake_regs.rip == CODE);
    assert_int_equal(exits, 3);
    assert_int_equal(device_writes, 600);
    assert_int_equal(v->gpr[GPR_RDI], DEVICE + 600);
}

static void string_io(const char *bytes, size_t n)
{
    struct vm_exit x = {.kind = EXIT_IO};
    memcpy(ram + CODE, bytes, n);
    result = emulate_string_io(v, &x, why, sizeof(why));
}

static void test_string_io(void **state)
{
    (void)state;
    v->gpr[GPR_RDX] = 0x1f0;
    v->gpr[GPR_RDI] = 0x8000;
    v->gpr[GPR_RCX] = 4;
    string_io("\xf3\x66\x6d", 3); // rep insw
    done(3);
    assert_int_equal(port_last, 0x1f0);
    assert_int_equal(port_accesses, 4);
    assert_int_equal(ram[0x8006], 0x33);
    fake_regs.rip = CODE;
    v->gpr[GPR_RSI] = 0x8000;
    string_io("\x6e", 1); // outsb
    done(1);
    assert_int_equal(v->gpr[GPR_RSI], 0x8001);
    fake_regs.rip = CODE;
    put64(PAGE_TABLES + 0x3000 + 8 * 8, 0); // page 8 is gone
    port_accesses = 0;
    string_io("\x6c", 1); // insb
    assert_int_equal(result, 0);
    assert_int_equal(fake_exception.vector, 14);
    assert_int_equal(port_accesses, 0); // nothing was taken from the port
}

static void test_unknown_instructions_name_their_bytes(void **state)
{
    (void)state;
    v->gpr[GPR_RBX] = DEVICE;
    RUN("\x0f\x11\x03"); // movups
    assert_int_equal(result, E_NOSUP);
    assert_non_null(strstr(why, "0f 11 03"));
    assert_int_equal(fake_regs.rip, CODE);
    RUN("\xff\x33"); // push (%rbx)
    assert_int_equal(result, E_NOSUP);
    RUN("\x0f\x0b"); // no memory operand at all
    assert_int_equal(result, E_NOSUP);
    RUN("\x89\xc3"); // mov %eax, %ebx
    assert_int_equal(result, E_NOSUP);
}

static void test_length_only(void **state)
{
    (void)state;
    memcpy(ram + CODE, "\x0f\xa2\xf3\xaa", 4);
    assert_int_equal(emulate_insn_length(v), 2);
    fake_regs.rip = CODE + 2;
    assert_int_equal(emulate_insn_length(v), 2);
    fake_regs.rip = DEVICE;
    assert_int_equal(emulate_insn_length(v), 0);
    mode_32();
    fake_regs.rip = CODE;
    assert_int_equal(emulate_insn_length(v), 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup(name, setup)
        T(test_moves),
        T(test_loads_into_registers),
        T(test_addressing),
        T(test_16_bit_addressing),
        T(test_arithmetic_on_a_register),
        T(test_exchanges),
        T(test_bits),
        T(test_alu_against_the_cpu),
        T(test_strings),
        T(test_long_repetitions_come_in_pieces),
        T(test_string_io),
        T(test_unknown_instructions_name_their_bytes),
        T(test_length_only),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
