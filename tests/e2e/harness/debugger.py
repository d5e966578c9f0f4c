# SPDX-License-Identifier: MIT
"""Stops an emulated host from outside and changes its registers and memory, through QEMU's GDB stub."""

import re
import socket
import struct
import subprocess

from . import paths
from .machine import QemuMachine

# The order of the stub's registers (its own target description for x86-64).
REGISTERS = ["rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp",
             *(f"r{n}" for n in range(8, 16)), "rip"]


def symbol(name: str) -> int:
    """A function's or variable's offset in Skiff's image."""
    table = subprocess.run(["nm", paths.SKIFF_EFI.with_suffix(".elf")], capture_output=True, text=True, check=True)
    offsets = {words[2]: int(words[0], 16) for line in table.stdout.splitlines() if len(words := line.split()) == 3}
    return offsets[name] - offsets["image_start"]


class Debugger:
    """Attached from the constructor on, which stops the machine; `image` is where Skiff's image lies."""

    def __init__(self, machine: QemuMachine):
        path = machine.folder / f"{machine.name}.gdb"
        machine.monitor(f"gdbserver unix:{path},server=on,wait=off")
        self._data = b""
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(30)
        self._socket.connect(str(path))
        # The host's IDT is a variable of its own; while no guest runs, that is the one in use.
        state = machine.monitor("info registers")
        idt = next(line for line in state.splitlines() if line.startswith("IDT="))
        self.image = int(idt.split()[1], 16) - symbol("idt")
        self._ask("?")

    def _ask(self, packet: str) -> str:
        """A packet's answer. That the machine stopped when the debugger came may be told late: it is passed over."""
        self._send(packet)
        while (answer := self._receive()).startswith("T") and packet not in "?c":
            pass
        return answer

    def _send(self, packet: str) -> None:
        self._socket.sendall(f"${packet}#{sum(packet.encode()) & 0xFF:02x}".encode())

    def _receive(self) -> str:
        while not (packet := re.search(rb"\$([^#]*)#..", self._data, re.DOTALL)):
            part = self._socket.recv(4096)
            assert part, f"the GDB stub closed its connection after {self._data!r}"
            self._data += part
        self._data = self._data[packet.end() :]
        self._socket.sendall(b"+")
        return packet[1].decode()

    def run_to(self, function: str) -> None:
        """Lets the machine run until it enters one of Skiff's functions."""
        where = f"{self.image + symbol(function):x}"
        assert self._ask(f"Z1,{where},1") == "OK"
        stop = self._ask("c")
        assert stop.startswith("T05"), f"stopped by {stop}"
        assert self._ask(f"z1,{where},1") == "OK"

    def registers(self) -> dict[str, int]:
        raw = bytes.fromhex(self._ask("g"))
        return dict(zip(REGISTERS, struct.unpack_from(f"<{len(REGISTERS)}Q", raw)))

    def set_registers(self, **values: int) -> None:
        raw = bytearray.fromhex(self._ask("g"))
        for name, value in values.items():
            struct.pack_into("<Q", raw, 8 * REGISTERS.index(name), value)
        assert self._ask(f"G{raw.hex()}") == "OK"

    def poke(self, address: int, data: bytes) -> None:
        assert self._ask(f"M{address:x},{len(data):x}:{data.hex()}") == "OK"

    def go(self) -> None:
        """Lets the machine run and leaves it."""
        self._send("D")
        self._receive()
        self._socket.close()
