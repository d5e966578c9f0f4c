# SPDX-License-Identifier: MIT
"""Tests the harness itself: the console's parser against a scripted Skiff, the network, and the emulators' firmware."""

import fcntl
import os
import socket
import struct
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from harness import esp, report  # noqa: E402
from harness.console import CommandError, SkiffConsole  # noqa: E402
from harness.machine import BochsMachine, QemuMachine  # noqa: E402
from harness.network import Network  # noqa: E402
from harness.serial import Serial, SerialTimeout  # noqa: E402


class ScriptedSkiff:
    """The far end of a serial line, which says what the test wants."""

    def __init__(self, folder):
        near, self._far = socket.socketpair()
        self._far.settimeout(10)
        self.console = SkiffConsole(Serial("scripted", near, folder / "scripted.serial"))
        self._send = self.console.serial.send

    def say(self, text):
        before = self.console.serial.position
        self._far.sendall(text.encode())
        self.console.serial.wait(lambda: self.console.serial.position >= before + len(text), 10, "own words")

    def answer(self, text):
        """Makes the next command get this text as what the line shows, echo included."""

        def send_and_answer(line):
            self._send(line)
            self._far.recv(4096)
            self._far.sendall(text.encode())

        self.console.serial.send = send_and_answer

    def hang_up(self):
        self._far.close()


@pytest.fixture
def skiff(tmp_path):
    scripted = ScriptedSkiff(tmp_path)
    scripted.say("firmware\x1b[2J noise\r\n[    0.000100] info  boot: hello\r\nskiff> ")
    scripted.console.wait_prompt(10)
    return scripted


def test_command_returns_its_output(skiff):
    skiff.answer("list\r\none\r\ntwo\r\nskiff> ")
    assert skiff.console.command("list", 5) == "one\ntwo"


def test_log_lines_are_not_output(skiff):
    skiff.answer("list\r\none\r\n[    1.000000] warn  net: link lost\r\ntwo\r\nskiff> ")
    assert skiff.console.command("list", 5) == "one\ntwo"
    entry = skiff.console.log()[-1]
    assert (entry.host, entry.level, entry.area, entry.message) == (1.0, "warn", "net", "link lost")


def test_log_line_in_the_middle_of_the_echo(skiff):
    skiff.answer("li\r\x1b[K[    1.500000] info  guest tux: half: way\r\nskiff> li" "st\r\nout\r\nskiff> ")
    assert skiff.console.command("list", 5) == "out"
    assert skiff.console.wait_log("half", 5).area == "guest tux"


def test_prompt_redrawn_between_commands(skiff):
    skiff.say("\r\x1b[K[    1.500000] info  net: up\r\nskiff> ")
    skiff.answer("list\r\nout\r\n\x1b[Kskiff> ")
    assert skiff.console.command("list", 5) == "out"


def test_json(skiff):
    skiff.answer('list --format json\r\n{"name": "a"}\r\n[    2.0] odd\r\nskiff> ')
    with pytest.raises(CommandError, match="odd"):
        skiff.console.json("list", 5)
    skiff.answer('list --format json\r\n{"name": "a"}\r\n{"name": "b"}\r\nskiff> ')
    assert [entry["name"] for entry in skiff.console.json("list", 5)] == ["a", "b"]


def test_timeout_shows_the_transcript(skiff):
    with pytest.raises(SerialTimeout, match="(?s)end of the command 'list'.*firmware"):
        skiff.console.command("list", 0.2)
    skiff.hang_up()
    with pytest.raises(SerialTimeout, match="was closed"):
        skiff.console.serial.expect("never", 5)


def test_guest_console(skiff):
    skiff.answer("console tux\r\nguest says hi\r\nskiff> ")
    with skiff.console.guest("tux", 5) as start:
        skiff.console.serial.expect("says hi", 5, start)
    assert "console tux\n" in skiff.console.serial.transcript.read_text()


def open_tap(name):
    tap = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(tap, 0x400454CA, struct.pack("16sH22x", name.encode(), 0x1002))
    return tap


def test_network_carries_cuts_and_restores():
    outside = os.readlink("/proc/thread-self/ns/net")
    with Network(["tap-a", "tap-b"], rate_mbit=100) as network:
        assert os.readlink("/proc/thread-self/ns/net") != outside
        a, b = open_tap("tap-a"), open_tap("tap-b")
        time.sleep(0.2)
        frame = b"\xff" * 6 + b"\x52\x54\x00\x00\x00\x01\x88\xb5" + b"skiff".ljust(64, b".")

        def arrives():
            os.write(a, frame)
            deadline = time.monotonic() + 0.3
            while time.monotonic() < deadline:
                try:
                    if os.read(b, 2048) == frame:
                        return True
                except BlockingIOError:
                    time.sleep(0.01)
            return False

        assert arrives()
        network.cut("tap-b")
        assert not arrives()
        network.restore("tap-b")
        assert arrives()
        os.close(a)
        os.close(b)
    assert os.readlink("/proc/thread-self/ns/net") == outside


@pytest.mark.parametrize("kind", [BochsMachine, QemuMachine])
def test_firmware_boots_the_disk_and_powers_off(tmp_path, kind):
    # No boot loader on the disk: the firmware's shell runs the script, which is enough to prove machine and disk.
    image = esp.build(tmp_path / "disk.img", {"startup.nsh": "echo booted\r\nreset -s\r\n"})
    with Network(["tap-a"]), kind("host", tmp_path, disk=image, tap="tap-a", ram_mib=256) as host:
        host.wait_power_off(180)
        assert "booted" in host.serial.text()


def test_killed_machine_is_not_a_powered_off_one(tmp_path):
    image = esp.build(tmp_path / "disk.img", {"a/b/c.txt": "deep"})
    host = BochsMachine("host", tmp_path, disk=image, ram_mib=256).start()
    host._process.terminate()
    with pytest.raises(AssertionError):
        host.wait_power_off(20)


def test_report_is_written_whole(tmp_path):
    report.write(tmp_path / "deep" / "report.json", {"result": "ok"})
    assert (tmp_path / "deep" / "report.json").read_text() == '{\n  "result": "ok"\n}\n'
    assert report.table({"a": 1, "long": 2}) == "  a     1\n  long  2"
