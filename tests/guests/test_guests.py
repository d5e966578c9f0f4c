# SPDX-License-Identifier: MIT
"""Proves the test guests themselves, on a bare emulated machine without Skiff underneath."""

import json
import re
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "e2e"))
from harness import paths  # noqa: E402
from harness.machine import QemuMachine  # noqa: E402


@pytest.fixture
def linux(tmp_path):
    """Starts Debian's kernel with the initramfs; options are skiff.NAME=VALUE pairs."""
    machines = []

    def start(kind="cloud", model="EPYC", reboots=True, ram_mib=256, **options):
        words = " ".join(f"skiff.{name}={value}" for name, value in options.items())
        machines.append(QemuMachine(
            "guest", tmp_path, model=model, kernel=paths.kernel(kind), initrd=paths.initrd(kind), reboots=reboots,
            ram_mib=ram_mib, append=f"console=ttyS0,115200 quiet {words}"))
        return machines[-1].start()

    yield start
    for machine in machines:
        machine.kill()


def stats(machine, command, timeout=60):
    start = machine.serial.position
    machine.serial.send(command + "\n")
    return json.loads(machine.serial.expect(r"^AGENT-STATS (\{.*\})", timeout, start)[1])


@pytest.mark.parametrize("kind", ["cloud", "generic"])
def test_work_writes_and_checks(linux, kind):
    machine = linux(kind, mode="work", rate=200, fraction=0.5)
    serial = machine.serial
    serial.expect(r"^AGENT-READY pages \d{5} rate 200", 60)
    serial.expect(r"^HB 20 \d+ \d+ \d+ \d+ 0\r?$", 60)
    found = stats(machine, "verify")
    assert found["errors"] == 0
    assert found["written"] >= 300
    assert found["checked"] > found["pages"]
    serial.send("dmesg\n")
    serial.expect(r"^DMESG-END \d+", 10)
    machine.press_power_button()
    serial.expect(r"^AGENT-POWER-BUTTON", 10)
    machine.wait_power_off(20)


def test_work_without_limit(linux):
    machine = linux(mode="work", rate=0)
    machine.serial.expect(r"^HB 10 ", 60)
    found = stats(machine, "stats")
    assert found["written"] > 2000
    assert found["errors"] == 0
    machine.serial.send("quit\n")
    machine.wait_power_off(20)


def test_heartbeats_hold_their_pace(linux):
    machine = linux(mode="work", rate=200)
    machine.serial.expect(r"^HB 40 ", 60)
    beats = [int(line.text.split()[2]) for line in machine.serial.lines() if line.text.startswith("HB ")]
    gaps = [(b - a) / 1e6 for a, b in zip(beats[5:], beats[6:])]
    assert 95 < sorted(gaps)[len(gaps) // 2] < 105


def test_idle(linux):
    machine = linux(mode="idle")
    machine.serial.expect(r"^HB 3 \d+ \d+ 0 0 0\r?$", 60)
    machine.press_power_button()
    machine.wait_power_off(20)


def test_bench_prints_each_figure(linux):
    machine = linux(mode="bench")
    machine.serial.expect(r"^BENCH-END", 60)
    for key in ("exit_cpuid_ticks", "exit_uart_read_ticks", "first_touch_page_ticks"):
        assert f"BENCH {key} " in machine.serial.text()
    machine.wait_power_off(20)


def test_shell(linux):
    machine = linux(mode="shell")
    machine.serial.expect(r"^.*# ", 60)
    machine.serial.send("echo $((6 * 7)); agent cpu; poweroff -f\n")
    machine.serial.expect(r"^42\r?$", 10)
    machine.serial.expect(r"^AGENT-CPU (sse|avx|avx512)", 10)
    machine.wait_power_off(20)


@pytest.mark.parametrize("mode", ["poweroff", "reboot"])
def test_poweroff_and_reboot(linux, mode):
    linux(mode=mode, reboots=False).wait_power_off(60)


def test_small_memory(linux):
    machine = linux(ram_mib=96, mode="work")
    machine.serial.expect(r"^HB 3 \d+ \d+ \d+ \d+ 0\r?$", 60)


def test_without_avx(linux):
    machine = linux(model="qemu64", mode="work")
    machine.serial.expect(r"registers sse", 60)
    machine.serial.expect(r"^HB 3 \d+ \d+ \d+ \d+ 0\r?$", 60)


@pytest.fixture(params=["multiboot", "pvh"])
def bare(request, tmp_path):
    """Starts a bare kernel in one of its two forms and lets it run until it powers off; returns its output."""

    def run(name, append="", reboots=False):
        kernel = paths.GUESTS / "bare" / f"{name}.{request.param}"
        with QemuMachine("bare", tmp_path, kernel=kernel, append=append, reboots=reboots, ram_mib=64) as machine:
            machine.wait_power_off(60)
            return machine.serial.text()

    run.loader = request.param
    return run


def test_bare_hello(bare):
    assert f"SKIFF-BARE hello loader={bare.loader} modules=0" in bare("hello", "some words")


def test_bare_reset(bare):
    assert "SKIFF-BARE hello" in bare("hello", "reset=1")


def test_bare_modes(bare):
    output = bare("modes")
    assert "FAILED" not in output
    assert "MODES-END" in output


def test_bare_triple_fault(bare):
    assert bare("triple").endswith("SKIFF-BARE triple\r\n")


def test_bare_badmsr(bare):
    # QEMU lets unknown MSRs pass; what a guest of Skiff sees is for the tests of Skiff.
    output = bare("badmsr")
    assert "BADMSR ud2 fault=6" in output
    assert "BADMSR-END" in output


def test_bare_timers(bare):
    output = bare("timers", "seconds=2")
    assert "TIMERS one-shot ok" in output
    pit, rtc, apic = map(int, re.search(r"TIMERS-END pit=(\d+) rtc=(\d+) apic=(\d+)", output).groups())
    assert 180 <= pit <= 205 and 115 <= rtc <= 132 and 90 <= apic <= 103


def test_bare_interrupt_states(bare):
    assert "rounds=200" in (output := bare("irqstate", "rounds=200"))
    assert "FAILED" not in output


def test_bare_hold(tmp_path):
    with QemuMachine("bare", tmp_path, kernel=paths.GUESTS / "bare" / "hold.multiboot", ram_mib=64) as machine:
        for state in ("interrupts", "halted", "periodic", "events"):
            machine.serial.expect(rf"^HOLD {state}\r?$", 30)
            machine.serial.send("\n")
            machine.serial.expect(rf"^HELD {state} failures=0\r?$", 30)
        machine.wait_power_off(30)
        assert "HOLD-END failures=0" in machine.serial.text()
