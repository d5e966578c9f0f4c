// SPDX-License-Identifier: MIT
// The 16550A: output to ring and sink, input, FIFO, interrupts, loopback, probing, moves.
// sources: arch/x86/platform/*.c kernel/guest/bus.c kernel/guest/device.c
// sources: kernel/guest/state.c kernel/guest/gtimer.c
#include "tests/unit/fake_platform.h"

#define COM 0x3f8

static char seen[64];
static size_t seen_bytes;

static void sink(struct guest *g, const char *s, size_t n)
{
    assert_ptr_equal(g, &guest);
    memcpy(seen + seen_bytes, s, n);
    seen_bytes += n;
}

static void type(const char *s)
{
    guest_console_input(&guest, s, strlen(s));
}

static void eoi(void)
{
    out8(0x20, 0x20);
}

static void fifo_on(void)
{
    out8(COM + 2, 0x07);
    out8(COM + 4, 0x0b);
}

static void output(void **state)
{
    (void)state;
    char tail[32] = "";
    seen_bytes = 0;
    out8(COM, 'a');
    guest_console_attach(&guest, sink);
    out8(COM, 'b');
    out8(COM, 'c');
    guest_console_attach(&guest, NULL);
    out8(COM, 'd');
    assert_int_equal(seen_bytes, 2);
    assert_memory_equal(seen, "bc", 2);
    assert_int_equal(guest_console_tail(&guest, tail, sizeof(tail)), 4);
    assert_string_equal(tail, "abcd");
    assert_int_equal(guest_console_tail(&guest, tail, 2), 2);
    assert_memory_equal(tail, "cd", 2);
    assert_int_equal(in8(COM + 5), 0x60);
}

static void ring_keeps_the_last(void **state)
{
    (void)state;
    static char buf[32768];
    for (u32 i = 0; i < 20000; i++)
        out8(COM, (u8)('0' + i % 10));
    assert_int_equal(guest_console_tail(&guest, buf, sizeof(buf)), 16384);
    assert_int_equal(buf[16383], '9');
    assert_int_equal(buf[0], '0' + (20000 - 16384) % 10);
}

static void attach_before_and_after_the_pc(void **state)
{
    pc_destroy(state);
    memset(&guest, 0, sizeof(guest));
    guest_console_attach(&guest, sink);
    type("x");
    char c;
    assert_int_equal(guest_console_tail(&guest, &c, 1), 0);
    assert_ptr_equal(guest.console_sink, sink);
    pc_one(state);
}

static void input_and_interrupts(void **state)
{
    (void)state;
    pics_on(1 << 4);
    fifo_on();
    out8(COM + 1, 0x01);
    type("hi");
    assert_int_equal(take(0), 0x24);
    assert_int_equal(in8(COM + 2), 0xc4);
    assert_int_equal(in8(COM + 5), 0x61);
    assert_int_equal(in8(COM), 'h');
    assert_int_equal(in8(COM), 'i');
    assert_int_equal(in8(COM + 2), 0xc1);
    assert_int_equal(in8(COM + 5), 0x60);
    eoi();
    out8(COM + 2, 0x81); // trigger at 8
    type("1234567");
    assert_int_equal(take(0), 0x24);
    assert_int_equal(in8(COM + 2), 0xcc); // less than the trigger: timeout
    type("8");
    assert_int_equal(in8(COM + 2), 0xc4);
}

static void out2_connects_the_line(void **state)
{
    (void)state;
    pics_on(1 << 4);
    out8(COM + 1, 0x01);
    type("x");
    assert_int_equal(take(0), -1);
    out8(COM + 4, 0x08);
    assert_int_equal(take(0), 0x24);
}

static void long_input_waits(void **state)
{
    (void)state;
    static char buf[3000];
    memset(buf, 'z', sizeof(buf));
    fifo_on();
    guest_console_input(&guest, buf, sizeof(buf));
    u32 n = 0;
    while (in8(COM + 5) & 1) {
        assert_int_equal(in8(COM), 'z');
        n++;
    }
    assert_int_equal(n, 1024); // the rest is lost, not the host
    guest_console_input(&guest, "abcdefghijklmnopqrst", 20);
    out8(COM + 2, 0x03); // clears the FIFO, not what waits behind it
    assert_int_equal(in8(COM), 'q');
}

static void transmit_interrupts_are_edges(void **state)
{
    (void)state;
    pics_on(1 << 4);
    fifo_on();
    out8(COM + 1, 0x02);
    assert_int_equal(take(0), 0x24);
    assert_int_equal(in8(COM + 2), 0xc2);
    assert_int_equal(in8(COM + 2), 0xc1); // seen
    eoi();
    assert_int_equal(take(0), -1);
    out8(COM, 'x');
    assert_int_equal(take(0), 0x24);
    eoi();
    out8(COM, 'y'); // not read in between: still a new edge
    assert_int_equal(take(0), 0x24);
}

