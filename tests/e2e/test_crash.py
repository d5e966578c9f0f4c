# SPDX-License-Identifier: MIT
"""Exceptions of the host itself, brought about from outside: what the serial port says about them."""

import re

import pytest

from harness.debugger import Debugger, symbol
from harness.pair import bare

ONLY = "qemu-amd"  # Bochs has no such stub; what tells of an exception is the same code
GROUP = {"names": ["alpha"], "ram_mib": 256, "guests": {"alpha": [bare("beat", "beat.multiboot")]}}
MARK = 0x1122334455667788
STACK_STRIDE = 0x20000  # arch/x86/paging.h: each stack's slot, of which the lowest page is never mapped
UD2 = bytes([0x0F, 0x0B])
PROLOGUE = 4  # PUSH RBP; MOV RBP, RSP: from then on a function is in the backtrace's chain


@pytest.fixture
def attached(group):
    """A freshly booted host, stopped, with the debugger that stopped it."""
    alpha = group["alpha"]
    if not alpha.machine.running:
        alpha.boot()
    yield alpha, Debugger(alpha.machine)
    alpha.machine.kill()


def stop_on_vcpu(alpha, debugger) -> None:
    """Stops the host where a vCPU's thread handles an exit of its guest."""
    alpha.machine.serial.send("start beat\r")
    debugger.run_to("vcpu_handle_exit")


def crash(alpha, debugger) -> str:
    """Lets the host go on into its exception; returns all it says."""
    start = alpha.machine.serial.position
    debugger.go()
    alpha.machine.serial.expect(r"the host is stopped", 30, start)
    return alpha.machine.serial.text(start)


def calls(said: str) -> list[str]:
    """The names of the functions of a backtrace, innermost first."""
    return re.findall(r"^#\d+ +[0-9a-f]{16} image\+[0-9a-f]{6} (\w+)\+0x[0-9a-f]+", said, re.MULTILINE)


def test_a_jump_to_nowhere_on_a_vcpus_thread(attached):
    alpha, debugger = attached
    stop_on_vcpu(alpha, debugger)
    debugger.set_registers(rip=0x123400000000, rbx=MARK)
    before = debugger.registers()
    said = crash(alpha, debugger)
    assert "host exception 14 (page fault)" in said, said
    assert "execution of address 0000123400000000, which is not mapped" in said, said
    for name in ("rax", "rbx", "rsi", "rdi", "rbp", "rsp", "r8", "r15"):
        assert re.search(rf"\b{name} +{before[name]:016x}", said), (name, said)
    assert calls(said)[:2] == ["vcpu_thread", "start"], said
    assert 'thread "beat/0"' in said and 'working for guest "beat", vCPU 0' in said, said


def test_a_stack_that_overflows(attached):
    alpha, debugger = attached
    stop_on_vcpu(alpha, debugger)
    guard = debugger.registers()["rsp"] // STACK_STRIDE * STACK_STRIDE + 0x800
    debugger.set_registers(rsp=guard)
    said = crash(alpha, debugger)
    assert "host exception 8 (double fault)" in said, said
    assert re.search(rf"a stack overflowed: {guard - 8:016x} is in the guard page under it", said), said
    # The function is vcpu_handle_exit, or the exit's own that it jumped to without a frame.
    assert len(calls(said)) == 3 and calls(said)[1:] == ["start", "arch_thread_start"], said
    assert 'working for guest "beat", vCPU 0' in said, said


def test_an_invalid_instruction_in_a_command(attached):
    alpha, debugger = attached
    debugger.poke(debugger.image + symbol("run_uptime") + PROLOGUE, UD2)
    alpha.machine.serial.send("uptime\r")
    said = crash(alpha, debugger)
    assert "host exception 6 (invalid opcode)" in said, said
    assert calls(said)[0] == "run_uptime" and "command_run" in calls(said), said
    assert 'thread "console"' in said and "working for guest" not in said, said