static void loopback(void **state)
{
    (void)state;
    seen_bytes = 0;
    guest_console_attach(&guest, sink);
    out8(COM + 4, 0x1a);
    assert_int_equal(in8(COM + 6) & 0xf0, 0x90); // Linux looks for this
    out8(COM, 'q');
    assert_int_equal(in8(COM + 5), 0x61);
    out8(COM, 'r'); // no FIFO
    assert_int_equal(in8(COM + 5), 0x63);
    assert_int_equal(in8(COM + 5), 0x61);
    assert_int_equal(in8(COM), 'q');
    type("lost");
    assert_int_equal(in8(COM + 5), 0x60);
    assert_int_equal(seen_bytes, 0);
    out8(COM + 4, 0x0b);
    assert_int_equal(in8(COM + 6) & 0xf0, 0xb0);
}

static void probing_as_linux_does(void **state)
{
    (void)state;
    out8(COM + 1, 0);
    out8(0x80, 0);
    assert_int_equal(in8(COM + 1), 0);
    out8(COM + 1, 0x0f);
    assert_int_equal(in8(COM + 1), 0x0f);
    out8(COM + 1, 0xff);
    assert_int_equal(in8(COM + 1), 0x0f); // no Xscale, no sleep mode
    out8(COM + 1, 0);
    out8(COM + 3, 0xbf);
    out8(COM + 2, 0);
    out8(COM + 3, 0);
    out8(COM + 2, 1);
    assert_int_equal(in8(COM + 2) >> 6, 3); // a 16550A
    out8(COM + 3, 0xbf);
    assert_int_not_equal(in8(COM + 2), 0); // without the 16650's register
    out8(COM + 3, 0x80);
    out8(COM, 1);
    out8(COM + 1, 2);
    assert_int_equal(in8(COM), 1);
    assert_int_equal(in8(COM + 1), 2);
    out8(COM + 3, 3);
    assert_int_equal(in8(COM + 1), 0);
    out8(COM + 7, 0x5a);
    assert_int_equal(in8(COM + 7), 0x5a);
    out8(COM + 2, 0x21);
    assert_false(in8(COM + 2) & 0x20); // no 16750
}

static void input_moves(void **state)
{
    (void)state;
    pics_on(1 << 4);
    fifo_on();
    out8(COM + 1, 0x01);
    type("abc");
    assert_int_equal(take(0), 0x24);
    move_pc(1000);
    assert_int_equal(take(0), -1); // in service, and the line has no new edge
    eoi();
    assert_int_equal(take(0), -1);
    assert_int_equal(in8(COM), 'a');
    assert_int_equal(in8(COM), 'b');
    assert_int_equal(in8(COM), 'c');
    type("d");
    assert_int_equal(take(0), 0x24);
}

// The old host ends the line that it has shown in part, the new one shows it whole.
static void half_a_line_moves(void **state)
{
    (void)state;
    seen_bytes = 0;
    guest_console_attach(&guest, sink);
    for (const char *c = "one\nhal"; *c; c++)
        out8(COM, (u8)*c);
    move_pc(1000);
    assert_int_equal(seen_bytes, 8);
    assert_memory_equal(seen, "one\nhal\n", 8);
    out8(COM, 'f');
    out8(COM, '\n');
    char tail[32] = "";
    assert_int_equal(guest_console_tail(&guest, tail, sizeof(tail)), 5);
    assert_string_equal(tail, "half\n");
}

static void impossible_states_are_refused(void **state)
{
    (void)state;
    const struct state_table *t = dev("uart")->ops->state;
    u8 *copy = malloc(t->struct_size);
    for (const struct state_field *f = t->fields; f->kind != FIELD_END; f++) {
        memcpy(copy, dev("uart")->priv, t->struct_size);
        if (!strcmp(f->name, "rx_count")) {
            memcpy(copy + f->offset, &(u16){1025}, 2);
            assert_refused(t, copy, "rx_count");
        } else if (!strcmp(f->name, "fcr")) {
            copy[f->offset] = 0x80;
            assert_refused(t, copy, "FIFO control");
        } else if (!strcmp(f->name, "line_errors")) {
            copy[f->offset] = 0x60;
            assert_refused(t, copy, "line errors");
        }
    }
    free(copy);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, pc_one, pc_destroy)
    const struct CMUnitTest tests[] = {
        T(output),
        T(ring_keeps_the_last),
        T(attach_before_and_after_the_pc),
        T(input_and_interrupts),
        T(out2_connects_the_line),
        T(long_input_waits),
        T(transmit_interrupts_are_edges),
        T(loopback),
        T(probing_as_linux_does),
        T(input_moves),
        T(half_a_line_moves),
        T(impossible_states_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
